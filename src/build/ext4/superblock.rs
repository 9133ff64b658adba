//! Superblock, group descriptors and bitmaps: what is known when everything else is written.

use anyhow::Result;

use super::checksum::crc32c;
use super::geometry::{BLOCKS_PER_GROUP, DESCRIPTOR, FLEX, Geometry, INODE_SIZE};
use super::inode::halves;
use super::{BLOCK, BLOCK_BYTES, put16, put32};

/// has_journal, ext_attr, resize_inode, dir_index.
const COMPAT: u32 = 0x4 | 0x8 | 0x10 | 0x20;
/// filetype, extents, 64bit, flex_bg.
const INCOMPAT: u32 = 0x2 | 0x40 | 0x80 | 0x200;
/// sparse_super, large_file, huge_file, dir_nlink, extra_isize, metadata_csum.
const RO_COMPAT: u32 = 0x1 | 0x2 | 0x8 | 0x20 | 0x40 | 0x400;
const INODE_UNINIT: u16 = 1;
const BLOCK_UNINIT: u16 = 2;
const INODE_ZEROED: u16 = 4;

/// What the superblock says about this file system.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub geometry: &'a Geometry,
    pub uuid: [u8; 16],
    pub hash_seed: [u8; 16],
    pub time: i64,
    pub reserved_percent: u8,
    pub seed: u32,
    /// All inodes up to this one are in use.
    pub last_inode: u32,
    /// Directories in each group.
    pub directories: &'a [u32],
    /// No block from here on is in use, except fixed ones.
    pub high_water: u64,
    /// The journal's `i_block`, and its size in bytes.
    pub journal: ([u8; 60], u64),
}

/// A group's bitmaps (where they are not left to be derived) and its descriptor.
pub(super) struct GroupParts {
    pub block_bitmap: Option<Vec<u8>>,
    pub inode_bitmap: Option<Vec<u8>>,
    pub descriptor: [u8; 64],
    pub free_blocks: u64,
}

impl Facts<'_> {
    /// Bitmaps and descriptor of a group.
    pub fn group(&self, number: u64) -> Result<GroupParts> {
        let geometry = self.geometry;
        let places = geometry.groups[usize::try_from(number)?];
        let blocks = geometry.blocks_of(number);
        let mut used = vec![0; BLOCK_BYTES];
        let mut taken = 0;
        let mut derived = number + 1 != geometry.count();
        let runs = geometry.fixed.iter().cloned().chain(std::iter::once(0..self.high_water));
        for run in runs {
            let (start, end) = (run.start.max(blocks.start), run.end.min(blocks.end));
            for block in start..end {
                taken += u64::from(set(&mut used, block - blocks.start));
            }
        }
        // a group in which only its copy of the superblock is in use needs no bitmap on disk
        derived &= taken == geometry.copy_blocks(number);
        for bit in blocks.end - blocks.start..BLOCKS_PER_GROUP {
            set(&mut used, bit);
        }
        let first = number * geometry.inodes_per_group;
        let in_use = u64::from(self.last_inode).saturating_sub(first).min(geometry.inodes_per_group);
        let mut inodes = vec![0; BLOCK_BYTES];
        for bit in (0..in_use).chain(geometry.inodes_per_group..BLOCKS_PER_GROUP) {
            set(&mut inodes, bit);
        }
        let mut flags = INODE_ZEROED;
        let mut block_crc = crc32c(self.seed, &used);
        let mut inode_crc = crc32c(self.seed, &inodes[..usize::try_from(geometry.inodes_per_group / 8)?]);
        if derived {
            flags |= BLOCK_UNINIT;
            block_crc = 0;
        }
        if in_use == 0 {
            flags |= INODE_UNINIT;
            inode_crc = 0;
        }
        let free_blocks = blocks.end - blocks.start - taken;
        let unused = geometry.inodes_per_group - in_use;
        let directories = self.directories.get(usize::try_from(number)?).copied().unwrap_or(0);
        let mut descriptor = [0; 64];
        for (low, high, value) in [
            (0x0, 0x20, places.block_bitmap),
            (0x4, 0x24, places.inode_bitmap),
            (0x8, 0x28, places.inode_table),
        ] {
            put32(&mut descriptor, low, halves(value).0);
            put32(&mut descriptor, high, halves(value).1);
        }
        for (low, high, value) in [
            (0x0c, 0x2c, u32::try_from(free_blocks)?),
            (0x0e, 0x2e, u32::try_from(unused)?),
            (0x10, 0x30, directories),
            (0x18, 0x38, block_crc),
            (0x1a, 0x3a, inode_crc),
            (0x1c, 0x32, u32::try_from(unused)?),
        ] {
            let [a, b, c, d] = value.to_le_bytes();
            descriptor[low..low + 2].copy_from_slice(&[a, b]);
            descriptor[high..high + 2].copy_from_slice(&[c, d]);
        }
        put16(&mut descriptor, 0x12, flags);
        let crc = crc32c(crc32c(self.seed, &u32::try_from(number)?.to_le_bytes()), &descriptor);
        descriptor[0x1e..0x20].copy_from_slice(&crc.to_le_bytes()[..2]);
        Ok(GroupParts {
            block_bitmap: (!derived).then_some(used),
            inode_bitmap: (in_use > 0).then_some(inodes),
            descriptor,
            free_blocks,
        })
    }

    /// The superblock's 1024 bytes for the copy in `group`.
    pub fn superblock(&self, group: u64, free_blocks: u64) -> Result<[u8; 1024]> {
        let geometry = self.geometry;
        let mut bytes = [0; 1024];
        let time = u32::try_from(self.time.max(0)).unwrap_or(u32::MAX);
        let reserved = geometry.blocks / 100 * u64::from(self.reserved_percent);
        let inodes = u32::try_from(geometry.inodes())?;
        let group_blocks = u32::try_from(BLOCKS_PER_GROUP)?;
        for (at, value) in [
            (0x00, inodes),
            (0x04, halves(geometry.blocks).0),
            (0x08, halves(reserved).0),
            (0x0c, halves(free_blocks).0),
            (0x10, inodes - self.last_inode),
            (0x18, 2),
            (0x1c, 2),
            (0x20, group_blocks),
            (0x24, group_blocks),
            (0x28, u32::try_from(geometry.inodes_per_group)?),
            (0x30, time),
            (0x40, time),
            (0x4c, 1),
            (0x54, 11),
            (0x5c, COMPAT),
            (0x60, INCOMPAT),
            (0x64, RO_COMPAT),
            (0xe0, super::JOURNAL),
            // user_xattr, acl
            (0x100, 0xc),
            (0x108, time),
            (0x150, halves(geometry.blocks).1),
            (0x154, halves(reserved).1),
            (0x158, halves(free_blocks).1),
            // names are hashed as unsigned bytes
            (0x160, 2),
        ] {
            put32(&mut bytes, at, value);
        }
        for (at, value) in [
            (0x36, u16::MAX),
            (0x38, 0xef53),
            (0x3a, 1),
            (0x3c, 1),
            (0x58, u16::try_from(INODE_SIZE)?),
            (0x5a, u16::try_from(group)?),
            (0xce, u16::try_from(geometry.reserved_blocks)?),
            (0xfe, u16::try_from(DESCRIPTOR)?),
            (0x15c, 32),
            (0x15e, 32),
        ] {
            put16(&mut bytes, at, value);
        }
        bytes[0x68..0x78].copy_from_slice(&self.uuid);
        bytes[0xec..0xfc].copy_from_slice(&self.hash_seed);
        // half MD4; the journal's inode is backed up here
        bytes[0xfc] = 1;
        bytes[0xfd] = 1;
        bytes[0x10c..0x148].copy_from_slice(&self.journal.0);
        put32(&mut bytes, 0x148, halves(self.journal.1).1);
        put32(&mut bytes, 0x14c, halves(self.journal.1).0);
        bytes[0x174] = u8::try_from(FLEX.trailing_zeros())?;
        // CRC-32C
        bytes[0x175] = 1;
        let crc = crc32c(!0, &bytes[..0x3fc]);
        put32(&mut bytes, 0x3fc, crc);
        Ok(bytes)
    }
}

/// Sets a bit; says whether it was clear.
fn set(bitmap: &mut [u8], bit: u64) -> bool {
    let Some(byte) = usize::try_from(bit / 8).ok().and_then(|at| bitmap.get_mut(at)) else { return false };
    let mask = 1 << (bit % 8);
    let clear = *byte & mask == 0;
    *byte |= mask;
    clear
}

/// The first block of the journal: an empty log of `blocks` blocks.
pub(super) fn journal(blocks: u64) -> Result<Vec<u8>> {
    let mut block = vec![0; BLOCK_BYTES];
    for (at, value) in [
        (0x00, 0xc03b_3998),
        // superblock, version 2
        (0x04, 4),
        (0x0c, u32::try_from(BLOCK)?),
        (0x10, u32::try_from(blocks)?),
        (0x14, 1),
        (0x18, 1),
        (0x40, 1),
    ] {
        block[at..at + 4].copy_from_slice(&u32::to_be_bytes(value));
    }
    Ok(block)
}
