//! Carrying a plan out, and undoing what can be undone.

use std::cell::RefCell;

use super::Mode;
use super::dependencies::System;
use super::plan::{Change, NewValue, Plan};
use crate::admin::{AdminApi, CallError, Pending, QubeApi, bounded, system};
use crate::cancel::Cancel;
use crate::ledger::{Ending, Ledger, Trouble};
use crate::report::{Failure, Message, Reporter};

/// The feature that marks a dummy.
const DUMMY_MARK: &str = "template-dummy";
/// Name of the first dummy.
const DUMMY: &str = "dummy";
/// Colour of a dummy.
const DUMMY_LABEL: &str = "red";
/// How many qubes are killed at a time.
const AT_A_TIME: usize = 8;
/// What to do about a template that rpm installed.
pub(super) const RPM_HELP: &str = "help: run 'qvm-template migrate-from-rpmdb' in dom0 first";

/// What has been done so far.
#[derive(Debug, Default)]
struct Journal {
    made_dummy: Option<String>,
    changed: Vec<Change>,
    removed: Vec<String>,
}

/// Carries `plan` out. When a step fails or a signal comes, undoes what has not become impossible.
pub(super) async fn carry_out(
    api: &dyn AdminApi,
    reporter: &dyn Reporter,
    cancel: &Cancel,
    system: &System,
    plan: &Plan,
    mode: Mode,
    ledger: &Ledger,
) -> Result<(), Failure> {
    let journal = RefCell::new(Journal::default());
    let steps = Steps { api, reporter, system, plan, journal: &journal };
    let result = cancel.or(steps.run(mode)).await;
    for name in &journal.borrow().removed {
        ledger.done(name, Ending::Done, None);
    }
    if let Err(failure) = &result {
        // Of those that are left the first is the one that it failed at.
        let left = |name: &&String| !journal.borrow().removed.contains(name);
        if let Some(name) = plan.order.iter().find(left) {
            ledger.failed(name, Trouble::of(failure));
        }
    }
    if result.is_err() {
        steps.undo().await;
    }
    result
}

/// Shows what is going to happen.
pub(super) fn show(reporter: &dyn Reporter, system: &System, plan: &Plan) {
    let say = |text: String| reporter.say(&Message::Note(&text));
    for name in &plan.stops {
        say(format!("  shut down   {name}"));
    }
    for change in &plan.changes {
        let holder = change.holder.as_deref().unwrap_or("(system)");
        say(format!(
            "  change      {} of {holder}: {} -> {}",
            change.property,
            change.old,
            change.new.shown()
        ));
    }
    for name in &plan.order {
        let qube = system.qube(name);
        let class = qube.map_or("", |qube| qube.class.as_str());
        let running = if qube.is_some_and(|qube| !qube.is_halted()) { ", running" } else { "" };
        say(format!("  remove      {name} ({class}{running})"));
    }
}

/// Shows who uses a qube that dom0 refused to remove.
pub(super) fn show_users(reporter: &dyn Reporter, system: &System, name: &str) {
    let uses = system.uses(name);
    if uses.is_empty() {
        return;
    }
    let say = |text: String| reporter.say(&Message::Note(&text));
    say(format!("VM {name} cannot be removed. It is in use as:"));
    for user in uses {
        match user.holder {
            Some(holder) => say(format!(" - {} for {holder}", user.property)),
            None => say(format!(" - global property {}", user.property)),
        }
    }
}

/// Says that dom0 refused to remove a qube, in the original's words.
pub(super) fn not_removed(reporter: &dyn Reporter, error: CallError) -> Failure {
    let CallError::Api { .. } = error else { return error.into() };
    let text = error.to_string();
    reporter.say(&Message::Note(&format!("qvm-template: error: {text}")));
    if text.starts_with("VM installed by package manager") {
        reporter.say(&Message::Note(RPM_HELP));
        return Failure::Told { cause: "not-removed", message: format!("{text}\n{RPM_HELP}") };
    }
    Failure::Told { cause: "not-removed", message: text }
}

impl NewValue {
    fn shown(self) -> &'static str {
        match self {
            Self::Dummy => "a dummy",
            Self::Nothing => "nothing",
            Self::Default => "its default",
        }
    }
}

struct Steps<'a> {
    api: &'a dyn AdminApi,
    reporter: &'a dyn Reporter,
    system: &'a System,
    plan: &'a Plan,
    journal: &'a RefCell<Journal>,
}

impl Steps<'_> {
    async fn run(&self, mode: Mode) -> Result<(), Failure> {
        for name in &self.plan.stops {
            self.say(&format!("Shutting down '{name}'..."));
            QubeApi::new(self.api, name).shutdown_and_wait().await?;
        }
        self.kill(&self.plan.kills_first).await?;
        let needed = self.plan.changes.iter().any(|change| change.new == NewValue::Dummy);
        let dummy = if needed { self.dummy().await? } else { String::new() };
        for change in &self.plan.changes {
            self.change(change, &dummy).await?;
        }
        let made = self.journal.borrow().made_dummy.clone().filter(|_| mode == Mode::Purge);
        // Disposables that were killed may be gone by now.
        let is_disposable = |name: &str| self.system.qube(name).is_some_and(|qube| qube.class == "DispVM");
        let left = |name: &&String| !self.plan.kills_first.contains(name) || !is_disposable(name);
        let goes: Vec<String> = self.plan.goes.iter().filter(left).cloned().chain(made.clone()).collect();
        self.kill(&goes).await?;
        let gone = self.gone_by_themselves().await?;
        for name in self.plan.order.iter().filter(|name| !gone.contains(name)) {
            if let Err(error) = self.qube(name).remove().await {
                if error.is("QubesVMInUseError") {
                    show_users(self.reporter, &System::read(self.api).await?, name);
                }
                return Err(not_removed(self.reporter, error));
            }
            self.journal.borrow_mut().removed.push(name.clone());
        }
        if let Some(made) = made {
            self.qube(&made).remove().await.map_err(|error| not_removed(self.reporter, error))?;
            self.journal.borrow_mut().made_dummy = None;
        }
        Ok(())
    }

    /// The first of `dummy`, `dummy-1`, ... that is a dummy or free; made where it is free.
    async fn dummy(&self) -> Result<String, Failure> {
        let mut number = 0;
        let name = loop {
            let name = if number == 0 { DUMMY.to_owned() } else { format!("{DUMMY}-{number}") };
            if self.system.qube(&name).is_none() {
                break name;
            }
            let mark = match self.qube(&name).feature(DUMMY_MARK).await {
                Ok(mark) => mark,
                Err(error) if error.is_denied() => None,
                Err(error) => return Err(error.into()),
            };
            if mark.as_deref() == Some("1") && !self.plan.removes(&name) {
                return Ok(name);
            }
            number += 1;
        };
        system::create_template(self.api, &name, DUMMY_LABEL, None).await?;
        self.journal.borrow_mut().made_dummy = Some(name.clone());
        self.qube(&name).set_feature(DUMMY_MARK, "1").await?;
        Ok(name)
    }

    async fn change(&self, change: &Change, dummy: &str) -> Result<(), Failure> {
        let property = change.property;
        let value = if change.new == NewValue::Dummy { dummy } else { "" };
        // Written down first: a call that is cut off may still take effect.
        self.journal.borrow_mut().changed.push(change.clone());
        let Some(holder) = &change.holder else {
            self.say(&format!("Global property '{property}' set to ''."));
            return Ok(system::set_property(self.api, property, value).await?);
        };
        if change.new == NewValue::Default {
            self.qube(holder).reset_property(property).await?;
            self.say(&format!("Property '{property}' of '{holder}' set to its default."));
        } else {
            self.qube(holder).set_property(property, value).await?;
            self.say(&format!("Property '{property}' of '{holder}' set to '{value}'."));
        }
        Ok(())
    }

    async fn kill(&self, names: &[String]) -> Result<(), Failure> {
        let one =
            |name: &String| -> Pending<'_, Result<(), CallError>> { Box::pin(self.kill_one(name.clone())) };
        let results = bounded(AT_A_TIME, names.iter().map(one).collect()).await;
        let mut failed = Vec::new();
        for (name, error) in
            names.iter().zip(results).filter_map(|(name, result)| Some((name, result.err()?)))
        {
            let text = format!("Error: Failed to kill: {name}: {error}");
            self.say(&text);
            failed.push(text);
        }
        if failed.is_empty() {
            return Ok(());
        }
        Err(Failure::Told { cause: "not-killed", message: failed.join("\n") })
    }

    /// Kills one qube; one that is off is no error. Without an answer the qube's state decides.
    async fn kill_one(&self, name: String) -> Result<(), CallError> {
        let qube = QubeApi::new(self.api, &name);
        match qube.kill().await {
            Err(error) if error.is("QubesVMNotStartedError") || error.is("QubesVMNotRunningError") => Ok(()),
            Err(CallError::Empty(call)) => match qube.power_state().await {
                Ok(state) if state == "Halted" => Ok(()),
                _ => Err(CallError::Empty(call)),
            },
            other => other,
        }
    }

    /// Disposables go when they are killed.
    async fn gone_by_themselves(&self) -> Result<Vec<String>, Failure> {
        let is_disposable =
            |name: &&String| self.system.qube(name).is_some_and(|qube| qube.class == "DispVM");
        if !self.plan.order.iter().any(|name| is_disposable(&name)) {
            return Ok(Vec::new());
        }
        let left = system::list(self.api).await?;
        let gone = self.plan.order.iter().filter(|name| !left.iter().any(|qube| qube.name == **name));
        let gone: Vec<String> = gone.cloned().collect();
        self.journal.borrow_mut().removed.extend(gone.clone());
        Ok(gone)
    }

    /// Puts back what was changed, as far as what it names and whose it is are still there.
    async fn undo(&self) {
        let journal = self.journal.take();
        let is_there = |name: &String| !journal.removed.contains(name);
        let mut left = false;
        for change in journal.changed.iter().rev() {
            if !is_there(&change.old) || !change.holder.as_ref().is_none_or(is_there) {
                left |= change.holder.as_ref().is_none_or(is_there) && change.new == NewValue::Dummy;
                continue;
            }
            let result = match &change.holder {
                None => system::set_property(self.api, change.property, &change.old).await,
                Some(holder) => self.qube(holder).set_property(change.property, &change.old).await,
            };
            if let Err(error) = result {
                let holder = change.holder.as_deref().unwrap_or("the system");
                let (property, old) = (change.property, &change.old);
                self.say(&format!(
                    "Warning: '{property}' of {holder} could not be set back to '{old}': {error}"
                ));
                left |= change.new == NewValue::Dummy;
            }
        }
        if let Some(dummy) = journal.made_dummy.filter(|_| !left)
            && let Err(error) = self.qube(&dummy).remove().await
        {
            self.say(&format!("Warning: '{dummy}' could not be removed: {error}"));
        }
        if !journal.removed.is_empty() {
            self.say(&format!("Removed before that: {}", journal.removed.join(", ")));
        }
    }

    fn qube<'q>(&'q self, name: &'q str) -> QubeApi<'q> {
        QubeApi::new(self.api, name)
    }

    fn say(&self, text: &str) {
        self.reporter.say(&Message::Note(text));
    }
}
