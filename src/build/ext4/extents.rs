//! Where a file's blocks are: runs of blocks in a tree whose root is in the inode.
//!
//! The root holds four entries, a block of the tree 340; the tree gets as many levels as it takes. A block of the tree
//! ends with a checksum.

use anyhow::{Context, Result};

use super::checksum::crc32c;
use super::space::{Run, Space};
use super::{BLOCK, BLOCK_BYTES, put16, put32};

/// The longest run one extent can describe.
const MAX_LEN: u64 = 32768;
const IN_ROOT: usize = 4;
const IN_BLOCK: usize = (BLOCK_BYTES - 12) / 12;
const MAGIC: u16 = 0xf30a;

/// A run of blocks of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    /// First block in the file.
    pub logical: u32,
    /// Number of blocks.
    pub len: u16,
    /// First block on disk.
    pub start: u64,
}

/// All runs of a file, in order.
#[derive(Debug, Default)]
pub(super) struct Extents {
    list: Vec<Extent>,
    blocks: u64,
}

impl Extents {
    /// Adds a run that holds the file from block `logical` on.
    pub fn push(&mut self, logical: u64, run: &Run) -> Result<()> {
        let (mut logical, mut start) = (logical, run.start);
        self.blocks += run.end - run.start;
        while start < run.end {
            let mut len = run.end - start;
            if let Some(last) = self.list.last_mut() {
                let used = u64::from(last.len);
                let follows = u64::from(last.logical) + used == logical && last.start + used == start;
                if follows && used < MAX_LEN {
                    len = len.min(MAX_LEN - used);
                    last.len += u16::try_from(len)?;
                    (logical, start) = (logical + len, start + len);
                    continue;
                }
            }
            len = len.min(MAX_LEN);
            let first = u32::try_from(logical).context("a file beyond 16 TiB")?;
            self.list.push(Extent { logical: first, len: u16::try_from(len)?, start });
            (logical, start) = (logical + len, start + len);
        }
        Ok(())
    }

    /// Blocks in all runs.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// The tree: what goes into the inode, and blocks to be written elsewhere, which `space` gives.
    pub fn tree(&self, space: &mut Space, inode_seed: u32) -> ([u8; 60], Vec<(u64, Vec<u8>)>) {
        let mut blocks = Vec::new();
        let mut level: Vec<(u32, [u8; 12])> =
            self.list.iter().map(|extent| (extent.logical, leaf(extent))).collect();
        let mut depth = 0;
        while level.len() > IN_ROOT {
            let mut above = Vec::with_capacity(level.len().div_ceil(IN_BLOCK));
            for entries in level.chunks(IN_BLOCK) {
                let number = space.take(1).start;
                let mut block = vec![0; BLOCK_BYTES];
                fill(&mut block, entries, IN_BLOCK, depth);
                let crc = crc32c(inode_seed, &block[..12 + 12 * IN_BLOCK]);
                put32(&mut block, 12 + 12 * IN_BLOCK, crc);
                blocks.push((number, block));
                above.push((entries[0].0, index(entries[0].0, number)));
            }
            level = above;
            depth += 1;
        }
        let mut root = [0; 60];
        fill(&mut root, &level, IN_ROOT, depth);
        (root, blocks)
    }
}

fn fill(place: &mut [u8], entries: &[(u32, [u8; 12])], max: usize, depth: u16) {
    put16(place, 0, MAGIC);
    put16(place, 2, u16::try_from(entries.len()).unwrap_or(u16::MAX));
    put16(place, 4, u16::try_from(max).unwrap_or(u16::MAX));
    put16(place, 6, depth);
    for (slot, (_, entry)) in place[12..].chunks_mut(12).zip(entries) {
        slot.copy_from_slice(entry);
    }
}

fn leaf(extent: &Extent) -> [u8; 12] {
    let mut entry = [0; 12];
    put32(&mut entry, 0, extent.logical);
    put16(&mut entry, 4, extent.len);
    entry[6..8].copy_from_slice(&extent.start.to_le_bytes()[4..6]);
    entry[8..].copy_from_slice(&extent.start.to_le_bytes()[..4]);
    entry
}

fn index(logical: u32, block: u64) -> [u8; 12] {
    let mut entry = [0; 12];
    put32(&mut entry, 0, logical);
    entry[4..8].copy_from_slice(&block.to_le_bytes()[..4]);
    entry[8..10].copy_from_slice(&block.to_le_bytes()[4..6]);
    entry
}

/// A node of an extent tree that was read: its runs, or the blocks one level below.
#[derive(Debug)]
pub(super) enum Read {
    /// Runs; a run that is allocated but not written reads as zeros and is left out.
    Leaf(Vec<Extent>),
    /// Blocks of the next level.
    Index(Vec<u64>),
}

/// Reads a node of a tree; `depth` is what the level above promised.
pub(super) fn read(node: &[u8], depth: Option<u16>) -> Result<(Read, u16)> {
    let half = |at: usize| node.get(at..at + 2).map_or(0, |bytes| u16::from_le_bytes([bytes[0], bytes[1]]));
    anyhow::ensure!(half(0) == MAGIC, "a node of an extent tree without its mark");
    let (count, own) = (usize::from(half(2)), half(6));
    anyhow::ensure!(own <= 5 && depth.is_none_or(|depth| depth == own), "an extent tree with a wrong depth");
    let entries = node.get(12..12 + 12 * count).context("a node of an extent tree with too many entries")?;
    let entries = entries.chunks(12);
    let read = if own == 0 {
        Read::Leaf(
            entries
                .map(|entry| Extent {
                    logical: u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]),
                    len: u16::from_le_bytes([entry[4], entry[5]]),
                    start: u64::from_le_bytes([
                        entry[8], entry[9], entry[10], entry[11], entry[6], entry[7], 0, 0,
                    ]),
                })
                .filter(|extent| u64::from(extent.len) <= MAX_LEN)
                .collect(),
        )
    } else {
        let block = |e: &[u8]| u64::from_le_bytes([e[4], e[5], e[6], e[7], e[8], e[9], 0, 0]);
        Read::Index(entries.map(block).collect())
    };
    Ok((read, own))
}

/// How many 512-byte sectors some blocks are.
pub(super) fn sectors(blocks: u64) -> u64 {
    blocks * (BLOCK / 512)
}
