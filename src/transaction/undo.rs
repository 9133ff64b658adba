//! The way back: of a new template its removal, of an existing one its volumes, features and properties.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::evidence::Fate;
use super::{READS, Transaction};
use crate::admin::{CallError, Pending, bounded};
use crate::journal::{Known, Step};

/// How long a qube may take to be off after it was killed.
const KILL_TIME: Duration = Duration::from_secs(30);
/// How often the state of a qube that goes down is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// How far [`Transaction::undo`] came.
#[derive(Debug)]
pub enum Undone<'a> {
    /// Everything is as it was, and nothing is left to be done.
    Complete,
    /// The old content is gone, so that the only way is forward: the template has the new image.
    NoWayBack(Transaction<'a>),
    /// Something could not be put back; what was said as a warning. The journal is still there.
    Partly(Transaction<'a>),
}

impl Undone<'_> {
    /// Whether everything is as it was.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        matches!(self, Self::Complete)
    }
}

impl<'a> Transaction<'a> {
    /// Goes back, as far as that is possible, and says what is not. Signals do not stop this; each call has its time.
    pub async fn undo(mut self) -> Undone<'a> {
        if self.notes.may_run && self.power_off_now().await {
            self.note_off();
        }
        if self.is_new() {
            return match self.qube().remove().await {
                Ok(()) => {
                    self.forget();
                    Undone::Complete
                }
                Err(error) => {
                    self.warn(&format!("the unfinished template could not be removed: {error}"));
                    Undone::Partly(self)
                }
            };
        }
        let (root, private) = (self.fate("root").await, self.fate("private").await);
        match (&root, &private) {
            (Fate::Gone, _) | (_, Fate::Gone) => {
                self.warn("the storage pool has kept no earlier content");
                return Undone::NoWayBack(self);
            }
            (Fate::Unknown, _) | (_, Fate::Unknown) => {
                self.warn("nobody knows whether its volumes were replaced");
                return Undone::Partly(self);
            }
            _ => {}
        }
        let root_is_back = self.revert("root", root).await;
        let mut done = root_is_back && self.revert("private", private).await;
        if root_is_back {
            done &= self.restore_features().await;
            for property in self.notes.properties.iter().rev() {
                if let Err(error) = self.put_property(property).await {
                    done = false;
                    self.warn(&format!("property '{}' could not be put back: {error}", property.0));
                }
            }
        }
        done &= self.tidy().await;
        if done {
            self.forget();
            return Undone::Complete;
        }
        Undone::Partly(self)
    }

    /// What became of a volume.
    async fn fate(&mut self, volume: &str) -> Fate {
        let (qube, kept) = (self.qube(), self.notes.volume(volume).clone());
        if !kept.touched {
            return Fate::Untouched;
        }
        let revisions = match kept.revisions {
            Some(_) => match qube.revisions(volume).await {
                Ok(revisions) => Some(revisions),
                Err(error) => {
                    self.warn(&format!("its earlier {volume} volume could not be looked for: {error}"));
                    None
                }
            },
            None => None,
        };
        let info = match kept.info {
            Some(_) if !kept.replaced => qube.volume(volume).await.ok(),
            _ => None,
        };
        kept.fate(revisions.as_deref(), info.as_ref())
    }

    /// Puts the old content of a volume back, where it was replaced.
    async fn revert(&mut self, volume: &str, fate: Fate) -> bool {
        if let Fate::Replaced(revision) = fate {
            let kept = self.notes.volume(volume);
            (kept.replaced, kept.reverting, kept.old) = (true, true, Some(revision.clone()));
            let reverted = match self.write() {
                Ok(()) => self.qube().revert(volume, &revision).await.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            if let Err(error) = reverted {
                self.warn(&format!("its earlier {volume} volume could not be put back: {error}"));
                return false;
            }
        }
        self.notes.volume(volume).touched = false;
        if let Err(error) = self.write() {
            self.warn(&error.to_string());
        }
        true
    }

    /// Gives every feature that is not as it was its old value.
    async fn restore_features(&self) -> bool {
        if self.set.is_empty() && self.notes.step < Step::Settings {
            return true;
        }
        let qube = self.qube();
        let mut wanted: Vec<(String, Option<String>)> =
            self.notes.features.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        if self.notes.all_features && self.notes.step >= Step::Starting {
            match qube.features().await {
                Ok(now) => {
                    let added = now.into_iter().filter(|name| !self.notes.features.contains_key(name));
                    wanted.extend(added.map(|name| (name, None)));
                }
                Err(error) => self.warn(&format!("its features could not be looked at: {error}")),
            }
        }
        let reads = wanted
            .iter()
            .map(|(name, _)| Box::pin(async move { qube.feature(name).await }) as Pending<'_, _>)
            .collect();
        let now = bounded(READS, reads).await;
        let mut done = true;
        for ((name, value), now) in wanted.iter().zip(now) {
            if matches!(&now, Ok(now) if now == value) {
                continue;
            }
            let put = match value {
                Some(value) => qube.set_feature(name, value).await,
                None => qube.remove_feature(name).await,
            };
            if let Err(error) = put {
                done = false;
                self.warn(&format!("feature '{name}' could not be put back: {error}"));
            }
        }
        done
    }

    pub(super) async fn put_property(&self, (name, known): &(String, Known)) -> Result<(), CallError> {
        match known {
            Known::Value(value) => self.qube().set_property(name, value).await,
            Known::Unset => self.qube().reset_property(name).await,
            Known::No => Ok(()),
        }
    }

    /// Takes back what was only for the time of the work.
    pub(super) async fn tidy(&mut self) -> bool {
        let qube = self.qube();
        let mut done = true;
        for volume in ["root", "private"] {
            let kept = self.notes.volume(volume);
            let Some(keep) = kept.raised.and(kept.info.as_ref()).map(|info| info.keep) else { continue };
            match qube.keep_revisions(volume, keep).await {
                Ok(()) => self.notes.volume(volume).raised = None,
                Err(error) => {
                    done = false;
                    self.warn(&format!("volume '{volume}' keeps more revisions than before: {error}"));
                }
            }
        }
        done
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
}
