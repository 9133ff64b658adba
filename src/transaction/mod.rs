//! A template that is being installed or replaced, and the way back.
//!
//! Every change goes through [`Transaction`], which notes what was there before. [`Transaction::commit`] ends it well;
//! [`Transaction::undo`] goes back: a new template is removed; an existing one gets its root and private volume, its
//! features and its properties as they were.
//!
//! # How an earlier content is found
//!
//! A pool that keeps revisions adds one at each commit (import, clear, the stop of a qube that ran), newest last, and
//! forgets the oldest beyond `revisions_to_keep`. After `n` commits of ours the content from before is the `n`-th from
//! the end, if there are so many. A pool that keeps none, or fewer, has nothing there, and then there is no way back:
//! what was written stays, and the failure says so. Nothing is asked beforehand, so that a policy that does not
//! grant these calls is never offended by an installation that succeeds.

mod undo;

pub use self::undo::Undone;
use crate::admin::{AdminApi, CallError, QubeApi, bounded, system};
use crate::cancel::Cancel;
use crate::qrexec::Pending;
use crate::report::{Failure, Message, Reporter};
use crate::template::TemplateName;
use crate::volume::{self, ImportError};

/// Label of new templates.
const LABEL: &str = "black";
/// How many reading calls are under way at a time.
const READS: usize = 8;

/// Changes to one template, which can be taken back.
pub struct Transaction<'a> {
    api: &'a dyn AdminApi,
    reporter: &'a dyn Reporter,
    cancel: &'a Cancel,
    name: &'a TemplateName,
    is_new: bool,
    /// Features from before, of those that are known: `None` where there was none.
    before: Vec<(String, Option<String>)>,
    features: Vec<(String, Known)>,
    properties: Vec<(String, Known)>,
    root_commits: usize,
    private_commits: usize,
    may_run: bool,
}

/// A value from before a change.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Known {
    /// This one.
    Value(String),
    /// It was not set.
    Unset,
    /// Nobody knows.
    No,
}
impl std::fmt::Debug for Transaction<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction")
            .field("name", &self.name)
            .field("is_new", &self.is_new)
            .finish_non_exhaustive()
    }
}

impl<'a> Transaction<'a> {
    /// Begins with a template that does not exist, by creating it.
    ///
    /// # Errors
    /// When it cannot be created. Then it does not exist.
    pub async fn create(
        api: &'a dyn AdminApi,
        reporter: &'a dyn Reporter,
        cancel: &'a Cancel,
        name: &'a TemplateName,
        pool: Option<&str>,
    ) -> Result<Self, Failure> {
        let own = Self::new(api, reporter, cancel, name, true);
        let creating = async { Ok(system::create_template(api, name.as_str(), LABEL, pool).await?) };
        match cancel.or(creating).await {
            // Nobody heard the answer: it may be there.
            Err(stop @ Failure::Interrupted(_)) => {
                let there =
                    system::list(api).await.is_ok_and(|all| all.iter().any(|q| q.name == name.as_str()));
                if there {
                    own.undo().await;
                }
                Err(stop)
            }
            Err(error) => Err(error),
            Ok(()) => Ok(own),
        }
    }

    /// Begins with a template that exists. Reads the `features` that may be changed.
    ///
    /// # Errors
    /// When they cannot be read. Nothing was changed.
    pub async fn replace(
        api: &'a dyn AdminApi,
        reporter: &'a dyn Reporter,
        cancel: &'a Cancel,
        name: &'a TemplateName,
        features: &[&str],
    ) -> Result<Self, Failure> {
        let mut own = Self::new(api, reporter, cancel, name, false);
        let qube = QubeApi::new(api, name.as_str());
        let reads = features
            .iter()
            .map(|feature| Box::pin(async move { qube.feature(feature).await }) as Pending<'_, _>)
            .collect();
        for (feature, value) in features.iter().zip(bounded(READS, reads).await) {
            own.before.push(((*feature).to_owned(), value?));
        }
        Ok(own)
    }

    fn new(
        api: &'a dyn AdminApi,
        reporter: &'a dyn Reporter,
        cancel: &'a Cancel,
        name: &'a TemplateName,
        is_new: bool,
    ) -> Self {
        Self {
            api,
            reporter,
            cancel,
            name,
            is_new,
            before: Vec::new(),
            features: Vec::new(),
            properties: Vec::new(),
            root_commits: 0,
            private_commits: 0,
            may_run: false,
        }
    }

    /// Whether the template did not exist before.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Name of the template.
    #[must_use]
    pub fn name(&self) -> &'a TemplateName {
        self.name
    }

    /// The qube.
    #[must_use]
    pub fn qube(&self) -> QubeApi<'a> {
        QubeApi::new(self.api, self.name.as_str())
    }

    /// Says something about the template.
    pub fn say(&self, text: &str) {
        self.reporter.say(&Message::Qube(self.name.as_str(), text));
    }

    /// A feature as it was before, where that was read.
    #[must_use]
    pub fn feature_before(&self, name: &str) -> Option<&str> {
        self.before.iter().find(|(have, _)| have == name).and_then(|(_, value)| value.as_deref())
    }

    /// Whether this transaction set a feature.
    #[must_use]
    pub fn has_set(&self, feature: &str) -> bool {
        self.features.iter().any(|(have, _)| have == feature)
    }

    /// Imports an image into the root volume.
    ///
    /// # Errors
    /// When the volume has its old content, or nobody knows whether it has the new one.
    pub async fn import<T, E>(
        &mut self,
        size: u64,
        write: impl FnOnce(&mut dyn std::io::Write) -> Result<T, E> + Send + 'static,
    ) -> Result<T, ImportError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        let done =
            volume::import_with_size(self.api, self.name.as_str(), "root", size, self.cancel, write).await;
        // An answer that never came may have been a good one: going back looks for the revision, which is then there.
        self.root_commits += usize::from(matches!(done, Ok(_) | Err(ImportError::Unknown)));
        done
    }

    /// Empties the private volume.
    ///
    /// # Errors
    /// When it could not be emptied.
    pub async fn clear_private(&mut self) -> Result<(), Failure> {
        self.stop_if_asked()?;
        self.qube().clear_volume("private").await?;
        self.private_commits += 1;
        Ok(())
    }

    /// Sets a feature.
    ///
    /// # Errors
    /// When dom0 refuses.
    pub async fn set_feature(&mut self, name: &str, value: &str) -> Result<(), Failure> {
        self.stop_if_asked()?;
        self.note_feature(name);
        Ok(self.qube().set_feature(name, value).await?)
    }

    /// Removes a feature.
    ///
    /// # Errors
    /// When dom0 refuses.
    pub async fn remove_feature(&mut self, name: &str) -> Result<(), CallError> {
        self.note_feature(name);
        self.qube().remove_feature(name).await
    }

    fn note_feature(&mut self, name: &str) {
        if self.has_set(name) {
            return;
        }
        let known = match self.before.iter().find(|(have, _)| have == name) {
            Some((_, Some(value))) => Known::Value(value.clone()),
            Some((_, None)) => Known::Unset,
            None if self.is_new => Known::Unset,
            None => Known::No,
        };
        self.features.push((name.to_owned(), known));
    }

    /// Sets a property; an empty value is none.
    ///
    /// # Errors
    /// When dom0 refuses, or does not tell what it was before.
    pub async fn set_property(&mut self, name: &str, value: &str) -> Result<(), Failure> {
        self.stop_if_asked()?;
        if !self.properties.iter().any(|(have, _)| have == name) {
            let known = self.property_before(name).await?;
            self.properties.push((name.to_owned(), known));
        }
        Ok(self.qube().set_property(name, value).await?)
    }

    async fn property_before(&self, name: &str) -> Result<Known, Failure> {
        if self.is_new {
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
        let Some(place) = self.properties.iter().position(|(have, _)| have == name) else { return Ok(()) };
        self.put_property(&self.properties[place]).await?;
        self.properties.swap_remove(place);
        Ok(())
    }

    /// Starts the qube, and returns when it runs.
    ///
    /// # Errors
    /// When it does not.
    pub async fn start(&mut self) -> Result<Result<(), CallError>, Failure> {
        self.may_run = true;
        let qube = self.qube();
        let started = self.cancel.or(async { Ok(qube.start().await) }).await?;
        if started.is_err() {
            // dom0 takes a qube that fails to start down again; a refused call did nothing at all.
            self.may_run = false;
        }
        Ok(started)
    }

    /// Runs `work` unless or until a signal comes.
    ///
    /// # Errors
    /// When a signal came.
    pub async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Result<T, Failure> {
        self.cancel.or(async { Ok(work.await) }).await
    }

    /// Says that the qube, which ran, is off: what it wrote was committed.
    pub fn note_off(&mut self) {
        self.may_run = false;
        self.root_commits += usize::from(self.root_commits > 0);
        self.private_commits += usize::from(self.private_commits > 0);
    }

    fn stop_if_asked(&self) -> Result<(), Failure> {
        self.cancel.check()
    }

    /// Ends well: everything stays.
    pub fn commit(self) {
        drop(self);
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::admin::fake::{FakeAdmin, Fault};
    use crate::report::fake::Heard;

    struct Scene {
        api: Rc<FakeAdmin>,
        heard: Heard,
        cancel: Cancel,
        name: TemplateName,
    }

    fn scene(exists: bool) -> Scene {
        let qubes: &[_] = if exists { &[("t", "TemplateVM", "Halted")] } else { &[] };
        let api = Rc::new(FakeAdmin::with(qubes));
        if let Some(qube) = api.qubes.borrow_mut().get_mut("t") {
            qube.features.insert("template-version".into(), "1".into());
            qube.features.insert("selinux".into(), "1".into());
            qube.properties.insert("netvm".into(), "sys-firewall".into());
            qube.volumes.insert("root".into(), b"old root".to_vec());
            qube.volumes.insert("private".into(), b"old private".to_vec());
        }
        Scene { api, heard: Heard::default(), cancel: Cancel::never(), name: TemplateName::new("t").unwrap() }
    }

    fn run<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
    }

    const FEATURES: [&str; 3] = ["template-version", "selinux", "gui"];

    impl Scene {
        async fn change(&self) -> Transaction<'_> {
            let mut own = Transaction::replace(&self.api, &self.heard, &self.cancel, &self.name, &FEATURES)
                .await
                .unwrap();
            own.import(3, |out| out.write_all(b"new")).await.unwrap();
            own.clear_private().await.unwrap();
            own.set_property("netvm", "").await.unwrap();
            own.set_property("kernel", "").await.unwrap();
            own.set_feature("template-version", "2").await.unwrap();
            own.set_feature("gui", "1").await.unwrap();
            own.remove_feature("selinux").await.unwrap();
            own
        }
    }

    #[test]
    fn an_existing_template_gets_back_all_it_had() {
        let scene = scene(true);
        let before = format!("{:?}", without_revisions(&scene));
        let undone = run(async { scene.change().await.undo().await });
        assert_eq!(undone, Undone { complete: true, new_content: false });
        assert_eq!(format!("{:?}", without_revisions(&scene)), before);
        assert_eq!(scene.heard.lines(), [""; 0]);
    }

    #[test]
    fn also_after_it_ran_as_long_as_the_pool_kept_it() {
        let scene = scene(true);
        let undone = run(async {
            let mut own = scene.change().await;
            own.start().await.unwrap().unwrap();
            own.undo().await
        });
        assert!(undone.complete);
        let qube = scene.api.qubes.borrow()["t"].clone();
        assert_eq!(
            (qube.state.as_str(), qube.volumes["root"].as_slice()),
            ("Halted", b"old root".as_slice())
        );
        assert!(scene.api.changed().iter().any(|call| call.starts_with("admin.vm.Kill")));
    }

    #[test]
    fn without_a_way_back_the_new_content_is_named_and_nothing_else_is_touched() {
        let scene = scene(true);
        scene.api.fail("admin.vm.volume.ListSnapshots", "", Fault::Denied);
        let undone = run(async { scene.change().await.undo().await });
        assert_eq!(undone, Undone { complete: false, new_content: true });
        assert_eq!(scene.api.qubes.borrow()["t"].features["template-version"], "2");
        assert!(scene.heard.lines()[0].contains("admin.vm.volume.ListSnapshots+root to 't'"));
    }

    #[test]
    fn a_new_template_is_removed() {
        let scene = scene(false);
        let undone = run(async {
            let own = Transaction::create(&scene.api, &scene.heard, &scene.cancel, &scene.name, None).await;
            own.unwrap().undo().await
        });
        assert!(undone.complete && scene.api.qubes.borrow().is_empty());
        assert_eq!(
            scene.api.changed(),
            ["admin.vm.Create.TemplateVM dom0 name=t label=black", "admin.vm.Remove t"]
        );
    }

    #[test]
    fn an_import_that_fails_leaves_nothing_to_undo() {
        let scene = scene(true);
        let undone = run(async {
            let mut own =
                Transaction::replace(&scene.api, &scene.heard, &scene.cancel, &scene.name, &FEATURES)
                    .await
                    .unwrap();
            own.import(4, |out| out.write_all(b"new")).await.unwrap_err();
            own.undo().await
        });
        assert!(undone.complete);
        assert_eq!(scene.api.changed().len(), 1);
    }

    fn without_revisions(scene: &Scene) -> Vec<crate::admin::fake::FakeQube> {
        let mut qubes: Vec<_> = scene.api.qubes.borrow().values().cloned().collect();
        qubes.iter_mut().for_each(|qube| qube.revisions.clear());
        qubes
    }
}
