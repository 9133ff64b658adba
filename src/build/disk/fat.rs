//! The EFI partition: FAT16 of 200 MiB with sectors of 4096 bytes, as `mkfs.vfat -S 4096 -n EFI` lays it out.
//!
//! ```text
//! sector  0      4            12           20          24
//!         boot,  table (8),   table (8),   root (4),   clusters of 4 sectors, 12794 of them, numbered from 2
//!         spare
//! ```
//!
//! The boot sector holds the layout (source: the FAT specification of Microsoft, version 1.03), the serial number, and
//! code that hands back to the firmware. The root directory has 512 slots of 32 bytes, other directories are chains of
//! clusters. A name that is no upper-case 8.3 name is stored as a long name in slots of 13 UTF-16 units before the
//! short one. Every time is the time given, so the same files give the same bytes. Files are placed in the order of
//! their paths, without fragments.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

use super::{Disk, Region};
use crate::build::image::Image;

/// A file for the EFI partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EfiFile {
    /// Its path, `/` between the parts.
    pub path: String,
    /// What is in it.
    pub content: Vec<u8>,
}

const SECTOR_BYTES: usize = 4096;
const SECTORS_PER_CLUSTER: usize = 4;
const CLUSTER: usize = SECTOR_BYTES * SECTORS_PER_CLUSTER;
const SPARE: usize = 4;
const TABLE: usize = 8;
const ROOT_SLOTS: usize = 512;
const SLOT: usize = 32;
const ROOT: usize = SPARE + 2 * TABLE;
const DATA: usize = ROOT + ROOT_SLOTS * SLOT / SECTOR_BYTES;
const SECTORS: usize = 51_200;
const CLUSTERS: usize = (SECTORS - DATA) / SECTORS_PER_CLUSTER;
const DIRECTORY: u8 = 0x10;
const LABEL: u8 = 0x08;
const LONG: u8 = 0x0f;
const END: u16 = 0xffff;

/// Writes the file system to its `region` of the image.
pub(super) fn write(image: &mut Image, region: Region, disk: &Disk) -> Result<()> {
    ensure!(
        region.size == (SECTORS * SECTOR_BYTES) as u64,
        "the EFI partition has another size than its layout"
    );
    let mut tree = Directory::default();
    for file in &disk.efi_files {
        tree.insert(file.path.trim_start_matches('/'), &file.content)
            .with_context(|| format!("adding EFI file `{}`", file.path))?;
    }
    let mut writer = Writer {
        image,
        data: region.offset + (DATA * SECTOR_BYTES) as u64,
        table: vec![0xfff8, END],
        stamp: Stamp::new(disk.time)?,
    };
    let mut root = slot(*b"EFI        ", LABEL, 0, 0, &writer.stamp);
    root.extend(writer.entries(&tree)?);
    ensure!(root.len() <= ROOT_SLOTS * SLOT, "the root directory of the EFI partition is full");
    root.resize(ROOT_SLOTS * SLOT, 0);
    let mut table: Vec<u8> = writer.table.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    table.resize(TABLE * SECTOR_BYTES, 0);
    let mut head = boot_sector(disk.serial);
    head.resize(SPARE * SECTOR_BYTES, 0);
    for part in [&table, &table, &root] {
        head.extend_from_slice(part);
    }
    image.write_at(region.offset, &head)
}

/// A directory of the partition, by name in upper case (names that differ only in case are the same name).
#[derive(Default)]
struct Directory<'a>(BTreeMap<String, (String, Node<'a>)>);

enum Node<'a> {
    Directory(Directory<'a>),
    File(&'a [u8]),
}

impl<'a> Directory<'a> {
    fn insert(&mut self, path: &str, content: &'a [u8]) -> Result<()> {
        let (first, rest) = path.split_once('/').map_or((path, None), |(first, rest)| (first, Some(rest)));
        ensure!(
            !first.is_empty() && first.encode_utf16().count() <= 255 && !first.ends_with(['.', ' ']),
            "`{first}` cannot be a name on FAT"
        );
        ensure!(
            !first.contains(|c: char| c.is_control() || "\"*/:<>?\\|".contains(c)),
            "`{first}` has characters that FAT does not allow"
        );
        let key = first.to_uppercase();
        match (self.0.get_mut(&key), rest) {
            (Some((_, Node::Directory(inner))), Some(rest)) => inner.insert(rest, content),
            (Some(_), _) => bail!("`{first}` is there twice"),
            (None, None) => {
                self.0.insert(key, (first.to_owned(), Node::File(content)));
                Ok(())
            }
            (None, Some(rest)) => {
                let mut inner = Directory::default();
                inner.insert(rest, content)?;
                self.0.insert(key, (first.to_owned(), Node::Directory(inner)));
                Ok(())
            }
        }
    }

    /// Slots that the entries take, without the two of a subdirectory itself.
    fn slots(&self) -> usize {
        self.0.values().map(|(name, _)| 1 + long_slots(name)).sum()
    }
}

struct Writer<'a> {
    image: &'a mut Image,
    data: u64,
    table: Vec<u16>,
    stamp: Stamp,
}

impl Writer<'_> {
    /// Writes everything below a directory, and returns the directory's own slots.
    fn entries(&mut self, directory: &Directory<'_>) -> Result<Vec<u8>> {
        self.entries_under(directory, 0)
    }

    fn entries_under(&mut self, directory: &Directory<'_>, own: u16) -> Result<Vec<u8>> {
        let mut slots = Vec::new();
        let mut taken = Vec::new();
        for (name, node) in directory.0.values() {
            let short = short_name(name, &taken)?;
            taken.push(short);
            slots.extend(long_name(name, &short));
            match node {
                Node::File(content) => {
                    let first = if content.is_empty() { 0 } else { self.reserve(content.len())? };
                    self.fill(first, content)?;
                    slots.extend(slot(short, 0x20, first, u32::try_from(content.len())?, &self.stamp));
                }
                Node::Directory(inner) => {
                    let first = self.reserve((inner.slots() + 2) * SLOT)?;
                    let mut content = slot(*b".          ", DIRECTORY, first, 0, &self.stamp);
                    content.extend(slot(*b"..         ", DIRECTORY, own, 0, &self.stamp));
                    content.extend(self.entries_under(inner, first)?);
                    self.fill(first, &content)?;
                    slots.extend(slot(short, DIRECTORY, first, 0, &self.stamp));
                }
            }
        }
        Ok(slots)
    }

    /// Takes a run of clusters for `bytes` bytes and returns the first.
    fn reserve(&mut self, bytes: usize) -> Result<u16> {
        let count = bytes.div_ceil(CLUSTER);
        let first = self.table.len();
        ensure!(
            first + count <= CLUSTERS + 2,
            "the files are larger than the EFI partition ({} MiB)",
            (CLUSTERS * CLUSTER) >> 20
        );
        for next in first + 1..first + count {
            self.table.push(u16::try_from(next)?);
        }
        self.table.push(END);
        Ok(u16::try_from(first)?)
    }

    fn fill(&mut self, first: u16, content: &[u8]) -> Result<()> {
        if content.is_empty() {
            return Ok(());
        }
        let mut padded = content.to_vec();
        padded.resize(content.len().next_multiple_of(CLUSTER), 0);
        self.image.write_at(self.data + u64::from(first - 2) * CLUSTER as u64, &padded)
    }
}

/// Date and time as FAT stores them.
struct Stamp {
    date: u16,
    time: u16,
}

impl Stamp {
    /// FAT knows the years 1980 to 2107; other times become the nearest.
    fn new(seconds: i64) -> Result<Self> {
        let seconds = seconds.clamp(315_532_800, 4_354_819_198);
        let moment = jiff::Timestamp::from_second(seconds)?.to_zoned(jiff::tz::TimeZone::UTC);
        let number = |value: i16| u16::try_from(value);
        Ok(Self {
            date: ((number(moment.year())? - 1980) << 9)
                | (number(moment.month().into())? << 5)
                | number(moment.day().into())?,
            time: (number(moment.hour().into())? << 11)
                | (number(moment.minute().into())? << 5)
                | (number(moment.second().into())? / 2),
        })
    }
}

fn slot(name: [u8; 11], attributes: u8, cluster: u16, size: u32, stamp: &Stamp) -> Vec<u8> {
    let mut slot = Vec::with_capacity(SLOT);
    slot.extend(name);
    slot.extend([attributes, 0, 0]);
    for value in [stamp.time, stamp.date, stamp.date, 0, stamp.time, stamp.date, cluster] {
        slot.extend(value.to_le_bytes());
    }
    slot.extend(size.to_le_bytes());
    slot
}

/// The 8.3 form: the name itself where it is one, else its first six letters with `~1`, `~2`, ...
fn short_name(name: &str, taken: &[[u8; 11]]) -> Result<[u8; 11]> {
    if let Some(short) = plain_short_name(name) {
        return Ok(short);
    }
    let upper = name.to_ascii_uppercase();
    let (stem, extension) = upper.rsplit_once('.').unwrap_or((&upper, ""));
    let letters = |text: &str, count: usize| -> String {
        text.chars()
            .filter(|c| !" .".contains(*c))
            .map(|c| if short_letter(c) { c } else { '_' })
            .take(count)
            .collect()
    };
    for number in 1..100_000 {
        let tail = format!("~{number}");
        let stem = letters(stem, 8 - tail.len()) + &tail;
        let short = padded(&stem, &letters(extension, 3));
        if !taken.contains(&short) {
            return Ok(short);
        }
    }
    bail!("too many names like `{name}`")
}

fn plain_short_name(name: &str) -> Option<[u8; 11]> {
    let (stem, extension) = name.split_once('.').unwrap_or((name, ""));
    let fits = (1..=8).contains(&stem.len()) && extension.len() <= 3 && !name.ends_with('.');
    (fits && stem.chars().chain(extension.chars()).all(short_letter)).then(|| padded(stem, extension))
}

fn short_letter(c: char) -> bool {
    c.is_ascii_uppercase() || c.is_ascii_digit() || "!#$%&'()-@^_`{}~".contains(c)
}

fn padded(stem: &str, extension: &str) -> [u8; 11] {
    let mut short = [b' '; 11];
    short[..stem.len()].copy_from_slice(stem.as_bytes());
    short[8..8 + extension.len()].copy_from_slice(extension.as_bytes());
    short
}

fn long_slots(name: &str) -> usize {
    if plain_short_name(name).is_some() { 0 } else { name.encode_utf16().count().div_ceil(13) }
}

fn long_name(name: &str, short: &[u8; 11]) -> Vec<u8> {
    let count = long_slots(name);
    if count == 0 {
        return Vec::new();
    }
    let sum = short.iter().fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
    let mut units: Vec<u16> = name.encode_utf16().collect();
    if units.len() < count * 13 {
        units.push(0);
    }
    units.resize(count * 13, 0xffff);
    let mut slots = Vec::with_capacity(count * SLOT);
    for (index, part) in units.chunks(13).enumerate().rev() {
        let number = u8::try_from(index + 1).unwrap_or(u8::MAX);
        let bytes: Vec<u8> = part.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        slots.push(if index + 1 == count { number | 0x40 } else { number });
        slots.extend(&bytes[..10]);
        slots.extend([LONG, 0, sum]);
        slots.extend(&bytes[10..22]);
        slots.extend([0, 0]);
        slots.extend(&bytes[22..]);
    }
    slots
}

fn boot_sector(serial: u32) -> Vec<u8> {
    let mut sector = vec![0xeb, 0x3c, 0x90];
    sector.extend(b"QVMTMPL ");
    let words = |sector: &mut Vec<u8>, values: &[usize]| {
        sector.extend(values.iter().flat_map(|value| (*value as u64).to_le_bytes()[..2].to_vec()));
    };
    words(&mut sector, &[SECTOR_BYTES]);
    sector.push(SECTORS_PER_CLUSTER.to_le_bytes()[0]);
    words(&mut sector, &[SPARE]);
    sector.push(2);
    words(&mut sector, &[ROOT_SLOTS, SECTORS]);
    sector.push(0xf8);
    words(&mut sector, &[TABLE, 32, 4, 0, 0, 0, 0]);
    sector.extend([0x80, 0, 0x29]);
    sector.extend(serial.to_le_bytes());
    sector.extend(b"EFI        FAT16   ");
    // int 18h gives control back to the firmware; should it return, halt
    sector.extend([0xcd, 0x18, 0xf4, 0xeb, 0xfd]);
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    sector
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_where_they_can_be() {
        assert_eq!(plain_short_name("BOOTX64.EFI"), Some(*b"BOOTX64 EFI"));
        assert_eq!(plain_short_name("EFI"), Some(*b"EFI        "));
        assert_eq!(plain_short_name("grub.cfg"), None);
        let first = short_name("longer name.config", &[]).unwrap();
        assert_eq!(&first, b"LONGER~1CON");
        assert_eq!(&short_name("longer nome.config", &[first]).unwrap(), b"LONGER~2CON");
        assert_eq!(long_slots("longer name.config"), 2);
        assert_eq!(long_name("longer name.config", &first).len(), 2 * SLOT);
        assert!(long_name("EFI", b"EFI        ").is_empty());
    }

    #[test]
    fn names_that_fat_cannot_hold_are_refused() {
        let mut tree = Directory::default();
        tree.insert("EFI/BOOT/BOOTX64.EFI", b"").unwrap();
        for path in ["", "a//b", "a:b", "EFI/boot/bootx64.efi", "EFI", "EFI/BOOT/BOOTX64.EFI/x", "x."] {
            assert!(tree.insert(path, b"").is_err(), "{path}");
        }
    }

    #[test]
    fn times_before_1980_become_1980() {
        assert_eq!(Stamp::new(0).unwrap().date, (1 << 5) | 1);
        let stamp = Stamp::new(1_700_000_000).unwrap();
        assert_eq!((stamp.date, stamp.time), ((43 << 9) | (11 << 5) | 14, (22 << 11) | (13 << 5) | 10));
    }
}
