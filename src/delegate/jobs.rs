//! `Status` and `Cancel`: a job found again, by its caller or by who manages this qube.

use std::time::Duration;

use serde_json::{Value, json};

use super::answer::{Lines, Refused};
use super::grants::Owner;
use super::records::{Job, Records};
use super::serve::{Desk, No};

/// How often a job that is followed is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// `Status`.
///
/// # Errors
/// When it is not granted, or there is no such job.
pub async fn status(desk: &Desk<'_>) -> Result<Value, No> {
    let grant = desk.decide(desk.verb, desk.name.as_ref(), Owner::Nobody)?;
    desk.granted((grant.0, &grant.1), desk.request.job.as_ref().map(super::request::Id::as_str), None)?;
    let jobs = own_jobs(desk)?;
    if desk.request.follow
        && let [.., last] = jobs.as_slice()
    {
        follow(desk, last).await?;
    }
    desk.answered(None)?;
    let rows: Vec<Value> = own_jobs(desk)?.iter().map(|job| row(&desk.records, job)).collect();
    let mut line = result(desk);
    line["jobs"] = json!(rows);
    Ok(line)
}

/// Tells how a job goes until it has ended.
async fn follow(desk: &Desk<'_>, job: &Job) -> Result<(), No> {
    let lines = Lines::new(desk.outbox, &desk.records, "", &job.template);
    let mut told = None;
    while desk.records.job(&job.id).is_some_and(|job| desk.records.is_running(&job)) {
        let progress = desk.records.progress(&job.id);
        if progress != told {
            if let Some(progress) = &progress {
                lines.repeat(progress);
            }
            told = progress;
        }
        let pause = async {
            tokio::time::sleep(LOOK).await;
            Ok::<_, crate::report::Failure>(())
        };
        desk.cancel.or(pause).await?;
    }
    Ok(())
}

/// `Cancel`.
///
/// # Errors
/// When it is not granted, or there is no such job that still runs.
pub fn cancel(desk: &Desk<'_>) -> Result<Value, No> {
    let grant = desk.decide(desk.verb, desk.name.as_ref(), Owner::Nobody)?;
    desk.granted((grant.0, &grant.1), desk.request.job.as_ref().map(super::request::Id::as_str), None)?;
    let running: Vec<Job> = own_jobs(desk)?.into_iter().filter(|job| desk.records.is_running(job)).collect();
    if running.is_empty() {
        return Err(No::because(Refused::NoJob, "no such job runs"));
    }
    for job in &running {
        desk.records.ask_to_end(&job.id)?;
    }
    desk.answered(None)?;
    let mut line = result(desk);
    line["jobs"] = json!(running.iter().map(|job| row(&desk.records, job)).collect::<Vec<_>>());
    Ok(line)
}

/// The jobs of the caller that are meant. Those of others are not there.
fn own_jobs(desk: &Desk<'_>) -> Result<Vec<Job>, No> {
    let meant = |job: &Job| {
        job.caller == desk.caller
            && desk.name.as_ref().is_none_or(|name| job.template == name.as_str())
            && desk.request.job.as_ref().is_none_or(|id| job.id == id.as_str())
    };
    let jobs: Vec<Job> = desk.records.jobs().into_iter().filter(meant).collect();
    if jobs.is_empty() {
        return Err(No::because(Refused::NoJob, "there is no such job"));
    }
    Ok(jobs)
}

fn result(desk: &Desk<'_>) -> Value {
    json!({
        "schema": 1, "command": desk.verb.to_string(), "result": "done", "exit": 0, "error": null, "warnings": [],
    })
}

/// A job as it is shown.
#[must_use]
pub fn row(records: &Records, job: &Job) -> Value {
    let state = match &job.result {
        Some(result) => result["result"].as_str().unwrap_or("failed").to_owned(),
        None if records.is_running(job) => "running".to_owned(),
        // Its process ended without a word: the machine stopped, or somebody killed it.
        None => "lost".to_owned(),
    };
    json!({
        "job": job.id, "verb": job.verb.to_string(), "template": job.template, "started": job.started,
        "ended": job.ended, "state": state, "progress": records.progress(&job.id), "outcome": job.result,
    })
}
