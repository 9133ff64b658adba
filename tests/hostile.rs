// SPDX-License-Identifier: GPL-2.0-or-later
//! An UpdateVM that means harm, through the real program in a sandboxed system.
//!
//! The attacks are those that template managers have to survive; `attacks` has the table of them and of the tests that
//! prove each.

mod attacks;
mod bombs;
mod corpus;
mod first_start;
mod list;
mod memory;
mod offers;
mod streams;

use std::fs;
use std::num::NonZeroUsize;
use std::time::SystemTime;

use anyhow::{Context as _, Result, ensure};
use qvm_template::build::compress::{Compression, Method};
use qvm_template::build::keys::seconds;
use qvm_template::build::package::{Making, Menus, PART, Package, pack};

use crate::support::packages::key;
use crate::support::sandbox::{Said, Sandbox};

/// What a hostile package is made from.
#[derive(Clone, Debug)]
struct Rpm<'a> {
    name: &'a str,
    version: &'a str,
    key: &'a str,
    /// Days since it was built.
    age: u32,
    /// Its `template.conf`.
    conf: &'a str,
}

const DAY: u32 = 24 * 60 * 60;

impl Rpm<'_> {
    fn bytes(&self) -> Result<Vec<u8>> {
        let folder = crate::support::programs::folder()?;
        let image = tempfile::tempfile_in(folder.path())?;
        std::os::unix::fs::FileExt::write_all_at(&image, self.version.repeat(999).as_bytes(), 4096)?;
        image.set_len(1 << 20)?;
        let package = Package {
            name: self.name.to_owned(),
            epoch: 0,
            version: self.version.to_owned(),
            release: "1".to_owned(),
            summary: "A template".to_owned(),
            description: "A template".to_owned(),
            url: None,
            license: "GPL".to_owned(),
            conf: Some(self.conf.as_bytes().to_vec()),
            menus: Menus::default(),
            build_time: seconds(SystemTime::now()) - self.age * DAY,
            manifest: None,
            build_host: "host".to_owned(),
        };
        let key = key(self.key)?;
        let making = Making {
            compression: Compression::new(Method::Zstd, Some(1))?,
            threads: NonZeroUsize::MIN,
            part: PART,
            spool: folder.path(),
            signer: Some(&key),
            rpmv3: true,
        };
        let mut bytes = Vec::new();
        pack(&image, &package, &making, &mut bytes)?;
        Ok(bytes)
    }
}

fn demo(version: &str) -> Rpm<'_> {
    Rpm { name: "demo", version, key: "first", age: 1, conf: "gui=1\n" }
}

/// A system whose UpdateVM says and sends what the test wants. Repositories: `first` and `second` are enabled, `third`
/// is not; each has a key of its own, and that of `first` is the keyring for local files.
struct World {
    sandbox: Sandbox,
}

impl World {
    fn new() -> Result<Self> {
        let sandbox = Sandbox::new()?;
        let configuration = sandbox.files("mgmt").join("etc/qubes/repo-templates");
        fs::create_dir_all(configuration.join("keys"))?;
        let mut text = String::new();
        for (id, enabled) in [("first", 1), ("second", 1), ("third", 0)] {
            let path = format!("/etc/qubes/repo-templates/keys/{id}");
            fs::write(configuration.join("keys").join(id), key(id)?.certificate()?)?;
            text += &format!(
                "[{id}]\nname={id} repository\nbaseurl=http://x/\nenabled={enabled}\ngpgkey=file://{path}\n"
            );
        }
        fs::write(configuration.join("test.repo"), text)?;
        sandbox.service("sys-net", "qubes.TemplateSearch", "cat > /dev/null; cat /srv/reply")?;
        sandbox.service("sys-net", "qubes.TemplateDownload", "cat > /dev/null; cat /srv/package")?;
        fs::create_dir_all(sandbox.files("sys-net").join("srv"))?;
        Ok(Self { sandbox })
    }

    /// What a search is answered.
    fn reply(&self, bytes: impl AsRef<[u8]>) -> Result<()> {
        fs::write(self.sandbox.files("sys-net").join("srv/reply"), bytes).context("writing the reply")
    }

    /// What a download brings.
    fn package(&self, bytes: impl AsRef<[u8]>) -> Result<()> {
        fs::write(self.sandbox.files("sys-net").join("srv/package"), bytes).context("writing the package")
    }

    /// Offers `demo` of this version in `repo`, and sends `bytes` for it.
    fn offer(&self, version: &str, repo: &str, bytes: &[u8]) -> Result<()> {
        self.reply(record("demo", version, repo, bytes.len()))?;
        self.package(bytes)
    }

    /// Runs the tool with 1 GiB of address space and 64 MiB of disk for it.
    fn tool(&self, arguments: &[&str]) -> Result<Said> {
        let script = "ulimit -v 1048576; exec qvm-template \"$@\"";
        let first = ["sh", "-c", script, "sh", "--releasever=4.3", "--keyring", KEYRING];
        let keep = self.sandbox.files("mgmt").join("state");
        fs::create_dir_all(&keep)?;
        let command = [&first[..], arguments].concat();
        self.sandbox.exec(&["--cwd", "/", "--env", "XDG_STATE_HOME=/state", "--space", "64M"], &command)
    }

    /// Runs the tool, which must refuse with status 1 and this text, and without any change in dom0.
    fn refuses(&self, arguments: &[&str], text: &str) -> Result<()> {
        let from = self.sandbox.log()?.len();
        let said = self.tool(arguments)?;
        ensure!(said.status == 1 && said.err.contains(text), "{arguments:?}: {} {}", said.status, said.err);
        let changes = self.changes(from)?;
        ensure!(changes.is_empty(), "{arguments:?}: {changes:?}");
        Ok(())
    }

    fn must(&self, arguments: &[&str]) -> Result<Said> {
        let said = self.tool(arguments)?;
        ensure!(said.status == 0, "{arguments:?}: {} {}", said.status, said.err);
        Ok(said)
    }

    /// Calls that change something in dom0, from the log's line `from` on.
    fn changes(&self, from: usize) -> Result<Vec<String>> {
        let reading = ["List", "Get", "Info", "ListSnapshots", "CurrentState", "UsageDetails"];
        let log = self.sandbox.log()?;
        let changing = log.iter().skip(from).map(|entry| &entry.service).filter(|service| {
            service.starts_with("admin.") && !reading.iter().any(|end| service.ends_with(end))
        });
        Ok(changing.cloned().collect())
    }

    /// How often packages were asked for.
    fn downloads(&self) -> Result<usize> {
        Ok(self.sandbox.log()?.iter().filter(|entry| entry.service == "qubes.TemplateDownload").count())
    }

    fn version(&self) -> Result<String> {
        let features = self.sandbox.show()?["qubes"]["demo"]["features"].clone();
        Ok(features["template-version"].as_str().unwrap_or_default().to_owned())
    }
}

const KEYRING: &str = "/etc/qubes/repo-templates/keys/first";
const INSTALL: [&str; 5] = ["install", "-q", "--skip-start", "--retries=1", "demo"];

/// A line of a search reply.
fn record(name: &str, version: &str, repo: &str, size: usize) -> String {
    let today = seconds(SystemTime::now());
    format!("qubes-template-{name}|0|{version}|1|{repo}|{size}|{today}|GPL|u|A template|Text|\n")
}
