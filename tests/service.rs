// SPDX-License-Identifier: GPL-2.0-or-later
//! The UpdateVM's services as programs: what they answer, from repositories made by createrepo_c and read beside us by
//! dnf, served by nginx.

mod download;
mod hostile;
mod nginx;
mod search;
mod tls;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::LazyLock;

use anyhow::{Context as _, Result, ensure};

use crate::support::programs::{self, SERVICE};

/// The path of a program of this machine.
fn peer(program: &str, package: &str) -> String {
    assert!(programs::installed(program), "{program} is missing: install the Debian package {package}");
    program.to_owned()
}

/// What a service did.
#[derive(Debug)]
struct Answer {
    rc: i32,
    out: Vec<u8>,
    err: String,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    /// The first fields of every record.
    fn names(&self) -> Vec<String> {
        let text = self.text();
        let lines = text.lines().filter_map(|line| line.strip_prefix("qubes-template-"));
        lines.map(|line| line.split('|').take(5).collect::<Vec<_>>().join(" ")).collect()
    }
}

/// A place where the services run, with a cache of its own.
struct UpdateVm {
    home: tempfile::TempDir,
    variables: Vec<(String, String)>,
}

impl UpdateVm {
    fn new() -> Result<Self> {
        Ok(Self { home: programs::folder()?, variables: Vec::new() })
    }

    fn call(&self, service: &str, request: &str) -> Result<Answer> {
        let mut service = programs::command(self.home.path(), SERVICE, [service])
            .env("XDG_CACHE_HOME", self.home.path())
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting the service")?;
        service.stdin.take().context("no standard input")?.write_all(request.as_bytes())?;
        let output = service.wait_with_output()?;
        Ok(Answer {
            rc: output.status.code().context("the service was killed")?,
            out: output.stdout,
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    fn search(&self, spec: &str, repos: &str) -> Result<Answer> {
        self.call("qubes.TemplateSearch", &format!("--releasever=4.3\n{spec}\n---\n{repos}\n"))
    }

    fn download(&self, spec: &str, repos: &str) -> Result<Answer> {
        self.call("qubes.TemplateDownload", &format!("--releasever=4.3\n{spec}\n---\n{repos}\n"))
    }
}

/// A package for rpmbuild.
struct Spec<'a> {
    name: &'a str,
    epoch: Option<u32>,
    version: &'a str,
    more: &'a str,
    description: &'a str,
    /// Bytes of a file in it that cannot be compressed.
    weight: usize,
}

impl Default for Spec<'_> {
    fn default() -> Self {
        Self {
            name: "demo",
            epoch: None,
            version: "4.3",
            more: "",
            description: "Text\nof two lines",
            weight: 0,
        }
    }
}

/// Builds a package into `folder`.
fn rpmbuild(folder: &Path, spec: &Spec<'_>) -> Result<PathBuf> {
    let rpmbuild = peer("rpmbuild", "rpm");
    let work = programs::folder()?;
    let Spec { name, version, more, description, .. } = spec;
    let epoch = spec.epoch.map(|epoch| format!("Epoch: {epoch}\n")).unwrap_or_default();
    let payload = work.path().join("payload");
    fs::write(&payload, noise(name, spec.weight))?;
    let text = format!(
        "Name: {name}\nVersion: {version}\nRelease: 1\n{epoch}Summary: Template {name}\nLicense: GPLv3+\nURL: http://www.qubes-os.org\nBuildArch: noarch\n{more}\n\
         %description\n{description}\n%install\nmkdir -p %{{buildroot}}/x\ncp {} %{{buildroot}}/x/\n%files\n/x\n",
        payload.display()
    );
    fs::write(work.path().join("x.spec"), text)?;
    let top = format!("_topdir {}", work.path().display());
    let out = format!("_rpmdir {}", work.path().join("out").display());
    programs::success(work.path(), &rpmbuild, ["-bb", "--define", &top, "--define", &out, "x.spec"])?;
    let built = fs::read_dir(work.path().join("out/noarch"))?.next().context("nothing was built")??.path();
    fs::create_dir_all(folder)?;
    let place = folder.join(built.file_name().context("no name")?);
    fs::copy(&built, &place)?;
    Ok(place)
}

/// Bytes that follow from a word.
fn noise(word: &str, length: usize) -> Vec<u8> {
    use sha2::{Digest as _, Sha256};
    let blocks = (0_u64..).flat_map(|block| {
        Sha256::new().chain_update(word).chain_update(block.to_le_bytes()).finalize().to_vec()
    });
    blocks.take(length).collect()
}

fn createrepo(folder: &Path, arguments: &[&str]) -> Result<()> {
    let program = peer("createrepo_c", "createrepo-c");
    let arguments = ["-q"].iter().chain(arguments).chain(&["."]);
    programs::success(folder, &program, arguments).map(drop)
}

/// Two builds of one template, one of another with an epoch, and a package that is no template. Built once.
fn small_repository(folder: &Path) -> Result<()> {
    static BUILT: LazyLock<Result<tempfile::TempDir>> = LazyLock::new(|| {
        let built = programs::folder()?;
        let folder = built.path();
        rpmbuild(folder, &Spec { name: "qubes-template-demo", ..Spec::default() })?;
        rpmbuild(folder, &Spec { name: "qubes-template-demo", version: "4.10~rc1", ..Spec::default() })?;
        rpmbuild(
            folder,
            &Spec {
                name: "qubes-template-big",
                epoch: Some(2),
                version: "1",
                weight: 3 << 20,
                ..Spec::default()
            },
        )?;
        rpmbuild(folder, &Spec { name: "ordinary", ..Spec::default() })?;
        createrepo(folder, &[])?;
        Ok(built)
    });
    let built = BUILT.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))?.path();
    for part in ["", "repodata"] {
        fs::create_dir_all(folder.join(part))?;
        for entry in fs::read_dir(built.join(part))? {
            let path = entry?.path();
            if path.is_file() {
                fs::copy(&path, folder.join(part).join(path.file_name().context("no name")?))?;
            }
        }
    }
    Ok(())
}

/// A repository section.
fn repo(id: &str, url: &str) -> String {
    format!("[{id}]\nname={id}\nbaseurl={url}\n")
}

/// The one `.rpm` below `folder` whose name begins so.
fn rpm(folder: &Path, begin: &str) -> Result<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(begin)) {
            found.push(path);
        }
    }
    ensure!(found.len() == 1, "{found:?}");
    found.pop().context("none")
}
