//! A disk image or a bare file system as a layer: its ext4 file system is read in place.
//!
//! With a partition table it is partition 3 (where templates have their root), or the only partition with ext4; without
//! one the whole file must be an ext4 file system.

use std::fs::File;
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use super::{Entry, Sink, What};
use crate::build::disk::{Region, read_partitions};
use crate::build::ext4::{Reader, is_ext4};
use crate::build::tree::content::{Source, Sources};

const ROOT_PARTITION: u32 = 3;

/// Gives everything in the root file system of an image to `sink`.
pub fn read(file: Arc<File>, sources: &mut Sources, sink: &mut Sink<'_>) -> Result<()> {
    let region = root(&file)?;
    let source = sources.add(Source::File(Arc::clone(&file)))?;
    // an empty `lost+found` belongs to the file system and not to the tree
    let mut held: Option<Entry> = None;
    let mut sink = |entry: Entry| {
        match held.take() {
            Some(before) if entry.path.starts_with(b"lost+found/") => sink(before)?,
            _ => {}
        }
        if entry.path == b"lost+found" && entry.what == What::Directory {
            held = Some(entry);
            return Ok(());
        }
        sink(entry)
    };
    Reader::open(&file, region)?.entries(source, &mut sink)
}

/// Where the root file system of an image is.
pub fn root(file: &File) -> Result<Region> {
    let size = file.metadata().context("asking for the size of the image")?.len();
    let whole = Region { offset: 0, size };
    let Some(partitions) = read_partitions(&mut &*file, size)? else {
        if is_ext4(file, whole)? {
            return Ok(whole);
        }
        bail!("the image has neither a partition table nor an ext4 file system");
    };
    if let Some(root) = partitions.iter().find(|partition| partition.number == ROOT_PARTITION)
        && is_ext4(file, root.region)?
    {
        return Ok(root.region);
    }
    let mut found = Vec::new();
    for partition in &partitions {
        if is_ext4(file, partition.region)? {
            found.push(partition.region);
        }
    }
    match found.as_slice() {
        [one] => Ok(*one),
        [] => bail!("no partition of the image has an ext4 file system"),
        several => {
            bail!("{} partitions of the image have an ext4 file system, and none is number 3", several.len())
        }
    }
}
