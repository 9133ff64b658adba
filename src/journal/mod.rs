//! What is being done to a template, written down before each step that changes the system.
//!
//! There is one file for each template under work, `journal/NAME.json` in the state directory; it goes when the work is
//! done. So a file that is there while nobody holds the template's lock tells of work that was cut short: by a power
//! cut, by a kill, by a machine that ran out of memory. [`crate::recover`] finishes or undoes that.
//!
//! A step is written down *before* it is taken. Whether a step that was written down took place is for
//! [`crate::recover`] to find out from dom0; what can be found there and what cannot, see [`crate::transaction::evidence`].

mod store;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::store::{Entry, Store, unfinished};
use crate::payload::TemplateFiles;

/// Version of the form of the file.
pub const VERSION: u32 = 1;

/// Work on one template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// [`VERSION`] of whoever wrote it.
    pub version: u32,
    /// The template.
    pub template: String,
    /// The command, such as `upgrade`.
    pub command: String,
    /// When the work began, seconds since 1970.
    pub begun: i64,
    /// Whether the template did not exist before.
    pub is_new: bool,
    /// The step that is being taken, or was the last to be.
    pub step: Step,
    /// Whether the first start is left out.
    pub skip_start: bool,
    /// Whether the qube may have been started by this work, and not be off yet.
    pub may_run: bool,
    /// Features as they were: `None` where there was none.
    pub features: BTreeMap<String, Option<String>>,
    /// Whether these are all that there were.
    pub all_features: bool,
    /// Properties that this work sets, and what they were, in this order.
    pub properties: Vec<(String, Known)>,
    /// The root volume.
    pub root: Kept,
    /// The private volume.
    pub private: Kept,
    /// What there is going to be, once that is known.
    pub goal: Goal,
}

/// How far the work has come. Each is written down before the step that it names is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Nothing was changed.
    Begun,
    /// The qube is made.
    Creating,
    /// dom0 is told to keep more revisions for the time of the work.
    KeepingMore,
    /// The root volume is imported.
    Importing,
    /// The root volume has the new content.
    Imported,
    /// The private volume is emptied.
    Clearing,
    /// Features and properties are set.
    Settings,
    /// The template is started for the first time.
    Starting,
    /// The features that describe the build are set.
    Describing,
    /// All is done but tidying up.
    Committed,
}

/// A value from before a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Known {
    /// This one.
    Value(String),
    /// It was not set.
    Unset,
    /// Nobody knows.
    No,
}

/// A volume as it was, and what may have been done to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its revisions, oldest first; `None` where they could not be read.
    pub revisions: Option<Vec<String>>,
    /// What dom0 said about it; `None` where it could not be read.
    pub info: Option<Info>,
    /// How many revisions dom0 was told to keep for the time of the work.
    pub raised: Option<i64>,
    /// Whether this work may have replaced its content.
    pub touched: bool,
    /// Whether it is known to have, so that `old` tells all there is to know.
    pub replaced: bool,
    /// The revision that has the content from before, where there is one and it is known.
    pub old: Option<String>,
    /// Whether that revision is being put back.
    pub reverting: bool,
}

/// What dom0 said about a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// Storage pool.
    pub pool: String,
    /// Driver of the pool, where that could be read.
    pub driver: Option<String>,
    /// Size in bytes.
    pub size: u64,
    /// Bytes taken in the pool.
    pub usage: u64,
    /// How many revisions are kept.
    pub keep: i64,
}

/// What there is going to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Goal {
    /// Size of the new image in bytes.
    pub size: Option<u64>,
    /// The files of the package beside the image.
    pub files: Option<Files>,
    /// Whether the template may ask for para-virtualisation.
    pub allow_pv: bool,
    /// The features that describe the build, in order.
    pub description: Vec<(String, String)>,
}

/// [`TemplateFiles`], in texts: what is no UTF-8 in them means nothing anyway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    conf: Option<String>,
    menu_items: Option<String>,
    default_menu_items: Option<String>,
    netvm_menu_items: Option<String>,
}

impl From<&TemplateFiles> for Files {
    fn from(files: &TemplateFiles) -> Self {
        let text =
            |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        Self {
            conf: text(&files.conf),
            menu_items: text(&files.menu_items),
            default_menu_items: text(&files.default_menu_items),
            netvm_menu_items: text(&files.netvm_menu_items),
        }
    }
}

impl From<&Files> for TemplateFiles {
    fn from(files: &Files) -> Self {
        let bytes = |text: &Option<String>| text.as_ref().map(|text| text.clone().into_bytes());
        Self {
            conf: bytes(&files.conf),
            menu_items: bytes(&files.menu_items),
            default_menu_items: bytes(&files.default_menu_items),
            netvm_menu_items: bytes(&files.netvm_menu_items),
        }
    }
}

impl Journal {
    /// Work that begins: nothing was changed, nothing is known.
    #[must_use]
    pub fn new(template: &str, command: &str, is_new: bool) -> Self {
        Self {
            version: VERSION,
            template: template.to_owned(),
            command: command.to_owned(),
            begun: crate::state::seconds(),
            is_new,
            step: Step::Begun,
            skip_start: false,
            may_run: false,
            features: BTreeMap::new(),
            all_features: false,
            properties: Vec::new(),
            root: Kept::default(),
            private: Kept::default(),
            goal: Goal::default(),
        }
    }

    /// The volume of that name.
    pub fn volume(&mut self, name: &str) -> &mut Kept {
        if name == "private" { &mut self.private } else { &mut self.root }
    }
}
