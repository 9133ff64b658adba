//! What nobody is there to say: the answer to a question of the policy.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// The answer to every question of an `ask` rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// No.
    #[default]
    Deny,
    /// Yes, with the target that is offered first: the default where there is one.
    Allow,
    /// Yes, with this target.
    Target(String),
}

/// The settings of a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// What the user says to questions.
    #[serde(default)]
    pub answer: Answer,
}

impl Settings {
    /// Reads them; a sandbox without the file has the defaults.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join("settings.json");
        match fs::read(&path) {
            Ok(text) => {
                serde_json::from_slice(&text).with_context(|| format!("understanding {}", path.display()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }

    /// Writes them.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let path = dir.join("settings.json");
        fs::write(&path, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("writing {}", path.display()))
    }
}
