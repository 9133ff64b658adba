//! Where the fixed parts of the file system lie: groups, superblock copies, descriptors, bitmaps, inode tables.

use std::ops::Range;

use anyhow::{Result, ensure};

use super::BLOCK;

/// Blocks in a group, as one bitmap block can describe.
pub(super) const BLOCKS_PER_GROUP: u64 = 8 * BLOCK;
/// Bytes of an inode.
pub(super) const INODE_SIZE: u64 = 256;
/// Inodes in a block of an inode table.
pub(super) const INODES_PER_BLOCK: u64 = BLOCK / INODE_SIZE;
/// Groups whose bitmaps and inode tables lie together.
pub(super) const FLEX: u64 = 16;
/// Bytes of a group descriptor.
pub(super) const DESCRIPTOR: u64 = 64;
/// Descriptor blocks (used and reserved) up to which a file system can grow while it is mounted: 2 TiB.
const DESCRIPTOR_BLOCKS: u64 = 256;
/// The largest file system: 16 TiB, where block numbers stop fitting into 32 bits, which extents of an older kernel
/// and the resize inode need.
pub(super) const MAX_BLOCKS: u64 = 1 << 32;

/// The fixed layout; see the head of the room.
#[derive(Debug, Clone)]
pub(super) struct Geometry {
    /// Blocks of the file system.
    pub blocks: u64,
    /// Inodes in each group.
    pub inodes_per_group: u64,
    /// Where the metadata of each group is.
    pub groups: Vec<Group>,
    /// Blocks of the descriptor table.
    pub descriptor_blocks: u64,
    /// Blocks behind the table kept for growth.
    pub reserved_blocks: u64,
    /// All blocks with fixed contents, sorted, not touching.
    pub fixed: Vec<Range<u64>>,
}

/// Places of one group's metadata.
#[derive(Debug, Clone, Copy)]
pub(super) struct Group {
    /// Block of the block bitmap.
    pub block_bitmap: u64,
    /// Block of the inode bitmap.
    pub inode_bitmap: u64,
    /// First block of the inode table.
    pub inode_table: u64,
}

impl Geometry {
    /// Lays out `size` bytes for at least `inodes` inodes.
    pub fn new(size: u64, inodes: u64) -> Result<Self> {
        let mut blocks = size / BLOCK;
        ensure!(blocks < MAX_BLOCKS, "a file system of {size} bytes is too large: the limit is 16 TiB");
        ensure!(blocks >= 2048, "a file system of {size} bytes is too small: at least 8 MiB are needed");
        loop {
            let count = blocks.div_ceil(BLOCKS_PER_GROUP);
            let descriptor_blocks = (count * DESCRIPTOR).div_ceil(BLOCK);
            // as mke2fs: room to grow a thousandfold, within the limit
            let growth = (count.saturating_mul(1024) * DESCRIPTOR).div_ceil(BLOCK).min(DESCRIPTOR_BLOCKS);
            let reserved_blocks = growth.saturating_sub(descriptor_blocks);
            let inodes_per_group = inodes.div_ceil(count).next_multiple_of(INODES_PER_BLOCK);
            ensure!(
                inodes_per_group <= 8 * BLOCK,
                "{inodes} inodes need a file system of at least {} bytes",
                inodes.div_ceil(8 * BLOCK) * BLOCKS_PER_GROUP * BLOCK
            );
            let table = inodes_per_group / INODES_PER_BLOCK;
            let last = blocks - (count - 1) * BLOCKS_PER_GROUP;
            let copy = if has_copy(count - 1) { 1 + descriptor_blocks + reserved_blocks } else { 0 };
            if last < copy + table + 52 {
                // as mke2fs: a last group that holds little more than its own metadata is left out
                ensure!(
                    count > 1,
                    "{inodes} inodes do not fit into a file system of {size} bytes: at least {} bytes are needed",
                    (copy + table + 52) * BLOCK
                );
                blocks = (count - 1) * BLOCKS_PER_GROUP;
                continue;
            }
            let mut geometry = Self {
                blocks,
                inodes_per_group,
                groups: Vec::new(),
                descriptor_blocks,
                reserved_blocks,
                fixed: vec![],
            };
            geometry.place(count, table)?;
            return Ok(geometry);
        }
    }

    /// Number of groups.
    pub fn count(&self) -> u64 {
        self.groups.len() as u64
    }

    /// Number of inodes.
    pub fn inodes(&self) -> u64 {
        self.inodes_per_group * self.count()
    }

    /// The blocks of a group.
    pub fn blocks_of(&self, group: u64) -> Range<u64> {
        group * BLOCKS_PER_GROUP..((group + 1) * BLOCKS_PER_GROUP).min(self.blocks)
    }

    /// Blocks at the start of a group that hold a copy of superblock, descriptors and reserved descriptors.
    pub fn copy_blocks(&self, group: u64) -> u64 {
        if has_copy(group) { 1 + self.descriptor_blocks + self.reserved_blocks } else { 0 }
    }

    /// Byte offset of an inode.
    pub fn inode_offset(&self, inode: u32) -> Option<u64> {
        let index = u64::from(inode).checked_sub(1)?;
        let group = self.groups.get(usize::try_from(index / self.inodes_per_group).ok()?)?;
        Some(group.inode_table * BLOCK + index % self.inodes_per_group * INODE_SIZE)
    }

    /// Places bitmaps and inode tables: those of [`FLEX`] groups together from the first of them on, around the copies
    /// of the superblock.
    fn place(&mut self, count: u64, table: u64) -> Result<()> {
        let copies: Vec<Range<u64>> = (0..count)
            .filter(|group| has_copy(*group))
            .map(|group| group * BLOCKS_PER_GROUP..group * BLOCKS_PER_GROUP + self.copy_blocks(group))
            .collect();
        let mut fixed = copies.clone();
        for first in (0..count).step_by(usize::try_from(FLEX)?) {
            let members = first..(first + FLEX).min(count);
            let mut next = first * BLOCKS_PER_GROUP;
            let mut take = |len: u64| {
                while let Some(hit) = copies.iter().find(|copy| copy.start < next + len && next < copy.end) {
                    next = hit.end;
                }
                let start = next;
                next += len;
                fixed.push(start..next);
                start
            };
            let block_bitmaps: Vec<u64> = members.clone().map(|_| take(1)).collect();
            let inode_bitmaps: Vec<u64> = members.clone().map(|_| take(1)).collect();
            for (block_bitmap, inode_bitmap) in block_bitmaps.into_iter().zip(inode_bitmaps) {
                self.groups.push(Group { block_bitmap, inode_bitmap, inode_table: take(table) });
            }
            ensure!(
                next <= self.blocks,
                "the file system is too small for {} inodes",
                count * self.inodes_per_group
            );
            ensure!(
                next <= (first + FLEX) * BLOCKS_PER_GROUP,
                "{} inodes in each group are too many",
                self.inodes_per_group
            );
        }
        fixed.sort_by_key(|range| range.start);
        for range in fixed {
            match self.fixed.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => self.fixed.push(range),
            }
        }
        Ok(())
    }
}

/// Whether a group holds a copy of the superblock: groups 0, 1 and the powers of 3, 5 and 7 (`sparse_super`).
pub(super) fn has_copy(group: u64) -> bool {
    let power = |base: u64| {
        let mut value = base;
        while value < group {
            value *= base;
        }
        value == group
    };
    group <= 1 || power(3) || power(5) || power(7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_overlaps_whatever_the_size() {
        for (size, inodes) in [
            (8 << 20, 16),
            (16 << 20, 1000),
            (10 << 30, 655_360),
            ((128 << 20) + 4096, 8192),
            (10 << 30, 80 * 32768),
            (40 << 30, 300_000),
            ((2048 << 20) + (3 << 20), 100_000),
        ] {
            let geometry =
                Geometry::new(size, inodes).unwrap_or_else(|error| panic!("{size} {inodes}: {error}"));
            assert!(geometry.inodes() >= inodes.min(geometry.inodes()));
            let table = geometry.inodes_per_group / INODES_PER_BLOCK;
            let copies: u64 = (0..geometry.count()).map(|group| geometry.copy_blocks(group)).sum();
            let total: u64 = geometry.fixed.iter().map(|range| range.end - range.start).sum();
            assert_eq!(total, copies + geometry.count() * (2 + table), "{size} {inodes}");
            assert!(geometry.fixed.windows(2).all(|pair| pair[0].end < pair[1].start));
            assert!(geometry.fixed.last().unwrap().end <= geometry.blocks);
        }
        assert!(Geometry::new(1 << 20, 16).is_err());
        assert!(Geometry::new(16 << 40, 16).unwrap_err().to_string().contains("16 TiB"));
        assert!(Geometry::new(16 << 20, 40_000).is_err());
    }

    #[test]
    fn copies_are_where_sparse_super_says() {
        let copies: Vec<u64> = (0..130).filter(|group| has_copy(*group)).collect();
        assert_eq!(copies, [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125]);
    }
}
