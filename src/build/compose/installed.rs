//! The packages that a tree's own package managers have installed.
//!
//! dpkg's are read from `/var/lib/dpkg/status`. rpm's are asked for with `rpm`, on a private copy of the database; where
//! that program is not installed, they are not listed and a note says so.

use std::path::Path;

use anyhow::{Context, Result};

use crate::build::layer::rpm;
use crate::build::tree::{Kind, Tree};

const MAX_STATUS: u64 = 64 << 20;

/// A package that is installed in a tree.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// `dpkg` or `rpm`.
    pub manager: &'static str,
    /// Name.
    pub name: String,
    /// Version, with release and epoch as the manager writes them.
    pub version: String,
    /// Architecture.
    pub arch: String,
    /// Licence, as the package says it (dpkg knows none).
    pub license: Option<String>,
    /// The source package.
    pub source: Option<String>,
}

impl Package {
    /// `MANAGER NAME VERSION ARCHITECTURE`
    #[must_use]
    pub fn line(&self) -> String {
        format!("{} {} {} {}", self.manager, self.name, self.version, self.arch)
    }
}

/// The packages of a tree, sorted, and what could not be listed.
pub(super) fn packages(tree: &Tree, folder: &Path, time: i64) -> Result<(Vec<Package>, Vec<String>)> {
    let mut found = dpkg(tree)?;
    let mut notes = Vec::new();
    match rpm::installed(tree, folder, time) {
        Ok(list) => found.extend(list.into_iter().map(|[name, version, arch, license, source]| Package {
            manager: "rpm",
            name,
            version,
            arch,
            license: Some(license).filter(|text| text != "(none)"),
            source: Some(source).filter(|text| text != "(none)"),
        })),
        Err(error) => {
            notes.push(format!("the packages of the tree's rpm database are not listed: {error:#}"))
        }
    }
    found.sort();
    Ok((found, notes))
}

fn dpkg(tree: &Tree) -> Result<Vec<Package>> {
    let Some(id) = tree.find_following(b"var/lib/dpkg/status") else { return Ok(Vec::new()) };
    let Kind::File(content) = &tree.node(id).kind else { return Ok(Vec::new()) };
    let bytes = tree.sources.read_all(content, MAX_STATUS).context("reading the list of dpkg's packages")?;
    let text = String::from_utf8_lossy(&bytes);
    let record = |record: &str| {
        let field = |name: &str| record.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let state = field("Status")?;
        let there = state.ends_with(" installed") || state.contains(" triggers-");
        let text = |name: &str| field(name).map(str::to_owned);
        let package = Package {
            manager: "dpkg",
            name: text("Package")?,
            version: text("Version")?,
            arch: text("Architecture")?,
            license: None,
            source: text("Source"),
        };
        there.then_some(package)
    };
    Ok(text.split("\n\n").filter_map(record).collect())
}

/// The `ID` in `/etc/os-release`.
pub(super) fn distribution(tree: &Tree) -> Option<String> {
    let Kind::File(content) = &tree.node(tree.find_following(b"etc/os-release")?).kind else { return None };
    let bytes = tree.sources.read_all(content, 1 << 16).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let id = text.lines().find_map(|line| line.strip_prefix("ID="))?.trim_matches('"').to_owned();
    Some(id)
        .filter(|id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)))
}
