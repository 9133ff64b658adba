//! Differences that are on purpose, as `differences.toml` declares them.
//!
//! ```toml
//! [[rule]]                       # every case whose `better` names this rule
//! id = "R14"
//! ours = "One sentence: what we do instead"
//! equal = ["d042"]               # cases so marked in which nothing differs, if there are any
//!
//! [[case]]                       # one case of one file
//! file = "cli"
//! id = "c123"
//! category = "messages"
//! ours = "One sentence: what we do instead, and why"
//! [case.expect]                  # what the suite checks instead; which keys there are is up to the file's module
//! rc = 1
//! ```
//!
//! A case that a rule or a case speaks of must differ, and what it does instead must pass the module's check.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context as _;
use serde::Deserialize;

use super::recording::{Folder, word};

/// All declared differences.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Differences {
    /// Declared by rule.
    #[serde(default)]
    pub rule: Vec<Rule>,
    /// Declared by case.
    #[serde(default)]
    pub case: Vec<Case>,
}

/// A rule by which we differ.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What cases call it.
    pub id: String,
    /// What we do instead.
    pub ours: String,
    /// Cases that name it and yet are equal.
    #[serde(default)]
    pub equal: Vec<String>,
}

/// A case in which we differ.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// The file, without `.jsonl`.
    pub file: String,
    /// The case.
    pub id: String,
    /// Under what it is counted.
    pub category: String,
    /// What we do instead, and why.
    pub ours: String,
    /// What is checked instead.
    #[serde(default)]
    pub expect: toml::Table,
}

/// What declares a case.
#[derive(Debug)]
pub enum Declared<'a> {
    /// A rule.
    ByRule(&'a Rule),
    /// Its own entry.
    ByCase(&'a Case),
}

impl Declared<'_> {
    /// Under what it is counted.
    pub fn category(&self) -> &str {
        match self {
            Self::ByRule(rule) => &rule.id,
            Self::ByCase(case) => &case.category,
        }
    }

    /// What we do instead.
    pub fn ours(&self) -> &str {
        match self {
            Self::ByRule(rule) => &rule.ours,
            Self::ByCase(case) => &case.ours,
        }
    }
}

impl Differences {
    /// Reads `differences.toml` beside this file.
    pub fn read() -> anyhow::Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/differences.toml");
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("understanding {}", path.display()))
    }

    /// The entry for one case.
    pub fn case(&self, file: &str, id: &str) -> Option<&Case> {
        self.case.iter().find(|case| case.file == file && case.id == id)
    }

    /// What declares a case that names these rules: its own entry first.
    pub fn declares(&self, file: &str, id: &str, better: &[String]) -> Option<Declared<'_>> {
        if let Some(case) = self.case(file, id) {
            return Some(Declared::ByCase(case));
        }
        let rule = self
            .rule
            .iter()
            .find(|rule| better.contains(&rule.id) && !rule.equal.iter().any(|equal| equal == id));
        rule.map(Declared::ByRule)
    }
}

/// The cases that this tree's own recordings have, by name.
#[derive(Debug)]
pub struct Known(BTreeSet<String>);

impl Known {
    /// Reads their names.
    pub fn read() -> anyhow::Result<Self> {
        let cases = Folder::copy().recording("cli")?.cases;
        Ok(Self(cases.iter().map(|case| word(case, "id").to_owned()).collect()))
    }

    /// Whether a case is among them. Of one that is not, nobody could say beforehand that it would come out equal.
    pub fn has(&self, id: &str) -> bool {
        self.0.contains(id)
    }
}
