//! `demo`: the whole line, to look at.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::sandbox::demo;

/// `qubes-sandbox demo`
#[derive(Debug, Args)]
pub(super) struct DemoCommand {
    /// Where to make the system; a new directory for temporary files without it
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl DemoCommand {
    pub(super) fn run(self, out: &mut dyn Write) -> Result<()> {
        let dir = match self.dir {
            Some(dir) => dir,
            None => tempfile::Builder::new()
                .prefix("qubes-demo-")
                .tempdir()
                .context("making a directory")?
                .keep()
                .join("system"),
        };
        demo::run(&dir, out)
    }
}
