//! A template package as a layer: its root image is unpacked to a temporary file and read there.
//!
//! The package goes the way of every package that is installed: copied into a spool, its digests checked (and its
//! signature, where certificates are given), and only then taken apart. Zeros of the image become holes.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};

use super::input::Spool;
use super::{Sink, disk};
use crate::build::tree::content::Sources;
use crate::payload::Payload;
use crate::root_image::Limits;
use crate::spool::Spooled;
use crate::verify::keyring::Keyring;
use crate::verify::policy::Policy;
use crate::verify::{Verified, check_digests_only, verify};

/// Certificates that the signature must be made with, and the time at which it is judged.
#[derive(Debug, Clone)]
pub struct Trust {
    /// The certificates.
    pub keyring: Keyring,
    /// The time.
    pub now: std::time::SystemTime,
}

/// Gives everything in the root file system of a template package to `sink`.
pub fn read(
    file: File,
    trust: Option<Trust>,
    sources: &mut Sources,
    spool: &mut Spool,
    sink: &mut Sink<'_>,
) -> Result<()> {
    let image = Arc::new(root_image(file, trust, spool.folder(), spool.left())?);
    disk::read(image, sources, sink).context("reading its root image")
}

/// The root image of a template package, in a file without a name.
pub fn root_image(file: File, trust: Option<Trust>, folder: &Path, limit: u64) -> Result<File> {
    let verified = open(file, trust, folder, limit)?;
    let payload = Payload::open(&verified, &verified.info().name)?;
    let limits = Limits { image_size: Limits::default().image_size, ..Limits::default() };
    let image = payload.root_image(limits)?;
    let size = image.size();
    let out = tempfile::tempfile_in(folder)
        .with_context(|| format!("making a temporary file in {}", folder.display()))?;
    out.set_len(size).context("making room for the root image")?;
    let mut sparse = Sparse { file: &out, position: 0, data: 0, limit };
    image.copy_to(&mut sparse, &mut |_| {}).context("unpacking its root image")?;
    Ok(out)
}

/// Name of the file in a package that says what its image is made of ([`crate::build::compose::Manifest`]).
pub const MANIFEST: &str = "image-manifest.json";
/// Most bytes of a manifest in a package that are read.
const MAX_MANIFEST: u64 = 4 << 20;

/// What a template package says its image is made of, if it says that.
pub fn manifest(file: File, folder: &Path) -> Result<Option<Vec<u8>>> {
    let verified = open(file, None, folder, u64::MAX)?;
    let payload = Payload::open(&verified, &verified.info().name)?;
    payload.other_file(MANIFEST, MAX_MANIFEST).context("reading its manifest")
}

fn open(mut file: File, trust: Option<Trust>, folder: &Path, limit: u64) -> Result<Verified> {
    let spooled = Spooled::copy_of(&mut file, folder, limit).context("copying the package")?;
    let policy = Policy::any();
    Ok(match trust {
        Some(trust) => verify(spooled, &policy, &trust.keyring, trust.now)?,
        None => check_digests_only(spooled, &policy)?,
    })
}

/// Writes a file and leaves its zeros out.
struct Sparse<'a> {
    file: &'a File,
    position: u64,
    data: u64,
    limit: u64,
}

const BLOCK: usize = 4096;

impl Write for Sparse<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let to_boundary = BLOCK - usize::try_from(self.position % BLOCK as u64).unwrap_or(0);
        let mut rest = bytes;
        let mut len = to_boundary.min(rest.len());
        while !rest.is_empty() {
            let (part, after) = rest.split_at(len);
            if part.iter().any(|byte| *byte != 0) {
                self.data += part.len() as u64;
                if self.data > self.limit {
                    return Err(io::Error::other("its root image is larger than the limit of the spool"));
                }
                self.file.write_all_at(part, self.position)?;
            }
            self.position += part.len() as u64;
            rest = after;
            len = BLOCK.min(rest.len());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
