//! `status` and `cancel` in the management qube itself: the jobs of all callers.

use serde_json::{Value, json};

use super::via;
use crate::cli::run::{Done, Run};
use crate::cli::table::{Command, Opt};
use crate::delegate::jobs;
use crate::delegate::records::{Job, Records};
use crate::report::Failure;
use crate::state::Directory;

impl Run<'_> {
    pub(in crate::cli) fn jobs(&self) -> Result<Done, Failure> {
        if self.typed.has(Opt::Follow) {
            return Err(Failure::Usage("--follow is for --via".to_owned()));
        }
        let records = Records::new(Directory::open(self.settings.state_dir.value.as_deref())?);
        let names = &self.typed.positionals;
        let meant = |job: &Job| {
            (names.is_empty() || names.contains(&job.template))
                && self.typed.last(Opt::Job).is_none_or(|id| job.id == id)
        };
        let mut found: Vec<Job> = records.jobs().into_iter().filter(meant).collect();
        if self.typed.command == Command::Cancel {
            if names.is_empty() && !self.typed.has(Opt::Job) {
                return Err(Failure::Usage("cancel needs a template or --job".to_owned()));
            }
            found.retain(|job| records.is_running(job));
            for job in &found {
                records.ask_to_end(&job.id)?;
            }
        }
        if found.is_empty() {
            return Err(Failure::Usage("there is no such job".to_owned()));
        }
        let row = |job: &Job| {
            let mut row = jobs::row(&records, job);
            row["caller"] = json!(job.caller);
            row
        };
        Ok(via::jobs(&found.iter().map(row).collect::<Vec<Value>>()))
    }
}
