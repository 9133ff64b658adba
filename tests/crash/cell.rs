//! One cell of the matrix.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Output;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::scene::{IMAGE, Scenes, state, versions, words};
use crate::install::{KEYRING, World, told};
use crate::support::programs::{SANDBOX, run};

/// How dom0 is reached: from a management qube by qrexec, or in dom0 by its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Qrexec,
    Socket,
}

/// What goes wrong.
#[derive(Clone, Debug)]
pub enum Harm {
    DieAt(&'static str),
    Refused(String),
    Exception(String),
    KilledBefore(String),
    KilledAfter(String),
    KilledAt(u64),
    ImportCut(u64),
    PoolFull,
    NoUpdateVm,
}

#[derive(Debug)]
pub struct Cell {
    pub verb: &'static str,
    pub driver: &'static str,
    pub transport: Transport,
    pub harm: Harm,
}

/// How it ended where it held.
pub struct Outcome {
    /// Whether the template is what it was.
    pub is_old: bool,
    /// Whether the command was killed.
    pub died: bool,
}

impl Cell {
    pub fn run(&self, scenes: &Scenes) -> Result<Outcome> {
        let world = scenes.world(self.verb, self.driver)?;
        let before = state(&world)?;
        self.order(&world)?;
        let output = match &self.harm {
            Harm::DieAt(place) => self.tool_dying_at(&world, place)?,
            _ => self.tool(&world, &words(self.verb))?,
        };
        world.sandbox(&["fault", "clear"])?;
        world.sandbox(&["pool", "vm", "--size", "1000G"])?;
        let recovered = self.tool(&world, &["recover"])?;
        let (first, second) = (told(&output), told(&recovered));
        let said = || {
            format!(
                "it said ({}):\n{first}\nand recover said ({}):\n{second}",
                output.status, recovered.status
            )
        };
        ensure!(matches!(recovered.status.code(), Some(0 | 3)), "recover failed; {}", said());
        let after = state(&world)?;
        let is_old = after == before;
        if !is_old {
            self.is_new(&world, &before, &after).with_context(said)?;
        }
        if output.status.success() && !matches!(self.harm, Harm::DieAt(_)) {
            ensure!(!is_old || self.verb == "reinstall", "it ended well, and nothing was done; {}", said());
        }
        if is_old && self.verb == "install" {
            // And it can be installed.
            let again = self.tool(&world, &words(self.verb))?;
            ensure!(again.status.success(), "it cannot be installed: {}; {}", told(&again), said());
        }
        let died = output.status.signal() == Some(9) || output.status.code() == Some(137);
        Ok(Outcome { is_old, died })
    }

    fn order(&self, world: &World) -> Result<()> {
        let fault = |words: &[&str]| world.sandbox(words).map(drop);
        match &self.harm {
            Harm::DieAt(_) => Ok(()),
            Harm::Refused(call) => fault(&["fault", "refuse", call, "--times", "1000"]),
            Harm::Exception(call) => {
                fault(&["fault", "exception", call, "QubesException", "--times", "1000"])
            }
            Harm::KilledBefore(call) => fault(&["fault", "kill", call, "before"]),
            Harm::KilledAfter(call) => fault(&["fault", "kill", call, "after"]),
            Harm::KilledAt(at) => {
                let point = format!("in:{}", at + u64::try_from(format!("{IMAGE}\n").len())?);
                fault(&["fault", "kill", "admin.vm.volume.ImportWithSize", &point])
            }
            Harm::ImportCut(at) => {
                // Before the image there is a line with its size.
                let at = at + u64::try_from(format!("{IMAGE}\n").len())?;
                fault(&["fault", "cut", "admin.vm.volume.ImportWithSize", "in", &at.to_string()])
            }
            Harm::PoolFull => fault(&["pool", "vm", "--size", "1M"]),
            Harm::NoUpdateVm => fault(&["fault", "exit", "qubes.TemplateDownload", "1", "--times", "1000"]),
        }
    }

    fn tool(&self, world: &World, words: &[&str]) -> Result<Output> {
        let mut options = Vec::new();
        if self.transport == Transport::Socket {
            options.extend(["--qube", "dom0"]);
        }
        world.program_as("qvm-template", &options, words)
    }

    /// Runs the command in this very program, which ends it at a place ([`super::as_the_program`]).
    fn tool_dying_at(&self, world: &World, place: &str) -> Result<Output> {
        let program = std::env::current_exe()?;
        let folder = program.parent().context("a folder")?.display().to_string();
        let (program, die) = (program.display().to_string(), format!("DIE_AT={place}"));
        let words = std::iter::once("--releasever=4.3\x1f--keyring").chain([KEYRING]).chain(words(self.verb));
        let words = format!("WORDS={}", words.collect::<Vec<_>>().join("\x1f"));
        let mut line =
            vec!["exec", "system", "--cwd", "/", "--bind", &folder, "--env", &die, "--env", &words];
        if self.transport == Transport::Socket {
            line.extend(["--qube", "dom0"]);
        }
        line.extend(["--", &program, "--exact", "crash::as_the_program", "--nocapture"]);
        run(world.folder.path(), SANDBOX, line)
    }

    /// Whether the template is the new one, complete, with all that is the user's.
    fn is_new(&self, world: &World, before: &Value, after: &Value) -> Result<()> {
        let version = versions(self.verb).1;
        if after.is_null() {
            bail!("the template is gone");
        }
        ensure!(after["state"] == "Halted", "it is {}", after["state"]);
        ensure!(
            after["volumes"]["root"]["sha256"] == world.packages.image_digest(version)?,
            "its root volume is neither:\n{before}\n{after}"
        );
        for (feature, value) in [
            ("template-name", "demo"),
            ("template-version", version),
            ("template-release", "1"),
            ("template-epoch", "0"),
            ("template-reponame", "test"),
            ("default-menu-items", "a.desktop b.desktop"),
            ("menu-items", "a.desktop"),
            ("gui", "1"),
        ] {
            ensure!(
                after["features"][feature] == value,
                "feature {feature} is {}",
                after["features"][feature]
            );
        }
        ensure!(
            !after["features"]["template-installtime"].is_null()
                && !after["features"]["template-summary"].is_null(),
            "not described"
        );
        ensure!(after["features"]["selinux"].is_null() == (version == "2.0"), "stale feature selinux");
        if before.is_null() {
            return Ok(());
        }
        ensure!(after["volumes"]["private"]["sha256"].is_null(), "its private volume is not empty: {after}");
        for key in ["properties", "tags", "class", "uuid"] {
            ensure!(after[key] == before[key], "{key}: {} was {}", after[key], before[key]);
        }
        for feature in ["mine", "service.odd"] {
            ensure!(after["features"][feature] == before["features"][feature], "feature {feature}");
        }
        for volume in ["root", "private"] {
            let keep = |state: &Value| state["volumes"][volume]["revisions_to_keep"].clone();
            ensure!(keep(after) == keep(before), "{volume} keeps {} revisions", keep(after));
        }
        Ok(())
    }
}
