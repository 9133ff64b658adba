//! `list`, `info`, `search`: what is installed and what repositories offer.

use std::io::IsTerminal as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::admin;
use crate::cli::marks;
use crate::cli::output::{self, Form};
use crate::cli::run::{Done, Run};
use crate::cli::table::Opt;
use crate::list::{self, Wanted};
use crate::report::Failure;
use crate::search::{self, Scope};
use crate::spelling;

impl Run<'_> {
    pub(in crate::cli) async fn list(&self, details: bool) -> Result<Done, Failure> {
        let has = |opt| self.typed.has(opt);
        let chosen = [Opt::Installed, Opt::Available, Opt::Extras, Opt::Upgrades].into_iter().any(has);
        let all = has(Opt::All) || !chosen;
        let machine = has(Opt::MachineReadable) || has(Opt::MachineReadableJson) || has(Opt::Json);
        let on_terminal = std::io::stdout().is_terminal() && !machine && !details;
        let wanted = Wanted {
            specs: self.specs()?,
            installed: all || has(Opt::Installed),
            available: all || has(Opt::Available),
            extras: has(Opt::Extras),
            upgrades: has(Opt::Upgrades),
            all_versions: has(Opt::AllVersions),
            details,
            end_of_life: on_terminal || has(Opt::Json),
            provenance: on_terminal || has(Opt::Json),
        };
        let (api, sources) = (admin::connect(), self.sources());
        let catalogue = self.catalogue(api.as_ref(), &sources);
        let listing = self.cancel.or(list::run(api.as_ref(), &catalogue, &wanted)).await?;
        if listing.groups.is_empty() {
            listing.warnings.iter().for_each(|line| self.terminal.line(line));
            let question = spelling::question(&listing.alike);
            return Err(Failure::Usage(format!("No matching templates to list{question}")));
        }
        let form = if has(Opt::MachineReadable) {
            Form::Pipe
        } else if has(Opt::MachineReadableJson) {
            Form::Json
        } else {
            Form::Human
        };
        let text = if on_terminal {
            let today = jiff::Zoned::now().date().to_string();
            marks::listing(&listing, &today, marks::colored(self.settings.color.value))
        } else {
            output::listing(&listing, details, form)
        };
        Ok(Done {
            text,
            json: with_age(output::listing_json(&listing, details), catalogue.age()),
            warnings: listing.warnings,
            ..Done::default()
        })
    }

    pub(in crate::cli) async fn search(&self) -> Result<Done, Failure> {
        let scope = if self.typed.has(Opt::All) { Scope::Everything } else { Scope::Main };
        let (api, sources) = (admin::connect(), self.sources());
        let catalogue = self.catalogue(api.as_ref(), &sources);
        let work = search::run(api.as_ref(), &catalogue, &self.typed.positionals, scope);
        let hits = self.cancel.or(work).await?;
        Ok(Done {
            text: output::hits(&hits),
            json: with_age(output::hits_json(&hits), catalogue.age()),
            warnings: hits.warnings,
            ..Done::default()
        })
    }
}

/// Says of a result how many seconds ago the repositories were asked, where that was not just now.
fn with_age(mut result: Value, age: Option<Duration>) -> Value {
    if let (Some(object), Some(age)) = (result.as_object_mut(), age) {
        object.insert("query_age".to_owned(), json!(age.as_secs()));
    }
    result
}
