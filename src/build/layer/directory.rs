//! A directory of this machine as a layer: an overlay's upper directory, an unpacked tree.
//!
//! Entries come in the byte order of their names, whatever the file system's own order. Files that are one inode are
//! hard links. Contents are read when the image is written; a file that has changed by then is an error. Owners are
//! those on disk, or the ones given, so that a tree unpacked by an ordinary user can be root's. Nothing is followed,
//! and nothing outside the directory is opened.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::{Entry, Sink, What};
use crate::build::tree::content::{Content, Source, Sources};
use crate::build::tree::{Device, Meta, Xattrs, shown};

/// Who owns what comes from a directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Owner {
    /// Whoever owns it on disk.
    #[default]
    Disk,
    /// One user and one group, whatever the disk says.
    Fixed {
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
    },
}

impl std::str::FromStr for Owner {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "disk" {
            return Ok(Self::Disk);
        }
        let numbers =
            text.split_once(':').and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)));
        let (uid, gid) =
            numbers.with_context(|| format!("`{text}` is no owner: it must be `disk` or `UID:GID`"))?;
        Ok(Self::Fixed { uid, gid })
    }
}

const MAX_XATTR: usize = 65_536;

/// Gives everything below `root` to `sink`, the directory itself first. `backwards` turns around what the file system
/// lists, which must change nothing.
pub fn read(
    root: &Path,
    owner: Owner,
    backwards: bool,
    sources: &mut Sources,
    sink: &mut Sink<'_>,
) -> Result<()> {
    let mut links: BTreeMap<(u64, u64), Vec<u8>> = BTreeMap::new();
    let mut todo = vec![Vec::new()];
    while let Some(path) = todo.pop() {
        let here = if path.is_empty() { root.to_owned() } else { root.join(OsStr::from_bytes(&path)) };
        let context = || format!("reading {}", here.display());
        let found = if path.is_empty() { std::fs::metadata(&here) } else { std::fs::symlink_metadata(&here) };
        let found = found.with_context(context)?;
        ensure!(!path.is_empty() || found.is_dir(), "{} is no directory", root.display());
        let meta = meta(&here, &found, owner).with_context(context)?;
        let mut what = what(&here, &found, sources).with_context(context)?;
        if what == What::Directory {
            let mut names = Vec::new();
            for entry in std::fs::read_dir(&here).with_context(context)? {
                names.push(entry.with_context(context)?.file_name());
            }
            if backwards {
                names.reverse();
            }
            names.sort_by(|a, b| b.cmp(a));
            for name in names {
                let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
                todo.push([&path, slash, name.as_bytes()].concat());
            }
        } else if found.nlink() > 1 {
            match links.get(&(found.dev(), found.ino())) {
                Some(first) => what = What::Link(first.clone()),
                None => drop(links.insert((found.dev(), found.ino()), path.clone())),
            }
        }
        sink(Entry { path, meta, what })?;
    }
    Ok(())
}

fn meta(path: &Path, found: &Metadata, owner: Owner) -> Result<Meta> {
    let (uid, gid) = match owner {
        Owner::Disk => (found.uid(), found.gid()),
        Owner::Fixed { uid, gid } => (uid, gid),
    };
    let mode = u16::try_from(found.mode() & 0o7777)?;
    Ok(Meta { mode, uid, gid, mtime: found.mtime(), xattrs: xattrs(path)? })
}

fn what(path: &Path, found: &Metadata, sources: &mut Sources) -> Result<What> {
    let kind = found.file_type();
    Ok(if kind.is_dir() {
        What::Directory
    } else if kind.is_file() {
        let source = sources.add(Source::Host {
            path: path.to_owned(),
            inode: found.ino(),
            size: found.len(),
            changed: (found.ctime(), found.ctime_nsec()),
        })?;
        What::File(Content::whole(source, 0, found.len()))
    } else if kind.is_symlink() {
        let target = std::fs::read_link(path)?;
        What::Symlink(target.as_os_str().as_bytes().into())
    } else if kind.is_char_device() {
        What::Char(device(found))
    } else if kind.is_block_device() {
        What::Block(device(found))
    } else if kind.is_fifo() {
        What::Fifo
    } else if kind.is_socket() {
        What::Socket
    } else {
        bail!("it is of an unknown kind")
    })
}

fn device(found: &Metadata) -> Device {
    Device { major: rustix::fs::major(found.rdev()), minor: rustix::fs::minor(found.rdev()) }
}

fn xattrs(path: &Path) -> Result<Option<Box<Xattrs>>> {
    let mut list = vec![0; MAX_XATTR];
    let len = match rustix::fs::llistxattr(path, &mut list) {
        Ok(0) | Err(rustix::io::Errno::NOTSUP) => return Ok(None),
        result => result.context("listing extended attributes")?,
    };
    let mut xattrs = Xattrs::new();
    let mut value = vec![0; MAX_XATTR];
    for name in list[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let size = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value)
            .with_context(|| format!("reading extended attribute `{}`", shown(name)))?;
        xattrs.insert(name.to_vec(), value[..size].to_vec());
    }
    Ok(Some(Box::new(xattrs)))
}
