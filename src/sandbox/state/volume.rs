//! Volumes of a qube.

use serde::{Deserialize, Serialize};

/// The volumes of every qube of this machine, in the order of `admin.vm.volume.List`.
pub const VOLUME_NAMES: [&str; 4] = ["root", "private", "volatile", "kernel"];

/// A content that a volume had before its last commits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// Its name in `admin.vm.volume.ListSnapshots`.
    pub id: String,
    /// How long it was.
    pub size: u64,
}

/// One volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// `root`, `private`, `volatile` or `kernel`.
    pub name: String,
    /// The pool that holds it.
    pub pool: String,
    /// Its name in the pool.
    pub vid: String,
    /// Its length in bytes.
    pub size: u64,
    /// Whether the qube may write to it.
    pub rw: bool,
    /// Whether what the qube wrote stays when it stops.
    pub save_on_stop: bool,
    /// Whether it starts as a copy of the template's volume.
    pub snap_on_start: bool,
    /// How many revisions are kept; -1: no snapshots at all.
    pub revisions_to_keep: i64,
    /// Kept revisions, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revisions: Vec<Revision>,
    /// Whether what is written to it is encrypted with a key that nobody keeps; none: as the pool says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ephemeral: Option<bool>,
    /// A usage to tell instead of the measured one, until the content changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<u64>,
    /// Whether the qube that runs has it open for writing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dirty: bool,
    /// How many contents have been committed to it.
    #[serde(default)]
    pub commits: u64,
}
