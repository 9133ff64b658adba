//! `adopt`: templates taken under management.

use crate::admin;
use crate::adopt::{self, Options};
use crate::cli::output;
use crate::cli::run::{Done, Run};
use crate::cli::table::Opt;
use crate::report::Failure;

impl Run<'_> {
    pub(in crate::cli) async fn adopt(&self) -> Result<Done, Failure> {
        let options = Options { ask: !self.typed.has(Opt::Yes), dry_run: self.typed.has(Opt::DryRun) };
        let api = admin::connect();
        let names = &self.typed.positionals;
        adopt::run(api.as_ref(), self.terminal, self.cancel, names, options, self.ledger).await?;
        Ok(Done::text(if options.dry_run { output::plan(self.ledger) } else { String::new() }))
    }
}
