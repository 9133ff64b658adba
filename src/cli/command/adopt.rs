//! `adopt`, `refresh-metadata`: what the features of templates say about them.

use crate::admin;
use crate::adopt::{self, Options};
use crate::catalogue::Catalogue;
use crate::cli::output;
use crate::cli::run::{Done, Run};
use crate::cli::table::Opt;
use crate::refresh;
use crate::report::Failure;

impl Run<'_> {
    pub(in crate::cli) async fn adopt(&self) -> Result<Done, Failure> {
        let options = Options { ask: !self.typed.has(Opt::Yes), dry_run: self.typed.has(Opt::DryRun) };
        let api = admin::connect();
        let names = &self.typed.positionals;
        adopt::run(api.as_ref(), self.terminal, self.cancel, names, options, self.ledger).await?;
        Ok(Done::text(if options.dry_run { output::plan(self.ledger) } else { String::new() }))
    }

    pub(in crate::cli) async fn refresh_metadata(&self) -> Result<Done, Failure> {
        let (api, sources) = (admin::connect(), self.sources());
        let catalogue = Catalogue::new(api.as_ref(), self.terminal, &sources);
        let desk = refresh::Desk {
            api: api.as_ref(),
            catalogue: &catalogue,
            reporter: self.terminal,
            cancel: self.cancel,
            ledger: self.ledger,
            dry_run: self.typed.has(Opt::DryRun),
        };
        refresh::run(desk, &self.typed.positionals).await?;
        Ok(Done::text(if desk.dry_run { output::plan(self.ledger) } else { String::new() }))
    }
}
