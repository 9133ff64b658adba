//! `build --check`: the same build twice, under conditions that must not matter.
//!
//! Each build is a process of its own. What differs between them:
//!
//! | | first | second |
//! |---|---|---|
//! | time zone | UTC | Asia/Kathmandu (45 minutes off) |
//! | locale | C | `tr_TR.UTF-8` (another order, another upper case) |
//! | umask | 022 | 077 |
//! | working directory, home, temporary folder | one folder | another, whose name has another length |
//! | listings of directories | as the file system gives them | turned around |
//! | compressing threads | 1 | all cores, but two at least |
//! | clock | | later |
//!
//! Compared is every file that a build leaves: package, manifest, SPDX, metadata, signatures.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::stat::{Mode, umask};

use super::inspect::compare_files;
use crate::build::layer::sha256;

/// What is different between two builds.
struct Conditions {
    folder: &'static str,
    zone: &'static str,
    locale: &'static str,
    umask: u32,
    backwards: bool,
    threads: usize,
}

/// How to call the program again: its arguments up to the output folder.
#[derive(Debug)]
pub(super) struct Again<'a> {
    pub(super) recipe: &'a Path,
    pub(super) key: Option<(PathBuf, Option<PathBuf>)>,
    pub(super) source_date: i64,
    pub(super) threads: usize,
}

/// Builds twice below `output`; results go to `out`. An error when the two are not equal.
pub(super) fn run(again: &Again<'_>, output: &Path, out: &mut dyn Write, talk: &mut dyn Write) -> Result<()> {
    let conditions = [
        Conditions { folder: "a", zone: "UTC", locale: "C", umask: 0o022, backwards: false, threads: 1 },
        Conditions {
            folder: "another-place",
            zone: "Asia/Kathmandu",
            locale: "tr_TR.UTF-8",
            umask: 0o077,
            backwards: true,
            threads: again.threads.max(2),
        },
    ];
    let place = tempfile::Builder::new()
        .prefix("check-")
        .tempdir_in(output)
        .with_context(|| format!("making a temporary folder in {}", output.display()))?;
    let mut made = Vec::new();
    for condition in conditions {
        writeln!(
            talk,
            "building with TZ={} LC_ALL={} umask {:03o}, {} threads{}",
            condition.zone,
            condition.locale,
            condition.umask,
            condition.threads,
            if condition.backwards { ", directories turned around" } else { "" }
        )?;
        let folder = place.path().join(condition.folder);
        again.build(&condition, &folder)?;
        made.push((digests(&folder.join("out"))?, folder.join("out")));
    }
    let [(one, first), (two, second)] = made.as_slice() else { bail!("two builds") };
    ensure!(!one.is_empty(), "the builds left nothing");
    if one == two {
        for (name, digest) in one {
            writeln!(out, "equal: {digest}  {name}")?;
        }
        return Ok(());
    }
    let mut wrong = Vec::new();
    for name in one.keys().chain(two.keys().filter(|name| !one.contains_key(*name))) {
        if one.get(name) == two.get(name) {
            continue;
        }
        wrong.push(name.as_str());
        writeln!(out, "differs: {name}")?;
        if name.ends_with(".rpm") && one.contains_key(name) && two.contains_key(name) {
            compare_files(&first.join(name), &second.join(name), 20, out)?;
        }
    }
    bail!("two builds differ in {}", wrong.join(", "))
}

impl Again<'_> {
    fn build(&self, condition: &Conditions, folder: &Path) -> Result<()> {
        std::fs::create_dir(folder).context("making a temporary folder")?;
        let program = std::env::current_exe().context("looking for this program")?;
        let mut command = Command::new(program);
        command.arg("build").arg(self.recipe).arg("-o").arg(folder.join("out"));
        command.args(["--threads", &condition.threads.to_string()]);
        if condition.backwards {
            command.arg("--backwards");
        }
        if let Some((key, passphrase)) = &self.key {
            command.arg("--key").arg(key);
            if let Some(passphrase) = passphrase {
                command.arg("--passphrase-file").arg(passphrase);
            }
        }
        command
            .env("SOURCE_DATE_EPOCH", self.source_date.to_string())
            .env("TZ", condition.zone)
            .env("LC_ALL", condition.locale)
            .env("LANG", condition.locale)
            .env("HOME", folder)
            .env("TMPDIR", folder)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        // of the process, so of the one it starts
        let before = umask(Mode::from_bits_truncate(condition.umask));
        let started = command.spawn();
        umask(before);
        let status =
            started.context("starting this program again")?.wait().context("waiting for the build")?;
        ensure!(status.success(), "the build ended with {status}");
        Ok(())
    }
}

/// SHA-256 of every file below a folder, by its path there.
fn digests(folder: &Path) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let mut todo = vec![folder.to_owned()];
    while let Some(here) = todo.pop() {
        for entry in std::fs::read_dir(&here).with_context(|| format!("reading {}", here.display()))? {
            let path = entry.with_context(|| format!("reading {}", here.display()))?.path();
            if path.is_dir() {
                todo.push(path);
            } else {
                let name = path.strip_prefix(folder)?.display().to_string();
                found.insert(name, sha256(&path)?);
            }
        }
    }
    Ok(found)
}
