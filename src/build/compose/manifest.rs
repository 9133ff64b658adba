//! What an image is made of, for those who want to know or to make it again.
//!
//! ```json
//! {"tool": "qubes-template-build", "version": "0.1.0", "name": "debian-13", "source_date": 1700000000,
//!  "layers": [{"kind": "tar", "name": "base.tar", "whiteouts": "none", "digest": "sha256:...", "names": 9945}],
//!  "image": {"format": "raw", "size": 10737418240, "uuid": "...", "sha256": "..."},
//!  "packages": ["dpkg adduser 3.134 all", ...],
//!  "outputs": [{"file": "qubes-template-debian-13-....rpm", "sha256": "..."}]}
//! ```
//!
//! The list of packages is read from `/var/lib/dpkg/status` of the tree; a database of rpm is not read.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{Composition, Summary};
use crate::build::tree::{Kind, Tree};

const MAX_STATUS: u64 = 64 << 20;

/// See the module's head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Name of this program.
    pub tool: String,
    /// Its version.
    pub version: String,
    /// Name of the template.
    pub name: String,
    /// The moment that the source stands for.
    pub source_date: i64,
    /// The layers, the lowest first.
    pub layers: Vec<Input>,
    /// The image.
    pub image: Output,
    /// Packages installed in the tree.
    pub packages: Vec<String>,
    /// Files made from the image.
    #[serde(default)]
    pub outputs: Vec<Made>,
}

/// A layer of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// The word for its form.
    pub kind: String,
    /// The last part of its path.
    pub name: String,
    /// What identifies it, if it is one file or an OCI image.
    pub digest: Option<String>,
}

/// The image of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Size in bytes.
    pub size: u64,
    /// UUID of the file system.
    pub uuid: Option<String>,
    /// SHA-256, in hexadecimal digits.
    pub sha256: String,
}

/// A file made from the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// Its name.
    pub file: String,
    /// SHA-256, in hexadecimal digits.
    pub sha256: String,
}

impl Manifest {
    /// The manifest of an image that was made.
    #[must_use]
    pub fn new(composition: &Composition, summary: &Summary, sha256: String) -> Self {
        Self {
            tool: "qubes-template-build".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            name: composition.name.clone(),
            source_date: composition.time,
            layers: summary
                .layers
                .iter()
                .map(|layer| Input {
                    kind: layer.kind.to_owned(),
                    name: layer.name.clone(),
                    digest: layer.digest.clone(),
                })
                .collect(),
            image: Output { size: summary.output.size, uuid: summary.output.uuid.clone(), sha256 },
            packages: summary.packages.clone(),
            outputs: Vec::new(),
        }
    }

    /// The manifest as text.
    pub fn text(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self).context("writing the manifest")? + "\n")
    }

    /// Reads a manifest.
    pub fn parse(text: &str) -> Result<Self> {
        serde_json::from_str(text).context("reading the manifest")
    }

    /// Where another build of the same differs: one line for each, inputs first.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let mut note = |what: &str, a: &str, b: &str| {
            if a != b {
                found.push(format!("{what}: {a} | {b}"));
            }
        };
        note("version of the tool", &self.version, &other.version);
        note("name", &self.name, &other.name);
        note("source date", &self.source_date.to_string(), &other.source_date.to_string());
        note("number of layers", &self.layers.len().to_string(), &other.layers.len().to_string());
        for (a, b) in self.layers.iter().zip(&other.layers) {
            let text = |layer: &Input| {
                format!("{} {}", layer.kind, layer.digest.as_deref().unwrap_or("without digest"))
            };
            note(&format!("layer {}", a.name), &text(a), &text(b));
        }
        note("size of the image", &self.image.size.to_string(), &other.image.size.to_string());
        note("image", &self.image.sha256, &other.image.sha256);
        found
    }
}

/// Packages that the tree's dpkg has installed: `dpkg NAME VERSION ARCHITECTURE`, sorted.
pub(super) fn packages(tree: &Tree) -> Result<Vec<String>> {
    let Some(id) = tree.find_following(b"var/lib/dpkg/status") else { return Ok(Vec::new()) };
    let Kind::File(content) = &tree.node(id).kind else { return Ok(Vec::new()) };
    let bytes = tree.sources.read_all(content, MAX_STATUS).context("reading the list of dpkg's packages")?;
    let text = String::from_utf8_lossy(&bytes);
    let mut found: Vec<String> = text
        .split("\n\n")
        .filter_map(|record| {
            let field =
                |name: &str| record.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            let installed = field("Status")?.ends_with(" installed");
            let line = format!("dpkg {} {} {}", field("Package")?, field("Version")?, field("Architecture")?);
            installed.then_some(line)
        })
        .collect();
    found.sort();
    Ok(found)
}
