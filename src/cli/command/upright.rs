//! `recover`, `finalize`: templates put right after something went wrong.

use serde_json::{Value, json};

use crate::admin;
use crate::cli::run::{Done, Run};
use crate::cli::table::{Command, Opt};
use crate::extras::Extras;
use crate::finalize;
use crate::journal;
use crate::lock::Lock;
use crate::post_install;
use crate::recover;
use crate::report::{Failure, Message, Reporter as _};
use crate::state::Directory;
use crate::transaction::Desk;

impl Run<'_> {
    /// Tells once of work that was cut short. Asks nobody for it.
    pub(in crate::cli) fn tell_unfinished(&self) {
        if self.typed.command == Command::Recover {
            return;
        }
        let Ok(state) = Directory::open(self.settings.state_dir.value.as_deref()) else { return };
        let names = journal::unfinished(&state);
        if !names.is_empty() {
            let text = format!(
                "work on {} was cut short; 'qvm-template recover' finishes or undoes it",
                names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ")
            );
            self.terminal.say(&Message::Warning(&text));
        }
    }

    pub(in crate::cli) async fn recover(&self) -> Result<Done, Failure> {
        let state = Directory::open(self.settings.state_dir.value.as_deref())?;
        let (api, extras) = (admin::connect(), Extras::new(Some(&state)));
        let (reporter, cancel) = (self.terminal, self.cancel);
        let desk = Desk { api: api.as_ref(), reporter, cancel, extras: &extras, state: Some(&state) };
        let lock = Lock::take("recover").map_err(anyhow::Error::from)?;
        let outcomes =
            recover::run(&desk, &state, &lock, &self.typed.positionals, self.typed.has(Opt::Yes)).await?;
        let mut text: String =
            outcomes.iter().map(|(name, outcome)| format!("{}\n", outcome.told(name))).collect();
        if outcomes.is_empty() {
            text = "There is no unfinished work.\n".to_owned();
        }
        let list: Vec<Value> =
            outcomes.iter().map(|(name, outcome)| json!({"name": name, "outcome": outcome.word()})).collect();
        Ok(Done {
            text,
            json: json!({"recovered": list}),
            unfinished: outcomes.iter().any(|(_, outcome)| *outcome == recover::Outcome::NotFinalized),
            ..Done::default()
        })
    }

    pub(in crate::cli) async fn finalize(&self) -> Result<Done, Failure> {
        let state = Directory::open(self.settings.state_dir.value.as_deref())?;
        let (api, extras) = (admin::connect(), Extras::new(Some(&state)));
        let (reporter, cancel) = (self.terminal, self.cancel);
        let desk = Desk { api: api.as_ref(), reporter, cancel, extras: &extras, state: Some(&state) };
        if self.typed.positionals.is_empty() {
            return Err(Failure::Usage("the following arguments are required: TEMPLATE".to_owned()));
        }
        let lock = Lock::take("finalize").map_err(anyhow::Error::from)?;
        let outcomes = finalize::run(&desk, &state, &lock, &self.typed.positionals).await?;
        let unfinished: Vec<&String> = outcomes
            .iter()
            .filter(|(_, outcome)| *outcome == post_install::Outcome::Unfinished)
            .map(|(name, _)| name)
            .collect();
        let finalized: Vec<&String> = outcomes
            .iter()
            .filter(|(_, outcome)| *outcome == post_install::Outcome::Done)
            .map(|(name, _)| name)
            .collect();
        let text = finalized.iter().map(|name| format!("{name}: finalized\n")).collect();
        Ok(Done {
            text,
            json: json!({"finalized": finalized, "unfinished": unfinished}),
            unfinished: !unfinished.is_empty(),
            ..Done::default()
        })
    }
}
