//! A live image: a squashfs file that holds the tree itself, or an ext4 image of it.
//!
//! The image is looked for at the two places where it can be, `LiveOS/rootfs.img` and `LiveOS/ext3fs.img`; it is
//! unpacked to a temporary file, which counts against the limit of the spool, and read there.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};

use super::input::Spool;
use super::squashfs::Reader;
use super::{Sink, disk};
use crate::build::tree::content::Sources;

const IMAGES: [[&[u8]; 2]; 2] = [[b"LiveOS", b"rootfs.img"], [b"LiveOS", b"ext3fs.img"]];

/// Gives everything in a live image to `sink`.
pub fn read(
    file: &File,
    folder: &Path,
    sources: &mut Sources,
    spool: &mut Spool,
    sink: &mut Sink<'_>,
) -> Result<()> {
    let mut squashfs = Reader::open(file)?;
    for image in IMAGES {
        let unpacked = tempfile::tempfile_in(folder)
            .with_context(|| format!("making a temporary file in {}", folder.display()))?;
        let name = String::from_utf8_lossy(image[1]);
        if squashfs
            .extract(&image, &unpacked, spool.left())
            .with_context(|| format!("unpacking LiveOS/{name}"))?
        {
            return disk::read(Arc::new(unpacked), sources, sink)
                .with_context(|| format!("reading LiveOS/{name}"));
        }
    }
    squashfs.entries(sources, spool, sink)
}
