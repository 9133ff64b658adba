//! Carrying a plan out, and going back when a step fails.

use std::cell::RefCell;

use super::plan::{Change, Plan};
use crate::admin::{AdminApi, CallError, QubeApi, system};
use crate::cancel::Cancel;
use crate::report::{Failure, Message, Reporter};

/// What has been done so far.
#[derive(Debug, Default)]
struct Done {
    /// Changes that were made, or may have been: a call that is cut off may still take effect.
    changed: Vec<Change>,
    /// Qubes that were shut down, or are about to be.
    stopped: Vec<String>,
}

/// A plan that is being carried out.
pub(super) struct Work<'a> {
    api: &'a dyn AdminApi,
    reporter: &'a dyn Reporter,
    cancel: &'a Cancel,
    plan: &'a Plan,
    done: RefCell<Done>,
}

impl<'a> Work<'a> {
    pub(super) fn new(
        api: &'a dyn AdminApi,
        reporter: &'a dyn Reporter,
        cancel: &'a Cancel,
        plan: &'a Plan,
    ) -> Self {
        Self { api, reporter, cancel, plan, done: RefCell::default() }
    }

    /// Shuts down what has to be off, and makes the changes. After a failure [`Self::go_back`] is for the caller to do.
    pub(super) async fn carry_out(&self) -> Result<(), Failure> {
        self.cancel.or(self.steps()).await
    }

    async fn steps(&self) -> Result<(), Failure> {
        self.shut_down().await?;
        for change in &self.plan.changes {
            self.done.borrow_mut().changed.push(change.clone());
            if let Err(error) = self.set(change, &change.new).await {
                if is_refusal(&error) {
                    self.done.borrow_mut().changed.pop();
                }
                return Err(explained(change, error));
            }
            self.say(&format!("Changed {}", change.told()));
        }
        Ok(())
    }

    /// Shuts down all that has to be off. What provides network to another one of them goes after it: dom0 refuses the other
    /// way round.
    async fn shut_down(&self) -> Result<(), Failure> {
        let mut waiting: Vec<&String> = self.plan.running.iter().collect();
        while !waiting.is_empty() {
            let before = waiting.len();
            let mut refused = None;
            let mut left = Vec::new();
            for name in waiting {
                self.say(&format!("Shutting down '{name}'..."));
                self.done.borrow_mut().stopped.push(name.clone());
                match self.shut_down_one(name).await {
                    Ok(()) => {}
                    Err(error) if is_refusal(&error) && !error.is("QubesVMShutdownTimeoutError") => {
                        self.done.borrow_mut().stopped.pop();
                        refused.get_or_insert((name, error));
                        left.push(name);
                    }
                    Err(error) => return Err(not_off(name, error)),
                }
            }
            if let Some((name, error)) = refused.filter(|_| left.len() == before) {
                return Err(not_off(name, error));
            }
            waiting = left;
        }
        Ok(())
    }

    /// Shuts one qube down. Where dom0 gives no answer, as it does after a shutdown that took too long, the list decides.
    async fn shut_down_one(&self, name: &str) -> Result<(), CallError> {
        match QubeApi::new(self.api, name).shutdown_and_wait().await {
            Ok(()) => Ok(()),
            Err(error) if error.is("QubesVMNotStartedError") => Ok(()),
            Err(error) => match system::list(self.api).await?.iter().find(|qube| qube.name == name) {
                // A disposable is gone by then.
                None => Ok(()),
                Some(qube) if qube.is_halted() => Ok(()),
                Some(_) => Err(error),
            },
        }
    }

    async fn set(&self, change: &Change, value: &str) -> Result<(), CallError> {
        match &change.holder {
            None => system::set_property(self.api, change.property, value).await,
            Some(holder) => QubeApi::new(self.api, holder).set_property(change.property, value).await,
        }
    }

    /// Puts back what was changed and, unless somebody wants us to stop at once, starts what was shut down. Whether everything is
    /// as it was but for qubes that are off.
    pub(super) async fn go_back(&self, interrupted: bool) -> bool {
        let done = self.done.take();
        let mut complete = true;
        for change in done.changed.iter().rev() {
            if let Err(error) = self.set(change, &change.old).await {
                self.warn(&format!("{} could not be taken back: {error}", change.told()));
                complete = false;
            }
        }
        if interrupted {
            self.tell_stopped(&done.stopped);
        } else {
            self.start(done.stopped).await;
        }
        complete
    }

    /// Starts what was shut down, what was shut down last first.
    pub(super) async fn start_again(&self) {
        let stopped = std::mem::take(&mut self.done.borrow_mut().stopped);
        self.start(stopped).await;
    }

    /// Says which qubes stay off.
    pub(super) fn leave_off(&self) {
        self.tell_stopped(&self.done.borrow().stopped);
    }

    fn tell_stopped(&self, stopped: &[String]) {
        if !stopped.is_empty() {
            self.say(&format!("Shut down, and left so: {}", stopped.join(", ")));
        }
    }

    async fn start(&self, stopped: Vec<String>) {
        if stopped.is_empty() {
            return;
        }
        let starting = async {
            let there = system::list(self.api).await?;
            for name in stopped.iter().rev().filter(|name| there.iter().any(|qube| qube.name == **name)) {
                self.say(&format!("Starting '{name}'..."));
                if let Err(error) = QubeApi::new(self.api, name).start().await {
                    self.warn(&format!("'{name}' was shut down and does not start again: {error}"));
                }
            }
            Ok(())
        };
        if self.cancel.or(starting).await.is_err() {
            self.tell_stopped(&stopped);
        }
    }

    fn say(&self, text: &str) {
        self.reporter.say(&Message::Note(text));
    }

    fn warn(&self, text: &str) {
        self.reporter.say(&Message::Warning(text));
    }
}

/// Whether a call certainly had no effect.
fn is_refusal(error: &CallError) -> bool {
    matches!(error, CallError::Denied(_) | CallError::Api { .. })
}

fn explained(change: &Change, error: CallError) -> Failure {
    let no_disposables = error.to_string().contains("template_for_dispvms");
    let failed = anyhow::Error::from(error).context(format!("changing {}", change.told()));
    match no_disposables {
        true => Failure::new(format!(
            "{failed:#}\nhelp: 'qvm-prefs {} template_for_dispvms true' in dom0 lets disposables be made from it",
            change.new
        )),
        false => Failure::Failed(failed),
    }
}

fn not_off(name: &str, error: CallError) -> Failure {
    Failure::Failed(anyhow::Error::from(error).context(format!("shutting down '{name}'")))
}
