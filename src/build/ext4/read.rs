//! Reading a file system back: for layers that are disk images, and to compare.
//!
//! Contents are not copied: a file becomes the places of its blocks in the image. Understood are extents and block
//! lists, 64-bit and flexible groups, linear and indexed directories (an index is skipped: its leaves are blocks like
//! all others), extended attributes in the inode and in a block. Refused by name: a journal that was not replayed,
//! inline data, encryption, folded case, `meta_bg`, attributes in inodes of their own. Where the file system has checksums,
//! all that is read but the contents of files is compared with them ([`super::verify`]).
//!
//! The input may be malformed: every place is checked to lie within the image, a directory is entered once, and a
//! directory may have at most 1 GiB.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, bail, ensure};

use super::extents::{self, Read};
use super::verify::{Checksums, Own};
use super::xattr;
use crate::build::disk::Region;
use crate::build::layer::{Entry, Sink, What};
use crate::build::tree::content::{Content, Piece, SourceId};
use crate::build::tree::{Device, Meta, shown};

const MAX_DIRECTORY: u64 = 1 << 30;
const INLINE_DATA: u32 = 0x1000_0000;
const ENCRYPTED: u32 = 0x800;

/// A file system in a part of a file.
#[derive(Debug)]
pub struct Reader<'a> {
    file: &'a File,
    region: Region,
    block: u64,
    inode_size: u64,
    inodes_per_group: u64,
    inodes: u64,
    tables: Vec<u64>,
    sums: Checksums,
    uuid: [u8; 16],
}

/// Whether the region has the mark of ext2, ext3 or ext4.
pub fn is_ext4(file: &File, region: Region) -> Result<bool> {
    if region.size < 4096 {
        return Ok(false);
    }
    let mut mark = [0; 2];
    file.read_exact_at(&mut mark, region.offset + 1024 + 0x38).context("looking for an ext4 file system")?;
    Ok(mark == [0x53, 0xef])
}

struct Inode {
    number: u32,
    bytes: Vec<u8>,
    own: Own,
}

impl Inode {
    fn half(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    fn word(&self, at: usize) -> u32 {
        word(&self.bytes, at)
    }

    fn mode(&self) -> u16 {
        self.half(0)
    }

    fn size(&self) -> u64 {
        u64::from(self.word(4)) | (u64::from(self.word(0x6c)) << 32)
    }

    fn block(&self) -> &[u8] {
        &self.bytes[0x28..0x64]
    }

    fn extra(&self) -> usize {
        if self.bytes.len() > 128 { usize::from(self.half(0x80)) } else { 0 }
    }

    fn mtime(&self) -> i64 {
        let low = i64::from(self.word(0x10).cast_signed());
        let epoch = if self.extra() >= 12 { i64::from(self.word(0x88) & 3) } else { 0 };
        low + (epoch << 32)
    }
}

impl<'a> Reader<'a> {
    /// Reads the superblock and the descriptors.
    pub fn open(file: &'a File, region: Region) -> Result<Self> {
        let mut sb = [0; 1024];
        ensure!(region.size >= 4096, "an ext4 file system in {} bytes", region.size);
        file.read_exact_at(&mut sb, region.offset + 1024).context("reading the superblock")?;
        let half = |at: usize| u16::from_le_bytes([sb[at], sb[at + 1]]);
        ensure!(half(0x38) == 0xef53, "there is no ext4 file system");
        let incompat = if word(&sb, 0x4c) == 0 { 0 } else { word(&sb, 0x60) };
        for (bit, what) in [
            (0x1, "is compressed"),
            (0x4, "has a journal that was not replayed (it was not unmounted)"),
            (0x8, "is an external journal"),
            (0x10, "has meta_bg"),
            (0x1_0000, "is encrypted"),
            (0x2_0000, "has folded case"),
        ] {
            ensure!(incompat & bit == 0, "the ext4 file system {what}, which is not supported");
        }
        let known = 0x2 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x2000 | 0x4000 | 0x8000;
        ensure!(
            incompat & !known == 0,
            "the ext4 file system has unknown features ({:#x})",
            incompat & !known
        );
        let sums = Checksums::of(&sb)?;
        let shift = word(&sb, 0x18);
        ensure!(shift <= 6, "an ext4 file system with blocks of 2^{} bytes", shift + 10);
        let block = 1024_u64 << shift;
        let wide = incompat & 0x80 != 0;
        let high = if wide { u64::from(word(&sb, 0x150)) << 32 } else { 0 };
        let blocks = u64::from(word(&sb, 4)) | high;
        ensure!(
            blocks.checked_mul(block).is_some_and(|size| size <= region.size),
            "the ext4 file system claims {blocks} blocks of {block} bytes, but there are only {} bytes",
            region.size
        );
        let first = u64::from(word(&sb, 0x14));
        let per_group = u64::from(word(&sb, 0x20));
        let inodes_per_group = u64::from(word(&sb, 0x28));
        let inode_size = if word(&sb, 0x4c) == 0 { 128 } else { u64::from(half(0x58)) };
        let descriptor = if wide { u64::from(half(0xfe)) } else { 32 };
        ensure!(
            per_group > 0
                && inodes_per_group > 0
                && first < blocks
                && (128..=block).contains(&inode_size)
                && inode_size.is_power_of_two()
                && (32..=1024).contains(&descriptor),
            "the superblock of the ext4 file system is damaged"
        );
        let groups = (blocks - first).div_ceil(per_group);
        let mut table = vec![0; usize::try_from(groups * descriptor)?];
        ensure!(table.len() as u64 <= region.size, "the group descriptors are larger than the file system");
        file.read_exact_at(&mut table, region.offset + (first + 1) * block)
            .context("reading the group descriptors")?;
        let mut tables = Vec::new();
        for (number, group) in table.chunks(usize::try_from(descriptor)?).enumerate() {
            sums.descriptor(number, group)?;
            let high = if wide { u64::from(word(group, 0x28)) << 32 } else { 0 };
            tables.push(u64::from(word(group, 8)) | high);
        }
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&sb[0x68..0x78]);
        let inodes = u64::from(word(&sb, 0));
        Ok(Self { file, region, block, inode_size, inodes_per_group, inodes, tables, sums, uuid })
    }

    /// UUID of the file system.
    #[must_use]
    pub fn uuid(&self) -> [u8; 16] {
        self.uuid
    }

    /// Gives everything in the file system to `sink`, parents first, names in byte order. Contents refer to `source`,
    /// which is the file the reader was opened on.
    pub fn entries(&self, source: SourceId, sink: &mut Sink<'_>) -> Result<()> {
        let mut names: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
        let mut todo = vec![(Vec::new(), 2)];
        while let Some((path, number)) = todo.pop() {
            let context = || format!("reading `/{}` of the file system", shown(&path));
            let inode = self.inode(number).with_context(context)?;
            let directory = inode.mode() >> 12 == 4;
            if directory || inode.half(0x1a) > 1 {
                if let Some(first) = names.get(&number) {
                    ensure!(!directory, "directory `/{}` is also `/{}`", shown(&path), shown(first));
                    let what = What::Link(first.clone());
                    sink(Entry { path, meta: self.meta(&inode)?, what })?;
                    continue;
                }
                names.insert(number, path.clone());
            }
            ensure!(directory || number != 2, "the root of the file system is no directory");
            let what = self.what(&inode, source).with_context(context)?;
            if directory {
                let mut children = self.names(&inode).with_context(context)?;
                children.sort_by(|a, b| b.0.cmp(&a.0));
                for (name, child) in children {
                    ensure!(
                        !name.contains(&b'/') && !name.contains(&0) && !name.is_empty(),
                        "directory `/{}` has an entry with an impossible name",
                        shown(&path)
                    );
                    let below = if path.is_empty() { name } else { [path.as_slice(), b"/", &name].concat() };
                    todo.push((below, child));
                }
            }
            let meta = self.meta(&inode).with_context(context)?;
            sink(Entry { path, meta, what })?;
        }
        Ok(())
    }

    fn what(&self, inode: &Inode, source: SourceId) -> Result<What> {
        let flags = inode.word(0x20);
        ensure!(flags & INLINE_DATA == 0, "its content is inline data, which is not supported");
        ensure!(flags & ENCRYPTED == 0, "it is encrypted");
        Ok(match inode.mode() >> 12 {
            0o01 => What::Fifo,
            0o02 => What::Char(device(inode)),
            0o04 => What::Directory,
            0o06 => What::Block(device(inode)),
            0o10 => {
                let mut pieces = Vec::new();
                let size = inode.size();
                for (logical, start, count) in self.runs(inode)? {
                    let at = logical * self.block;
                    let len = (count * self.block).min(size.saturating_sub(at));
                    pieces.push(Piece { at, len, source, offset: self.region.offset + start * self.block });
                }
                What::File(Content::pieces(size, pieces)?)
            }
            0o12 => {
                let size = inode.size();
                ensure!((1..=4095).contains(&size), "a symbolic link with a target of {size} bytes");
                let size = usize::try_from(size)?;
                let target = if size < 60 { inode.block().to_vec() } else { self.content(inode, 4096)? };
                What::Symlink(target.get(..size).context("a symbolic link without its target")?.into())
            }
            0o14 => What::Socket,
            other => bail!("inode {} is of the unknown kind {other:o}", inode.number),
        })
    }

    fn meta(&self, inode: &Inode) -> Result<Meta> {
        let mut meta = Meta {
            mode: inode.mode() & 0o7777,
            uid: u32::from(inode.half(2)) | (u32::from(inode.half(0x78)) << 16),
            gid: u32::from(inode.half(0x18)) | (u32::from(inode.half(0x7a)) << 16),
            mtime: inode.mtime(),
            xattrs: None,
        };
        let mut xattrs = BTreeMap::new();
        if let Some(room) = inode.bytes.get(128 + inode.extra()..).filter(|_| inode.bytes.len() > 128) {
            xattr::load_inside(room, &mut xattrs)?;
        }
        let block = u64::from(inode.word(0x68)) | (u64::from(inode.half(0x76)) << 32);
        if block != 0 {
            let bytes = self.block_at(block)?;
            self.sums.attributes(block, &bytes)?;
            xattr::load_block(&bytes, &mut xattrs)?;
        }
        if !xattrs.is_empty() {
            meta.xattrs = Some(Box::new(xattrs));
        }
        Ok(meta)
    }

    /// Names and inodes in a directory, `.` and `..` left out.
    fn names(&self, inode: &Inode) -> Result<Vec<(Vec<u8>, u32)>> {
        ensure!(inode.word(0x20) & INLINE_DATA == 0, "its content is inline data, which is not supported");
        let content = self.content(inode, MAX_DIRECTORY)?;
        let mut found = Vec::new();
        for (number, block) in content.chunks_exact(usize::try_from(self.block)?).enumerate() {
            inode.own.directory(number, block)?;
            let mut at = 0;
            while at + 8 <= block.len() {
                let number = word(block, at);
                let len = usize::from(u16::from_le_bytes([block[at + 4], block[at + 5]]));
                // 64 KiB do not fit into 16 bits
                let len = if len == 0xffff || len == 0 { 0x1_0000 } else { len };
                let name_len = usize::from(block[at + 6]);
                ensure!(
                    len >= 8 + name_len && len.is_multiple_of(4) && at + len <= block.len(),
                    "a directory entry that does not fit into its block"
                );
                let name = &block[at + 8..at + 8 + name_len];
                if number != 0 && name != b"." && name != b".." {
                    found.push((name.to_vec(), number));
                }
                at += len;
            }
        }
        Ok(found)
    }

    fn content(&self, inode: &Inode, limit: u64) -> Result<Vec<u8>> {
        let size = inode.size();
        ensure!(size <= limit, "{size} bytes where at most {limit} are possible");
        let mut content = vec![0; usize::try_from(size)?];
        for (logical, start, count) in self.runs(inode)? {
            let Some(rest) = content.get_mut(usize::try_from(logical * self.block)?..) else { continue };
            let len = rest.len().min(usize::try_from(count * self.block)?);
            self.file.read_exact_at(&mut rest[..len], self.region.offset + start * self.block)?;
        }
        Ok(content)
    }

    /// Runs of blocks in order: first block in the file, first block on disk, number; all within the file system.
    fn runs(&self, inode: &Inode) -> Result<Vec<(u64, u64, u64)>> {
        let mut runs = Vec::new();
        if inode.word(0x20) & super::inode::EXTENTS == 0 {
            self.listed(inode, &mut runs)?;
        } else {
            let mut todo = vec![(inode.block().to_vec(), None)];
            let mut seen = 0_u64;
            while let Some((node, depth)) = todo.pop() {
                seen += 1;
                ensure!(seen <= self.region.size / self.block, "an extent tree that does not end");
                match extents::read(&node, depth)? {
                    (Read::Leaf(leaf), _) => {
                        let plain = |e: &extents::Extent| (u64::from(e.logical), e.start, u64::from(e.len));
                        runs.extend(leaf.iter().map(plain));
                    }
                    (Read::Index(blocks), depth) => {
                        for block in blocks.into_iter().rev() {
                            let node = self.block_at(block)?;
                            inode.own.extents(&node)?;
                            todo.push((node, Some(depth - 1)));
                        }
                    }
                }
            }
        }
        let blocks = self.region.size / self.block;
        for (_, start, count) in &runs {
            ensure!(
                start.checked_add(*count).is_some_and(|end| end <= blocks),
                "its blocks lie outside the file system"
            );
        }
        Ok(runs)
    }

    /// Block lists of ext2: twelve blocks, then blocks of block numbers to the third degree.
    fn listed(&self, inode: &Inode, runs: &mut Vec<(u64, u64, u64)>) -> Result<()> {
        let blocks = inode.size().div_ceil(self.block);
        let per_block = self.block / 4;
        let mut todo: Vec<(u32, u64, u32)> = Vec::new();
        let mut logical = 0;
        for slot in 0..15 {
            let degree = u32::try_from(slot).map_or(0, |slot: u32| slot.saturating_sub(11));
            todo.push((word(inode.block(), slot * 4), logical, degree));
            logical += per_block.pow(degree);
        }
        todo.reverse();
        while let Some((number, logical, degree)) = todo.pop() {
            if number == 0 || logical >= blocks {
                continue;
            }
            if degree == 0 {
                match runs.last_mut() {
                    Some((at, start, count))
                        if *at + *count == logical && *start + *count == u64::from(number) =>
                    {
                        *count += 1;
                    }
                    _ => runs.push((logical, u64::from(number), 1)),
                }
                continue;
            }
            let list = self.block_at(u64::from(number))?;
            let step = per_block.pow(degree - 1);
            for slot in (0..per_block).rev() {
                todo.push((word(&list, usize::try_from(slot * 4)?), logical + slot * step, degree - 1));
            }
        }
        Ok(())
    }

    fn block_at(&self, number: u64) -> Result<Vec<u8>> {
        ensure!(
            number.checked_mul(self.block).is_some_and(|at| at <= self.region.size - self.block),
            "block {number} lies outside the file system"
        );
        let mut block = vec![0; usize::try_from(self.block)?];
        self.file.read_exact_at(&mut block, self.region.offset + number * self.block)?;
        Ok(block)
    }

    fn inode(&self, number: u32) -> Result<Inode> {
        ensure!(number > 0 && u64::from(number) <= self.inodes, "inode {number} does not exist");
        let index = u64::from(number) - 1;
        let table = self.tables.get(usize::try_from(index / self.inodes_per_group)?);
        let at = table.context("an inode in a group that does not exist")?.checked_mul(self.block);
        let at = at.and_then(|at| at.checked_add(index % self.inodes_per_group * self.inode_size));
        let at = at.filter(|at| *at <= self.region.size - self.inode_size);
        let at = at.context("an inode table outside the file system")?;
        let mut bytes = vec![0; usize::try_from(self.inode_size)?];
        self.file.read_exact_at(&mut bytes, self.region.offset + at)?;
        Ok(Inode { number, own: self.sums.inode(number, &bytes)?, bytes })
    }
}

fn device(inode: &Inode) -> Device {
    let (old, new) = (word(inode.block(), 0), word(inode.block(), 4));
    if old != 0 {
        Device { major: (old >> 8) & 0xff, minor: old & 0xff }
    } else {
        Device { major: (new >> 8) & 0xfff, minor: (new & 0xff) | ((new >> 12) & 0xf_ff00) }
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
