//! What the policy is told about the qubes.

use std::collections::BTreeMap;

use serde::Deserialize;

/// One qube, as the policy sees it.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Domain {
    /// Its tags.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Its class.
    #[serde(rename = "type")]
    pub class: String,
    /// Whether disposables can be made from it.
    #[serde(default)]
    pub template_for_dispvms: bool,
    /// What its own disposables are made from.
    #[serde(default)]
    pub default_dispvm: Option<String>,
    /// Its power state.
    pub power_state: String,
    /// The qube that shows questions to the user.
    #[serde(default)]
    pub guivm: Option<String>,
    /// The qube that relays calls to a remote qube.
    #[serde(default)]
    pub relayvm: Option<String>,
    /// Its name for ever.
    pub uuid: String,
    /// Whether it is kept out of lists that people choose from.
    #[serde(default)]
    pub internal: Option<String>,
}

/// All qubes by name.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Facts {
    /// Every qube, dom0 among them.
    pub domains: BTreeMap<String, Domain>,
}

impl Facts {
    /// The qube that a name or `uuid:...` stands for.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<(&str, &Domain)> {
        let found = match name.strip_prefix("uuid:") {
            Some(uuid) => self.domains.iter().find(|(_, domain)| domain.uuid == uuid),
            None => self.domains.get_key_value(name),
        };
        found.map(|(name, domain)| (name.as_str(), domain))
    }

    /// What disposables of `source` are made from.
    #[must_use]
    pub fn dispvm_template(&self, source: &str) -> Option<String> {
        let (_, domain) = self.find(source)?;
        domain.default_dispvm.as_ref().map(|template| format!("@dispvm:{template}"))
    }

    /// Whether two words name the same qube, one of them perhaps by its uuid.
    pub(super) fn same(&self, one: &str, other: &str) -> bool {
        let uuid_of = |name: &str| self.domains.get(name).map(|domain| domain.uuid.as_str());
        match (one.strip_prefix("uuid:"), other.strip_prefix("uuid:")) {
            (Some(uuid), None) => uuid_of(other) == Some(uuid),
            (None, Some(uuid)) => uuid_of(one) == Some(uuid),
            _ => one == other,
        }
    }
}
