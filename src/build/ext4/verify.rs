//! Checksums of a file system that is read.
//!
//! With the feature `metadata_csum`, everything but the contents of files has a CRC-32C: superblock, group descriptors,
//! inodes, blocks of extents, directories and extended attributes. What is read is compared with it, so that a damaged
//! image is called damaged, and not taken for another tree. The checksums do not make an image trusted: whoever changes
//! one can write them too. A file system without the feature has none.
//!
//! Source: the kernel's Documentation/filesystems/ext4/checksums.rst.

use anyhow::{Context, Result, ensure};

use super::checksum::crc32c;
use super::inode::INDEX;

/// `metadata_csum` among the features that a reader may ignore to read.
const FEATURE: u32 = 0x400;
/// The seed stands in the superblock (`metadata_csum_seed`).
const SEED: u32 = 0x2000;

/// Judges what is read; says yes to everything in a file system without checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Checksums {
    seed: Option<u32>,
}

/// The start value of the checksums of what belongs to one inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Own {
    seed: Option<u32>,
    indexed: bool,
}

impl Checksums {
    /// Those of the file system with this superblock, whose own is checked.
    pub(super) fn of(superblock: &[u8; 1024]) -> Result<Self> {
        if word(superblock, 0x4c) == 0 || word(superblock, 0x64) & FEATURE == 0 {
            return Ok(Self { seed: None });
        }
        ensure!(superblock[0x175] == 1, "the ext4 file system has checksums of an unknown kind");
        ensure!(
            crc32c(!0, &superblock[..0x3fc]) == word(superblock, 0x3fc),
            "the superblock of the ext4 file system is damaged: its checksum is wrong"
        );
        let seed = if word(superblock, 0x60) & SEED == 0 {
            crc32c(!0, &superblock[0x68..0x78])
        } else {
            word(superblock, 0x270)
        };
        Ok(Self { seed: Some(seed) })
    }

    /// A group descriptor; only the lower half of its checksum is kept.
    pub(super) fn descriptor(&self, group: usize, bytes: &[u8]) -> Result<()> {
        let Some(seed) = self.seed else { return Ok(()) };
        let seed = crc32c(seed, &u32::try_from(group)?.to_le_bytes());
        let crc = crc32c(crc32c(crc32c(seed, &bytes[..0x1e]), &[0; 2]), &bytes[0x20..]);
        ensure!(
            crc.to_le_bytes()[..2] == bytes[0x1e..0x20],
            "the descriptor of group {group} is damaged: its checksum is wrong"
        );
        Ok(())
    }

    /// An inode. Returns what its blocks are judged with.
    pub(super) fn inode(&self, number: u32, bytes: &[u8]) -> Result<Own> {
        let indexed = word(bytes, 0x20) & INDEX != 0;
        let Some(seed) = self.seed else { return Ok(Own { seed: None, indexed }) };
        let own = crc32c(crc32c(seed, &number.to_le_bytes()), &bytes[0x64..0x68]);
        let mut plain = bytes.to_vec();
        plain[0x7c..0x7e].fill(0);
        // the upper half has a place only where the inode is larger than the first 128 bytes
        let wide = bytes.len() > 128 && u16::from_le_bytes([bytes[0x80], bytes[0x81]]) >= 4;
        if wide {
            plain[0x82..0x84].fill(0);
        }
        let crc = crc32c(own, &plain).to_le_bytes();
        ensure!(
            crc[..2] == bytes[0x7c..0x7e] && (!wide || crc[2..] == bytes[0x82..0x84]),
            "inode {number} is damaged: its checksum is wrong"
        );
        Ok(Own { seed: Some(own), indexed })
    }

    /// A block of extended attributes.
    pub(super) fn attributes(&self, number: u64, block: &[u8]) -> Result<()> {
        let Some(seed) = self.seed else { return Ok(()) };
        let seed = crc32c(seed, &number.to_le_bytes());
        let crc = crc32c(crc32c(crc32c(seed, &block[..0x10]), &[0; 4]), &block[0x14..]);
        ensure!(
            crc == word(block, 0x10),
            "the extended attributes in block {number} are damaged: their checksum is wrong"
        );
        Ok(())
    }
}

impl Own {
    /// A block of extents; the checksum stands behind the last place for one.
    pub(super) fn extents(&self, block: &[u8]) -> Result<()> {
        let Some(seed) = self.seed else { return Ok(()) };
        let end = 12 + 12 * usize::from(half(block, 4));
        let tail = block.get(end..end + 4).context("a block of extents has no room for its checksum")?;
        ensure!(
            crc32c(seed, &block[..end]).to_le_bytes() == *tail,
            "a block of extents is damaged: its checksum is wrong"
        );
        Ok(())
    }

    /// Block `number` of a directory: a list of entries, or a part of the index.
    pub(super) fn directory(&self, number: usize, block: &[u8]) -> Result<()> {
        let Some(seed) = self.seed else { return Ok(()) };
        let wrong = || format!("block {number} of a directory is damaged: its checksum is wrong");
        // an inner node begins with an entry without inode that spans the block; 64 KiB do not fit into 16 bits
        let spans = usize::from(half(block, 4)) == block.len() || matches!(half(block, 4), 0 | 0xffff);
        let index = match (self.indexed, number) {
            (true, 0) => Some(0x20),
            (true, _) if word(block, 0) == 0 && spans => Some(8),
            _ => None,
        };
        let Some(start) = index else {
            let (list, tail) = block.split_at(block.len() - 12);
            ensure!(
                tail[..8] == [0, 0, 0, 0, 12, 0, 0, 0xde] && crc32c(seed, list) == word(tail, 8),
                wrong()
            );
            return Ok(());
        };
        let (limit, count) = (usize::from(half(block, start)), usize::from(half(block, start + 2)));
        let used = block.get(..start + 8 * count).filter(|_| count <= limit).with_context(wrong)?;
        let tail = start + 8 * limit;
        let tail = block.get(tail..tail + 8).with_context(wrong)?;
        ensure!(crc32c(crc32c(crc32c(seed, used), &tail[..4]), &[0; 4]) == word(tail, 4), wrong());
        Ok(())
    }
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
