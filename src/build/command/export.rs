//! `export`: a tree as a layer.

use std::io::{BufWriter, Write};
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::compose::{parse_layer, quick, watcher, workplace};
use crate::build::image::Image;
use crate::build::layer::{Layer, Whiteouts, export};
use crate::build::tree::Tree;

/// Write a tree, or what makes one tree into another, as a layer
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
        let out = BufWriter::with_capacity(1 << 20, archive.file());
        export::difference(&base, &top, self.whiteouts, now, out)?.flush()?;
        archive.commit()?;
        Ok(())
    }
}
