//! One anonymous, bounded file that holds a package until it is imported.
//!
//! The file has no name (`O_TMPFILE`): it vanishes with the process whatever happens, and nothing can be opened in its
//! place. All later stages read this one descriptor. Bytes are measured while they are written, so the verdict at the
//! end of a download does not read them again. Only a package that was verified can be given a name.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{AT_FDCWD, AtFlags, FcntlArg, OFlag, SealFlag, fcntl};

use crate::io::at::ReadAt;
use crate::verify::Rejection;
use crate::verify::digest::{Measured, Watch};

/// Takes in a package, up to a limit.
#[derive(Debug)]
pub struct Spool {
    file: File,
    limit: u64,
    written: u64,
    watch: Watch,
}

/// A whole package in a file without a name. Nothing is known about it yet.
#[derive(Debug)]
pub struct Spooled {
    file: Arc<File>,
    size: u64,
    measured: Option<Result<Measured, Rejection>>,
}

/// The spool cannot take the package.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpoolError {
    /// More bytes came than were announced or allowed.
    #[error("the package is larger than the {limit} bytes that are allowed")]
    TooLarge {
        /// Bytes allowed.
        limit: u64,
    },
    /// The file system has no room for it.
    #[error("{dir} has {free} bytes free, the package needs {needed}")]
    NoSpace {
        /// Where the spool lives.
        dir: String,
        /// Bytes needed.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
}

/// Checks that `dir` has room for `needed` bytes, before anything is asked of the network.
///
/// # Errors
/// [`SpoolError::NoSpace`] with the numbers, or what the file system says, as an `io::Error`.
pub fn require_space(dir: &Path, needed: u64) -> io::Result<()> {
    let stat = nix::sys::statvfs::statvfs(dir)?;
    let free = stat.blocks_available().saturating_mul(stat.fragment_size());
    if free < needed {
        let dir = dir.display().to_string();
        return Err(io::Error::new(io::ErrorKind::StorageFull, SpoolError::NoSpace { dir, needed, free }));
    }
    Ok(())
}

impl Spool {
    /// An empty spool in `dir` that takes at most `limit` bytes.
    ///
    /// # Errors
    /// If no file can be made there.
    pub fn create(dir: &Path, limit: u64) -> io::Result<Self> {
        Ok(Self { file: nameless(dir)?, limit, written: 0, watch: Watch::new() })
    }

    /// Ends the intake.
    ///
    /// # Errors
    /// What the file system says.
    pub fn finish(self) -> io::Result<Spooled> {
        let size = self.file.metadata()?.len();
        if size != self.written {
            return Err(io::Error::other("the spool changed while it was written"));
        }
        Ok(Spooled { file: Arc::new(self.file), size, measured: Some(self.watch.finish()) })
    }
}

impl Write for Spool {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if buf.len() as u64 > self.limit - self.written {
            return Err(too_large(self.limit));
        }
        let n = self.file.write(buf)?;
        self.watch.feed(&buf[..n]);
        self.written += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Spooled {
    /// Takes in a local file, which may change under us, without writing what need not be written: a file in memory
    /// that is sealed against changes is read where it is; of others a private copy is made, with shared blocks where
    /// the file system can (Btrfs, XFS), else copied inside the kernel.
    ///
    /// # Errors
    /// If it is larger than `limit`, not a regular file, or cannot be read or written.
    pub fn copy_of(file: &mut File, dir: &Path, limit: u64) -> io::Result<Self> {
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        if meta.len() > limit {
            return Err(too_large(limit));
        }
        let (file, size) = if is_sealed(file) {
            (file.try_clone()?, meta.len())
        } else {
            file.seek(SeekFrom::Start(0))?;
            private_copy(&mut file.take(limit.saturating_add(1)), dir, meta.len())?
        };
        if size > limit {
            return Err(too_large(limit));
        }
        let file = Arc::new(file);
        let measured = Watch::of_file(&file, size)?;
        Ok(Self { file, size, measured: Some(measured) })
    }

    /// Bytes in it.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn file(&self) -> Arc<File> {
        self.file.clone()
    }

    /// Takes out what was measured, which only the verdict needs.
    pub(crate) fn into_measured(mut self) -> Result<(Self, Measured), Rejection> {
        let taken = self.measured.take();
        let measured = taken.unwrap_or(Err(Rejection::Truncated("the lead")))?;
        Ok((self, measured))
    }

    /// Gives the file a name, in one step; only a verified package comes here.
    pub(crate) fn persist(&self, path: &Path) -> io::Result<()> {
        self.file.set_permissions(fs::Permissions::from_mode(0o644))?;
        let link = |to: &Path| {
            let from = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            nix::unistd::linkat(AT_FDCWD, from.as_str(), AT_FDCWD, to, AtFlags::AT_SYMLINK_FOLLOW)
        };
        // In one step, so that no moment to be killed in leaves a file of another name.
        if link(path).is_ok() {
            return Ok(());
        }
        let beside = beside(path);
        let linked = link(&beside);
        if linked.is_err() {
            // Another file system, or a spool that had a name once: copy.
            let made = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&beside);
            let copied = made.and_then(|mut to| {
                io::copy(&mut ReadAt::new(self.file.clone(), 0, self.size), &mut to).map(drop)
            });
            if let Err(e) = copied {
                drop(fs::remove_file(&beside));
                return Err(e);
            }
        }
        fs::rename(&beside, path).inspect_err(|_| drop(fs::remove_file(&beside)))
    }
}

/// A name beside `path` that nobody else uses.
fn beside(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}", std::process::id()));
    path.with_file_name(name)
}

/// Whether nobody can change the file any more, whoever has it open: `memfd_create(2)` with its seals.
fn is_sealed(file: &File) -> bool {
    let all = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
    fcntl(file, FcntlArg::F_GET_SEALS).is_ok_and(|seals| SealFlag::from_bits_truncate(seals).contains(all))
}

/// A copy in `dir` of what `file` has, which was `expected` bytes long, and its length.
fn private_copy(file: &mut io::Take<&mut File>, dir: &Path, expected: u64) -> io::Result<(File, u64)> {
    let mut copy = nameless(dir)?;
    // `io::copy` between files is copy_file_range(2), which shares blocks on Btrfs and XFS.
    match io::copy(file, &mut copy) {
        Ok(size) => Ok((copy, size)),
        Err(error) if error.kind() == io::ErrorKind::StorageFull => {
            // What was copied so far is free again once the copy is gone.
            drop(copy);
            require_space(dir, expected).and(Err(error))
        }
        Err(error) => Err(error),
    }
}

fn nameless(dir: &Path) -> io::Result<File> {
    let opened =
        OpenOptions::new().read(true).write(true).mode(0o600).custom_flags(OFlag::O_TMPFILE.bits()).open(dir);
    match opened {
        // A file system without O_TMPFILE: a file that loses its name at once.
        Err(e) if matches!(e.kind(), io::ErrorKind::Unsupported | io::ErrorKind::IsADirectory) => {
            tempfile::tempfile_in(dir)
        }
        other => other,
    }
}

fn too_large(limit: u64) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, SpoolError::TooLarge { limit })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_its_limit_and_not_one_byte_more() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::create(dir.path(), 4).unwrap();
        spool.write_all(b"abcd").unwrap();
        let error = spool.write_all(b"e").unwrap_err();
        assert_eq!(error.to_string(), "the package is larger than the 4 bytes that are allowed");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "the spool has no name");
        let spooled = spool.finish().unwrap();
        assert_eq!(spooled.size(), 4);
        assert!(matches!(spooled.into_measured(), Err(Rejection::NotAPackage)));
    }

    #[test]
    fn a_copy_does_not_follow_later_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.rpm");
        fs::write(&path, b"before").unwrap();
        let mut file = File::open(&path).unwrap();
        assert!(Spooled::copy_of(&mut file, dir.path(), 5).is_err());
        let copy = Spooled::copy_of(&mut file, dir.path(), 6).unwrap();
        fs::write(&path, b"after!").unwrap();
        let mut text = String::new();
        ReadAt::new(copy.file(), 0, copy.size()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "before");
        copy.persist(&dir.path().join("b.rpm")).unwrap();
        assert_eq!(fs::read(dir.path().join("b.rpm")).unwrap(), b"before");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        assert!(Spooled::copy_of(&mut File::open("/dev/null").unwrap(), dir.path(), 5).is_err());
    }

    #[test]
    fn a_sealed_file_is_read_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let memory =
            nix::sys::memfd::memfd_create("p", nix::sys::memfd::MFdFlags::MFD_ALLOW_SEALING).unwrap();
        let mut memory = File::from(memory);
        memory.write_all(b"before").unwrap();
        let inode = |file: &File| std::os::unix::fs::MetadataExt::ino(&file.metadata().unwrap());
        // Without seals it may change like any other file.
        let copy = Spooled::copy_of(&mut memory, dir.path(), 6).unwrap();
        assert_ne!(inode(&copy.file()), inode(&memory));
        for seal in [SealFlag::F_SEAL_SHRINK, SealFlag::F_SEAL_GROW] {
            fcntl(&memory, FcntlArg::F_ADD_SEALS(seal)).unwrap();
            let copy = Spooled::copy_of(&mut memory, dir.path(), 6).unwrap();
            assert_ne!(inode(&copy.file()), inode(&memory), "it can still be written to");
        }
        fcntl(&memory, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE)).unwrap();
        let taken = Spooled::copy_of(&mut memory, dir.path(), 6).unwrap();
        assert_eq!((inode(&taken.file()), taken.size()), (inode(&memory), 6));
        assert!(Spooled::copy_of(&mut memory, dir.path(), 5).is_err());
        let mut text = String::new();
        ReadAt::new(taken.file(), 0, taken.size()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "before");
    }

    #[test]
    fn missing_space_is_told_with_numbers() {
        require_space(Path::new("/tmp"), 1).unwrap();
        let error = require_space(Path::new("/tmp"), u64::MAX).unwrap_err();
        assert!(error.to_string().contains(&u64::MAX.to_string()), "{error}");
    }
}
