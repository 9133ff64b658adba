//! The way back: of a new template its removal, of an existing one its volumes, features and properties.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::{Known, Transaction};
use crate::admin::CallError;
use crate::report::Message;

/// How long a qube may take to be off after it was killed.
const KILL_TIME: Duration = Duration::from_secs(30);
/// How often the state of a qube that goes down is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// How far [`Transaction::undo`] came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Undone {
    /// Whether everything is as it was.
    pub complete: bool,
    /// Whether the root volume has the new content.
    pub new_content: bool,
}

impl Transaction<'_> {
    /// Goes back, as far as that is possible, and says what is not. Signals do not stop this; each call has its time.
    pub async fn undo(mut self) -> Undone {
        if self.may_run && self.power_off_now().await {
            self.note_off();
        }
        if self.is_new { self.undo_new().await } else { self.undo_existing().await }
    }

    async fn undo_new(&self) -> Undone {
        match self.qube().remove().await {
            Ok(()) => Undone { complete: true, new_content: false },
            Err(error) => {
                self.warn(&format!("the unfinished template could not be removed: {error}"));
                Undone { complete: false, new_content: self.root_commits > 0 }
            }
        }
    }

    async fn undo_existing(&self) -> Undone {
        let root = self.revert("root", self.root_commits).await;
        if !root {
            return Undone { complete: false, new_content: true };
        }
        let mut complete = self.revert("private", self.private_commits).await;
        for (name, known) in self.features.iter().rev() {
            let done = match known {
                Known::Value(value) => self.qube().set_feature(name, value).await,
                Known::Unset => self.qube().remove_feature(name).await,
                Known::No => continue,
            };
            if let Err(error) = done {
                complete = false;
                self.warn(&format!("feature '{name}' could not be put back: {error}"));
            }
        }
        for property in self.properties.iter().rev() {
            if let Err(error) = self.put_property(property).await {
                complete = false;
                self.warn(&format!("property '{}' could not be put back: {error}", property.0));
            }
        }
        Undone { complete, new_content: false }
    }

    pub(super) async fn put_property(&self, (name, known): &(String, Known)) -> Result<(), CallError> {
        match known {
            Known::Value(value) => self.qube().set_property(name, value).await,
            Known::Unset => self.qube().reset_property(name).await,
            Known::No => Ok(()),
        }
    }

    /// Puts the content back that a volume had `commits` commits ago.
    async fn revert(&self, volume: &str, commits: usize) -> bool {
        if commits == 0 {
            return true;
        }
        let revisions = match self.qube().revisions(volume).await {
            Ok(revisions) => revisions,
            Err(error) => {
                self.warn(&format!("its earlier {volume} volume could not be looked for: {error}"));
                return false;
            }
        };
        let Some(revision) = revisions.len().checked_sub(commits).and_then(|place| revisions.get(place))
        else {
            self.warn(&format!("the storage pool has kept no earlier {volume} volume"));
            return false;
        };
        match self.qube().revert(volume, revision).await {
            Ok(()) => true,
            Err(error) => {
                self.warn(&format!("its earlier {volume} volume could not be put back: {error}"));
                false
            }
        }
    }

    /// Ends the qube at once and waits until it is off. Its answer counts for little, its state for all.
    pub async fn power_off_now(&self) -> bool {
        let answer = timeout(KILL_TIME, self.qube().kill()).await;
        let told = match answer {
            Ok(Ok(())) => true,
            Ok(Err(error)) => error.is("QubesVMNotStartedError") || error.is("QubesVMNotRunningError"),
            Err(_) => false,
        };
        match self.wait_until_off(KILL_TIME).await {
            Some(off) => off,
            None => told,
        }
    }

    /// Waits until the qube is off; `None` where its state may not be read.
    pub async fn wait_until_off(&self, time: Duration) -> Option<bool> {
        let end = Instant::now() + time;
        loop {
            match self.qube().power_state().await {
                Ok(state) if state == "Halted" => return Some(true),
                Ok(_) if Instant::now() >= end => return Some(false),
                Ok(_) => sleep(LOOK).await,
                Err(_) => return None,
            }
        }
    }

    pub(super) fn warn(&self, text: &str) {
        self.reporter.say(&Message::Warning(&format!("{}: {text}", self.name)));
    }
}
