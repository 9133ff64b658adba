//! Squashfs 4.0, read-only, with extended attributes and hard links.
//!
//! A reader of our own, because of what was measured on a Debian tree of 203 MB: the crate `backhand` 0.25.5 drops
//! extended attributes (`ping` loses its capability) and splits hard links; `sqfs2tar` keeps both, but is one more
//! program to install and to trust with a file from outside.
//!
//! ```text
//! superblock | data blocks, fragments | inodes | directories | fragment table | export table | ids | attributes
//! ```
//!
//! Tables are sequences of blocks that unpack to at most 8192 bytes; an inode is found by block and offset. A file is a
//! list of data blocks (a size of 0 is a hole), and its end may lie in a fragment that it shares with others. Names
//! with one inode number are hard links. Compressed with gzip, xz or zstd; lzma, lzo and lz4 are refused. Source: the
//! kernel's Documentation/filesystems/squashfs, and the description of the format by the makers of squashfs-tools-ng.
//!
//! Contents are unpacked to the spool. The input may be malformed: every place is checked to lie in the file, blocks
//! have at most 1 MiB, a directory is entered once.

mod metadata;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, bail, ensure};
use metadata::{Compressor, Metadata, Place, half, long, word};

use super::input::Spool;
use super::{Entry, Sink, What};
use crate::build::tree::content::{Content, Piece, Sources};
use crate::build::tree::{Device, Meta, Xattrs, shown};

const NONE: u32 = u32::MAX;
const UNPACKED: u32 = 1 << 24;
const MAX_BLOCKS: u64 = 1 << 26;
const KEPT_FRAGMENTS: usize = 16;
const PREFIXES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];

/// A squashfs file system in a file.
#[derive(Debug)]
pub struct Reader<'a> {
    metadata: Metadata<'a>,
    block_size: u64,
    inodes: u64,
    directories: u64,
    root: u64,
    ids: Vec<u8>,
    fragments: Vec<u8>,
    attributes: Option<(u64, Vec<u8>)>,
    kept: BTreeMap<u32, Vec<u8>>,
}

/// Whether a file begins like a squashfs file system.
pub fn is_squashfs(file: &File) -> Result<bool> {
    let mut mark = [0; 4];
    Ok(file.read_at(&mut mark, 0).context("looking for a squashfs file system")? == 4 && &mark == b"hsqs")
}

#[derive(Debug)]
struct Inode {
    number: u32,
    meta: Meta,
    links: u32,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Directory { block: u32, offset: u16, size: u32 },
    File { start: u64, size: u64, fragment: u32, offset: u32, blocks: Vec<u32> },
    Other(What),
}

impl<'a> Reader<'a> {
    /// Reads superblock and tables.
    pub fn open(file: &'a File) -> Result<Self> {
        let mut sb = [0; 96];
        file.read_exact_at(&mut sb, 0).context("reading the superblock")?;
        ensure!(&sb[..4] == b"hsqs", "there is no squashfs file system");
        ensure!(
            half(&sb, 28) == 4 && half(&sb, 30) == 0,
            "squashfs {}.{} is not supported",
            half(&sb, 28),
            half(&sb, 30)
        );
        let size = file.metadata().context("asking for the size of the file")?.len();
        let used = long(&sb, 40);
        ensure!(used <= size, "the file system has {used} bytes, but the file only {size}: it is cut off");
        let block_size = u64::from(word(&sb, 12));
        ensure!(
            (4096..=1 << 20).contains(&block_size) && block_size.is_power_of_two(),
            "a damaged superblock"
        );
        let mut metadata = Metadata::new(file, Compressor::new(half(&sb, 20))?, used);
        let ids = metadata.table(long(&sb, 48), half(&sb, 26).into(), 4).context("reading the owners")?;
        let fragments = match word(&sb, 16) {
            0 => Vec::new(),
            count => {
                metadata.table(long(&sb, 80), usize::try_from(count)?, 16).context("reading the fragments")?
            }
        };
        let attributes = match long(&sb, 56) {
            u64::MAX => None,
            at => {
                let head = metadata.plain(at, 16).context("reading the extended attributes")?;
                let count = usize::try_from(word(&head, 8))?;
                let table = metadata.table(at + 16, count, 16).context("reading the extended attributes")?;
                Some((long(&head, 0), table))
            }
        };
        Ok(Self {
            metadata,
            block_size,
            root: long(&sb, 32),
            inodes: long(&sb, 64),
            directories: long(&sb, 72),
            ids,
            fragments,
            attributes,
            kept: BTreeMap::new(),
        })
    }

    /// Gives everything to `sink`, parents first, names in byte order; contents go to the spool.
    pub fn entries(&mut self, sources: &mut Sources, spool: &mut Spool, sink: &mut Sink<'_>) -> Result<()> {
        let mut first: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
        let mut entered = BTreeSet::new();
        let mut todo = vec![(Vec::new(), self.root)];
        while let Some((path, reference)) = todo.pop() {
            let context = || format!("reading `/{}` of the file system", shown(&path));
            let inode = self.inode(reference).with_context(context)?;
            let what = match inode.body {
                Body::Directory { block, offset, size } => {
                    ensure!(entered.insert(inode.number), "directory `/{}` is there twice", shown(&path));
                    let mut names = self.names(block, offset, size).with_context(context)?;
                    names.sort_by(|a, b| b.0.cmp(&a.0));
                    for (name, reference) in names {
                        let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
                        todo.push(([&path, slash, &name].concat(), reference));
                    }
                    What::Directory
                }
                body => match first.get(&inode.number).filter(|_| inode.links > 1) {
                    Some(target) => What::Link(target.clone()),
                    None => {
                        if inode.links > 1 {
                            first.insert(inode.number, path.clone());
                        }
                        match body {
                            Body::Other(what) => what,
                            file => What::File(self.content(&file, sources, spool).with_context(context)?),
                        }
                    }
                },
            };
            sink(Entry { path, meta: inode.meta, what })?;
        }
        Ok(())
    }

    /// Unpacks one file of the tree to `out`; `false` when it is not there or no file.
    pub fn extract(&mut self, path: &[&[u8]], out: &File, limit: u64) -> Result<bool> {
        let mut reference = self.root;
        for part in path {
            let Body::Directory { block, offset, size } = self.inode(reference)?.body else {
                return Ok(false);
            };
            let found = self.names(block, offset, size)?.into_iter().find(|(name, _)| name == part);
            let Some((_, next)) = found else { return Ok(false) };
            reference = next;
        }
        let body = self.inode(reference)?.body;
        let Body::File { size, .. } = body else { return Ok(false) };
        ensure!(size <= limit, "it has {size} bytes, more than the limit of the spool, {limit}");
        out.set_len(size).context("making room for it")?;
        self.parts(&body, &mut |at, bytes| out.write_all_at(bytes, at).context("unpacking it"))?;
        Ok(true)
    }

    fn content(&mut self, file: &Body, sources: &mut Sources, spool: &mut Spool) -> Result<Content> {
        let Body::File { size, .. } = file else { bail!("it is no file") };
        let source = spool.source(sources)?;
        let mut pieces: Vec<Piece> = Vec::new();
        self.parts(file, &mut |at, bytes| {
            let offset = spool.len();
            let len = bytes.len() as u64;
            spool.append(bytes)?;
            match pieces.last_mut() {
                Some(last) if last.at + last.len == at => last.len += len,
                _ => pieces.push(Piece { at, len, source, offset }),
            }
            Ok(())
        })?;
        Content::pieces(*size, pieces)
    }

    /// Gives the parts of a file that are no holes, in order.
    fn parts(&mut self, file: &Body, sink: &mut dyn FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        let Body::File { start, size, fragment, offset, blocks } = file else { bail!("it is no file") };
        let mut at = 0;
        let mut position = *start;
        for block in blocks {
            let len = (size - at).min(self.block_size);
            let stored = block & (UNPACKED - 1);
            if stored > 0 {
                let bytes = self.data(position, *block)?;
                ensure!(bytes.len() as u64 == len, "a block of it has {} bytes, not {len}", bytes.len());
                sink(at, &bytes)?;
                position += u64::from(stored);
            }
            at += len;
        }
        if *fragment != NONE && at < *size {
            let len = usize::try_from(size - at)?;
            let offset = usize::try_from(*offset)?;
            let shared = self.fragment(*fragment)?;
            let part = shared.get(offset..).and_then(|rest| rest.get(..len));
            sink(at, part.context("its end lies behind the end of a fragment")?)?;
        }
        Ok(())
    }

    fn data(&self, position: u64, size: u32) -> Result<Vec<u8>> {
        let stored = self.metadata.plain(position, usize::try_from(size & (UNPACKED - 1))?)?;
        let limit = usize::try_from(self.block_size)?;
        ensure!(stored.len() <= limit, "a block with {} bytes", stored.len());
        if size & UNPACKED != 0 { Ok(stored) } else { self.metadata.compressor.unpack(&stored, limit) }
    }

    fn fragment(&mut self, number: u32) -> Result<&[u8]> {
        if !self.kept.contains_key(&number) {
            let at = usize::try_from(number)? * 16;
            let entry = self.fragments.get(at..at + 16).context("a fragment that does not exist")?;
            let bytes = self.data(long(entry, 0), word(entry, 8))?;
            if self.kept.len() >= KEPT_FRAGMENTS {
                self.kept.pop_first();
            }
            self.kept.insert(number, bytes);
        }
        self.kept.get(&number).map(Vec::as_slice).context("a fragment that was just read")
    }

    /// Names in a directory, with the references of their inodes.
    fn names(&mut self, block: u32, offset: u16, size: u32) -> Result<Vec<(Vec<u8>, u64)>> {
        let start = self.directories.checked_add(block.into()).context("a directory beyond every file")?;
        let mut place = Place { block: start, offset: offset.into() };
        // the size counts `.` and `..`, which are not stored
        let mut left = usize::try_from(size)?.saturating_sub(3);
        let mut names = Vec::new();
        while left > 0 {
            let head = self.metadata.read(&mut place, 12)?;
            left = left.checked_sub(12).context("a directory that is cut off")?;
            let count = word(&head, 0);
            ensure!(count < 256, "a directory with {count} names in a row");
            for _ in 0..=count {
                let entry = self.metadata.read(&mut place, 8)?;
                let name = self.metadata.read(&mut place, usize::from(half(&entry, 6)) + 1)?;
                left = left.checked_sub(8 + name.len()).context("a directory that is cut off")?;
                ensure!(
                    !name.contains(&b'/') && !name.contains(&0) && name != b"." && name != b"..",
                    "an entry with the impossible name `{}`",
                    shown(&name)
                );
                names.push((name, (u64::from(word(&head, 4)) << 16) | u64::from(half(&entry, 0))));
            }
        }
        Ok(names)
    }

    fn inode(&mut self, reference: u64) -> Result<Inode> {
        let mut place = Place::of(self.inodes, reference)?;
        let mut next = |metadata: &mut Metadata<'_>, len: usize| metadata.read(&mut place, len);
        let metadata = &mut self.metadata;
        let head = next(metadata, 16)?;
        let kind = half(&head, 0);
        let mut attributes = NONE;
        let (links, body) = match kind {
            1 => {
                let b = next(metadata, 16)?;
                (1, Body::Directory { block: word(&b, 0), offset: half(&b, 10), size: half(&b, 8).into() })
            }
            8 => {
                let b = next(metadata, 24)?;
                attributes = word(&b, 20);
                (1, Body::Directory { block: word(&b, 8), offset: half(&b, 18), size: word(&b, 4) })
            }
            2 | 9 => {
                let (links, start, size, fragment, offset) = if kind == 2 {
                    let b = next(metadata, 16)?;
                    (1, word(&b, 0).into(), word(&b, 12).into(), word(&b, 4), word(&b, 8))
                } else {
                    let b = next(metadata, 40)?;
                    attributes = word(&b, 36);
                    (word(&b, 24), long(&b, 0), long(&b, 8), word(&b, 28), word(&b, 32))
                };
                let count: u64 =
                    if fragment == NONE { size.div_ceil(self.block_size) } else { size / self.block_size };
                ensure!(count <= MAX_BLOCKS, "a file with {size} bytes is too large");
                let list = next(metadata, usize::try_from(count * 4)?)?;
                let blocks = list.chunks_exact(4).map(|b| word(b, 0)).collect();
                (links, Body::File { start, size, fragment, offset, blocks })
            }
            3 | 10 => {
                let b = next(metadata, 8)?;
                let len = word(&b, 4);
                ensure!((1..=4095).contains(&len), "a symbolic link with a target of {len} bytes");
                let target = next(metadata, usize::try_from(len)?)?;
                if kind == 10 {
                    attributes = word(&next(metadata, 4)?, 0);
                }
                (word(&b, 0), Body::Other(What::Symlink(target.into())))
            }
            4 | 5 | 11 | 12 => {
                let b = next(metadata, 8)?;
                if kind > 7 {
                    attributes = word(&next(metadata, 4)?, 0);
                }
                let device = word(&b, 4);
                let device = Device {
                    major: (device & 0xf_ff00) >> 8,
                    minor: (device & 0xff) | ((device >> 12) & 0xf_ff00),
                };
                let what = if matches!(kind, 4 | 11) { What::Block(device) } else { What::Char(device) };
                (word(&b, 0), Body::Other(what))
            }
            6 | 7 | 13 | 14 => {
                let b = next(metadata, 4)?;
                if kind > 7 {
                    attributes = word(&next(metadata, 4)?, 0);
                }
                let what = if matches!(kind, 6 | 13) { What::Fifo } else { What::Socket };
                (word(&b, 0), Body::Other(what))
            }
            other => bail!("an inode of the unknown kind {other}"),
        };
        let mut meta = Meta {
            mode: half(&head, 2) & 0o7777,
            uid: self.id(half(&head, 4))?,
            gid: self.id(half(&head, 6))?,
            mtime: word(&head, 8).into(),
            xattrs: None,
        };
        if attributes != NONE {
            meta.xattrs = self.xattrs(attributes)?;
        }
        Ok(Inode { number: word(&head, 12), meta, links, body })
    }

    fn id(&self, index: u16) -> Result<u32> {
        let at = usize::from(index) * 4;
        self.ids.get(at..at + 4).map(|id| word(id, 0)).context("an owner that does not exist")
    }

    fn xattrs(&mut self, index: u32) -> Result<Option<Box<Xattrs>>> {
        let (start, table) = self.attributes.as_ref().context("extended attributes without their table")?;
        let start = *start;
        let at = usize::try_from(index)? * 16;
        let entry = table.get(at..at + 16).context("extended attributes that do not exist")?;
        let (reference, count) = (long(entry, 0), word(entry, 8));
        let mut place = Place::of(start, reference)?;
        let mut xattrs = Xattrs::new();
        for _ in 0..count {
            let head = self.metadata.read(&mut place, 4)?;
            let kind = half(&head, 0);
            let prefix = PREFIXES
                .get(usize::from(kind & 0xff))
                .context("an extended attribute of an unknown class")?;
            let name = self.metadata.read(&mut place, half(&head, 2).into())?;
            let value = self.value(&mut place)?;
            let value = if kind & 0x100 == 0 {
                value
            } else {
                let elsewhere = value.get(..8).context("a reference to a value that is cut off")?;
                self.value(&mut Place::of(start, long(elsewhere, 0))?)?
            };
            xattrs.insert([prefix, name.as_slice()].concat(), value);
        }
        Ok((!xattrs.is_empty()).then(|| Box::new(xattrs)))
    }

    fn value(&mut self, place: &mut Place) -> Result<Vec<u8>> {
        let len = usize::try_from(word(&self.metadata.read(place, 4)?, 0))?;
        ensure!(len <= 65_536, "an extended attribute of {len} bytes");
        self.metadata.read(place, len)
    }
}
