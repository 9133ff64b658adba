//! An image as the one member of an old-GNU sparse tar archive.
//!
//! The original's client looks at the first 512 bytes of the archive alone to learn the image's size, so the member's
//! header (type `S`, with the real size in it) is the first thing in the archive, under a short name, and no record
//! stands before it. What is a hole is decided by content: runs of at least [`MIN_HOLE`] zero bytes, in blocks of
//! [`BLOCK`] bytes. The file system's own idea of holes only saves reading, so the archive does not depend on how the
//! image came to lie on the disk.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use nix::unistd::{Whence, lseek64};

/// Holes begin and end at multiples of this many bytes (the block of ext4).
pub const BLOCK: u64 = BLOCK_LEN as u64;
const BLOCK_LEN: usize = 4096;
/// Shorter runs of zeros are data: a map entry costs more to handle than compressing them.
pub const MIN_HOLE: u64 = 16 * BLOCK;

const RECORD_LEN: usize = 512;
const RECORD: u64 = RECORD_LEN as u64;
/// Archives are filled up to a multiple of this, as tar does.
const BLOCKING: u64 = 20 * RECORD;
const ENTRIES_IN_HEADER: usize = 4;
const ENTRIES_IN_EXTENSION: usize = 21;

/// Where an image has data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SparseMap {
    /// Begin and length of each run of data, in rising order, with holes between them.
    pub extents: Vec<(u64, u64)>,
    /// Length of the image.
    pub size: u64,
}

impl SparseMap {
    /// Looks through an image.
    ///
    /// # Errors
    /// When the image cannot be read.
    pub fn of(image: &File) -> Result<Self> {
        let size = image.metadata().context("asking for the size of the image")?.len();
        let mut extents: Vec<(u64, u64)> = Vec::new();
        let mut buffer = vec![0; 1 << 20];
        let mut at = 0;
        while let Some((begin, end)) = next_data(image, at, size)? {
            let mut here = begin / BLOCK * BLOCK;
            while here < end {
                let length = (end - here).min(buffer.len() as u64);
                let piece = &mut buffer[..usize::try_from(length)?];
                image.read_exact_at(piece, here).context("reading the image")?;
                for (block, bytes) in (here..).step_by(BLOCK_LEN).zip(piece.chunks(BLOCK_LEN)) {
                    if !is_zero(bytes) {
                        note(&mut extents, block, bytes.len() as u64);
                    }
                }
                here += length;
            }
            at = end;
        }
        Ok(Self { extents, size })
    }

    /// Length of all data.
    #[must_use]
    pub fn data(&self) -> u64 {
        self.extents.iter().map(|(_, length)| length).sum()
    }

    /// The archive's bytes before the data: the member's header and its continuations.
    fn head(&self, name: &str, mtime: u32) -> Result<Vec<u8>> {
        ensure!(name.len() <= 100, "the name of the archive's member is too long");
        let mut entries = self.extents.clone();
        if entries.last().is_none_or(|(at, length)| at + length < self.size) {
            entries.push((self.size, 0));
        }
        let (first, rest) = entries.split_at(entries.len().min(ENTRIES_IN_HEADER));

        let mut head = [0; RECORD_LEN];
        head[..name.len()].copy_from_slice(name.as_bytes());
        head[100..108].copy_from_slice(b"0000644\0");
        head[108..116].copy_from_slice(b"0000000\0");
        head[116..124].copy_from_slice(b"0000000\0");
        number(&mut head[124..136], self.data());
        number(&mut head[136..148], u64::from(mtime));
        head[148..156].fill(b' ');
        head[156] = b'S';
        head[257..265].copy_from_slice(b"ustar  \0");
        head[265..269].copy_from_slice(b"root");
        head[297..301].copy_from_slice(b"root");
        map(&mut head[386..482], first);
        head[482] = u8::from(!rest.is_empty());
        number(&mut head[483..495], self.size);
        let sum: u32 = head.iter().map(|b| u32::from(*b)).sum();
        head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());

        let mut bytes = head.to_vec();
        let mut pieces = rest.chunks(ENTRIES_IN_EXTENSION).peekable();
        while let Some(piece) = pieces.next() {
            let mut extension = [0; RECORD_LEN];
            map(&mut extension[..504], piece);
            extension[504] = u8::from(pieces.peek().is_some());
            bytes.extend(extension);
        }
        Ok(bytes)
    }
}

/// The next stretch of the file that is not a hole to the file system.
fn next_data(image: &File, at: u64, size: u64) -> Result<Option<(u64, u64)>> {
    let at = i64::try_from(at).context("the image is too large")?;
    let seek = |at, whence| lseek64(image, at, whence).map(|found| u64::try_from(found).unwrap_or(0));
    match seek(at, Whence::SeekData) {
        Err(Errno::ENXIO) => Ok(None),
        Err(Errno::EINVAL) => Ok((u64::try_from(at)? < size).then_some((u64::try_from(at)?, size))),
        Err(error) => Err(error).context("looking for data in the image"),
        Ok(begin) if begin >= size => Ok(None),
        Ok(begin) => {
            let end =
                seek(i64::try_from(begin)?, Whence::SeekHole).context("looking for holes in the image")?;
            Ok(Some((begin, end.min(size))))
        }
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    static ZEROS: [u8; BLOCK_LEN] = [0; BLOCK_LEN];
    bytes == &ZEROS[..bytes.len()]
}

/// Adds a run of data; a hole before it that is too short becomes data.
fn note(extents: &mut Vec<(u64, u64)>, at: u64, length: u64) {
    match extents.last_mut() {
        Some((begin, run)) if at - (*begin + *run) < MIN_HOLE => *run = at + length - *begin,
        None if at < MIN_HOLE => extents.push((0, at + length)),
        _ => extents.push((at, length)),
    }
}

fn map(place: &mut [u8], entries: &[(u64, u64)]) {
    for (place, (at, length)) in place.chunks_exact_mut(24).zip(entries) {
        number(&mut place[..12], *at);
        number(&mut place[12..], *length);
    }
}

/// A number of a tar header: eleven octal digits, or base 256 where they do not suffice.
fn number(place: &mut [u8], value: u64) {
    if value < 1 << 33 {
        place.copy_from_slice(format!("{value:011o}\0").as_bytes());
    } else {
        place.fill(0);
        place[0] = 0x80;
        place[4..].copy_from_slice(&value.to_be_bytes());
    }
}

/// The archive with one image, as a stream. It reads the image as it goes and holds only the map.
#[derive(Debug)]
pub struct SparseTar<'a> {
    image: &'a File,
    map: SparseMap,
    head: Vec<u8>,
    /// Where the reader stands in the archive.
    at: u64,
    /// The extent that is read, and how far.
    extent: usize,
    within: u64,
}

impl<'a> SparseTar<'a> {
    /// Prepares the archive: looks through the image once.
    ///
    /// # Errors
    /// When the image cannot be read.
    pub fn new(image: &'a File, name: &str, mtime: u32) -> Result<Self> {
        let map = SparseMap::of(image)?;
        let head = map.head(name, mtime)?;
        Ok(Self { image, map, head, at: 0, extent: 0, within: 0 })
    }

    /// Length of the image.
    #[must_use]
    pub fn image_size(&self) -> u64 {
        self.map.size
    }

    /// Length of the archive.
    #[must_use]
    pub fn len(&self) -> u64 {
        (self.data_end().next_multiple_of(RECORD) + 2 * RECORD).next_multiple_of(BLOCKING)
    }

    /// Never: an archive has at least its end.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    fn data_end(&self) -> u64 {
        self.head.len() as u64 + self.map.data()
    }
}

impl Read for SparseTar<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let room = |left: u64| usize::try_from(left).unwrap_or(usize::MAX).min(into.len());
        let taken = if let Some(rest) = self.head.get(usize::try_from(self.at).unwrap_or(usize::MAX)..)
            && !rest.is_empty()
        {
            let taken = room(rest.len() as u64);
            into[..taken].copy_from_slice(&rest[..taken]);
            taken
        } else if let Some((begin, length)) = self.map.extents.get(self.extent) {
            let taken = room(length - self.within);
            self.image.read_exact_at(&mut into[..taken], begin + self.within)?;
            self.within += taken as u64;
            if self.within == *length {
                self.extent += 1;
                self.within = 0;
            }
            taken
        } else {
            let taken = room(self.len() - self.at);
            into[..taken].fill(0);
            taken
        };
        self.at += taken as u64;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(pieces: &[(u64, &[u8])], size: u64) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(size).unwrap();
        for (at, bytes) in pieces {
            file.write_all_at(bytes, *at).unwrap();
        }
        file
    }

    fn archive(image: &File) -> Vec<u8> {
        let mut tar = SparseTar::new(image, "root.img", 1_700_000_000).unwrap();
        let length = tar.len();
        let mut bytes = Vec::new();
        tar.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, length);
        bytes
    }

    #[test]
    fn holes_are_found_by_content() {
        let sparse = image(&[(300 * BLOCK, b"x"), (900 * BLOCK + 5, b"y")], 1000 * BLOCK);
        let written = image(&[(0, &vec![0; 1000 * BLOCK_LEN])], 1000 * BLOCK);
        written.write_all_at(b"x", 300 * BLOCK).unwrap();
        written.write_all_at(b"y", 900 * BLOCK + 5).unwrap();
        let map = SparseMap::of(&sparse).unwrap();
        assert_eq!(map.extents, [(300 * BLOCK, BLOCK), (900 * BLOCK, BLOCK)]);
        assert_eq!(map, SparseMap::of(&written).unwrap());
        assert_eq!(archive(&sparse), archive(&written));
    }

    #[test]
    fn short_holes_are_data_and_the_last_block_may_be_short() {
        let file = image(&[(3 * BLOCK, b"x"), (18 * BLOCK, b"y"), (100 * BLOCK, b"zz")], 100 * BLOCK + 2);
        assert_eq!(SparseMap::of(&file).unwrap().extents, [(0, 19 * BLOCK), (100 * BLOCK, 2)]);
        assert_eq!(SparseMap::of(&image(&[], 7)).unwrap().extents, []);
        assert_eq!(SparseMap::of(&image(&[], 0)).unwrap().extents, []);
    }

    #[test]
    fn the_first_record_says_the_size() {
        for size in [0, 5, BLOCK, (1 << 33) + 512] {
            let bytes = archive(&image(&[], size));
            assert_eq!(bytes[156], b'S');
            let field = &bytes[483..495];
            let real = if field[0] == 0x80 {
                u64::from_be_bytes(field[4..].try_into().unwrap())
            } else {
                u64::from_str_radix(std::str::from_utf8(&field[..11]).unwrap(), 8).unwrap()
            };
            assert_eq!(real, size);
        }
    }

    #[test]
    fn many_runs_need_continuations_and_the_tar_crate_reads_them() {
        let pieces: Vec<_> =
            (0..60_u64).map(|n| (n * 40 * BLOCK, vec![u8::try_from(n + 1).unwrap(); 700])).collect();
        let refs: Vec<_> = pieces.iter().map(|(at, bytes)| (*at, bytes.as_slice())).collect();
        let file = image(&refs, 60 * 40 * BLOCK);
        let bytes = archive(&file);
        assert_eq!(bytes[482], 1);
        let mut read = tar::Archive::new(bytes.as_slice());
        let mut member = read.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(member.path().unwrap().to_str(), Some("root.img"));
        let mut content = Vec::new();
        member.read_to_end(&mut content).unwrap();
        let mut wanted = vec![0; 60 * 40 * BLOCK_LEN];
        file.read_exact_at(&mut wanted, 0).unwrap();
        assert!(content == wanted);
    }
}
