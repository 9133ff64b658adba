//! Writing: numbers first, then every inode with its blocks in order, and at the end what counts them.

use anyhow::{Context, Result, bail, ensure};

use super::directory::{self, Entry, Own};
use super::extents::{Extents, sectors};
use super::geometry::{BLOCKS_PER_GROUP, Geometry};
use super::inode::{self, Inode, ROOM};
use super::space::Space;
use super::superblock::{self, Facts};
use super::{BLOCK, BLOCK_BYTES, JOURNAL, put32, xattr};
use crate::build::disk::Region;
use crate::build::image::Image;
use crate::build::tree::content::Content;
use crate::build::tree::{Kind, Meta, NodeId, Tree, shown};

const RESIZE: u32 = 7;
const LOST_FOUND: u32 = 11;
const FIRST_FREE: u32 = 12;
const MAX_NAMES: u32 = 65_000;
const LOST_FOUND_BLOCKS: usize = 4;
/// Files are read and written in pieces of this size.
const PIECE: usize = 1 << 20;
/// One inode for this many bytes, as `mke2fs` has it, unless the tree needs more.
const BYTES_PER_INODE: u64 = 16_384;

/// What the tree does not say.
#[derive(Debug, Clone)]
pub struct Options {
    /// UUID of the file system.
    pub uuid: [u8; 16],
    /// Seed of the name hash.
    pub hash_seed: [u8; 16],
    /// No time in the file system is later, in seconds since 1970.
    pub time: i64,
    /// Share of the blocks that only root may use.
    pub reserved_percent: u8,
    /// Number of inodes; `None` lets the size and the tree decide.
    pub inodes: Option<u64>,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Blocks of 4096 bytes in the file system.
    pub blocks: u64,
    /// Blocks not in use.
    pub free_blocks: u64,
    /// Inodes in the file system.
    pub inodes: u64,
    /// Inodes in use, the eleven reserved ones included.
    pub used_inodes: u64,
}

/// Writes `tree` to `region` of the image; `progress` is told how many bytes of content were written.
pub fn write(
    image: &mut Image,
    region: Region,
    tree: &Tree,
    options: &Options,
    progress: &mut dyn FnMut(u64),
) -> Result<Report> {
    let plan = Plan::new(tree)?;
    plan.sizes(region.size, options)?;
    let geometry = Geometry::new(region.size, plan.wanted_inodes(region.size, options))?;
    let seed = super::checksum::crc32c(!0, &options.uuid);
    let word = |at: usize| {
        let seed = &options.hash_seed;
        u32::from_le_bytes([seed[at], seed[at + 1], seed[at + 2], seed[at + 3]])
    };
    let mut writer = Writer {
        image,
        base: region.offset,
        space: Space::new(&geometry),
        directories: vec![0; usize::try_from(geometry.count())?],
        geometry,
        tree,
        plan: &plan,
        options,
        seed,
        hash_seed: [word(0), word(4), word(8), word(12)],
        first_table: Table::default(),
        table: Table::default(),
        progress,
    };
    let journal = writer.journal(journal_blocks(region.size / BLOCK))?;
    writer.resize_inode()?;
    writer.all()?;
    writer.finish(journal)
}

/// Numbers of the inodes, fixed before anything is written.
struct Plan {
    /// Inode of each node, 0 for those that are no longer in the tree.
    inodes: Vec<u32>,
    last: u32,
    lost_found: bool,
}

impl Plan {
    fn new(tree: &Tree) -> Result<Self> {
        let mut inodes = vec![0; tree.capacity()];
        let mut next = FIRST_FREE;
        let lost_found = tree.child(Tree::ROOT, b"lost+found");
        if let Some(id) = lost_found {
            ensure!(
                tree.node(id).entries().is_some(),
                "`lost+found` is no directory, as it has to be on ext4"
            );
            inodes[id.index()] = LOST_FOUND;
        }
        inodes[Tree::ROOT.index()] = 2;
        for step in tree.walk() {
            let inode = &mut inodes[step.id.index()];
            if *inode == 0 {
                *inode = next;
                next += 1;
            }
        }
        Ok(Self { inodes, last: next - 1, lost_found: lost_found.is_some() })
    }

    fn of(&self, id: NodeId) -> u32 {
        self.inodes[id.index()]
    }

    fn wanted_inodes(&self, size: u64, options: &Options) -> u64 {
        let used = u64::from(self.last);
        options.inodes.unwrap_or_else(|| (size / BYTES_PER_INODE).max(used + used / 8)).max(used)
    }

    /// Refuses what can be seen to be impossible before anything is written.
    fn sizes(&self, size: u64, options: &Options) -> Result<()> {
        if let Some(inodes) = options.inodes {
            ensure!(
                inodes >= u64::from(self.last),
                "{inodes} inodes are too few: the tree needs {}",
                self.last
            );
        }
        ensure!(
            options.reserved_percent <= 50,
            "{} percent cannot be reserved for root",
            options.reserved_percent
        );
        ensure!(size.is_multiple_of(BLOCK), "a file system of {size} bytes has no whole number of blocks");
        Ok(())
    }
}

struct Writer<'a> {
    image: &'a mut Image,
    base: u64,
    geometry: Geometry,
    space: Space,
    directories: Vec<u32>,
    tree: &'a Tree,
    plan: &'a Plan,
    options: &'a Options,
    seed: u32,
    hash_seed: [u32; 4],
    first_table: Table,
    table: Table,
    progress: &'a mut dyn FnMut(u64),
}

/// A part of an inode table that is being filled.
#[derive(Default)]
struct Table {
    offset: u64,
    bytes: Vec<u8>,
}

/// Blocks of a file, and what the inode says about them.
struct Body {
    size: u64,
    sectors: u64,
    flags: u32,
    block: [u8; 60],
}

impl Body {
    fn without_blocks(block: [u8; 60]) -> Self {
        Self { size: 0, sectors: 0, flags: 0, block }
    }
}

impl Writer<'_> {
    fn journal(&mut self, blocks: u64) -> Result<([u8; 60], u64)> {
        let mut extents = Extents::default();
        let mut logical = 0;
        for run in self.space.take_all(blocks) {
            if logical == 0 {
                self.put(run.start, &superblock::journal(blocks)?)?;
            }
            extents.push(logical, &run)?;
            logical += run.end - run.start;
        }
        let body = self.with_extents(JOURNAL, &extents, blocks * BLOCK)?;
        let saved = (body.block, body.size);
        let meta = Meta::root(0o600, self.options.time);
        // the resize inode has the number before; its place in the table is still open
        self.inode(JOURNAL, 0o100_600, &meta, 1, body, None)?;
        Ok(saved)
    }

    /// Inode 7: block lists that reserve the descriptor blocks for growth.
    ///
    /// Its doubly indirect block names the reserved blocks behind the descriptors of group 0; each of these names the
    /// blocks at the same place of the groups with copies.
    fn resize_inode(&mut self) -> Result<()> {
        let copies: Vec<u64> =
            (1..self.geometry.count()).filter(|group| self.geometry.copy_blocks(*group) > 0).collect();
        let first = 1 + self.geometry.descriptor_blocks;
        let count = self.geometry.reserved_blocks;
        let double = self.space.take(1).start;
        let mut double_block = vec![0; BLOCK_BYTES];
        for number in first..first + count {
            let mut block = vec![0; BLOCK_BYTES];
            for (slot, group) in copies.iter().enumerate() {
                put32(&mut block, slot * 4, u32::try_from(number + group * BLOCKS_PER_GROUP)?);
            }
            self.put(number, &block)?;
            let slot = usize::try_from(number - 1)? % (BLOCK_BYTES / 4);
            put32(&mut double_block, slot * 4, u32::try_from(number)?);
        }
        self.put(double, &double_block)?;
        let mut block = [0; 60];
        put32(&mut block, 52, u32::try_from(double).unwrap_or(0));
        let pointers = BLOCK / 4;
        let body = Body {
            size: (pointers * pointers + pointers + 12) * BLOCK,
            sectors: sectors(1 + count * (1 + copies.len() as u64)),
            flags: 0,
            block,
        };
        self.inode(RESIZE, 0o100_600, &Meta::root(0o600, self.options.time), 1, body, None)
    }

    fn all(&mut self) -> Result<()> {
        let tree = self.tree;
        let mut done = vec![false; tree.capacity()];
        if !self.plan.lost_found {
            self.lost_found()?;
        }
        let mut content_bytes = 0;
        for step in tree.walk() {
            if std::mem::replace(&mut done[step.id.index()], true) {
                continue;
            }
            self.one(step.id, step.parent)
                .with_context(|| format!("writing `/{}` to the file system", shown(&step.path)))?;
            if let Kind::File(content) = &tree.node(step.id).kind {
                content_bytes += content.size();
                (self.progress)(content_bytes);
            }
        }
        Ok(())
    }

    fn one(&mut self, id: NodeId, parent: NodeId) -> Result<()> {
        let node = self.tree.node(id);
        let number = self.plan.of(id);
        let mut links = u16::try_from(node.names()).ok().filter(|links| u32::from(*links) <= MAX_NAMES);
        let body = match &node.kind {
            Kind::Directory(_) => {
                let (body, subdirectories) = self.directory(id, number, self.plan.of(parent))?;
                // "1" means: too many to count
                links = Some(
                    u16::try_from(subdirectories + 2).ok().filter(|n| u32::from(*n) < MAX_NAMES).unwrap_or(1),
                );
                let group = (u64::from(number) - 1) / self.geometry.inodes_per_group;
                self.directories[usize::try_from(group)?] += 1;
                body
            }
            Kind::File(content) => self.file(number, content)?,
            Kind::Symlink(target) => self.symlink(number, target)?,
            Kind::Char(device) | Kind::Block(device) => {
                Body::without_blocks(inode::device(device.major, device.minor))
            }
            Kind::Fifo | Kind::Socket => Body::without_blocks([0; 60]),
        };
        let links = links.with_context(|| format!("{} names are more than ext4 allows", node.names()))?;
        let mode = node.kind.type_bits() | (node.meta.mode & 0o7777);
        self.inode(number, mode, &node.meta, links, body, node.meta.xattrs.as_deref())
    }

    fn directory(&mut self, id: NodeId, inode: u32, parent: u32) -> Result<(Body, u64)> {
        let tree = self.tree;
        let mut entries = Vec::new();
        let mut subdirectories = 0;
        if id == Tree::ROOT && !self.plan.lost_found {
            entries.push(Entry { name: b"lost+found", inode: LOST_FOUND, kind: 2 });
            subdirectories += 1;
        }
        for (name, child) in tree.node(id).entries().into_iter().flatten() {
            let kind = match tree.node(*child).kind {
                Kind::File(_) => 1,
                Kind::Directory(_) => 2,
                Kind::Char(_) => 3,
                Kind::Block(_) => 4,
                Kind::Fifo => 5,
                Kind::Socket => 6,
                Kind::Symlink(_) => 7,
            };
            subdirectories += u64::from(kind == 2);
            entries.push(Entry { name, inode: self.plan.of(*child), kind });
        }
        entries.sort_by_key(|entry| entry.name);
        let own = Own { inode, parent, hash_seed: self.hash_seed, seed: inode::seed(self.seed, inode) };
        let (blocks, indexed) = directory::build(own, &entries)?;
        let mut body = self.blocks(inode, &blocks)?;
        if indexed {
            body.flags |= inode::INDEX;
        }
        Ok((body, subdirectories))
    }

    fn lost_found(&mut self) -> Result<()> {
        let seed = inode::seed(self.seed, LOST_FOUND);
        let own = Own { inode: LOST_FOUND, parent: 2, hash_seed: self.hash_seed, seed };
        let body = self.blocks(LOST_FOUND, &directory::empty(own, LOST_FOUND_BLOCKS))?;
        self.directories[0] += 1;
        self.inode(LOST_FOUND, 0o040_700, &Meta::root(0o700, self.options.time), 2, body, None)
    }

    fn file(&mut self, inode: u32, content: &Content) -> Result<Body> {
        let size = content.size();
        let mut extents = Extents::default();
        let mut reader = self.tree.sources.open(content);
        let mut buffer = Vec::new();
        let mut at = 0;
        while let Some(next) = reader.next_data(at) {
            at = next - next % BLOCK;
            let len = usize::try_from((size - at).min(PIECE as u64))?;
            buffer.resize(len.next_multiple_of(BLOCK_BYTES), 0);
            reader.read_at(&mut buffer[..len], at)?;
            buffer[len..].fill(0);
            self.data(&buffer, at / BLOCK, &mut extents)?;
            at += len as u64;
        }
        self.with_extents(inode, &extents, size)
    }

    /// Writes the blocks of `bytes` that are not zero, which hold a file from block `logical` on.
    fn data(&mut self, bytes: &[u8], logical: u64, extents: &mut Extents) -> Result<()> {
        let zero = |block: &[u8]| block == &[0; BLOCK_BYTES][..];
        let mut blocks = bytes.chunks(BLOCK_BYTES).enumerate().peekable();
        while let Some((first, block)) = blocks.next() {
            if zero(block) {
                continue;
            }
            let mut end = first + 1;
            while blocks.next_if(|(_, block)| !zero(block)).is_some() {
                end += 1;
            }
            let mut start = first;
            for run in self.space.take_all((end - first) as u64) {
                let count = usize::try_from(run.end - run.start)?;
                self.put(run.start, &bytes[start * BLOCK_BYTES..(start + count) * BLOCK_BYTES])?;
                extents.push(logical + start as u64, &run)?;
                start += count;
            }
        }
        Ok(())
    }

    fn symlink(&mut self, inode: u32, target: &[u8]) -> Result<Body> {
        let mut block = [0; 60];
        if target.len() < block.len() {
            block[..target.len()].copy_from_slice(target);
            return Ok(Body { size: target.len() as u64, ..Body::without_blocks(block) });
        }
        let mut padded = target.to_vec();
        padded.resize(BLOCK_BYTES, 0);
        Ok(Body { size: target.len() as u64, ..self.blocks(inode, &padded)? })
    }

    /// Writes whole blocks, zeros too.
    fn blocks(&mut self, inode: u32, bytes: &[u8]) -> Result<Body> {
        let mut extents = Extents::default();
        let mut start = 0;
        for run in self.space.take_all((bytes.len() / BLOCK_BYTES) as u64) {
            let count = usize::try_from(run.end - run.start)?;
            self.put(run.start, &bytes[start * BLOCK_BYTES..(start + count) * BLOCK_BYTES])?;
            extents.push(start as u64, &run)?;
            start += count;
        }
        self.with_extents(inode, &extents, bytes.len() as u64)
    }

    fn with_extents(&mut self, inode: u32, extents: &Extents, size: u64) -> Result<Body> {
        let (block, tree) = extents.tree(&mut self.space, inode::seed(self.seed, inode));
        let blocks = extents.blocks() + tree.len() as u64;
        for (number, bytes) in tree {
            self.put(number, &bytes)?;
        }
        Ok(Body { size, sectors: sectors(blocks), flags: inode::EXTENTS, block })
    }

    fn inode(
        &mut self,
        number: u32,
        mode: u16,
        meta: &Meta,
        links: u16,
        body: Body,
        xattrs: Option<&crate::build::tree::Xattrs>,
    ) -> Result<()> {
        let mut room = [0; 256 - ROOM];
        let (mut attributes, mut more) = (0, 0);
        if let Some(mut block) = xattrs.map(|xattrs| xattr::store(xattrs, &mut room)).transpose()?.flatten() {
            attributes = self.space.take(1).start;
            xattr::seal_block(&mut block, self.seed, attributes);
            self.put(attributes, &block)?;
            more = sectors(1);
        }
        let inode = Inode {
            mode,
            uid: meta.uid,
            gid: meta.gid,
            size: body.size,
            time: meta.mtime.min(self.options.time),
            links,
            sectors: body.sectors + more,
            flags: body.flags,
            block: body.block,
            attributes,
        };
        let bytes = inode.encode(&room, inode::seed(self.seed, number));
        let offset = self.geometry.inode_offset(number).context("an inode beyond the last")?;
        self.table_write(offset, &bytes)
    }

    /// Collects inodes until a block of a table is complete. The first block, with the inodes that have a meaning, is
    /// kept to the end, because they are not written in their order.
    fn table_write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let block = offset - offset % BLOCK;
        let first = block == self.geometry.groups[0].inode_table * BLOCK;
        let table = if first { &mut self.first_table } else { &mut self.table };
        if table.offset != block {
            let full = std::mem::replace(table, Table { offset: block, bytes: vec![0; BLOCK_BYTES] });
            self.flush_table(&full)?;
        }
        let table = if first { &mut self.first_table } else { &mut self.table };
        let at = usize::try_from(offset - block)?;
        table.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn flush_table(&mut self, table: &Table) -> Result<()> {
        if table.bytes.is_empty() { Ok(()) } else { self.put(table.offset / BLOCK, &table.bytes) }
    }

    /// Writes blocks; those that do not exist are only counted (see [`Space`]).
    fn put(&mut self, block: u64, bytes: &[u8]) -> Result<()> {
        if block >= self.geometry.blocks {
            return Ok(());
        }
        self.image.write_at(self.base + block * BLOCK, bytes)
    }

    fn finish(mut self, journal: ([u8; 60], u64)) -> Result<Report> {
        for table in [std::mem::take(&mut self.first_table), std::mem::take(&mut self.table)] {
            self.flush_table(&table)?;
        }
        if self.space.missing() > 0 {
            let needed = self.space.given() + self.space.missing();
            bail!(
                "the file system of {} MiB is full: the tree needs at least {} MiB",
                (self.geometry.blocks * BLOCK) >> 20,
                self.sufficient(needed)? >> 20
            );
        }
        let geometry = &self.geometry;
        let facts = Facts {
            geometry,
            uuid: self.options.uuid,
            hash_seed: self.options.hash_seed,
            time: self.options.time,
            reserved_percent: self.options.reserved_percent,
            seed: self.seed,
            last_inode: self.plan.last,
            directories: &self.directories,
            high_water: self.space.high_water(),
            journal,
        };
        let mut descriptors = Vec::new();
        let mut free_blocks = 0;
        for (number, places) in (0..).zip(&geometry.groups) {
            let parts = facts.group(number)?;
            for (block, bitmap) in
                [(places.block_bitmap, parts.block_bitmap), (places.inode_bitmap, parts.inode_bitmap)]
            {
                if let Some(bitmap) = bitmap {
                    self.image.write_at(self.base + block * BLOCK, &bitmap)?;
                }
            }
            descriptors.extend(parts.descriptor);
            free_blocks += parts.free_blocks;
        }
        descriptors.resize(descriptors.len().next_multiple_of(BLOCK_BYTES), 0);
        for group in (0..geometry.count()).filter(|group| geometry.copy_blocks(*group) > 0) {
            let start = group * BLOCKS_PER_GROUP;
            let mut first = vec![0; BLOCK_BYTES];
            let at = if group == 0 { 1024 } else { 0 };
            first[at..at + 1024].copy_from_slice(&facts.superblock(group, free_blocks)?);
            self.image.write_at(self.base + start * BLOCK, &first)?;
            self.image.write_at(self.base + (start + 1) * BLOCK, &descriptors)?;
        }
        Ok(Report {
            blocks: geometry.blocks,
            free_blocks,
            inodes: geometry.inodes(),
            used_inodes: u64::from(self.plan.last),
        })
    }

    /// The smallest size, in whole MiB, whose free blocks are enough for what the tree takes.
    fn sufficient(&self, taken: u64) -> Result<u64> {
        let content = taken - journal_blocks(self.geometry.blocks);
        let fits = |size: u64| -> Result<bool> {
            let geometry = Geometry::new(size, self.plan.wanted_inodes(size, self.options))?;
            let fixed: u64 = geometry.fixed.iter().map(|run| run.end - run.start).sum();
            Ok(geometry.blocks - fixed >= content + journal_blocks(size / BLOCK))
        };
        // runs are never shared between files, so the sum of the blocks decides
        let (mut low, mut high) = ((self.geometry.blocks * BLOCK) >> 20, ((taken * BLOCK) >> 20) * 2 + 64);
        while low < high {
            let middle = low + (high - low) / 2;
            if fits(middle << 20).unwrap_or(false) { high = middle } else { low = middle + 1 }
        }
        Ok(low << 20)
    }
}

/// Blocks of the journal of a file system with `blocks` blocks, as `mke2fs` has it.
fn journal_blocks(blocks: u64) -> u64 {
    const STEPS: [(u64, u64); 7] = [
        (32_768, 1024),
        (262_144, 4096),
        (524_288, 8192),
        (4_194_304, 16_384),
        (8_388_608, 32_768),
        (16_777_216, 65_536),
        (33_554_432, 131_072),
    ];
    STEPS.iter().find(|(limit, _)| blocks < *limit).map_or(262_144, |(_, journal)| *journal)
}
