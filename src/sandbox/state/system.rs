//! The system as a whole.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Pool, Qube};

/// A colour that qubes can have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// Its name.
    pub name: String,
    /// `0xRRGGBB`.
    pub color: String,
}

/// Calls that a population wants refused or failed. An absent part or `*` fits everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// The method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Its argument.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arg: Option<String>,
    /// The qube it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dest: Option<String>,
    /// Exception to answer: class and text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<(String, String)>,
    /// Exit status of the transport instead of an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<i32>,
    /// What the transport says on stderr.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<String>,
}

impl Rule {
    /// Whether the rule speaks of this call.
    #[must_use]
    pub fn fits(&self, method: &str, arg: &str, dest: &str) -> bool {
        let fits = |part: &Option<String>, value: &str| {
            part.as_deref().is_none_or(|wanted| wanted == "*" || wanted == value)
        };
        fits(&self.method, method) && fits(&self.arg, arg) && fits(&self.dest, dest)
    }
}

/// A whole system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct System {
    /// All qubes by name, dom0 among them.
    pub qubes: BTreeMap<String, Qube>,
    /// Properties of the system that were set; an empty value means none.
    pub globals: BTreeMap<String, String>,
    /// Storage pools in the order in which they came.
    pub pools: Vec<Pool>,
    /// Labels in the order of their numbers, the first is 1.
    pub labels: Vec<Label>,
    /// Kernels that qubes can boot.
    pub kernels: Vec<String>,
    /// Calls that policy is to refuse.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<Rule>,
    /// Calls that are to fail.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fail: Vec<Rule>,
    /// How many MiB of memory there are for qubes; none: enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// The number that the next domain gets from Xen.
    #[serde(default)]
    pub next_xid: u32,
}

impl System {
    /// The pool of this name.
    #[must_use]
    pub fn pool(&self, name: &str) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.name == name)
    }

    /// The lowest number that no qube has had.
    #[must_use]
    pub fn next_qid(&self) -> u32 {
        self.qubes.values().map(|qube| qube.qid).max().unwrap_or(0) + 1
    }
}
