//! The verbs that change a template, each a job of its own.
//!
//! ```text
//! decision -> job written down -> one at a time -> decision again, by the grants as they are now
//!          -> quota -> plan or choice of a build -> use case -> owner -> job and audit log
//! ```
//!
//! A job that has begun goes on under the grant that it began with, also when the file of grants changes meanwhile.

use std::time::Duration;

use serde_json::{Value, json};

use super::Verb;
use super::answer::{Lines, Refused, end_this_process};
use super::audit::Event;
use super::grants::{Grant, Limits, Owner};
use super::plan::{self, Chosen};
use super::records::{Held, Job, OWNER, Plan, Records, now};
use super::request::Id;
use super::serve::{Desk, No, build};
use crate::admin::{QubeApi, system};
use crate::admission::Demands;
use crate::catalogue::Catalogue;
use crate::extras::Extras;
use crate::finalize;
use crate::install::{self, Order};
use crate::ledger::Ledger;
use crate::lock::Lock;
use crate::post_install;
use crate::report::Failure;
use crate::state::Directory;
use crate::template::conf::AllowPv;
use crate::template::{Installed, TemplateName};
use crate::transaction;

/// How often a job looks whether it may begin, and whether it is to end.
const LOOK: Duration = Duration::from_millis(100);
/// How long a job waits for others.
const PATIENCE: Duration = Duration::from_secs(3600);

/// What a job came to.
struct Outcome {
    action: Verb,
    /// `done`, or `unchanged`.
    result: &'static str,
    /// Whether the first start went well.
    finalized: bool,
    before: Option<Installed>,
    after: Option<Installed>,
    chosen: Option<Chosen>,
    /// Fingerprint of the certificate that vouched for the package.
    signer: Option<String>,
    /// What went otherwise than wanted, for the audit log.
    remark: Option<String>,
}

/// Carries out a change.
///
/// # Errors
/// When it is not granted. What happens once it is a job stands in the answer.
pub async fn run(desk: &Desk<'_>) -> Result<Value, No> {
    let (name, verb) = (desk.named()?, desk.verb);
    let of_plan =
        desk.request.version.is_some() || desk.request.repository.is_some() || desk.request.pool.is_some();
    if desk.request.plan.is_some() && of_plan {
        let text = "a plan has its own version, repository and pool";
        return Err(No::because(Refused::Malformed(text), text));
    }
    let (owner, _) = desk.standing(name).await?;
    let (number, grant) = decide(desk, name, owner, None)?;
    if desk.records.changes_within_an_hour(&desk.caller) >= count(grant.limits().max_changes_per_hour) {
        return Err(No::because(Refused::Rate, format!("grant {number}: too many changes within an hour")));
    }
    desk.records.forget_old();
    let mut job = Job {
        id: Id::random().as_str().to_owned(),
        caller: desk.caller.clone(),
        verb,
        template: name.to_string(),
        started: now(),
        ended: None,
        result: None,
    };
    let plan = desk.request.plan.as_ref().map(Id::as_str);
    desk.granted((number, &grant), Some(&job.id), plan)?;
    let held = desk.records.begin(&job)?;
    let lines = Lines::new(desk.outbox, &desk.records, &job.id, name.as_str());
    desk.outbox.on_hangup(desk.request.on_hangup);
    let worked = tokio::select! {
        worked = work(desk, &lines, name, &grant) => worked,
        never = watch(&desk.records, &job.id) => never,
    };
    let mut result = match &worked {
        Ok(outcome) => line(verb, name, outcome),
        Err(no) => no.refused.line(&verb.to_string(), None),
    };
    result["job"] = json!(job.id);
    audit(desk, &job.id, &worked, &lines.said())?;
    job.ended = Some(now());
    job.result = Some(result.clone());
    desk.records.write_job(&job)?;
    drop(held);
    Ok(result)
}

/// Lets a request to end the job act as a signal does, so that what was begun is undone.
async fn watch<T>(records: &Records, job: &str) -> T {
    while !records.is_to_end(job) {
        tokio::time::sleep(LOOK).await;
    }
    end_this_process();
    std::future::pending().await
}

/// The decision about a change of a template that is `owner`'s. `planned` brings what the request leaves to its plan.
fn decide(
    desk: &Desk<'_>,
    name: &TemplateName,
    owner: Owner,
    again: Option<&super::grants::Grants>,
) -> Result<(usize, Grant), No> {
    // What is not there is as little the caller's as what is another's.
    let owner = match owner {
        Owner::Nobody if desk.verb != Verb::Install => {
            desk.decide(desk.verb, Some(name), Owner::Nobody)?;
            return Err(No::because(Refused::NoTemplate, "there is no such template"));
        }
        other => other,
    };
    match again {
        Some(grants) => desk.decide_by(grants, desk.verb, Some(name), owner),
        None => desk.decide(desk.verb, Some(name), owner),
    }
}

async fn work(
    desk: &Desk<'_>,
    lines: &Lines<'_>,
    name: &TemplateName,
    begun_with: &Grant,
) -> Result<Outcome, No> {
    let _held = wait(desk, lines).await?;
    // Others may have been at work, and so may who manages the grants.
    let grants = desk.renewed().await?;
    let (owner, halted) = desk.standing(name).await?;
    let (_, grant) = decide(desk, name, owner, Some(&grants))?;
    let before = if owner == Owner::Nobody { None } else { desk.installed(name).await? };
    let plan = held_plan(desk, name, &grant, begun_with, before.as_ref())?;
    if desk.verb != Verb::Install && !halted {
        return Err(No::because(Refused::Running, "the template is not shut down"));
    }
    let outcome = match desk.verb {
        Verb::Install | Verb::Reinstall | Verb::Upgrade | Verb::Downgrade => {
            put(desk, lines, name, (&grant, owner), before, plan.as_ref()).await
        }
        Verb::Remove => remove(desk, name, before).await,
        Verb::Finalize => finalize(desk, lines, name, before).await,
        _ => Err(No::because(Refused::Grants, "not offered by this version")),
    };
    if outcome.is_ok() && desk.verb == Verb::Install && owner == Owner::Nobody {
        return own(desk, name, &grant, outcome?).await;
    }
    outcome
}

/// Waits until no other job is under way.
async fn wait(desk: &Desk<'_>, lines: &Lines<'_>) -> Result<Held, No> {
    let mut waiting = false;
    let waits = async {
        loop {
            if let Some(held) = desk.records.try_lock()? {
                return Ok(held);
            }
            if !waiting {
                lines.tell_state("waiting");
            }
            waiting = true;
            tokio::time::sleep(LOOK).await;
        }
    };
    match tokio::time::timeout(PATIENCE, desk.cancel.or(waits)).await {
        Ok(held) => {
            lines.tell_state("running");
            Ok(held?)
        }
        Err(_) => Err(No::because(Refused::Busy, "others were at work for too long")),
    }
}

/// The plan that is to be carried out, which nobody can carry out again.
fn held_plan(
    desk: &Desk<'_>,
    name: &TemplateName,
    grant: &Grant,
    begun_with: &Grant,
    before: Option<&Installed>,
) -> Result<Option<Plan>, No> {
    let Some(id) = &desk.request.plan else { return Ok(None) };
    let void = |why: &str| No::because(Refused::PlanVoid, why);
    let plan = desk.records.plan(id, &desk.caller).ok_or_else(|| void("the caller has no such plan"))?;
    if plan.verb != desk.verb || plan.template != name.as_str() {
        return Err(void("the plan is for something else"));
    }
    if plan.grant != grant.text() || plan.grant != begun_with.text() {
        return Err(void("the grant has changed"));
    }
    if plan.before != before.map(Installed::evr_text) {
        return Err(void("another build is installed"));
    }
    if !desk.records.use_up(id).map_err(anyhow::Error::from)? {
        return Err(void("the plan was carried out already"));
    }
    Ok(Some(plan))
}

/// Installs or replaces a template.
async fn put(
    desk: &Desk<'_>,
    lines: &Lines<'_>,
    name: &TemplateName,
    (grant, owner): (&Grant, Owner),
    before: Option<Installed>,
    plan: Option<&Plan>,
) -> Result<Outcome, No> {
    let unchanged = |before: Option<Installed>| Outcome {
        action: desk.verb,
        result: "unchanged",
        finalized: true,
        after: before.clone(),
        before,
        chosen: None,
        signer: None,
        remark: None,
    };
    if desk.verb == Verb::Install && owner != Owner::Nobody {
        return Ok(unchanged(before));
    }
    let offered = plan.and_then(|plan| plan.offer.as_ref());
    let chosen = plan::choose(desk, lines, (desk.verb, name), grant, before.as_ref(), offered).await?;
    let Some(chosen) = chosen else { return Ok(unchanged(before)) };
    let largest = room(desk, name, grant.limits(), owner == Owner::Nobody).await?;
    let settings = desk.settings;
    let order = Order {
        verb: match desk.verb {
            Verb::Install => install::Verb::Install,
            Verb::Reinstall => install::Verb::Reinstall,
            Verb::Upgrade => install::Verb::Upgrade,
            _ => install::Verb::Downgrade,
        },
        named: vec![chosen.spec.clone()],
        name: None,
        pool: plan
            .and_then(|plan| plan.pool.clone())
            .or_else(|| desk.request.pool.clone())
            .or_else(|| settings.pool.value.clone()),
        allow_pv: AllowPv::No,
        skip_start: desk.request.skip_start,
        nogpgcheck: false,
        retries: settings.retries.value,
        keep_cache: settings.keep_cache.value,
        yes: true,
        cache: settings.cachedir.value.clone(),
        dry_run: false,
        fail_fast: true,
        detailed: false,
        // The specification is of our making: it must not pass for one that asks for an old build on purpose.
        demands: Demands { unattended: true, ..settings.demands() },
        max_image: Some(largest),
        state: crate::state::Directory::open(settings.state_dir.value.as_deref())?,
    };
    if owner == Owner::Nobody {
        desk.records.set_pending(name.as_str(), Some(&desk.caller))?;
    }
    let ledger = Ledger::default();
    let run = {
        let catalogue = Catalogue::new(desk.api, lines, &chosen.sources);
        install::run(desk.api, &catalogue, lines, desk.cancel, &order, &ledger).await
    };
    if run.is_err() && owner == Owner::Nobody && !is_there(desk, name).await {
        desk.records.set_pending(name.as_str(), None)?;
    }
    let summary = run?;
    if !summary.done.iter().any(|done| done == name.as_str()) {
        return Err(No::because(Refused::Failed, "the use case left the template out"));
    }
    Ok(Outcome {
        action: desk.verb,
        result: "done",
        finalized: summary.unfinished.is_empty(),
        before,
        after: desk.installed(name).await?,
        chosen: Some(chosen),
        signer: ledger.entries().into_iter().find_map(|entry| entry.after.and_then(|build| build.signer)),
        remark: None,
    })
}

async fn is_there(desk: &Desk<'_>, name: &TemplateName) -> bool {
    // When in doubt it is, so that what is left of it is its caller's.
    system::list(desk.api).await.map_or(true, |all| all.iter().any(|qube| qube.name == name.as_str()))
}

/// The largest image that the caller may still have, in bytes.
async fn room(desk: &Desk<'_>, name: &TemplateName, limits: Limits, is_new: bool) -> Result<u64, No> {
    let templates: Vec<String> = system::list(desk.api)
        .await?
        .into_iter()
        .filter(|qube| qube.is_template() && qube.name != name.as_str())
        .map(|qube| qube.name)
        .collect();
    let owners = desk.owners(&templates).await;
    let own: Vec<&String> =
        templates.iter().filter(|name| owners.get(*name) == Some(&Owner::Caller)).collect();
    if is_new && own.len() >= count(limits.max_templates) {
        return Err(No::because(Refused::Quota, format!("the caller has {} templates", own.len())));
    }
    let mut used = 0_u64;
    for template in own {
        used = used.saturating_add(QubeApi::new(desk.api, template).volume("root").await?.size);
    }
    let left = limits.max_total_size.saturating_sub(used);
    if left == 0 {
        return Err(No::because(Refused::Quota, format!("the caller's templates have {used} bytes")));
    }
    Ok(limits.max_image_size.min(left))
}

fn count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Writes down whose a new template is.
async fn own(
    desk: &Desk<'_>,
    name: &TemplateName,
    grant: &Grant,
    mut outcome: Outcome,
) -> Result<Outcome, No> {
    let qube = QubeApi::new(desk.api, name.as_str());
    match qube.set_feature(OWNER, &desk.caller).await {
        Ok(()) => desk.records.set_pending(name.as_str(), None)?,
        // The record goes on to say it.
        Err(error) => outcome.remark = Some(format!("the owner is not marked: {error}")),
    }
    if let Some(tag) = grant.owner_tag()
        && let Err(error) = qube.set_tag(tag).await
    {
        outcome.remark = Some(format!("the tag {tag} is not set: {error}"));
    }
    Ok(outcome)
}

/// Removes a template that nothing uses. dom0 refuses where something does; which, is nothing for the caller, so
/// nobody is asked.
async fn remove(desk: &Desk<'_>, name: &TemplateName, before: Option<Installed>) -> Result<Outcome, No> {
    if before.is_none() {
        return Err(No::because(Refused::NoTemplate, "not a template of this tool"));
    }
    let lock = Lock::take("remove").map_err(|error| No::failed(&Failure::Failed(error.into())))?;
    lock.template(name.as_str()).map_err(|error| No::failed(&Failure::Failed(error.into())))?;
    desk.cancel.check()?;
    QubeApi::new(desk.api, name.as_str()).remove().await.map_err(|error| {
        let refused = if error.is("QubesVMInUseError") { Refused::InUse } else { Refused::Failed };
        No::because(refused, error.to_string())
    })?;
    desk.records.set_pending(name.as_str(), None)?;
    Ok(Outcome {
        action: Verb::Remove,
        result: "done",
        finalized: true,
        before,
        after: None,
        chosen: None,
        signer: None,
        remark: None,
    })
}

/// Repeats the first start, which changes nothing but what the template says of itself.
async fn finalize(
    desk: &Desk<'_>,
    lines: &Lines<'_>,
    name: &TemplateName,
    before: Option<Installed>,
) -> Result<Outcome, No> {
    if before.is_none() {
        return Err(No::because(Refused::NoTemplate, "not a template of this tool"));
    }
    let state = Directory::open(desk.settings.state_dir.value.as_deref())?;
    let extras = Extras::new(Some(&state));
    let work = transaction::Desk {
        api: desk.api,
        reporter: lines,
        cancel: desk.cancel,
        extras: &extras,
        state: Some(&state),
    };
    let lock = Lock::take("finalize").map_err(|error| No::failed(&Failure::Failed(error.into())))?;
    let outcomes = finalize::run(&work, &state, &lock, &[name.to_string()]).await?;
    Ok(Outcome {
        action: Verb::Finalize,
        result: "done",
        finalized: outcomes.iter().all(|(_, outcome)| *outcome == post_install::Outcome::Done),
        after: before.clone(),
        before,
        chosen: None,
        signer: None,
        remark: None,
    })
}

/// The result line of a job that ended well.
fn line(verb: Verb, name: &TemplateName, outcome: &Outcome) -> Value {
    let exit = if outcome.finalized { 0 } else { 3 };
    let (action, ended) = match (outcome.result, outcome.finalized) {
        ("unchanged", _) => ("none".to_owned(), "skipped"),
        (_, false) => (outcome.action.to_string(), "not-finalized"),
        _ => (outcome.action.to_string(), "done"),
    };
    let mut after = build(outcome.after.as_ref());
    if let (Some(chosen), Some(after)) = (&outcome.chosen, after.as_object_mut()) {
        after.insert("size".to_owned(), json!(chosen.offer.download_size));
        after.insert("signer".to_owned(), json!(outcome.signer));
    }
    let entry = json!({
        "name": name.as_str(), "action": action, "outcome": ended, "before": build(outcome.before.as_ref()),
        "after": after, "reason": null, "error": null,
    });
    json!({
        "schema": 1, "command": verb.to_string(), "result": outcome.result, "exit": exit, "error": null,
        "warnings": [], "templates": [entry],
    })
}

fn audit(desk: &Desk<'_>, job: &str, worked: &Result<Outcome, No>, said: &str) -> Result<(), No> {
    let (result, reason, chosen) = match worked {
        Ok(outcome) if !outcome.finalized => {
            ("not-finalized", outcome.remark.clone(), outcome.chosen.as_ref())
        }
        Ok(outcome) => (outcome.result, outcome.remark.clone(), outcome.chosen.as_ref()),
        Err(no) if said.is_empty() => (no.refused.cause(), Some(no.reason.clone()), None),
        Err(no) => (no.refused.cause(), Some(format!("{} ({said})", no.reason)), None),
    };
    let build = chosen.map(|chosen| chosen.offer.evr.to_string());
    let ended = Event::Ended {
        result,
        reason: reason.as_deref(),
        build: build.as_deref(),
        repository: chosen.map(|chosen| chosen.offer.repo.as_str()),
        signer: worked.as_ref().ok().and_then(|outcome| outcome.signer.as_deref()),
        bytes: chosen.map_or(0, |chosen| chosen.offer.download_size),
        milliseconds: desk.milliseconds(),
    };
    desk.log(Some(job), desk.request.plan.as_ref().map(Id::as_str), ended)
}
