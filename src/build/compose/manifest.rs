//! What an image is made of, for those who want to know or to make it again.
//!
//! ```json
//! {"tool": "qubes-template-build", "version": "0.1.0", "name": "debian-13", "source_date": 1700000000,
//!  "recipe": "name = ...", "recipe_sha256": "...",
//!  "layers": [{"kind": "tar", "name": "base.tar", "whiteouts": "none", "digest": "sha256:...", "names": 9945}],
//!  "image": {"format": "raw", "size": 10737418240, "uuid": "...", "sha256": "..."},
//!  "packages": ["dpkg adduser 3.134 all", ...],
//!  "outputs": [{"file": "qubes-template-debian-13-....rpm", "sha256": "..."}]}
//! ```
//!
//! A layer of packages has them too: `"packages": [{"package": "tool-1-1.noarch", "sha256": "...", "class": "deferred",
//! "deferred": ["ldconfig.service"], "signer": "..."}], "tool": "RPM version 4.18.0"`. In the package, where every byte is
//! in the header that each client loads, stands [`Manifest::compact`].

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Composition, Package, Summary};
use crate::build::layer::rpm::Layered;

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
    /// The recipe, word for word; the compact form has only its digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<String>,
    /// SHA-256 of the recipe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe_sha256: Option<String>,
    /// The layers, the lowest first.
    pub layers: Vec<Input>,
    /// Other files that went into the image: sources of edits and of the EFI partition.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<Made>,
    /// The image.
    pub image: Output,
    /// Packages installed in the tree; the compact form has only their digest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<String>,
    /// SHA-256 of that list, a line each.
    #[serde(default)]
    pub packages_sha256: String,
    /// What could not be listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Fingerprint of the key that signed package and repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
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
    /// What identifies it ([`crate::build::layer::Applied::digest`]).
    pub digest: Option<String>,
    /// The packages in it, if it is a layer of packages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<Layered>,
    /// The program whose version the result depends on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
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
            recipe: None,
            recipe_sha256: None,
            files: composition.files.clone(),
            signer: None,
            layers: summary
                .layers
                .iter()
                .map(|layer| Input {
                    kind: layer.kind.to_owned(),
                    name: layer.name.clone(),
                    digest: layer.digest.clone(),
                    packages: layer.packages.clone(),
                    tool: layer.tool.clone(),
                })
                .collect(),
            image: Output { size: summary.output.size, uuid: summary.output.uuid.clone(), sha256 },
            packages_sha256: format!(
                "{:x}",
                Sha256::digest(
                    summary.packages.iter().map(|package| package.line() + "\n").collect::<String>()
                )
            ),
            packages: summary.packages.iter().map(Package::line).collect(),
            notes: summary.notes.clone(),
            outputs: Vec::new(),
        }
    }

    /// The same with the recipe it was made from.
    #[must_use]
    pub fn of_recipe(mut self, text: &str) -> Self {
        self.recipe_sha256 = Some(format!("{:x}", Sha256::digest(text)));
        self.recipe = Some(text.to_owned());
        self
    }

    /// The manifest as text.
    pub fn text(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self).context("writing the manifest")? + "\n")
    }

    /// The manifest in one line and without the list of installed packages, whose digest it has instead: for places
    /// where it must be short.
    pub fn compact(&self) -> Result<String> {
        let short = Self { recipe: None, packages: Vec::new(), outputs: Vec::new(), ..self.clone() };
        serde_json::to_string(&short).context("writing the manifest")
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
        let recipe = |of: &Self| of.recipe_sha256.clone().unwrap_or_else(|| "none".to_owned());
        note("recipe", &recipe(self), &recipe(other));
        note("number of layers", &self.layers.len().to_string(), &other.layers.len().to_string());
        for (a, b) in self.layers.iter().zip(&other.layers) {
            let text = |layer: &Input| {
                format!("{} {}", layer.kind, layer.digest.as_deref().unwrap_or("without digest"))
            };
            note(&format!("layer {}", a.name), &text(a), &text(b));
            let tool = |layer: &Input| layer.tool.clone().unwrap_or_default();
            note(&format!("program for layer {}", a.name), &tool(a), &tool(b));
        }
        for file in &self.files {
            let again = other.files.iter().find(|other| other.file == file.file);
            note(
                &format!("file {}", file.file),
                &file.sha256,
                again.map_or("not there", |file| &file.sha256),
            );
        }
        if !self.packages.is_empty() && !other.packages.is_empty() {
            for line in self.packages.iter().filter(|line| !other.packages.contains(line)) {
                note("installed package", line, "not there");
            }
            for line in other.packages.iter().filter(|line| !self.packages.contains(line)) {
                note("installed package", "not there", line);
            }
        }
        note("size of the image", &self.image.size.to_string(), &other.image.size.to_string());
        note("image", &self.image.sha256, &other.image.sha256);
        for made in &other.outputs {
            if let Some(before) = self.outputs.iter().find(|before| before.file == made.file) {
                note(&made.file, &before.sha256, &made.sha256);
            }
        }
        found
    }
}
