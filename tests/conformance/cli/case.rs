//! One recorded case.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// A case as recorded.
#[derive(Clone, Debug, Deserialize)]
pub struct Case {
    /// Its name.
    pub id: String,
    /// File in `populations`.
    pub population: String,
    /// Files in `repo_replies`, one for each query, the last one for all that follow.
    #[serde(deserialize_with = "one_or_more")]
    pub repo_reply: Vec<String>,
    /// The program, when it is not `qvm-template`.
    pub tool: Option<String>,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its input.
    pub stdin: Option<String>,
    /// Variables.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Who runs it.
    #[serde(default = "user")]
    pub uid: u32,
    /// Files that are there before.
    #[serde(default)]
    pub files: BTreeMap<String, FileBefore>,
    /// Repository files that are there.
    #[serde(default = "usual_repo_files")]
    pub repo_files: Vec<String>,
    /// What happens to downloads, attempt by attempt.
    #[serde(default)]
    pub download: BTreeMap<String, Vec<String>>,
    /// How the guest ends its setup.
    #[serde(default)]
    pub postinstall: PostInstall,
    /// What the rpm database holds.
    pub rpmdb: Option<Vec<String>>,
    /// Whether somebody holds the lock.
    #[serde(default)]
    pub locked: bool,
    /// Whether qvm-appmenus is there.
    #[serde(default = "yes")]
    pub appmenus: bool,
    /// Whether the group qubes is there.
    #[serde(default = "yes")]
    pub qubes_group: bool,
    /// Whether the services of an UpdateVM are here.
    #[serde(default = "yes")]
    pub local_service: bool,
    /// Exit status.
    pub rc: i32,
    /// What was printed.
    pub stdout: String,
    /// What was printed.
    pub stderr: String,
    /// Changing calls and helper programs.
    pub calls: Vec<Value>,
    /// Requests to the UpdateVM.
    pub requests: Vec<Value>,
    /// Files in the user's folder afterwards.
    pub files_after: Vec<String>,
    /// The rule by which we do better.
    pub better: Option<String>,
    /// Whether the order of lines means nothing.
    pub order: Option<String>,
    /// Digest of the line.
    #[serde(default)]
    pub digest: String,
}

/// A file that is there before.
#[derive(Clone, Debug, Deserialize)]
pub struct FileBefore {
    /// Its content.
    pub text: Option<Value>,
    /// It is a folder.
    pub dir: Option<Value>,
    /// It is this package.
    pub package: Option<String>,
    /// The byte of it that is changed.
    pub flip: Option<i64>,
}

/// How the guest ends its setup.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct PostInstall {
    /// Exit status.
    #[serde(default)]
    pub rc: i32,
    /// Features that it asks for.
    #[serde(default)]
    pub features: BTreeMap<String, String>,
}

impl Case {
    /// Reads a line of the recording.
    pub fn read(line: Value) -> Result<Self> {
        let id = line["id"].to_string();
        let digest =
            Sha256::digest(line.to_string()).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let case: Self = serde_json::from_value(line).with_context(|| format!("understanding case {id}"))?;
        Ok(Self { digest, ..case })
    }

    /// Whether lines may come in any order.
    pub fn any_order(&self) -> bool {
        self.order.as_deref() == Some("any")
    }
}

fn one_or_more<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Some {
        One(String),
        More(Vec<String>),
    }
    Ok(match Some::deserialize(from)? {
        Some::One(name) => vec![name],
        Some::More(names) => names,
    })
}

fn user() -> u32 {
    1000
}

fn yes() -> bool {
    true
}

fn usual_repo_files() -> Vec<String> {
    vec!["qubes-templates.repo".to_owned(), "acme.repo".to_owned()]
}
