//! `install`, `reinstall`, `upgrade`, `downgrade`, `renew`, `download`: templates from repositories and local packages.

use serde_json::json;

use crate::admin;
use crate::admission::{Admission, Wish};
use crate::cli::config::directory;
use crate::cli::output;
use crate::cli::run::{Done, Run};
use crate::cli::table::Opt;
use crate::download::{self, Fetcher, Rotten};
use crate::install::{self, Order, Verb};
use crate::report::{Failure, Message, Reporter as _};
use crate::state::Directory;
use crate::template::TemplateName;
use crate::template::conf::AllowPv;

impl Run<'_> {
    pub(in crate::cli) async fn install(&self, verb: Verb) -> Result<Done, Failure> {
        if self.typed.has(Opt::DownloadDir) {
            self.terminal.say(&Message::Warning("--downloaddir has no effect on this command"));
        }
        let order = self.order(verb)?;
        let (api, sources) = (admin::connect(), self.sources());
        let catalogue = self.catalogue(api.as_ref(), &sources);
        let work = install::run(api.as_ref(), &catalogue, self.terminal, self.cancel, &order, self.ledger);
        let summary = work.await?;
        Ok(Done {
            text: if order.dry_run { output::plan(self.ledger) } else { String::new() },
            unfinished: !summary.unfinished.is_empty(),
            ..Done::default()
        })
    }

    /// What the options say about an installation.
    pub(super) fn order(&self, verb: Verb) -> Result<Order, Failure> {
        let settings = self.settings;
        let name = self.typed.last(Opt::Name).map(|name| {
            TemplateName::new(name)
                .map_err(|error| Failure::Usage(format!("no qube can be called '{name}': {error}")))
        });
        Ok(Order {
            verb,
            name: name.transpose()?,
            named: self.typed.positionals.clone(),
            pool: settings.pool.value.clone(),
            allow_pv: if self.typed.has(Opt::AllowPv) { AllowPv::Yes } else { AllowPv::No },
            skip_start: self.typed.has(Opt::SkipStart),
            nogpgcheck: self.typed.has(Opt::NoGpgCheck),
            retries: settings.retries.value,
            keep_cache: settings.keep_cache.value,
            yes: self.typed.has(Opt::Yes),
            cache: settings.cachedir.value.clone(),
            demands: settings.demands(),
            dry_run: self.typed.has(Opt::DryRun),
            fail_fast: self.typed.has(Opt::FailFast),
            detailed: self.typed.has(Opt::DryRun) || self.typed.has(Opt::Json),
            max_image: None,
            state: Directory::open(settings.state_dir.value.as_deref())?,
        })
    }

    pub(in crate::cli) async fn download(&self) -> Result<Done, Failure> {
        let (api, sources) = (admin::connect(), self.sources());
        let catalogue = self.catalogue(api.as_ref(), &sources);
        let demands = self.settings.demands();
        let named = &self.typed.positionals;
        let admission = Admission::new(&demands, Wish::Newest, named, catalogue.options(), self.terminal);
        let fetcher = Fetcher {
            catalogue: &catalogue,
            reporter: self.terminal,
            cancel: self.cancel,
            retries: self.settings.retries.value,
            nogpgcheck: self.typed.has(Opt::NoGpgCheck),
            rotten: Rotten::Refuse,
            admission: &admission,
        };
        // As ever, local packages count for nothing here.
        let mut specs = self.specs()?;
        specs.retain(|spec| !spec.as_str().ends_with(".rpm"));
        let directory = directory(self.typed.last(Opt::DownloadDir).unwrap_or_default());
        download::run(fetcher, &specs, &directory).await?;
        Ok(Done { json: json!({"directory": directory.display().to_string()}), ..Done::default() })
    }
}
