//! `remove`, `purge`: templates taken away.

use std::io::IsTerminal as _;

use serde_json::json;

use crate::admin;
use crate::cli::run::{Done, Run};
use crate::cli::table::{Command, Opt};
use crate::remove::{self, Mode};
use crate::report::Failure;

impl Run<'_> {
    pub(in crate::cli) async fn remove(&self) -> Result<Done, Failure> {
        let own = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        let options = remove::Options {
            mode: match self.typed.command {
                Command::Purge => Mode::Purge,
                _ if self.typed.has(Opt::Disassoc) => Mode::Disassociate,
                _ => Mode::Plain,
            },
            force: self.typed.has(Opt::Force),
            ask: !self.typed.has(Opt::Yes),
            show_plan: std::io::stderr().is_terminal(),
            own: own.as_deref(),
        };
        let api = admin::connect();
        let names = &self.typed.positionals;
        let removed = remove::run(api.as_ref(), self.terminal, self.cancel, names, options).await?;
        Ok(Done { json: json!({"removed": removed}), ..Done::default() })
    }
}
