//! `export`: a tree as a layer.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Args, ValueEnum};

use super::compose::{parse_layer, quick, watcher, workplace};
use crate::build::image::Image;
use crate::build::layer::{Layer, Whiteouts, export, layout};
use crate::build::tree::Tree;

/// The form of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shape {
    /// A tar archive; with --whiteouts oci it is the content of an OCI layer
    Tar,
    /// An OCI image layout with the layer alone in it, as a tar archive
    Oci,
}

/// Write a tree, or what makes one tree into another, as a layer
///
/// `compose` with the layers that were given to --over, and this one on top, makes the tree again.
#[derive(Debug, Args)]
pub struct Export {
    /// Layer of the tree, the lowest first (as with `compose`)
    #[arg(long = "layer", value_name = "LAYER", value_parser = parse_layer, required = true)]
    layers: Vec<Layer>,
    /// Layer of the tree that the new layer will lie on, the lowest first; nothing when there is none
    #[arg(long = "over", value_name = "LAYER", value_parser = parse_layer)]
    over: Vec<Layer>,
    /// How the new layer says that something is gone
    #[arg(long, value_enum)]
    whiteouts: Whiteouts,
    /// Form of the layer
    #[arg(long, value_enum, default_value = "tar")]
    format: Shape,
    /// Archive to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

impl Export {
    /// Writes the layer; `now` is the latest time in it.
    pub fn run(&self, now: i64, talk: &mut dyn Write) -> Result<()> {
        let place = workplace(None, &self.output, u64::MAX >> 1);
        let mut base = Tree::new();
        if !self.over.is_empty() {
            base = quick(self.over.clone(), now).tree(&place, &mut watcher(talk))?.0;
        }
        let (top, ..) = quick(self.layers.clone(), now).tree(&place, &mut watcher(talk))?;
        let archive = Image::create(&self.output)?;
        match self.format {
            Shape::Tar => {
                let out = BufWriter::with_capacity(1 << 20, archive.file());
                export::difference(&base, &top, self.whiteouts, now, out)?.flush()?;
            }
            Shape::Oci => {
                let folder = self.output.parent().filter(|folder| *folder != Path::new(""));
                layout::write(archive.file(), folder.unwrap_or_else(|| Path::new(".")), now, |layer| {
                    export::difference(&base, &top, self.whiteouts, now, layer)
                })?;
            }
        }
        archive.commit()?;
        Ok(())
    }
}
