//! The partition table, written and read by `gptman`.
//!
//! Two things make it equal to what `sfdisk` writes: the first usable sector is 2048 and not 34, and the root
//! partition ends at a whole MiB. All reading and writing happens in the first and the last MiB of the disk.

use std::io::{self, Read, Seek, SeekFrom, Write};

use anyhow::{Context, Result, bail};
use gptman::{GPT, GPTPartitionEntry};

use super::{EFI_SIZE, EFI_START, ROOT_START, Region, SECTOR, TAIL};
use crate::build::image::Image;

/// A partition that was read from a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Number, from 1.
    pub number: u32,
    /// Where it is.
    pub region: Region,
    /// GUID of its type.
    pub kind: String,
    /// Its own GUID.
    pub id: String,
    /// Its name.
    pub name: String,
}

const DISK_ID: &str = "f4796a2a-e377-45bd-b539-d6d49e569055";

/// Number, start, type, own GUID, name; the ends follow from the layout.
const PARTITIONS: [(u32, u64, &str, &str, &str); 3] = [
    (
        1,
        EFI_START,
        "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
        "fa4d6529-56da-47c7-ae88-e2dfecb72621",
        "EFI System",
    ),
    (
        2,
        EFI_START + EFI_SIZE,
        "21686148-6449-6E6F-744E-656564454649",
        "1e6c9db4-1e91-46c4-846a-2030dcb13b8c",
        "BIOS boot partition",
    ),
    (
        3,
        ROOT_START,
        "0FC63DAF-8483-4772-8E79-3D69D8477DE4",
        "693244e6-3e07-47bf-ad79-acade4293fe7",
        "Root filesystem",
    ),
];

/// Writes the table (both copies and the protective MBR) of a disk of `size` bytes.
pub(super) fn write(image: &mut Image, size: u64) -> Result<()> {
    let mut ends = Ends::new(size)?;
    GPT::write_protective_mbr_into(&mut ends, SECTOR).context("writing the protective MBR")?;
    let mut table = GPT::new_from(&mut ends, SECTOR, guid(DISK_ID)?).context("making a partition table")?;
    table.header.first_usable_lba = EFI_START / SECTOR;
    for (index, (number, start, kind, id, name)) in PARTITIONS.iter().enumerate() {
        let end = PARTITIONS.get(index + 1).map_or(size - TAIL, |next| next.1);
        table[*number] = GPTPartitionEntry {
            partition_type_guid: guid(kind)?,
            unique_partition_guid: guid(id)?,
            starting_lba: start / SECTOR,
            ending_lba: end / SECTOR - 1,
            attribute_bits: 0,
            partition_name: (*name).into(),
        };
    }
    table.write_into(&mut ends).context("writing the partition table")?;
    image.write_at(0, &ends.head)?;
    image.write_at(size - TAIL, &ends.tail)
}

/// Reads the table at the start of a disk of `size` bytes; `None` when there is none.
pub fn read(source: &mut (impl Read + Seek), size: u64) -> Result<Option<Vec<Partition>>> {
    let mut mark = [0; 8];
    source.seek(SeekFrom::Start(SECTOR))?;
    if let Err(error) = source.read_exact(&mut mark) {
        return if error.kind() == io::ErrorKind::UnexpectedEof { Ok(None) } else { Err(error.into()) };
    }
    if &mark != b"EFI PART" {
        return Ok(None);
    }
    let table = GPT::read_from(source, SECTOR).context("reading the partition table")?;
    let mut found = Vec::new();
    for (number, entry) in table.iter().filter(|(_, entry)| entry.is_used()) {
        let offset = entry.starting_lba.checked_mul(SECTOR);
        let end = entry.ending_lba.checked_add(1).and_then(|end| end.checked_mul(SECTOR));
        let (Some(offset), Some(end)) = (offset, end) else {
            bail!("partition {number} lies beyond every disk");
        };
        if offset >= end || end > size {
            bail!("partition {number} (bytes {offset} to {end}) lies outside the disk of {size} bytes");
        }
        found.push(Partition {
            number,
            region: Region { offset, size: end - offset },
            kind: text(entry.partition_type_guid),
            id: text(entry.unique_partition_guid),
            name: entry.partition_name.as_str().to_owned(),
        });
    }
    Ok(Some(found))
}

/// The bytes of a GUID as GPT stores them: the first three groups little-endian.
fn guid(text: &str) -> Result<[u8; 16]> {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    let number = u128::from_str_radix(&digits, 16).with_context(|| format!("`{text}` is not a GUID"))?;
    Ok(swapped(number.to_be_bytes()))
}

fn text(bytes: [u8; 16]) -> String {
    let digits: Vec<String> = swapped(bytes).iter().map(|byte| format!("{byte:02X}")).collect();
    [0..4, 4..6, 6..8, 8..10, 10..16].map(|group| digits[group].concat()).join("-")
}

fn swapped(mut bytes: [u8; 16]) -> [u8; 16] {
    bytes[..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    bytes
}

/// The first and the last MiB of a disk in memory, seen as the whole disk.
struct Ends {
    head: Vec<u8>,
    tail: Vec<u8>,
    size: u64,
    position: u64,
}

impl Ends {
    fn new(size: u64) -> Result<Self> {
        let part = usize::try_from(TAIL)?;
        Ok(Self { head: vec![0; part], tail: vec![0; part], size, position: 0 })
    }

    /// What lies at the current position, up to the end of the part in memory.
    fn here(&mut self) -> io::Result<&mut [u8]> {
        let tail_start = self.size - TAIL;
        let (part, at) = if self.position < TAIL {
            (&mut self.head, self.position)
        } else if (tail_start..=self.size).contains(&self.position) {
            (&mut self.tail, self.position - tail_start)
        } else {
            return Err(io::Error::other("the partition table lies outside the ends of the disk"));
        };
        Ok(&mut part[usize::try_from(at).map_err(io::Error::other)?..])
    }
}

impl Read for Ends {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let here = self.here()?;
        let count = here.len().min(buffer.len());
        buffer[..count].copy_from_slice(&here[..count]);
        self.position += count as u64;
        Ok(count)
    }
}

impl Write for Ends {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let here = self.here()?;
        let count = here.len().min(bytes.len());
        here[..count].copy_from_slice(&bytes[..count]);
        self.position += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Ends {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        self.position = target.ok_or_else(|| io::Error::other("seek before the start of the disk"))?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back() {
        let place = tempfile::tempdir().unwrap();
        let size = 512 << 20;
        let mut image = Image::create(&place.path().join("d.img")).unwrap();
        image.set_size(size).unwrap();
        write(&mut image, size).unwrap();
        let mut file = image.file().try_clone().unwrap();
        let found = read(&mut file, size).unwrap().unwrap();
        assert_eq!(found.len(), 3);
        assert_eq!(found[2].region, super::super::root(size).unwrap());
        assert_eq!(found[2].id, "693244E6-3E07-47BF-AD79-ACADE4293FE7");
        assert_eq!(found[0].name, "EFI System");
        assert!(read(&mut file, size / 2).is_err());
        assert_eq!(read(&mut io::Cursor::new(vec![0; 100]), 100).unwrap(), None);
        assert_eq!(read(&mut io::Cursor::new(vec![0; 1000]), 1000).unwrap(), None);
    }
}
