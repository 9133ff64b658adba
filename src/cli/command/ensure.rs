//! `ensure`, `default`: things as they should be, for who keeps many machines so.

use nix::unistd::gethostname;
use serde_json::{Value, json};

use crate::admin;
use crate::catalogue::Catalogue;
use crate::cli::output;
use crate::cli::run::{Done, Run};
use crate::cli::table::Opt;
use crate::default;
use crate::ensure::{self, Bound, Wanted, Wants};
use crate::extras::Extras;
use crate::install::Verb;
use crate::post_install::Outcome;
use crate::remove::{self, Mode};
use crate::repo::choice::RepoOption;
use crate::report::Failure;
use crate::state::Directory;
use crate::template::TemplateName;
use crate::transaction::Desk;

impl Run<'_> {
    pub(in crate::cli) async fn ensure(&self) -> Result<Done, Failure> {
        let [name] = self.typed.positionals.as_slice() else {
            return Err(Failure::Usage("exactly one TEMPLATE is required".to_owned()));
        };
        let name = TemplateName::new(name).map_err(|error| Failure::Usage(error.to_string()))?;
        if self.typed.has(Opt::Absent) {
            return self.ensure_absent(name.as_str()).await;
        }
        if self.typed.has(Opt::Finalized) {
            return self.ensure_finalized(name.as_str()).await;
        }
        let wanted = self.wanted(name.as_str())?;
        let mut sources = self.sources();
        sources.options.extend(wanted.wants.from.clone().map(RepoOption::Only));
        let api = admin::connect();
        let catalogue = Catalogue::new(api.as_ref(), self.terminal, &sources);
        let order = self.order(Verb::Install)?;
        let dry_run = order.dry_run;
        let work = ensure::present(
            api.as_ref(),
            &catalogue,
            self.terminal,
            self.cancel,
            &wanted,
            order,
            self.ledger,
        );
        let summary = work.await?;
        Ok(Done { unfinished: !summary.unfinished.is_empty(), ..self.said(dry_run) })
    }

    async fn ensure_absent(&self, name: &str) -> Result<Done, Failure> {
        let own = gethostname().ok().and_then(|name| name.into_string().ok());
        let options = remove::Options {
            mode: if self.typed.has(Opt::Disassoc) { Mode::Disassociate } else { Mode::Plain },
            force: false,
            ask: !self.typed.has(Opt::Yes),
            show_plan: false,
            own: own.as_deref(),
            dry_run: self.typed.has(Opt::DryRun),
        };
        let api = admin::connect();
        ensure::absent(api.as_ref(), self.terminal, self.cancel, name, options, self.ledger).await?;
        Ok(self.said(options.dry_run))
    }

    async fn ensure_finalized(&self, name: &str) -> Result<Done, Failure> {
        let state = Directory::open(self.settings.state_dir.value.as_deref())?;
        let (api, extras) = (admin::connect(), Extras::new(Some(&state)));
        let (reporter, cancel) = (self.terminal, self.cancel);
        let desk = Desk { api: api.as_ref(), reporter, cancel, extras: &extras, state: Some(&state) };
        let dry_run = self.typed.has(Opt::DryRun);
        let outcome = ensure::finalized(&desk, &state, name, dry_run, self.ledger).await?;
        Ok(Done { unfinished: outcome == Outcome::Unfinished, ..self.said(dry_run) })
    }

    fn said(&self, dry_run: bool) -> Done {
        Done::text(if dry_run { output::plan(self.ledger) } else { String::new() })
    }

    fn wanted(&self, name: &str) -> Result<Wanted, Failure> {
        let text = |opt: Opt| self.typed.last(opt).map(str::to_owned);
        let bound = |opt: Opt| {
            let read = |text: &str| {
                let wrong = || Failure::Usage(format!("'{text}' is no build: [EPOCH:]VERSION[-RELEASE]"));
                Bound::parse(text).ok_or_else(wrong)
            };
            self.typed.last(opt).map(read).transpose()
        };
        let days = |text: &str| {
            let wrong = || Failure::Usage(format!("'{text}' is no number of days"));
            text.parse::<u32>().ok().filter(|days| *days > 0).ok_or_else(wrong)
        };
        Ok(Wanted {
            name: name.to_owned(),
            wants: Wants {
                build: bound(Opt::Build)?,
                min_build: bound(Opt::MinBuild)?,
                max_age: self.typed.last(Opt::RequireMaxAge).map(days).transpose()?,
                from: text(Opt::Repository),
                signer: text(Opt::Signer).map(|digits| digits.to_ascii_lowercase()),
            },
            newest: self.typed.has(Opt::Newest),
            overwrite: self.typed.has(Opt::Overwrite),
            any: self.typed.has(Opt::Any),
        })
    }

    pub(in crate::cli) async fn default(&self) -> Result<Done, Failure> {
        let text = |opt: Opt| self.typed.last(opt).map(str::to_owned);
        let wanted = default::Wanted {
            template: text(Opt::Template),
            dispvm: text(Opt::Dispvm),
            management_dispvm: text(Opt::ManagementDispvm),
        };
        let dry_run = self.typed.has(Opt::DryRun);
        let changes = default::run(admin::connect().as_ref(), &wanted, dry_run).await?;
        let none = |name: &str| if name.is_empty() { "none" } else { name }.to_owned();
        let line = |change: &default::Change| {
            let would = if dry_run { "would set " } else { "" };
            format!("{would}{}: {} -> {}\n", change.property, none(&change.before), none(&change.after))
        };
        let object = |change: &default::Change| json!({"property": change.property, "before": change.before, "after": change.after});
        Ok(Done {
            text: changes.iter().map(line).collect(),
            json: json!({"changes": changes.iter().map(object).collect::<Vec<Value>>()}),
            ..Done::default()
        })
    }
}
