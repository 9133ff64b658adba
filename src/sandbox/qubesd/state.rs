//! What one request at a time may read and change.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::super::guest::{BEGINNING, Guest};
use super::super::state::{Qube, System};
use super::events::{Event, Events};
use super::{Content, Facts, Failure, SeeAll, Visibility};

/// The system and what is known of it only while the server runs.
#[derive(Debug)]
pub(super) struct State {
    pub(super) system: System,
    /// Whether the system differs from what was saved.
    pub(super) modified: bool,
    pub(super) visibility: Arc<dyn Visibility>,
    pub(super) events: Events,
    /// The directory of the sandbox.
    pub(super) dir: PathBuf,
    /// Qubes that a call is starting right now.
    pub(super) starting: HashSet<String>,
    /// When the agent of a started qube answers; qubes whose agent never does are not in it.
    pub(super) agents: HashMap<String, Instant>,
    /// Qubes (by uuid) for whose end the server can no longer wait: an earlier wait timed out.
    pub(super) broken_waiters: HashSet<String>,
    /// Volumes (qube, name) that may be copied, by the token that says so.
    pub(super) clones: HashMap<String, (String, String)>,
    /// What guests have put into their `/features-request`.
    pub(super) feature_requests: HashMap<String, BTreeMap<String, String>>,
}

impl State {
    pub(super) fn new(system: System, dir: &Path) -> Self {
        Self {
            system,
            modified: false,
            visibility: Arc::new(SeeAll),
            events: Events::default(),
            dir: dir.to_owned(),
            starting: HashSet::new(),
            agents: HashMap::new(),
            broken_waiters: HashSet::new(),
            clones: HashMap::new(),
            feature_requests: HashMap::new(),
        }
    }

    /// The system, to be changed.
    pub(super) fn system_mut(&mut self) -> &mut System {
        self.modified = true;
        &mut self.system
    }

    /// The qube of this name.
    pub(super) fn qube(&self, name: &str) -> Result<&Qube, Failure> {
        self.system.qubes.get(name).ok_or_else(|| Failure::no_such_qube(name))
    }

    /// The qube of this name, to be changed.
    pub(super) fn qube_mut(&mut self, name: &str) -> Result<&mut Qube, Failure> {
        self.modified = true;
        self.system.qubes.get_mut(name).ok_or_else(|| Failure::no_such_qube(name))
    }

    /// Tells listeners of something that happened to a qube.
    pub(super) fn tell(&mut self, qube: &str, event: &str, values: &[(&'static str, &str)]) {
        self.tell_of(Some(qube), event, values);
    }

    /// Tells listeners of something that happened to the system.
    pub(super) fn tell_all(&mut self, event: &str, values: &[(&'static str, &str)]) {
        self.tell_of(None, event, values);
    }

    fn tell_of(&mut self, subject: Option<&str>, event: &str, values: &[(&'static str, &str)]) {
        let values = values.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        let event = Event { subject: subject.map(str::to_owned), name: event.to_owned(), values };
        let Self { events, visibility, system, .. } = self;
        events.tell(visibility, || Facts::of(system), &event);
    }

    /// Sets a feature and tells listeners.
    pub(super) fn set_feature(&mut self, qube: &str, name: &str, value: &str) -> Result<(), Failure> {
        let old = self.qube(qube)?.features.get(name).map(str::to_owned);
        let mut values = vec![("feature", name), ("value", value)];
        if let Some(old) = &old {
            values.push(("oldvalue", old));
        }
        self.tell(qube, &format!("domain-feature-pre-set:{name}"), &values);
        self.qube_mut(qube)?.features.set(name, value);
        self.tell(qube, &format!("domain-feature-set:{name}"), &values);
        Ok(())
    }

    /// Removes a feature and tells listeners.
    pub(super) fn remove_feature(&mut self, qube: &str, name: &str) -> Result<(), Failure> {
        if self.qube(qube)?.features.get(name).is_none() {
            return Err(Failure::new(
                "QubesFeatureNotFoundError",
                format_args!("Feature not set for domain {qube}: {name}"),
            ));
        }
        self.tell(qube, &format!("domain-feature-pre-delete:{name}"), &[("feature", name)]);
        self.qube_mut(qube)?.features.remove(name);
        self.tell(qube, &format!("domain-feature-delete:{name}"), &[("feature", name)]);
        Ok(())
    }

    /// Whether policy lets a caller list a qube.
    pub(super) fn may_list(&self, source: &str, qubes: &[&str]) -> Vec<bool> {
        if source == "dom0" {
            return vec![true; qubes.len()];
        }
        let facts = Facts::of(&self.system);
        qubes.iter().map(|qube| self.visibility.allows(&facts, source, "admin.vm.List", "", qube)).collect()
    }

    /// How the system that a qube boots behaves.
    pub(super) fn guest(&self, qube: &str) -> Option<Guest> {
        let content = self.content(qube, "root")?;
        Some(Guest::of(&content.beginning(BEGINNING)))
    }

    /// What a volume holds: for one that starts as a copy of the template's, the template's.
    pub(super) fn content(&self, qube: &str, volume: &str) -> Option<Content> {
        let owner = self.system.qubes.get(qube)?;
        let found = owner.volume(volume)?;
        if found.snap_on_start {
            return self.content(owner.property("template")?, volume);
        }
        Some(Content::of(&self.dir, found))
    }

    /// The value of a feature, the qube's own or its template's.
    pub(super) fn feature_with_template(&self, qube: &str, feature: &str) -> Option<&str> {
        let own = self.system.qubes.get(qube)?;
        match own.features.get(feature) {
            Some(value) => Some(value),
            None => self.feature_with_template(own.property("template")?, feature),
        }
    }
}
