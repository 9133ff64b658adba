//! One qube.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Class, Features, Power, Volume};

/// One qube, with what was set explicitly; defaults belong to the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Qube {
    /// Its class.
    pub class: Class,
    /// Its number; dom0 is 0.
    pub qid: u32,
    /// Its name for ever.
    pub uuid: String,
    /// Properties that were set, as the Admin API writes them; an empty value means none.
    pub properties: BTreeMap<String, String>,
    /// Features, in the order in which they came.
    #[serde(default)]
    pub features: Features,
    /// Tags, sorted.
    #[serde(default)]
    pub tags: BTreeSet<String>,
    /// Volumes in the order of `admin.vm.volume.List`; none for dom0.
    #[serde(default)]
    pub volumes: Vec<Volume>,
    /// Whether it runs.
    #[serde(default)]
    pub state: Power,
    /// Xen's number while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xid: Option<u32>,
    /// Seconds since 1970 at which it was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<u64>,
}

impl Qube {
    /// The volume of this name.
    #[must_use]
    pub fn volume(&self, name: &str) -> Option<&Volume> {
        self.volumes.iter().find(|volume| volume.name == name)
    }

    /// The volume of this name, to be changed.
    pub fn volume_mut(&mut self, name: &str) -> Option<&mut Volume> {
        self.volumes.iter_mut().find(|volume| volume.name == name)
    }

    /// A property that was set, empty for none; absent when it is at its default.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties.get(name).map(String::as_str)
    }

    /// Whether a boolean property was set to true.
    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        self.property(name) == Some("True")
    }
}
