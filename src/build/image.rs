//! An image being written: a file that has no name until it is complete, and the map of the blocks written to it.
//!
//! Every writer of the builder (partition table, FAT, ext4) goes through [`Image::write_at`], which works in blocks of
//! [`BLOCK`] bytes and leaves a block of zeros as a hole. So the [`BlockMap`] is exactly the set of blocks whose
//! content is not zero, whatever file system the image lies on and however it stores holes: a sparse archive made
//! from the map is the same on every machine, and needs no second pass over the image.
//!
//! The file is anonymous (`O_TMPFILE`) where the file system can do that, so an interrupted run leaves nothing behind;
//! [`Image::commit`] gives it its name in one step and replaces what was there.

use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use sha2::{Digest as _, Sha256};

/// The unit of writing and of the map.
pub const BLOCK: u64 = 4096;

/// Bytes that are hashed at once.
const HASHED: usize = 1 << 18;

const ZEROS: [u8; 4096] = [0; 4096];
const _: () = assert!(ZEROS.len() as u64 == BLOCK);

/// Which parts of an image are not zero, in ascending order, never touching each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockMap {
    /// Size of the image in bytes.
    pub size: u64,
    /// Byte ranges with content; both ends are multiples of [`BLOCK`], except that the last may end at `size`.
    pub ranges: Vec<Range<u64>>,
}

impl BlockMap {
    /// How many bytes have content.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }

    /// SHA-256 of the image in hexadecimal digits; `file` is read only where it has content.
    pub fn sha256(&self, file: &File) -> Result<String> {
        let mut hash = Sha256::new();
        let (zeros, mut buffer) = (vec![0; HASHED], vec![0; HASHED]);
        let mut at = 0;
        let end = self.size..self.size;
        for range in self.ranges.iter().chain(std::iter::once(&end)) {
            while at < range.start {
                let count = usize::try_from((range.start - at).min(HASHED as u64))?;
                hash.update(&zeros[..count]);
                at += count as u64;
            }
            while at < range.end {
                let count = usize::try_from((range.end - at).min(HASHED as u64))?;
                file.read_exact_at(&mut buffer[..count], at).context("reading the image for its digest")?;
                hash.update(&buffer[..count]);
                at += count as u64;
            }
        }
        Ok(format!("{:x}", hash.finalize()))
    }
}

/// A new image; see the module's head.
#[derive(Debug)]
pub struct Image {
    file: File,
    place: Place,
    size: u64,
    ranges: Vec<Range<u64>>,
}

#[derive(Debug)]
enum Place {
    Nameless(PathBuf),
    Named(tempfile::TempPath, PathBuf),
}

impl Image {
    /// A new image that will get the name `path` when it is complete.
    pub fn create(path: &Path) -> Result<Self> {
        let context = || format!("creating {}", path.display());
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        ensure!(path.file_name().is_some(), "`{}` does not name a file", path.display());
        let nameless = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .mode(0o666)
            .custom_flags(nix::libc::O_TMPFILE)
            .open(directory);
        let (file, place) = match nameless {
            Ok(file) => (file, Place::Nameless(path.to_owned())),
            Err(error) if matches!(error.raw_os_error(), Some(nix::libc::EOPNOTSUPP | nix::libc::EISDIR)) => {
                let (file, temporary) = tempfile::Builder::new()
                    .prefix(".compose-")
                    .tempfile_in(directory)
                    .with_context(context)?
                    .into_parts();
                (file, Place::Named(temporary, path.to_owned()))
            }
            Err(error) => return Err(error).with_context(context),
        };
        Ok(Self { file, place, size: 0, ranges: Vec::new() })
    }

    /// Gives the image its size; everything not written is zero.
    pub fn set_size(&mut self, size: u64) -> Result<()> {
        self.file.set_len(size).with_context(|| format!("making the image {size} bytes large"))?;
        self.size = size;
        Ok(())
    }

    /// The size given by [`Image::set_size`].
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Writes whole blocks at `offset`; blocks of zeros stay holes. A block is written at most once.
    pub fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let end = offset + bytes.len() as u64;
        ensure!(offset.is_multiple_of(BLOCK), "write at {offset}, which is not the start of a block");
        ensure!(
            end.is_multiple_of(BLOCK) || end == self.size,
            "write up to {end}, which is not the end of a block"
        );
        ensure!(end <= self.size, "write up to {end} in an image of {} bytes", self.size);
        let mut run = 0..0;
        for (index, block) in bytes.chunks(ZEROS.len()).enumerate() {
            let at = index * ZEROS.len();
            if block == &ZEROS[..block.len()] {
                self.write_run(offset, bytes, run.clone())?;
                run = 0..0;
            } else if run.is_empty() {
                run = at..at + block.len();
            } else {
                run.end = at + block.len();
            }
        }
        self.write_run(offset, bytes, run)
    }

    /// What has been written so far, in order.
    #[must_use]
    pub fn map(&self) -> BlockMap {
        let mut sorted = self.ranges.clone();
        sorted.sort_by_key(|range| range.start);
        let mut ranges: Vec<Range<u64>> = Vec::with_capacity(sorted.len());
        for range in sorted {
            match ranges.last_mut() {
                Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
                _ => ranges.push(range),
            }
        }
        BlockMap { size: self.size, ranges }
    }

    /// The bytes of the image, for reading.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Gives the complete image its name, and returns the map.
    pub fn commit(self) -> Result<BlockMap> {
        let map = self.map();
        match self.place {
            Place::Named(temporary, path) => {
                temporary.persist(&path).with_context(|| format!("naming {}", path.display()))?;
            }
            Place::Nameless(path) => give_name(&self.file, &path)?,
        }
        Ok(map)
    }

    fn write_run(&mut self, offset: u64, bytes: &[u8], run: Range<usize>) -> Result<()> {
        if run.is_empty() {
            return Ok(());
        }
        let start = offset + run.start as u64;
        let end = offset + run.end as u64;
        self.file
            .write_all_at(&bytes[run], start)
            .with_context(|| format!("writing {} bytes at {start}", end - start))?;
        match self.ranges.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => self.ranges.push(start..end),
        }
        Ok(())
    }
}

/// Links a nameless file to `path`, replacing what was there in one step.
pub fn give_name(file: &File, path: &Path) -> Result<()> {
    let context = || format!("naming {}", path.display());
    let from = format!("/proc/self/fd/{}", file.as_raw_fd());
    for attempt in 0..64 {
        let mut name = std::ffi::OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(format!(".{}-{attempt}", std::process::id()));
        let temporary = path.with_file_name(name);
        match nix::unistd::linkat(
            nix::fcntl::AT_FDCWD,
            from.as_str(),
            nix::fcntl::AT_FDCWD,
            &temporary,
            nix::fcntl::AtFlags::AT_SYMLINK_FOLLOW,
        ) {
            Ok(()) => {
                return std::fs::rename(&temporary, path)
                    .inspect_err(|_| drop(std::fs::remove_file(&temporary)))
                    .with_context(context);
            }
            Err(nix::Error::EEXIST) => {}
            Err(error) => return Err(error).with_context(context),
        }
    }
    anyhow::bail!("naming {}: every temporary name beside it is taken", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_is_the_blocks_that_are_not_zero() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("x.img");
        let mut image = Image::create(&path).unwrap();
        image.set_size(10 * BLOCK).unwrap();
        let mut bytes = vec![0; 4 * ZEROS.len()];
        bytes[0] = 1;
        bytes[3 * ZEROS.len()] = 1;
        image.write_at(4 * BLOCK, &bytes).unwrap();
        image.write_at(BLOCK, &[7; 4096]).unwrap();
        image.write_at(0, &[7; 4096]).unwrap();
        assert!(!path.exists());
        assert!(image.write_at(7, &[7; 4096]).is_err());
        assert!(image.write_at(10 * BLOCK, &[7; 4096]).is_err());
        std::fs::write(&path, "old").unwrap();
        let map = image.commit().unwrap();
        assert_eq!(map.ranges, [0..2 * BLOCK, 4 * BLOCK..5 * BLOCK, 7 * BLOCK..8 * BLOCK]);
        assert_eq!(map.written(), 4 * BLOCK);
        let digest = format!("{:x}", Sha256::digest(std::fs::read(&path).unwrap()));
        assert_eq!(map.sha256(&File::open(&path).unwrap()).unwrap(), digest);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 10 * BLOCK);
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_image_that_is_dropped_leaves_nothing() {
        let place = tempfile::tempdir().unwrap();
        let mut image = Image::create(&place.path().join("x.img")).unwrap();
        image.set_size(BLOCK).unwrap();
        image.write_at(0, &[1; 4096]).unwrap();
        drop(image);
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
    }
}
