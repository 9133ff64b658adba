//! Systems in which a command is about to begin, made once and copied for each cell.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::install::{Packages, World, told};
use crate::support::programs::folder;

/// Storage drivers; the first two keep what is replaced.
pub const DRIVERS: [&str; 4] = ["file-reflink", "lvm_thin", "zfs", "file"];
/// Commands.
pub const VERBS: [&str; 4] = ["install", "reinstall", "upgrade", "downgrade"];
/// Bytes in an image of [`Packages`].
pub const IMAGE: u64 = 8 << 20;

/// The build that a command begins with, and the one that it ends with.
pub fn versions(verb: &str) -> (&'static str, &'static str) {
    match verb {
        "install" => ("", "1.0"),
        "reinstall" => ("1.0", "1.0"),
        "upgrade" => ("1.0", "2.0"),
        _ => ("2.0", "1.0"),
    }
}

/// The words of a command.
pub fn words(verb: &str) -> Vec<&str> {
    let name = if verb == "install" { "demo-1.0" } else { "demo" };
    vec![verb, "-q", "--yes", "--retries", "1", name]
}

/// Whether a call changes something.
pub fn is_changing(call: &str) -> bool {
    let method = call.split('+').next().unwrap_or_default();
    let reading = ["List", "Get", "Info", "ListSnapshots", "CurrentState", "UsageDetails"];
    method.starts_with("admin.") && !reading.iter().any(|end| method.ends_with(&format!(".{end}")))
}

/// The systems before each command.
pub struct Scenes {
    place: tempfile::TempDir,
}

impl Scenes {
    pub fn new() -> Result<Self> {
        let own = Self { place: folder()? };
        for driver in DRIVERS {
            for version in ["", "1.0", "2.0"] {
                let world = World::new()?;
                world.sandbox(&["pool", "vm", "--driver", driver, "--default"])?;
                if !version.is_empty() {
                    world.must(&["install", "-q", &format!("demo-{version}")])?;
                    let odd = [
                        "netvm=sys-net",
                        "memory=431",
                        "maxmem=517",
                        "vcpus=3",
                        "kernelopts=odd one",
                        "label=purple",
                        "autostart=False",
                        "default_user=somebody",
                        "qrexec_timeout=77",
                        "include_in_backups=False",
                    ];
                    let mut line = vec![
                        "qube",
                        "demo",
                        "--feature",
                        "mine=1 2",
                        "--feature",
                        "service.odd=",
                        "--tag",
                        "own-tag",
                    ];
                    line.extend(odd.iter().flat_map(|pair| ["--property", pair]));
                    world.sandbox(&line)?;
                }
                fs::rename(world.place(""), own.base(driver, version))?;
            }
        }
        Ok(own)
    }

    fn base(&self, driver: &str, version: &str) -> PathBuf {
        self.place.path().join(format!("{driver}-{version}"))
    }

    /// A system of one's own in which `verb` is about to begin.
    pub fn world(&self, verb: &str, driver: &str) -> Result<World> {
        let world = World { folder: folder()?, packages: Packages::get()? };
        let (base, to) = (self.base(driver, versions(verb).0), world.folder.path().join("system"));
        let copied = Command::new("cp")
            .args(["-a", "--reflink=auto", "--sparse=always"])
            .arg(&base)
            .arg(&to)
            .status()?;
        ensure!(copied.success(), "copying {}", base.display());
        Ok(world)
    }

    /// Every call of an undisturbed run, each once: `SERVICE+ARGUMENT`.
    pub fn calls(&self, verb: &str) -> Result<Vec<String>> {
        let world = self.world(verb, DRIVERS[0])?;
        let from = world.log()?.len();
        let output = world.tool(&words(verb))?;
        ensure!(output.status.success(), "{verb}: {}", told(&output));
        let mut calls = BTreeSet::new();
        for call in world.log()?.iter().skip(from) {
            let word = |key: &str| call[key].as_str().map(ToOwned::to_owned);
            let service = word("service").context("a call without a service")?;
            let arg = word("arg").unwrap_or_default();
            // One feature's reading stands for all: they are asked for side by side.
            let repeats = service == "admin.vm.feature.Get" && !arg.ends_with("-name") && arg != "qrexec";
            if !repeats {
                calls.insert(if arg.is_empty() { service } else { format!("{service}+{arg}") });
            }
        }
        Ok(calls.into_iter().collect())
    }
}

/// What must not change or must be new: all of a qube but what each commit counts up.
pub fn state(world: &World) -> Result<Value> {
    let mut qube = world.settled("demo")?;
    if !qube.is_null() {
        let text = fs::read(world.place("system.json"))?;
        let system: Value = serde_json::from_slice(&text)?;
        for volume in ["root", "private"] {
            let volumes =
                system["qubes"]["demo"]["volumes"].as_array().context("no volumes in system.json")?;
            let one =
                volumes.iter().find(|one| one["name"] == volume).context("no such volume in system.json")?;
            ensure!(one["revisions_to_keep"].is_i64(), "system.json tells how many revisions are kept");
            qube["volumes"][volume]["revisions_to_keep"] = one["revisions_to_keep"].clone();
        }
    }
    Ok(qube)
}
