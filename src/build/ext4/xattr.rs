//! Extended attributes on disk: in the inode behind its fixed part, and what does not fit there in one block.
//!
//! Both hold entries (16 bytes and the name) growing from the front, and values growing from the end. ACLs are stored
//! in a form of their own. A value larger than the block is refused (the `ea_inode` feature is not used).

use anyhow::{Context, Result, bail, ensure};

use super::checksum::crc32c;
use super::{BLOCK_BYTES, put16, put32};
use crate::build::tree::{Xattrs, shown};

const MAGIC: u32 = 0xea02_0000;
const ENTRY: usize = 16;
const HEADER: usize = 32;

/// Longest first where one begins with another.
const PREFIXES: [(&[u8], u8); 6] = [
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"trusted.", 4),
    (b"security.", 6),
    (b"system.", 7),
    (b"user.", 1),
];

/// One attribute as the disk has it.
#[derive(Debug)]
struct Attribute {
    index: u8,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Attribute {
    fn new(name: &[u8], value: &[u8]) -> Result<Self> {
        let (prefix, index) =
            PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix)).with_context(|| {
                format!("extended attribute `{}` is of no class that ext4 knows", shown(name))
            })?;
        let rest = &name[prefix.len()..];
        let acl = matches!(index, 2 | 3);
        ensure!(
            acl == rest.is_empty() && rest.len() <= 255,
            "extended attribute `{}` has no proper name",
            shown(name)
        );
        let value = if acl { acl_to_disk(value)? } else { value.to_vec() };
        Ok(Self { index: *index, name: rest.to_vec(), value })
    }

    fn entry_size(&self) -> usize {
        ENTRY + self.name.len().next_multiple_of(4)
    }

    fn size(&self) -> usize {
        self.entry_size() + self.value.len().next_multiple_of(4)
    }

    fn hash(&self) -> u32 {
        let name = self.name.iter().fold(0_u32, |hash, byte| hash.rotate_left(5) ^ u32::from(*byte));
        self.value.chunks(4).fold(name, |hash, part| {
            let mut word = [0; 4];
            word[..part.len()].copy_from_slice(part);
            hash.rotate_left(16) ^ u32::from_le_bytes(word)
        })
    }
}

/// Splits attributes between the room in the inode and a block.
///
/// `room` is the part of the inode behind its fixed fields; the block is `None` when all fits. Its checksum is still
/// missing: it depends on where the block will be ([`seal_block`]).
pub(super) fn store(xattrs: &Xattrs, room: &mut [u8]) -> Result<Option<Vec<u8>>> {
    let mut attributes: Vec<Attribute> =
        xattrs.iter().map(|(name, value)| Attribute::new(name, value)).collect::<Result<_>>()?;
    attributes.sort_by(|a, b| (a.index, a.name.len(), &a.name).cmp(&(b.index, b.name.len(), &b.name)));
    let mut free = room.len() - 4 - 4;
    let (inside, outside): (Vec<Attribute>, Vec<Attribute>) = attributes.into_iter().partition(|attribute| {
        let fits = attribute.size() <= free;
        if fits {
            free -= attribute.size();
        }
        fits
    });
    if !inside.is_empty() {
        put32(room, 0, MAGIC);
        fill(&mut room[4..], 0, &inside);
    }
    if outside.is_empty() {
        return Ok(None);
    }
    let needed: usize = outside.iter().map(Attribute::size).sum();
    ensure!(
        needed + HEADER + 4 <= BLOCK_BYTES,
        "extended attributes of {needed} bytes do not fit into a block of {BLOCK_BYTES}"
    );
    let mut block = vec![0; BLOCK_BYTES];
    fill(&mut block, HEADER, &outside);
    for (at, value) in [(0, MAGIC), (4, 1), (8, 1)] {
        put32(&mut block, at, value);
    }
    let hash = outside.iter().fold(0_u32, |hash, attribute| hash.rotate_left(16) ^ attribute.hash());
    put32(&mut block, 12, if outside.iter().any(|attribute| attribute.hash() == 0) { 0 } else { hash });
    Ok(Some(block))
}

/// Puts the checksum into an attribute block that will lie at block `number`.
pub(super) fn seal_block(block: &mut [u8], seed: u32, number: u64) {
    put32(block, 16, 0);
    let crc = crc32c(crc32c(seed, &number.to_le_bytes()), block);
    put32(block, 16, crc);
}

/// Entries from `start`, values from the end; offsets of values count from the start of `area`.
fn fill(area: &mut [u8], start: usize, attributes: &[Attribute]) {
    let mut entry = start;
    let mut end = area.len();
    for attribute in attributes {
        let value = &attribute.value;
        end -= value.len().next_multiple_of(4);
        area[end..end + value.len()].copy_from_slice(value);
        area[entry] = attribute.name.len().to_le_bytes()[0];
        area[entry + 1] = attribute.index;
        put16(area, entry + 2, if value.is_empty() { 0 } else { u16::try_from(end).unwrap_or(u16::MAX) });
        put32(area, entry + 8, u32::try_from(value.len()).unwrap_or(u32::MAX));
        put32(area, entry + 12, attribute.hash());
        area[entry + ENTRY..entry + ENTRY + attribute.name.len()].copy_from_slice(&attribute.name);
        entry += attribute.entry_size();
    }
}

/// An ACL as the system calls show it (version 2, eight bytes an entry) becomes the one on disk (version 1, where only
/// entries that name somebody have a number).
fn acl_to_disk(value: &[u8]) -> Result<Vec<u8>> {
    let entries = value.strip_prefix(&2_u32.to_le_bytes()).context("an ACL that is not of version 2")?;
    ensure!(entries.len().is_multiple_of(8), "an ACL that ends in the middle of an entry");
    let mut disk = 1_u32.to_le_bytes().to_vec();
    for entry in entries.chunks(8) {
        match u16::from_le_bytes([entry[0], entry[1]]) {
            0x02 | 0x08 => disk.extend(entry),
            0x01 | 0x04 | 0x10 | 0x20 => disk.extend(&entry[..4]),
            tag => bail!("an ACL entry with the unknown tag {tag:#x}"),
        }
    }
    Ok(disk)
}

/// The way back from [`acl_to_disk`].
fn acl_from_disk(value: &[u8]) -> Result<Vec<u8>> {
    let mut rest =
        value.strip_prefix(&1_u32.to_le_bytes()).context("an ACL on disk that is not of version 1")?;
    let mut acl = 2_u32.to_le_bytes().to_vec();
    while !rest.is_empty() {
        let tag = rest.first_chunk::<2>().map(|tag| u16::from_le_bytes(*tag));
        let len = if matches!(tag, Some(0x02 | 0x08)) { 8 } else { 4 };
        let (entry, after) =
            rest.split_at_checked(len).context("an ACL that ends in the middle of an entry")?;
        acl.extend(entry);
        if len == 4 {
            acl.extend([0xff; 4]);
        }
        rest = after;
    }
    Ok(acl)
}

/// Reads the entries that begin at `start` of `area` into `xattrs`.
pub(super) fn load(area: &[u8], start: usize, xattrs: &mut Xattrs) -> Result<()> {
    let word = |at: usize| area.get(at..at + 4).map(|bytes| [bytes[0], bytes[1], bytes[2], bytes[3]]);
    let mut at = start;
    while let Some(head) = word(at).filter(|head| *head != [0; 4]) {
        let [name_len, index, low, high] = head;
        let from = usize::from(u16::from_le_bytes([low, high]));
        let foreign = word(at + 4).map(u32::from_le_bytes).context("an attribute entry that is cut off")?;
        ensure!(foreign == 0, "an extended attribute in an inode of its own, which is not supported");
        let size = word(at + 8).map(u32::from_le_bytes).context("an attribute entry that is cut off")?;
        let name_end = at + ENTRY + usize::from(name_len);
        let name = area.get(at + ENTRY..name_end).context("an attribute name beyond its place")?;
        let value = area.get(from..).and_then(|rest| rest.get(..usize::try_from(size).ok()?));
        let value = if size == 0 { &[] } else { value.context("an attribute value beyond its place")? };
        let prefix = PREFIXES
            .iter()
            .find(|(_, known)| *known == index)
            .with_context(|| format!("an extended attribute of the unknown class {index}"))?;
        let value = if matches!(index, 2 | 3) { acl_from_disk(value)? } else { value.to_vec() };
        xattrs.insert([prefix.0, name].concat(), value);
        at = name_end.next_multiple_of(4);
    }
    Ok(())
}

/// Reads what [`store`] put into the inode.
pub(super) fn load_inside(room: &[u8], xattrs: &mut Xattrs) -> Result<()> {
    match room.split_first_chunk::<4>() {
        Some((magic, area)) if u32::from_le_bytes(*magic) == MAGIC => load(area, 0, xattrs),
        _ => Ok(()),
    }
}

/// Reads an attribute block.
pub(super) fn load_block(block: &[u8], xattrs: &mut Xattrs) -> Result<()> {
    ensure!(block.starts_with(&MAGIC.to_le_bytes()), "an attribute block without its mark");
    load(block, HEADER, xattrs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stored_is_loaded() {
        let acl = [&2_u32.to_le_bytes()[..], &[1, 0, 7, 0, 255, 255, 255, 255], &[2, 0, 5, 0, 42, 0, 0, 0]]
            .concat();
        let mut xattrs = Xattrs::new();
        for (name, value) in [
            (&b"system.posix_acl_access"[..], acl.clone()),
            (b"system.posix_acl_default", acl),
            (b"security.capability", vec![1; 20]),
            (b"user.empty", vec![]),
            (b"user.large", vec![7; 3000]),
            (b"trusted.x", b"y".to_vec()),
        ] {
            xattrs.insert(name.to_vec(), value);
        }
        let mut room = [0; 96];
        let block = store(&xattrs, &mut room).unwrap().unwrap();
        let mut back = Xattrs::new();
        load_inside(&room, &mut back).unwrap();
        assert!(back.len() > 1);
        load_block(&block, &mut back).unwrap();
        assert_eq!(back, xattrs);
    }

    #[test]
    fn what_ext4_cannot_hold_is_refused() {
        for (name, value) in [
            (&b"user.x"[..], vec![0; 4096]),
            (b"btrfs.x", vec![]),
            (b"user.", vec![]),
            (b"system.posix_acl_access", vec![]),
            (b"system.posix_acl_access", vec![2, 0, 0, 0, 1]),
        ] {
            let xattrs = Xattrs::from([(name.to_vec(), value)]);
            assert!(store(&xattrs, &mut [0; 96]).is_err(), "{}", shown(name));
        }
    }
}
