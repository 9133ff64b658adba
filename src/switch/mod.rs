//! `switch` and `retire`: another template takes the place of one.
//!
//! Everything that uses the old one is worked out first ([`plan`]) and shown; what is to be changed is written to an undo file
//! ([`record`]) before the first change. A call that fails, or a signal, takes all changes back. A process that is killed leaves
//! the undo file: `switch --undo FILE` goes back from there, and the same `switch` again goes on.
//!
//! `retire` removes the old one after that. Where dom0 refuses to let it go, everything that used it gets it back: something
//! uses it that we may not see.

pub mod plan;
pub mod record;
mod steps;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use self::plan::{Change, Plan};
use self::record::Record;
use self::steps::Work;
use crate::admin::{AdminApi, CallError, QubeApi, system};
use crate::cancel::Cancel;
use crate::census;
use crate::ledger::{Action, Build, Ending, Ledger, Trouble};
use crate::lock::Lock;
use crate::remove;
use crate::remove::dependencies::System;
use crate::report::{Failure, Message, Reporter};
use crate::state::Directory;
use crate::template::TemplateName;

/// Folder for undo files in the state directory.
const FOLDER: &str = "undo";

/// What to do about qubes that run and would have to be off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Running {
    /// Refuse.
    Refuse,
    /// Shut them down, and leave them so.
    ShutDown,
    /// Shut them down, and start them again afterwards.
    Restart,
}

/// How to go about it.
#[derive(Clone, Debug)]
pub struct Options {
    /// Ask before anything is changed.
    pub ask: bool,
    /// Work everything out and change nothing.
    pub dry_run: bool,
    /// What to do about running qubes.
    pub running: Running,
    /// Where the undo file goes; else into the state directory.
    pub undo: Option<PathBuf>,
    /// The qube that this program runs in.
    pub own: Option<String>,
}

/// Everything that the work needs.
#[derive(Clone, Copy)]
pub struct Desk<'a> {
    /// dom0.
    pub api: &'a dyn AdminApi,
    /// Who listens.
    pub reporter: &'a dyn Reporter,
    /// Whether somebody wants us to stop.
    pub cancel: &'a Cancel,
    /// What becomes of the template, and of every use of it.
    pub ledger: &'a Ledger,
    /// Where undo files go.
    pub state: &'a Directory,
    /// How to go about it.
    pub options: &'a Options,
}

impl std::fmt::Debug for Desk<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").field("options", &self.options).finish_non_exhaustive()
    }
}

/// How it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Switched {
    /// Changes that were made, or would be.
    pub changes: Vec<Change>,
    /// The undo file, where one was written.
    pub undo: Option<PathBuf>,
}

/// Lets everything that uses `from` use `to`.
///
/// # Errors
/// When one cannot take the other's place, the person says no, something is in the way, or a step fails. Then nothing is changed.
pub async fn run(desk: Desk<'_>, from: &str, to: &str) -> Result<Switched, Failure> {
    let _lock = desk.lock("switch", &[from, to])?;
    let system = System::read(desk.api).await?;
    let plan = Plan::new(&system, from, to).map_err(Failure::Usage)?;
    desk.ledger.plan(from, Action::Switch, None, None);
    let plan = desk.prepare(&system, plan).await?;
    desk.check_target(&system, to, &plan).await?;
    desk.announce(&plan, &[])?;
    if plan.changes.is_empty() {
        desk.ledger.skip(from, "nothing uses it");
        return Ok(Switched::default());
    }
    if desk.options.dry_run {
        return Ok(Switched { changes: plan.changes, undo: None });
    }
    desk.confirm(&format!("This will turn over to '{to}' what uses '{from}':"), &plan, &[]).await?;
    let record = Record { from: from.to_owned(), to: to.to_owned(), changes: plan.changes.clone() };
    let undo = desk.write_record(&record)?;
    let work = Work::new(desk.api, desk.reporter, desk.cancel, &plan);
    if let Err(failure) = work.carry_out().await {
        return Err(desk.gone_back(&work, from, Undo::Written(&undo), failure).await);
    }
    desk.finish(&work, &plan, from).await;
    Ok(Switched { changes: plan.changes, undo: Some(undo) })
}

/// Takes back what the undo file at `path` tells of, as far as nobody has changed it since.
///
/// # Errors
/// As [`run`], and when the file cannot be read.
pub async fn undo(desk: Desk<'_>, path: &Path) -> Result<Switched, Failure> {
    let record = Record::read(path)?;
    let _lock = desk.lock("switch", &[&record.from, &record.to])?;
    let system = System::read(desk.api).await?;
    let plan = Plan::back(&system, &record.changes);
    desk.ledger.plan(&record.from, Action::Switch, None, None);
    let missing: Vec<String> = plan
        .changes
        .iter()
        .filter(|change| system.qube(&change.new).is_none())
        .map(|change| format!("'{}' is not there any more", change.new))
        .collect();
    let plan = desk.prepare(&system, plan).await?;
    desk.announce(&plan, &missing)?;
    if plan.changes.is_empty() {
        desk.ledger.skip(&record.from, "nothing to take back");
        return Ok(Switched::default());
    }
    if desk.options.dry_run {
        return Ok(Switched { changes: plan.changes, undo: None });
    }
    let text = format!("This will turn over to '{}' again what used it:", record.from);
    desk.confirm(&text, &plan, &[]).await?;
    let work = Work::new(desk.api, desk.reporter, desk.cancel, &plan);
    if let Err(failure) = work.carry_out().await {
        return Err(desk.gone_back(&work, &record.from, Undo::Given(path), failure).await);
    }
    desk.finish(&work, &plan, &record.from).await;
    Ok(Switched { changes: plan.changes, undo: None })
}

/// Lets everything that uses the template `from` use `to`, and removes `from`.
///
/// # Errors
/// As [`run`], and when `from` cannot be removed; then everything that used it uses it again.
pub async fn retire(desk: Desk<'_>, from: &str, to: &str) -> Result<Switched, Failure> {
    let _lock = desk.lock("retire", &[from, to])?;
    let system = System::read(desk.api).await?;
    let plan = Plan::new(&system, from, to).map_err(Failure::Usage)?;
    let before = census::one(desk.api, from).await?.as_ref().and_then(Build::of_installed);
    desk.ledger.plan(from, Action::Remove, before, None);
    let mut obstacles = plan.left.clone();
    if let Some(old) = system.qube(from) {
        if !old.is_template() {
            return Err(Failure::Usage(format!("'{from}' is no template but of class {}", old.class)));
        }
        if !old.is_halted() {
            obstacles.push(format!("'{from}' is not shut down"));
        }
    }
    obstacles.extend(remove::rpm_owned(desk.api, &[from.to_owned()]).await?);
    let plan = desk.prepare(&system, plan).await?;
    desk.announce(&plan, &obstacles)?;
    if desk.options.dry_run {
        return Ok(Switched { changes: plan.changes, undo: None });
    }
    let removal = [format!("remove {from}")];
    let text = format!("This will turn over to '{to}' what uses '{from}', and remove '{from}':");
    desk.confirm(&text, &plan, &removal).await?;
    let record = Record { from: from.to_owned(), to: to.to_owned(), changes: plan.changes.clone() };
    let undo = if plan.changes.is_empty() { None } else { Some(desk.write_record(&record)?) };
    let work = Work::new(desk.api, desk.reporter, desk.cancel, &plan);
    let ended = match work.carry_out().await {
        Ok(()) => desk.cancel.or(desk.remove(from)).await,
        Err(failure) => Err(failure),
    };
    if let Err(failure) = ended {
        let undo = undo.as_deref().map_or(Undo::None, Undo::Written);
        return Err(desk.gone_back(&work, from, undo, failure).await);
    }
    // What it tells of cannot come back.
    if let Some(undo) = undo {
        let _ = std::fs::remove_file(undo);
    }
    desk.finish(&work, &plan, from).await;
    Ok(Switched { changes: plan.changes, undo: None })
}

/// The undo file of a piece of work.
enum Undo<'a> {
    None,
    /// Made by this run.
    Written(&'a Path),
    /// Named by somebody.
    Given(&'a Path),
}

impl Desk<'_> {
    fn lock(&self, purpose: &str, names: &[&str]) -> Result<Option<Lock>, Failure> {
        if self.options.dry_run {
            return Ok(None);
        }
        let lock = Lock::take(purpose).map_err(anyhow::Error::from)?;
        // Names that cannot be those of qubes are refused later, and are no names of files either.
        let names = names.iter().copied().filter(|name| TemplateName::new(name).is_ok());
        lock.templates(names).map_err(anyhow::Error::from)?;
        Ok(Some(lock))
    }

    /// Takes out of the way what need not be off, and says what may have been overlooked.
    async fn prepare(&self, system: &System, mut plan: Plan) -> Result<Plan, Failure> {
        let mut running = Vec::new();
        for name in plan.running {
            let is_disposable = system.qube(&name).is_some_and(|qube| qube.class == "DispVM");
            if is_disposable && self.flag(&name, "is_preload").await? == Some(true) {
                // dom0 throws it away and makes a new one; it need not be changed either.
                plan.changes.retain(|change| change.holder.as_ref() != Some(&name));
            } else {
                running.push(name);
            }
        }
        plan.running = running;
        if !system.unread.is_empty() {
            self.reporter.say(&Message::Warning(&format!(
                "no right to know what these use, so they stay as they are: {}",
                system.unread.join(", ")
            )));
        }
        Ok(plan)
    }

    /// A disposable template has to be one: asked only where disposables are to be made from it.
    async fn check_target(&self, system: &System, to: &str, plan: &Plan) -> Result<(), Failure> {
        let is_app = system.qube(to).is_some_and(|qube| qube.class == "AppVM");
        if !is_app || plan.changes.is_empty() || self.flag(to, "template_for_dispvms").await? != Some(false) {
            return Ok(());
        }
        Err(Failure::Usage(format!(
            "'{to}' is no template of disposables\nhelp: 'qvm-prefs {to} template_for_dispvms true' in dom0 makes it one"
        )))
    }

    /// A property that is true or false; `None` where dom0 does not tell.
    async fn flag(&self, qube: &str, name: &str) -> Result<Option<bool>, Failure> {
        match QubeApi::new(self.api, qube).property(name).await {
            Ok(property) => Ok(Some(property.value == "True")),
            Err(CallError::Denied(_) | CallError::Api { .. } | CallError::Empty(_)) => Ok(None),
            Err(broken) => Err(broken.into()),
        }
    }

    /// Writes down and shows what is going to happen.
    ///
    /// # Errors
    /// When something is in the way.
    fn announce(&self, plan: &Plan, obstacles: &[String]) -> Result<(), Failure> {
        self.note(plan, "planned");
        for left in &plan.left {
            self.reporter.say(&Message::Note(&format!("Stays as it is: {left}")));
        }
        let mut obstacles = obstacles.to_vec();
        let own = self.options.own.as_ref().filter(|own| plan.running.contains(own));
        if let Some(own) = own {
            obstacles.push(format!(
                "'{own}' is the qube that this command runs in, and has to be off for this; run it in dom0"
            ));
        } else if self.options.running == Running::Refuse && !plan.running.is_empty() {
            obstacles.push(format!(
                "these have to be off for this, and are not: {}\n\
                 help: shut them down, or let --shutdown do that; --restart starts them again afterwards",
                plan.running.join(", ")
            ));
        }
        obstacles.dedup();
        if obstacles.is_empty() {
            return Ok(());
        }
        if self.options.dry_run {
            plan.changes.iter().for_each(|change| {
                self.reporter.say(&Message::Note(&format!("would change {}", change.told())));
            });
        }
        for obstacle in &obstacles {
            self.reporter.say(&Message::Note(&format!("qvm-template: error: {obstacle}")));
        }
        Err(Failure::Told { cause: "obstacles", message: obstacles.join("\n") })
    }

    async fn confirm(&self, text: &str, plan: &Plan, more: &[String]) -> Result<(), Failure> {
        if !self.options.ask {
            return Ok(());
        }
        let stops = plan.running.iter().map(|name| format!("shut down {name}"));
        let lines: Vec<String> =
            stops.chain(plan.changes.iter().map(Change::told)).chain(more.iter().cloned()).collect();
        let asked = async { self.reporter.confirm(text, &lines).await.map_err(Failure::new) };
        if self.cancel.or(asked).await? { Ok(()) } else { Err(Failure::Declined) }
    }

    /// Writes the undo file: where the options say, else in the state directory under a name that is free.
    fn write_record(&self, record: &Record) -> Result<PathBuf, Failure> {
        if let Some(path) = &self.options.undo {
            record.write(path)?;
            return Ok(path.clone());
        }
        let taken = self.state.names(FOLDER).map_err(anyhow::Error::from)?;
        let named = |number: u32| format!("{}-to-{}.{number}.json", record.from, record.to);
        let name = (1..).map(named).find(|name| !taken.contains(name)).unwrap_or_default();
        self.state.write(&format!("{FOLDER}/{name}"), &record.to_bytes())?;
        Ok(self.state.path().join(FOLDER).join(name))
    }

    /// Goes back after a failure, and tells what is left of the work. An undo file of this run goes with it.
    async fn gone_back(&self, work: &Work<'_>, from: &str, undo: Undo<'_>, failure: Failure) -> Failure {
        self.ledger.failed(from, Trouble::of(&failure));
        let complete = work.go_back(matches!(failure, Failure::Interrupted(_))).await;
        match undo {
            Undo::Written(path) if complete => drop(std::fs::remove_file(path)),
            Undo::Written(path) | Undo::Given(path) if !complete => {
                let text =
                    format!("'qvm-template switch --undo {}' tries to take it back again", path.display());
                self.reporter.say(&Message::Warning(&text));
                self.ledger.tell("undo", json!(path.display().to_string()));
            }
            _ => {}
        }
        if complete {
            self.ledger.tell("changes", json!([]));
        }
        failure
    }

    async fn finish(&self, work: &Work<'_>, plan: &Plan, from: &str) {
        self.ledger.done(from, Ending::Done, None);
        self.note(plan, "done");
        match self.options.running {
            Running::Restart => work.start_again().await,
            Running::ShutDown | Running::Refuse => work.leave_off(),
        }
    }

    /// Removes a template; where dom0 gives no answer, the list decides.
    async fn remove(&self, name: &str) -> Result<(), Failure> {
        let Err(error) = QubeApi::new(self.api, name).remove().await else { return Ok(()) };
        if !system::list(self.api).await?.iter().any(|qube| qube.name == name) {
            return Ok(());
        }
        let in_use = error.is("QubesVMInUseError");
        let failed = anyhow::Error::from(error).context(format!("removing '{name}'"));
        Err(match in_use {
            true => Failure::new(format!(
                "{failed:#}\nhelp: something uses it that this qube may not see; \
                 'qvm-template switch' turns over what it may see"
            )),
            false => Failure::Failed(failed),
        })
    }

    /// Tells programs about every use.
    fn note(&self, plan: &Plan, outcome: &str) {
        let change = |change: &Change| {
            json!({
                "holder": change.holder,
                "property": change.property,
                "old": change.old,
                "new": change.new,
                "outcome": outcome,
            })
        };
        self.ledger.tell("changes", plan.changes.iter().map(change).collect::<Vec<Value>>().into());
        self.ledger.tell("running", json!(plan.running));
        self.ledger.tell("left", json!(plan.left));
    }
}
