//! `record`: what a command exchanged over qrexec, in the format of the recordings.
//!
//! The command runs as it would without it, but for `/usr/bin/qrexec-client-vm`, which is replaced by a
//! [recorder](crate::sandbox::qrexec::recorder) that calls the real one. It works in a real qube as in one of a sandbox.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::sandbox::qrexec::recorder::{REAL_CLIENT, RECORD_TO};
use crate::sandbox::view::{self, Command, View};

/// `qubes-sandbox record`
#[derive(Debug, Args)]
pub(super) struct Record {
    /// Where the recording goes
    #[arg(short, long, value_name = "FILE", default_value = "recording.jsonl")]
    output: PathBuf,
    /// The command
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Record {
    pub(super) fn run(self) -> Result<u8> {
        const CLIENT: &str = "/usr/bin/qrexec-client-vm";
        anyhow::ensure!(Path::new(CLIENT).exists(), "there is no {CLIENT}: this is no qube");
        let head =
            serde_json::json!({"head": {"recorder": concat!("qubes-sandbox ", env!("CARGO_PKG_VERSION"))}});
        let output = std::path::absolute(&self.output).context("finding the recording's place")?;
        fs::write(&output, format!("{head}\n")).with_context(|| format!("writing {}", output.display()))?;
        let program = std::env::current_exe().context("finding this program")?;
        let stage = tempfile::tempdir().context("making a place for the command's view")?;
        let view = View {
            qube: String::new(),
            files: None,
            programs: vec![(CLIENT.into(), program)],
            binds: Vec::new(),
            uid: nix::unistd::geteuid().as_raw(),
            space: None,
            directory: None,
            stage: stage.path().to_owned(),
        };
        // Opened on the host's side, so that it is the same file wherever the command is.
        File::options().append(true).open(&output).context("opening the recording")?;
        let mut words = self.command.into_iter();
        let program = words.next().context("there is no command")?;
        let on_host = |path: &Path| view::host().join(path.strip_prefix("/").unwrap_or(path));
        let environment = vec![
            (RECORD_TO.into(), on_host(&output).into_os_string()),
            (REAL_CLIENT.into(), on_host(Path::new(CLIENT)).into_os_string()),
        ];
        let left = on_host(stage.path());
        let done =
            view::run(&view, &Command { program, arguments: words.collect(), elsewhere: false, environment });
        // The directory was the view's root here; on the host it is empty again and can go.
        let _ = fs::remove_dir(left);
        drop(stage.keep());
        done
    }
}
