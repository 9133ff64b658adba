//! What qrexec's policy is told about the system.

use std::collections::{BTreeMap, BTreeSet};

use super::super::state::{Class, Power, System};

/// A picture of the system, taken at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// All qubes by name, dom0 among them.
    pub qubes: BTreeMap<String, QubeFacts>,
}

/// One qube in the picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QubeFacts {
    /// Its class.
    pub class: Class,
    /// Its name for ever.
    pub uuid: String,
    /// Its tags.
    pub tags: BTreeSet<String>,
    /// Whether it runs.
    pub state: Power,
    /// Its template, for classes that have one.
    pub template: Option<String>,
    /// The qube that its disposables are made from.
    pub default_dispvm: Option<String>,
    /// Whether disposables can be made from it.
    pub template_for_dispvms: bool,
    /// The qube that shows its windows and its questions.
    pub guivm: Option<String>,
    /// Whether it is hidden from menus.
    pub internal: bool,
    /// Its icon's name.
    pub icon: String,
}

impl Facts {
    /// The picture of this system.
    #[must_use]
    pub fn of(system: &System) -> Self {
        let global = |name: &str| system.globals.get(name).filter(|value| !value.is_empty()).cloned();
        let qubes = system.qubes.iter().map(|(name, qube)| {
            let vm = |property: &str, default: Option<String>| match qube.property(property) {
                Some(value) => Some(value.to_owned()).filter(|value| !value.is_empty()),
                None => default,
            };
            let label = qube.property("label").unwrap_or("black");
            let facts = QubeFacts {
                class: qube.class,
                uuid: qube.uuid.clone(),
                tags: qube.tags.clone(),
                state: qube.state,
                template: vm("template", None),
                default_dispvm: vm("default_dispvm", global("default_dispvm")),
                template_for_dispvms: qube.flag("template_for_dispvms"),
                guivm: vm("guivm", global("default_guivm")),
                internal: qube.features.get("internal").is_some_and(|value| !value.is_empty()),
                icon: format!("{}-{label}", qube.class.as_str().to_lowercase()),
            };
            (name.clone(), facts)
        });
        Self { qubes: qubes.collect() }
    }
}
