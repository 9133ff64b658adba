use std::rc::Rc;

use super::*;
use crate::admin::fake::{FakeAdmin, Fault};
use crate::report::fake::Heard;

struct Scene {
    api: Rc<FakeAdmin>,
    heard: Heard,
    cancel: Cancel,
    name: TemplateName,
    extras: Extras<'static>,
    place: tempfile::TempDir,
    state: Directory,
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
    let (place, name) = (tempfile::tempdir().unwrap(), TemplateName::new("t").unwrap());
    let state = Directory::at(place.path());
    let (heard, cancel, extras) = (Heard::default(), Cancel::never(), Extras::new(None));
    Scene { api, heard, cancel, name, extras, place, state }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

const FEATURES: [&str; 3] = ["template-version", "selinux", "gui"];

impl Scene {
    fn desk(&self) -> Desk<'_> {
        let Self { heard, cancel, extras, state, .. } = self;
        Desk { api: &self.api, reporter: heard, cancel, extras, state: Some(state) }
    }

    async fn replace(&self) -> Transaction<'_> {
        let notes = Journal::new("t", "upgrade", false);
        Transaction::replace(self.desk(), &self.name, &FEATURES, notes).await.unwrap()
    }

    async fn change(&self) -> Transaction<'_> {
        let mut own = self.replace().await;
        own.import(3, put(b"new")).await.unwrap();
        own.imported().await.unwrap();
        own.clear_private().await.unwrap();
        own.step(Step::Settings, "settings").unwrap();
        own.set_property("netvm", "").await.unwrap();
        own.set_property("kernel", "").await.unwrap();
        own.set_feature("template-version", "2").await.unwrap();
        own.set_feature("gui", "1").await.unwrap();
        own.set_feature("never-read-before", "1").await.unwrap();
        own.remove_feature("selinux").await.unwrap();
        own
    }

    fn journal(&self) -> Option<Journal> {
        match Store::new(&self.state).read("t")? {
            crate::journal::Entry::Told(journal) => Some(*journal),
            crate::journal::Entry::Damaged => panic!("{:?}", self.place),
        }
    }

    fn without_revisions(&self) -> Vec<crate::admin::fake::FakeQube> {
        let mut qubes: Vec<_> = self.api.qubes.borrow().values().cloned().collect();
        qubes.iter_mut().for_each(|qube| (qube.revisions, qube.commits) = Default::default());
        qubes
    }
}

/// A writer of these bytes that tells the package's files in time.
fn put(
    bytes: &'static [u8],
) -> impl FnOnce(&mut dyn Sink, Noter) -> io::Result<TemplateFiles> + Send + 'static {
    move |out, noter| {
        let files = TemplateFiles { conf: Some(b"gui=1".to_vec()), ..TemplateFiles::default() };
        noter(&files)?;
        out.write_all(bytes)?;
        Ok(files)
    }
}

#[test]
fn an_existing_template_gets_back_all_it_had() {
    let scene = scene(true);
    let before = format!("{:?}", scene.without_revisions());
    run(async {
        let own = scene.change().await;
        assert_eq!(scene.journal().unwrap().step, Step::Settings);
        assert!(own.undo().await.is_complete());
    });
    assert_eq!(format!("{:?}", scene.without_revisions()), before);
    assert_eq!((scene.heard.lines(), scene.journal()), (Vec::new(), None));
}

#[test]
fn another_process_goes_back_by_the_journal_alone() {
    let scene = scene(true);
    let before = format!("{:?}", scene.without_revisions());
    run(async {
        drop(scene.change().await);
        let journal = scene.journal().unwrap();
        assert_eq!(
            journal.goal.files,
            Some(Files::from(&TemplateFiles { conf: Some(b"gui=1".to_vec()), ..TemplateFiles::default() }))
        );
        // Going back may be cut short as well.
        drop(Transaction::resume(scene.desk(), &scene.name, journal.clone()).undo().await);
        assert!(Transaction::resume(scene.desk(), &scene.name, journal).undo().await.is_complete());
    });
    assert_eq!(format!("{:?}", scene.without_revisions()), before);
}

#[test]
fn also_after_it_ran_and_what_it_set_for_itself_goes() {
    let scene = scene(true);
    let before = format!("{:?}", scene.without_revisions());
    run(async {
        let mut own = scene.replace().await;
        own.import(3, put(b"new")).await.unwrap();
        own.imported().await.unwrap();
        own.start().await.unwrap().unwrap();
        scene.api.qubes.borrow_mut().get_mut("t").unwrap().features.insert("os".into(), "Linux".into());
        assert!(own.undo().await.is_complete());
    });
    assert_eq!(format!("{:?}", scene.without_revisions()), before);
    assert!(scene.api.changed().iter().any(|call| call.starts_with("admin.vm.Kill")));
}

#[test]
fn without_a_way_back_nothing_is_touched_and_the_journal_stays() {
    let scene = scene(true);
    scene.api.fail("admin.vm.volume.ListSnapshots", "", Fault::Denied);
    run(async {
        let own = scene.change().await;
        assert!(!own.undo().await.is_complete());
    });
    assert_eq!(scene.api.qubes.borrow()["t"].features["template-version"], "2");
    assert!(scene.heard.lines()[0].contains("admin.vm.volume.ListSnapshots+root to 't'"));
    assert!(scene.journal().is_some());
}

#[test]
fn a_new_template_is_written_down_and_removed() {
    let scene = scene(false);
    run(async {
        let notes = Journal::new("t", "install", true);
        let own = Transaction::create(scene.desk(), &scene.name, None, notes).await.unwrap();
        assert_eq!(scene.journal().unwrap().step, Step::Creating);
        assert!(own.undo().await.is_complete());
    });
    assert!(scene.api.qubes.borrow().is_empty() && scene.journal().is_none());
}

#[test]
fn a_commit_leaves_no_journal() {
    let scene = scene(false);
    run(async {
        let notes = Journal::new("t", "install", true);
        let own = Transaction::create(scene.desk(), &scene.name, None, notes).await.unwrap();
        own.commit().await;
    });
    assert_eq!(scene.journal(), None);
}

#[test]
fn an_import_that_fails_leaves_nothing_to_undo() {
    let scene = scene(true);
    run(async {
        let mut own = scene.replace().await;
        own.import(4, put(b"new")).await.unwrap_err();
        assert!(own.undo().await.is_complete());
    });
    assert_eq!(scene.api.changed().len(), 1);
}
