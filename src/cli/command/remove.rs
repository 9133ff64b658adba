//! `remove`, `purge`: templates taken away.

use std::io::IsTerminal as _;

use crate::admin;
use crate::cli::output;
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
            dry_run: self.typed.has(Opt::DryRun),
        };
        let api = admin::connect();
        let names = &self.typed.positionals;
        remove::run(api.as_ref(), self.terminal, self.cancel, names, options, self.ledger).await?;
        Ok(Done::text(if options.dry_run { output::plan(self.ledger) } else { String::new() }))
    }
}
