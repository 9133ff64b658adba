//! The blocks of a directory.
//!
//! What fits into one block is a list of entries, sorted by name. A larger directory gets an index (htree): block 0
//! holds `.`, `..` and the root of the index, then come the inner nodes if one level is not enough (507 leaves), then
//! the leaves, sorted by hash. Leaves are filled to four fifths, so that the first new file does not split one. Every
//! block ends with a checksum.

use anyhow::{Result, ensure};

use super::checksum::crc32c;
use super::hash::half_md4;
use super::{BLOCK_BYTES, put16, put32};

const TAIL: usize = 12;
const ROOM: usize = BLOCK_BYTES - TAIL;
const FILLED: usize = ROOM * 4 / 5;
/// First byte of the entries of the index's root: behind `.`, `..` and eight bytes about the index.
const ROOT_ENTRIES: usize = 12 + 12 + 8;
/// First byte of the entries of an inner node: behind an entry that spans the block.
const NODE_ENTRIES: usize = 8;

/// A name in a directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    pub name: &'a [u8],
    pub inode: u32,
    /// The kind, as directory entries have it.
    pub kind: u8,
}

/// What depends on the file system and the directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Own {
    pub inode: u32,
    pub parent: u32,
    pub hash_seed: [u32; 4],
    /// The inode's checksum seed.
    pub seed: u32,
}

/// The blocks of a directory with these entries, and whether it has an index.
pub(super) fn build(own: Own, entries: &[Entry<'_>]) -> Result<(Vec<u8>, bool)> {
    let dots =
        [Entry { name: b".", inode: own.inode, kind: 2 }, Entry { name: b"..", inode: own.parent, kind: 2 }];
    let total: usize = dots.iter().chain(entries).map(|entry| size(entry.name)).sum();
    if total <= ROOM {
        let all: Vec<Entry<'_>> = dots.iter().chain(entries).copied().collect();
        return Ok((list(own, &all), false));
    }
    let mut hashed: Vec<(u32, u32, &Entry<'_>)> = entries
        .iter()
        .map(|entry| {
            let (major, minor) = half_md4(entry.name, own.hash_seed);
            (major, minor, entry)
        })
        .collect();
    hashed.sort_by(|a, b| (a.0, a.1, a.2.name).cmp(&(b.0, b.1, b.2.name)));
    let mut leaves = Vec::new();
    let mut bounds = Vec::new();
    let mut rest = hashed.as_slice();
    let mut last_hash = None;
    while let Some((first, _, _)) = rest.first() {
        let mut room = FILLED;
        let count = rest
            .iter()
            .take_while(|(_, _, entry)| {
                let fits = size(entry.name) <= room;
                room = room.saturating_sub(size(entry.name));
                fits
            })
            .count();
        let (leaf, after) = rest.split_at(count);
        let continued = u32::from(last_hash == Some(*first));
        bounds.push(first | continued);
        last_hash = leaf.last().map(|(hash, _, _)| *hash);
        let leaf: Vec<Entry<'_>> = leaf.iter().map(|(_, _, entry)| **entry).collect();
        leaves.extend(list(own, &leaf));
        rest = after;
    }
    let mut blocks = index(own, &bounds)?;
    blocks.extend(leaves);
    Ok((blocks, true))
}

/// The empty blocks of `lost+found`, which must have room before it is needed.
pub(super) fn empty(own: Own, count: usize) -> Vec<u8> {
    let dots =
        [Entry { name: b".", inode: own.inode, kind: 2 }, Entry { name: b"..", inode: own.parent, kind: 2 }];
    let mut blocks = list(own, &dots);
    for _ in 1..count {
        blocks.extend(list(own, &[]));
    }
    blocks
}

/// Bytes of an entry.
fn size(name: &[u8]) -> usize {
    8 + name.len().next_multiple_of(4)
}

/// One block with these entries, which must fit.
fn list(own: Own, entries: &[Entry<'_>]) -> Vec<u8> {
    let mut block = vec![0; BLOCK_BYTES];
    let mut at = 0;
    for (index, entry) in entries.iter().enumerate() {
        let len = if index + 1 == entries.len() { ROOM - at } else { size(entry.name) };
        put_entry(&mut block, at, entry, len);
        at += len;
    }
    if entries.is_empty() {
        put16(&mut block, 4, u16::try_from(ROOM).unwrap_or(u16::MAX));
    }
    put16(&mut block, ROOM + 4, 12);
    block[ROOM + 7] = 0xde;
    let crc = crc32c(own.seed, &block[..ROOM]);
    put32(&mut block, ROOM + 8, crc);
    block
}

fn put_entry(block: &mut [u8], at: usize, entry: &Entry<'_>, len: usize) {
    put32(block, at, entry.inode);
    put16(block, at + 4, u16::try_from(len).unwrap_or(u16::MAX));
    block[at + 6] = entry.name.len().to_le_bytes()[0];
    block[at + 7] = entry.kind;
    block[at + 8..at + 8 + entry.name.len()].copy_from_slice(entry.name);
}

/// Root and inner nodes over leaves that begin at these hashes.
fn index(own: Own, bounds: &[u32]) -> Result<Vec<u8>> {
    let in_root = limit(ROOT_ENTRIES);
    let in_node = limit(NODE_ENTRIES);
    let levels = usize::from(bounds.len() > in_root);
    let nodes = if levels == 0 { 0 } else { bounds.len().div_ceil(in_node) };
    ensure!(nodes <= in_root, "a directory with {} blocks is larger than ext4 allows", bounds.len());
    let first_leaf = 1 + nodes;
    let numbered = |first: usize, bounds: &[u32]| -> Result<Vec<(u32, u32)>> {
        bounds.iter().enumerate().map(|(index, hash)| Ok((*hash, u32::try_from(first + index)?))).collect()
    };
    let mut blocks = vec![0; BLOCK_BYTES];
    put_entry(&mut blocks, 0, &Entry { name: b".", inode: own.inode, kind: 2 }, 12);
    put_entry(&mut blocks, 12, &Entry { name: b"..", inode: own.parent, kind: 2 }, BLOCK_BYTES - 12);
    // half MD4, eight bytes about the index, its levels
    blocks[28..31].copy_from_slice(&[1, 8, levels.to_le_bytes()[0]]);
    if levels == 0 {
        put_index(own, &mut blocks, ROOT_ENTRIES, &numbered(first_leaf, bounds)?);
        return Ok(blocks);
    }
    let mut tops = Vec::new();
    for (number, part) in bounds.chunks(in_node).enumerate() {
        let mut node = vec![0; BLOCK_BYTES];
        put16(&mut node, 4, u16::try_from(BLOCK_BYTES)?);
        put_index(own, &mut node, NODE_ENTRIES, &numbered(first_leaf + number * in_node, part)?);
        tops.push(part[0]);
        blocks.extend(node);
    }
    put_index(own, &mut blocks[..BLOCK_BYTES], ROOT_ENTRIES, &numbered(1, &tops)?);
    Ok(blocks)
}

/// Entries that fit behind `start`, with eight bytes for the checksum.
const fn limit(start: usize) -> usize {
    (BLOCK_BYTES - start) / 8 - 1
}

/// Writes index entries; the first has no hash, its place holds limit and count.
fn put_index(own: Own, block: &mut [u8], start: usize, entries: &[(u32, u32)]) {
    for (at, (hash, number)) in (start..).step_by(8).zip(entries) {
        put32(block, at, *hash);
        put32(block, at + 4, *number);
    }
    put16(block, start, u16::try_from(limit(start)).unwrap_or(u16::MAX));
    put16(block, start + 2, u16::try_from(entries.len()).unwrap_or(u16::MAX));
    let crc = crc32c(crc32c(own.seed, &block[..start + 8 * entries.len()]), &[0; 8]);
    put32(block, start + 8 * limit(start) + 4, crc);
}
