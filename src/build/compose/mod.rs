//! Composing: layers and edits become a tree, and the tree an image.
//!
//! The bytes of the result follow from the composition and the contents of its inputs alone: not from the user, the
//! umask, the time zone, the clock, the folder, the order in which a folder lists its files, or the number of cores.
//! UUID, hash seed and FAT serial are made from the name, the size and the source date.

mod edits;
mod installed;
mod manifest;
mod output;
mod recipe;
mod sbom;

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use sha2::{Digest as _, Sha256};

pub use edits::{Action, Edit, edit};
pub use installed::Package;
pub use manifest::{Input, Made, Manifest, Output};
pub use output::{Format, Written};
pub use recipe::{EditRecipe, EfiRecipe, ImageRecipe, LayerRecipe, USUAL_SIZE, parse_size};
pub use sbom::spdx;

use super::disk::EfiFile;
use super::layer::input::Spool;
use super::layer::{Applied, Layer, put};
use super::tree::Tree;

/// What goes into an image and how it is written.
#[derive(Debug, Clone)]
pub struct Composition {
    /// Name of the template; identity follows from it.
    pub name: String,
    /// The layers, the lowest first.
    pub layers: Vec<Layer>,
    /// Changes after the last layer.
    pub edits: Vec<Edit>,
    /// Files for the EFI partition.
    pub efi_files: Vec<EfiFile>,
    /// Names and digests of the files of this machine that edits and EFI files came from.
    pub files: Vec<Made>,
    /// Size of the image in bytes.
    pub size: u64,
    /// Its form.
    pub format: Format,
    /// Share of the file system's blocks that only root may use.
    pub reserved_percent: u8,
    /// Number of inodes, if it is not to follow from size and tree.
    pub inodes: Option<u64>,
    /// The moment that the source stands for; no time in the image is later.
    pub time: i64,
}

/// Where things are put that are needed only for a while.
#[derive(Debug, Clone)]
pub struct Workplace {
    /// Folder of the spool.
    pub folder: PathBuf,
    /// The most that the spool may hold.
    pub spool_limit: u64,
}

/// What happened, for whoever watches.
#[derive(Debug)]
pub enum Event<'a> {
    /// A layer is about to be read.
    Layer(&'a Layer),
    /// A layer is on the tree.
    Applied(&'a Applied),
    /// So many bytes of contents were written, of so many.
    Written(u64, u64),
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Summary {
    /// The layers, as they were put on the tree.
    pub layers: Vec<Applied>,
    /// Names in the tree.
    pub names: u64,
    /// Bytes in its files, holes included.
    pub content: u64,
    /// Bytes in the spool.
    pub spooled: u64,
    /// Packages that are installed in the tree.
    #[serde(skip)]
    pub packages: Vec<Package>,
    /// What could not be listed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The `ID` of the tree's `os-release`.
    #[serde(skip)]
    pub distribution: Option<String>,
    /// The image.
    pub output: Written,
}

impl Composition {
    /// Makes the tree.
    pub fn tree(
        &self,
        workplace: &Workplace,
        watch: &mut dyn FnMut(Event<'_>),
    ) -> Result<(Tree, Vec<Applied>, u64)> {
        ensure!(!self.layers.is_empty(), "there is no layer to make an image of");
        let mut tree = Tree::new();
        tree.meta_mut(Tree::ROOT).mtime = self.time;
        let mut spool = Spool::new(&workplace.folder, workplace.spool_limit)?;
        let mut applied = Vec::new();
        for layer in &self.layers {
            watch(Event::Layer(layer));
            let done = put(layer, &mut tree, &mut spool, self.time)?;
            watch(Event::Applied(&done));
            applied.push(done);
        }
        for change in &self.edits {
            edit(&mut tree, change, self.time)?;
        }
        Ok((tree, applied, spool.len()))
    }

    /// Makes the image `output`; nothing is left of it when that fails.
    pub fn write(
        &self,
        output: &Path,
        workplace: &Workplace,
        watch: &mut dyn FnMut(Event<'_>),
    ) -> Result<Summary> {
        let (tree, layers, spooled) = self.tree(workplace, watch)?;
        let (names, content) = tree.totals();
        let written = output::write(self, &tree, output, &mut |done| watch(Event::Written(done, content)))?;
        let (packages, notes) = installed::packages(&tree, &workplace.folder, self.time)?;
        let distribution = installed::distribution(&tree);
        Ok(Summary { layers, names, content, spooled, packages, notes, distribution, output: written })
    }

    /// Wants a digest of every layer, also of directories, for a manifest.
    #[must_use]
    pub fn identified(mut self) -> Self {
        self.layers.iter_mut().for_each(|layer| layer.identify = true);
        self
    }

    /// Sixteen bytes that follow from what the image is, and from what they are for.
    fn identity(&self, purpose: &str) -> [u8; 16] {
        let text = format!("qubes-template-build\0{purpose}\0{}\0{}\0{}", self.name, self.size, self.time);
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&Sha256::digest(text)[..16]);
        bytes
    }

    /// The same as a UUID of version 8, which RFC 9562 has for values made in a way of one's own.
    fn uuid(&self, purpose: &str) -> [u8; 16] {
        let mut bytes = self.identity(purpose);
        bytes[6] = bytes[6] & 0x0f | 0x80;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        bytes
    }
}
