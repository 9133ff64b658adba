//! `exec`: a command as a qube sees the world.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;

use super::Dir;
use crate::sandbox::server::lease::Lease;
use crate::sandbox::view::{self, Command, View};

/// `qubes-sandbox exec`
#[derive(Debug, Args)]
pub(super) struct Exec {
    #[command(flatten)]
    dir: Dir,
    /// The qube; one that does not run is started
    #[arg(long, value_name = "NAME", default_value = "mgmt")]
    qube: String,
    /// The user: user (1000) or root (0)
    #[arg(long, value_name = "USER", default_value = "user", value_parser = user)]
    user: u32,
    /// Hold /home/user, /root, /tmp and /var/tmp in one space of this size, which is forgotten in the end
    #[arg(long, value_name = "SIZE", value_parser = super::size::parse)]
    space: Option<u64>,
    /// Set a variable of the environment
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Show a file or directory of the host in the qube, there or in another place
    #[arg(long, value_name = "PATH[:PLACE]", value_parser = bind)]
    bind: Vec<(PathBuf, PathBuf)>,
    /// The working directory; the present one without it
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// The command
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Exec {
    pub(super) fn run(self) -> Result<u8> {
        let (lease, view) = Lease::take(&self.dir.dir, &self.qube, self.user)?;
        let done = self.enter(view);
        lease.end();
        done
    }

    fn enter(self, view: View) -> Result<u8> {
        let mut words = self.command.into_iter();
        let program = words.next().context("there is no command")?;
        let variable = |text: String| -> Result<(OsString, OsString)> {
            let (key, value) = text.split_once('=').with_context(|| format!("`{text}` is not NAME=VALUE"))?;
            Ok((key.into(), value.into()))
        };
        let environment = self.env.into_iter().map(variable).collect::<Result<Vec<_>>>()?;
        let view = View { space: self.space, binds: self.bind, directory: self.cwd, ..view };
        let command = Command { program, arguments: words.collect(), elsewhere: true, environment };
        view::run(&view, &command)
    }
}

fn user(text: &str) -> Result<u32> {
    match text {
        "user" | "1000" => Ok(1000),
        "root" | "0" => Ok(0),
        _ => anyhow::bail!("a qube here has the users `user` and `root`"),
    }
}

fn bind(text: &str) -> Result<(PathBuf, PathBuf)> {
    let (from, to) = text.split_once(':').unwrap_or((text, text));
    let from = PathBuf::from(from).canonicalize().with_context(|| format!("finding {from}"))?;
    let to = if text.contains(':') { PathBuf::from(to) } else { from.clone() };
    anyhow::ensure!(to.is_absolute(), "{} is no absolute path", to.display());
    Ok((from, to))
}
