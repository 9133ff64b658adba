//! A template that is being installed or replaced, and the way back.
//!
//! Every change goes through [`Transaction`], which notes what was there before, in a [`Journal`] that outlives the
//! process. [`Transaction::commit`] ends it well; [`Transaction::undo`] goes back: a new template is removed; an existing
//! one gets its root and private volume, its features and its properties as they were. Where the storage pool has kept no
//! earlier content there is no way back, and [`crate::recover::complete`] goes the other way: the new template is
//! completed. Both work as well in another process after this one was cut short ([`Transaction::resume`]).

pub mod evidence;
mod prepare;
mod undo;

use std::io;

pub use self::evidence::Fate;
pub use self::undo::Undone;
use crate::admin::{AdminApi, CallError, QubeApi, system};
use crate::cancel::Cancel;
use crate::checkpoint;
use crate::extras::Extras;
use crate::io::zeros::Sink;
use crate::journal::{Files, Journal, Known, Step, Store};
use crate::payload::TemplateFiles;
use crate::report::{Failure, Message, Reporter};
use crate::state::Directory;
use crate::template::TemplateName;
use crate::volume::{self, ImportError};

/// Label of new templates.
const LABEL: &str = "black";
/// How many reading calls are under way at a time.
const READS: usize = 8;

/// What the changes of one run have in common.
#[derive(Clone, Copy)]
pub struct Desk<'a> {
    /// The way to dom0.
    pub api: &'a dyn AdminApi,
    /// Whoever listens.
    pub reporter: &'a dyn Reporter,
    /// What ends it early.
    pub cancel: &'a Cancel,
    /// Calls that it can do without.
    pub extras: &'a Extras<'a>,
    /// Where journals are kept; without it there are none, and nothing outlives the process.
    pub state: Option<&'a Directory>,
}

impl std::fmt::Debug for Desk<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").field("state", &self.state).finish_non_exhaustive()
    }
}

/// Changes to one template, which can be taken back.
#[derive(Debug)]
pub struct Transaction<'a> {
    desk: Desk<'a>,
    name: &'a TemplateName,
    notes: Journal,
    /// Features that were set.
    set: Vec<String>,
}

/// Writes down the files of a package, just before the last of its image is sent.
pub type Noter = Box<dyn FnOnce(&TemplateFiles) -> io::Result<()> + Send>;

impl<'a> Transaction<'a> {
    /// Begins with a template that does not exist, by creating it.
    ///
    /// # Errors
    /// When it cannot be created. Then it does not exist.
    pub async fn create(
        desk: Desk<'a>,
        name: &'a TemplateName,
        pool: Option<&str>,
        notes: Journal,
    ) -> Result<Self, Failure> {
        let mut own = Self { desk, name, notes, set: Vec::new() };
        own.step(Step::Creating, "creating")?;
        let creating = async { Ok(system::create_template(desk.api, name.as_str(), LABEL, pool).await?) };
        match desk.cancel.or(creating).await {
            // Nobody heard the answer: it may be there.
            Err(stop @ Failure::Interrupted(_)) => {
                let there = system::list(desk.api)
                    .await
                    .map_or(true, |all| all.iter().any(|q| q.name == name.as_str()));
                if there {
                    drop(own.undo().await)
                } else {
                    own.forget()
                }
                Err(stop)
            }
            Err(error) => {
                own.forget();
                Err(error)
            }
            Ok(()) => {
                checkpoint::reach("created");
                Ok(own)
            }
        }
    }

    /// Begins with a template that exists. Reads the `features` that may be changed, what its volumes have, and has
    /// dom0 keep that where it can.
    ///
    /// # Errors
    /// When the features cannot be read. Nothing was changed.
    pub async fn replace(
        desk: Desk<'a>,
        name: &'a TemplateName,
        features: &[&str],
        notes: Journal,
    ) -> Result<Self, Failure> {
        let mut own = Self { desk, name, notes, set: Vec::new() };
        own.read_features(features).await?;
        own.read_volumes().await?;
        if desk.state.is_some() {
            own.step(Step::Begun, "journal-begun")?;
            if let Err(error) = own.keep_more().await {
                own.undo().await;
                return Err(error);
            }
        }
        Ok(own)
    }

    /// Goes on where a process was cut short.
    #[must_use]
    pub fn resume(desk: Desk<'a>, name: &'a TemplateName, notes: Journal) -> Self {
        Self { desk, name, notes, set: Vec::new() }
    }

    /// Whether the template did not exist before.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.notes.is_new
    }

    /// What it is made of, for somebody else to go on.
    #[must_use]
    pub fn into_parts(self) -> (Desk<'a>, Journal) {
        (self.desk, self.notes)
    }

    /// What is written down.
    #[must_use]
    pub fn notes(&self) -> &Journal {
        &self.notes
    }

    /// Name of the template.
    #[must_use]
    pub fn name(&self) -> &'a TemplateName {
        self.name
    }

    /// The qube.
    #[must_use]
    pub fn qube(&self) -> QubeApi<'a> {
        QubeApi::new(self.desk.api, self.name.as_str())
    }

    /// Whoever listens.
    #[must_use]
    pub fn reporter(&self) -> &'a dyn Reporter {
        self.desk.reporter
    }

    /// Says something about the template.
    pub fn say(&self, text: &str) {
        self.desk.reporter.say(&Message::Qube(self.name.as_str(), text));
    }

    fn warn(&self, text: &str) {
        self.desk.reporter.say(&Message::Warning(&format!("{}: {text}", self.name)));
    }

    /// A feature as it was before, where that was read.
    #[must_use]
    pub fn feature_before(&self, name: &str) -> Option<&str> {
        self.notes.features.get(name).and_then(Option::as_deref)
    }

    /// Whether this transaction set a feature.
    #[must_use]
    pub fn has_set(&self, feature: &str) -> bool {
        self.set.iter().any(|have| have == feature)
    }

    /// Writes down that `step` comes next.
    ///
    /// # Errors
    /// When that is not possible. Then the step must not be taken.
    pub fn step(&mut self, step: Step, place: &str) -> Result<(), Failure> {
        self.notes.step = step;
        self.write()?;
        checkpoint::reach(place);
        Ok(())
    }

    fn write(&self) -> Result<(), Failure> {
        let Some(state) = self.desk.state else { return Ok(()) };
        Ok(Store::new(state).write(&self.notes)?)
    }

    /// Nothing is left to be done.
    fn forget(&self) {
        if let Some(state) = self.desk.state
            && let Err(error) = Store::new(state).remove(self.name.as_str())
        {
            self.warn(&format!("{error:#}"));
        }
    }

    /// Imports an image into the root volume. `write` gets, beside the way to dom0, whom to tell the package's files
    /// before it sends the last of the image.
    ///
    /// # Errors
    /// When the volume has its old content, or nobody knows whether it has the new one.
    pub async fn import<E>(
        &mut self,
        size: u64,
        write: impl FnOnce(&mut dyn Sink, Noter) -> Result<TemplateFiles, E> + Send + 'static,
    ) -> Result<TemplateFiles, ImportError<E>>
    where
        E: Send + 'static + From<io::Error>,
    {
        self.notes.root.touched = true;
        self.notes.goal.size = Some(size);
        self.step(Step::Importing, "importing")
            .map_err(|error| ImportError::Data(E::from(io::Error::other(error.to_string()))))?;
        let noter = self.noter();
        let write = move |out: &mut dyn Sink| write(out, noter);
        let done = volume::import_with_size(
            self.desk.api,
            self.name.as_str(),
            "root",
            size,
            self.desk.cancel,
            write,
        )
        .await;
        match &done {
            Ok(files) => self.notes.goal.files = Some(Files::from(files)),
            // The end was never sent, or dom0 refused in words.
            Err(
                ImportError::Data(_)
                | ImportError::Empty
                | ImportError::Call(CallError::Denied(_) | CallError::Api { .. }),
            ) => self.notes.root.touched = false,
            // An answer that never came may have been a good one: going back looks for the revision.
            Err(_) => {}
        }
        done
    }

    fn noter(&self) -> Noter {
        let (state, mut notes) = (self.desk.state.cloned(), self.notes.clone());
        Box::new(move |files| {
            notes.goal.files = Some(Files::from(files));
            if let Some(state) = state {
                Store::new(&state).write(&notes).map_err(|error| io::Error::other(format!("{error:#}")))?;
            }
            checkpoint::reach("image-checked");
            Ok(())
        })
    }

    /// After the import: where the old root volume is now.
    ///
    /// # Errors
    /// When that cannot be written down.
    pub async fn imported(&mut self) -> Result<(), Failure> {
        self.note_old("root").await;
        self.step(Step::Imported, "imported")
    }

    /// Empties the private volume.
    ///
    /// # Errors
    /// When it could not be emptied.
    pub async fn clear_private(&mut self) -> Result<(), Failure> {
        self.stop_if_asked()?;
        self.notes.private.touched = true;
        self.step(Step::Clearing, "clearing-private")?;
        let qube = self.qube();
        let cleared = self.desk.cancel.or(async { Ok(qube.clear_volume("private").await) }).await?;
        if let Err(error) = cleared {
            // What dom0 refuses in words it did not do.
            self.notes.private.touched = !matches!(error, CallError::Denied(_) | CallError::Api { .. });
            return Err(error.into());
        }
        self.note_old("private").await;
        self.write()?;
        checkpoint::reach("private-cleared");
        Ok(())
    }

    /// Sets a feature.
    ///
    /// # Errors
    /// When dom0 refuses.
    pub async fn set_feature(&mut self, name: &str, value: &str) -> Result<(), Failure> {
        self.stop_if_asked()?;
        if !self.is_new() && !self.notes.features.contains_key(name) {
            let before = self.qube().feature(name).await?;
            self.notes.features.insert(name.to_owned(), before);
            self.write()?;
        }
        if !self.has_set(name) {
            self.set.push(name.to_owned());
        }
        let qube = self.qube();
        self.desk.cancel.or(async { Ok(qube.set_feature(name, value).await?) }).await
    }

    /// Removes a feature, one that was read before.
    ///
    /// # Errors
    /// When dom0 refuses.
    pub async fn remove_feature(&mut self, name: &str) -> Result<(), CallError> {
        self.qube().remove_feature(name).await
    }

    /// Sets a property; an empty value is none.
    ///
    /// # Errors
    /// When dom0 refuses, or does not tell what it was before.
    pub async fn set_property(&mut self, name: &str, value: &str) -> Result<(), Failure> {
        self.stop_if_asked()?;
        if !self.notes.properties.iter().any(|(have, _)| have == name) {
            let known = self.property_before(name).await?;
            self.notes.properties.push((name.to_owned(), known));
            self.write()?;
        }
        let qube = self.qube();
        self.desk.cancel.or(async { Ok(qube.set_property(name, value).await?) }).await
    }

    async fn property_before(&self, name: &str) -> Result<Known, Failure> {
        if self.is_new() {
            return Ok(Known::Unset);
        }
        // A template that is replaced is ours from now on, whether or not all else succeeds.
        if name == "installed_by_rpm" {
            return Ok(Known::No);
        }
        match self.qube().property(name).await {
            Ok(property) if property.is_default => Ok(Known::Unset),
            Ok(property) => Ok(Known::Value(property.value)),
            // Without it the user's network would be lost even where all goes well.
            Err(error) if error.is_denied() && name != "netvm" => Ok(Known::No),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives a property that this transaction set its old value again.
    ///
    /// # Errors
    /// When dom0 refuses.
    pub async fn restore_property(&mut self, name: &str) -> Result<(), CallError> {
        let Some(property) = self.notes.properties.iter().find(|(have, _)| have == name) else {
            return Ok(());
        };
        self.put_property(property).await
    }

    /// Starts the qube, and returns when it runs.
    ///
    /// # Errors
    /// When it does not.
    pub async fn start(&mut self) -> Result<Result<(), CallError>, Failure> {
        for volume in ["root", "private"] {
            let kept = self.notes.volume(volume);
            if kept.touched && !kept.replaced {
                self.note_old(volume).await;
                // From now on there may be revisions of other contents.
                self.notes.volume(volume).replaced = true;
            }
        }
        self.notes.may_run = true;
        self.step(Step::Starting, "starting")?;
        let qube = self.qube();
        let started = self.desk.cancel.or(async { Ok(qube.start().await) }).await?;
        match started {
            // dom0 takes a qube that fails to start down again; a refused call did nothing at all.
            Err(CallError::Denied(_) | CallError::Api { .. }) => self.notes.may_run = false,
            // Nobody knows.
            Err(_) => {}
            Ok(()) => checkpoint::reach("started"),
        }
        Ok(started)
    }

    /// Runs `work` unless or until a signal comes.
    ///
    /// # Errors
    /// When a signal came.
    pub async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Result<T, Failure> {
        self.desk.cancel.or(async { Ok(work.await) }).await
    }

    /// Says that the qube, which ran, is off.
    pub fn note_off(&mut self) {
        self.notes.may_run = false;
        checkpoint::reach("off");
    }

    fn stop_if_asked(&self) -> Result<(), Failure> {
        self.desk.cancel.check()
    }

    /// Ends well: everything stays. What dom0 was told for the time of the work is taken back.
    pub async fn commit(mut self) {
        if let Err(error) = self.step(Step::Committed, "committed") {
            self.warn(&error.to_string());
        }
        if self.tidy().await {
            self.forget();
        }
    }
}

#[cfg(test)]
mod tests;
