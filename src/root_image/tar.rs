//! The tar archive around a root image: one member, and nothing else.
//!
//! ```text
//! (long name)?  header  (continuation of the sparse map)*  data, each piece padded to 512  zeros to the end
//! ```
//!
//! Taken: a regular file (`0` or NUL) and the old GNU sparse form (`S`), under any name, any size that 96 bits of
//! base-256 or octal digits can say below 2^63. Refused by name: PAX headers, because a reader that does not expand
//! the sparse forms written with them yields something else than the image without noticing; links, directories,
//! devices and every other kind; a second member; bytes other than zero after the end.

use super::source::Source;
use super::sparse::{BLOCK, Map, Pieces};
use crate::payload::TemplateFiles;
use crate::verify::Rejection;

/// Longest name in a long-name record; it is skipped.
const MAX_LONG_NAME: u64 = 64 << 10;

/// Most zeros after the archive's end: GNU tar pads to records of 10 KiB, other tools to 1 MiB at most.
const MAX_PADDING: u64 = 1 << 20;

/// Reads an image piece by piece.
#[derive(Debug)]
pub(crate) struct Image<S> {
    source: S,
    size: u64,
    pieces: Pieces,
    /// What is left of the present hole and of the data after it.
    hole: u64,
    data: u64,
    padding: u64,
    in_tar: bool,
}

/// What comes next in an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// So many bytes were read.
    Data(usize),
    /// So many zeros.
    Zeros(u64),
    /// The image is complete.
    End,
}

impl<S: Source> Image<S> {
    /// An image without an archive around it.
    pub(crate) fn raw(source: S, size: u64, limit: u64) -> Result<Self, Rejection> {
        let mut map = Map::new(size);
        map.push(0, size)?;
        Self::new(source, size, map, limit, false)
    }

    /// Reads as far as the first byte of data.
    pub(crate) fn open(mut source: S, limit: u64) -> Result<Self, Rejection> {
        let mut header = read_header(&mut source)?;
        if header[156] == b'L' {
            skip_long_name(&mut source, &header)?;
            header = read_header(&mut source)?;
        }
        let stored = number(&header[124..136]).ok_or(Rejection::Tar("its size is malformed"))?;
        match header[156] {
            b'0' | 0 => {
                let mut map = Map::new(stored);
                map.push(0, stored)?;
                Self::new(source, stored, map, limit, true)
            }
            b'S' => {
                let size =
                    number(&header[483..495]).ok_or(Rejection::SparseMap("the image's size is malformed"))?;
                check_size(size, limit)?;
                let map = read_map(&mut source, &header, size)?;
                if map.stored() != stored {
                    return Err(Rejection::SparseMap("its pieces do not add up to the size of the data"));
                }
                Self::new(source, size, map, limit, true)
            }
            b'x' | b'g' => Err(Rejection::TarFormat("PAX headers; pack it with `tar --format=gnu --sparse`")),
            b'L' | b'K' => Err(Rejection::TarFormat("a record of long names or links")),
            _ => Err(Rejection::Tar("its member is not a regular file")),
        }
    }

    fn new(source: S, size: u64, map: Map, limit: u64, in_tar: bool) -> Result<Self, Rejection> {
        check_size(size, limit)?;
        Ok(Self { source, size, pieces: map.into_pieces(), hole: 0, data: 0, padding: 0, in_tar })
    }

    /// Bytes of the image, holes included.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The next piece; data goes to the front of `buf`.
    pub(crate) fn next(&mut self, buf: &mut [u8]) -> Result<Piece, Rejection> {
        if self.hole == 0 && self.data == 0 {
            let padding = std::mem::take(&mut self.padding);
            let mut scrap = [0; 512];
            let scrap = &mut scrap[..usize::try_from(padding).unwrap_or(0)];
            self.source.exact(scrap, "it is cut off")?;
            if scrap.iter().any(|b| *b != 0) {
                return Err(Rejection::Tar("its padding is not zero"));
            }
            (self.hole, self.data) = self.pieces.next();
            self.padding = if self.in_tar { self.data.next_multiple_of(BLOCK) - self.data } else { 0 };
        }
        if self.hole > 0 {
            return Ok(Piece::Zeros(std::mem::take(&mut self.hole)));
        }
        if self.data == 0 {
            return Ok(Piece::End);
        }
        let len = buf.len().min(usize::try_from(self.data).unwrap_or(usize::MAX));
        match self.source.read(&mut buf[..len])? {
            0 => Err(Rejection::Tar("it is cut off")),
            n => {
                self.data -= n as u64;
                Ok(Piece::Data(n))
            }
        }
    }

    /// Proves that the archive ends as it should, after [`Piece::End`].
    pub(crate) fn finish(mut self) -> Result<TemplateFiles, Rejection> {
        let mut buf = [0; 4096];
        let mut zeros = 0;
        while self.in_tar {
            let n = self.source.read(&mut buf)?;
            if n == 0 {
                break;
            }
            if let Some(odd) = buf[..n].iter().position(|b| *b != 0) {
                // In the first block it is the header of another member.
                let second = zeros + (odd as u64) < BLOCK;
                return Err(if second { Rejection::SecondImage } else { AFTER_END });
            }
            zeros += n as u64;
            if zeros > MAX_PADDING {
                return Err(AFTER_END);
            }
        }
        if self.in_tar && (zeros < 2 * BLOCK || !zeros.is_multiple_of(BLOCK)) {
            return Err(Rejection::Tar("it has no end"));
        }
        self.source.finish()
    }
}

const AFTER_END: Rejection = Rejection::TrailingData("the tar archive of the root image");

fn check_size(size: u64, limit: u64) -> Result<(), Rejection> {
    match size {
        0 => Err(Rejection::EmptyImage),
        _ if size > limit => Err(Rejection::ImageTooLarge { size, limit }),
        _ => Ok(()),
    }
}

fn read_header<S: Source>(source: &mut S) -> Result<[u8; 512], Rejection> {
    let mut header = [0; 512];
    source.exact(&mut header, "it is cut off")?;
    if header.iter().all(|b| *b == 0) {
        return Err(Rejection::Tar("it is empty"));
    }
    let sum: u64 = header
        .iter()
        .enumerate()
        .map(|(i, b)| if (148..156).contains(&i) { 32 } else { u64::from(*b) })
        .sum();
    if number(&header[148..156]) != Some(sum) {
        return Err(Rejection::Tar("the checksum of its header is wrong"));
    }
    let gnu = &header[257..265] == b"ustar  \0";
    let posix = &header[257..265] == b"ustar\x0000";
    let known = gnu || (posix && header[156] != b'S');
    if !known {
        return Err(Rejection::Tar("its header has an unknown form"));
    }
    Ok(header)
}

fn skip_long_name<S: Source>(source: &mut S, header: &[u8; 512]) -> Result<(), Rejection> {
    let len = number(&header[124..136]).filter(|len| *len <= MAX_LONG_NAME);
    let len = len.ok_or(Rejection::Tar("a name is too long"))?;
    for _ in 0..len.div_ceil(BLOCK) {
        source.exact(&mut [0; 512], "it is cut off")?;
    }
    Ok(())
}

/// The sparse map: four entries in the header, twenty-one in each continuation.
fn read_map<S: Source>(source: &mut S, header: &[u8; 512], size: u64) -> Result<Map, Rejection> {
    let mut map = Map::new(size);
    let mut full = add_entries(&mut map, &header[386..482])?;
    let mut more = flag(header[482])?;
    let mut block = [0; 512];
    while more {
        if !full {
            return Err(Rejection::SparseMap("it goes on after its end"));
        }
        source.exact(&mut block, "its sparse map is cut off")?;
        full = add_entries(&mut map, &block[..504])?;
        more = flag(block[504])?;
    }
    Ok(map)
}

/// Adds the entries of one header; says whether all of its slots were used.
fn add_entries(map: &mut Map, slots: &[u8]) -> Result<bool, Rejection> {
    let mut full = true;
    for slot in slots.chunks_exact(24) {
        let (offset, len) = slot.split_at(12);
        if len[0] == 0 {
            full = false;
            if slot.iter().any(|b| *b != 0) {
                return Err(Rejection::SparseMap("an unused entry is not empty"));
            }
            continue;
        }
        let (Some(offset), Some(len)) = (number(offset), number(len)) else {
            return Err(Rejection::SparseMap("an entry is malformed"));
        };
        if !full {
            return Err(Rejection::SparseMap("it goes on after its end"));
        }
        map.push(offset, len)?;
    }
    Ok(full)
}

fn flag(byte: u8) -> Result<bool, Rejection> {
    match byte {
        0 | b'0' => Ok(false),
        1 | b'1' => Ok(true),
        _ => Err(Rejection::SparseMap("its end is not marked")),
    }
}

/// A number field: octal digits up to a NUL or space, or base-256 with the first bit set. Below 2^63.
fn number(field: &[u8]) -> Option<u64> {
    let (&first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        let number = rest.iter().try_fold(0_u64, |n, b| Some(n.checked_mul(256)? | u64::from(*b)))?;
        return (first == 0x80 && i64::try_from(number).is_ok()).then_some(number);
    }
    let text = field.trim_ascii_start();
    let digits = text.iter().position(|b| matches!(b, 0 | b' ')).unwrap_or(text.len());
    let (digits, end) = text.split_at(digits);
    if digits.is_empty() || end.iter().any(|b| !matches!(b, 0 | b' ')) {
        return None;
    }
    digits.iter().try_fold(0, |n, b| matches!(b, b'0'..=b'7').then(|| n * 8 + u64::from(b - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root_image::source::Plain;

    #[test]
    fn numbers_have_two_forms() {
        assert_eq!(number(b"00000001750\0"), Some(1000));
        assert_eq!(number(b"   1750 \0"), Some(1000));
        assert_eq!(number(b"\x80\0\0\0\0\0\0\x02\x80\0\0\0"), Some(10 << 30));
        for bad in [
            &b""[..],
            b"\0\0\0",
            b"12x\0",
            b"9\0",
            b"7\x00001",
            b"\xff\xff\xff",
            b"\x80\x01\0\0\0\0\0\0\0\0\0\0",
        ] {
            assert_eq!(number(bad), None, "{bad:?}");
        }
    }

    fn open(bytes: &[u8]) -> Result<Vec<u8>, Rejection> {
        let mut image = Image::open(Plain { bytes, files: TemplateFiles::default() }, 1 << 32)?;
        let (mut out, mut buf) = (Vec::new(), [0; 700]);
        loop {
            match image.next(&mut buf)? {
                Piece::Data(n) => out.extend_from_slice(&buf[..n]),
                Piece::Zeros(n) => out.resize(out.len() + usize::try_from(n).unwrap(), 0),
                Piece::End => break,
            }
        }
        assert_eq!(out.len() as u64, image.size());
        image.finish()?;
        Ok(out)
    }

    /// A header with a right checksum.
    fn header(kind: u8, size: u64, fill: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let mut header = vec![0; 512];
        header[..4].copy_from_slice(b"name");
        header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
        header[156] = kind;
        header[257..265].copy_from_slice(b"ustar  \0");
        fill(&mut header);
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        header
    }

    fn sparse(real: u64, stored: u64, entries: &[(u64, u64)]) -> Vec<u8> {
        header(b'S', stored, |h| {
            for (slot, (offset, len)) in h[386..482].chunks_exact_mut(24).zip(entries) {
                slot.copy_from_slice(format!("{offset:011o}\0{len:011o}\0").as_bytes());
            }
            h[483..495].copy_from_slice(format!("{real:011o}\0").as_bytes());
        })
    }

    #[test]
    fn expands_holes() {
        let mut tar = sparse(4000, 1024 + 416, &[(512, 1024), (3584, 416), (4000, 0)]);
        tar.extend([7; 1024]);
        tar.extend([8; 416]);
        tar.resize(tar.len() + 96 + 1024, 0);
        let image = open(&tar).unwrap();
        assert_eq!(image.len(), 4000);
        assert!(image[..512].iter().chain(&image[1536..3584]).all(|b| *b == 0));
        assert!(image[512..1536].iter().all(|b| *b == 7) && image[3584..].iter().all(|b| *b == 8));
    }

    #[test]
    fn refuses_every_trick() {
        let plain = |kind| [header(kind, 512, |_| {}), vec![1; 512], vec![0; 1024]].concat();
        assert_eq!(open(&plain(b'0')).unwrap(), [1; 512]);
        let with = |changed: Vec<u8>, rest: &[u8]| open(&[&changed[..], rest].concat());
        for kind in b"123456DMVNAxgK?" {
            assert!(open(&plain(*kind)).is_err(), "kind {}", char::from(*kind));
        }
        assert!(matches!(open(&plain(b'x')), Err(Rejection::TarFormat(_))));
        assert!(matches!(open(&[plain(b'0'), plain(b'0')].concat()), Err(Rejection::TrailingData(_))));
        let two = [&plain(b'0')[..1024], &plain(b'0')[..]].concat();
        assert!(matches!(open(&two), Err(Rejection::SecondImage)));
        for len in [0, 100, 511, 512, 700, 1024, 1500, 1536 + 100] {
            assert!(open(&plain(b'0')[..len]).is_err(), "cut at {len}");
        }
        let mut damaged = plain(b'0');
        damaged[3] ^= 1;
        assert!(open(&damaged).is_err(), "checksum");
        assert!(matches!(
            open(&[header(b'0', 0, |_| {}), vec![0; 1024]].concat()),
            Err(Rejection::EmptyImage)
        ));
        let end = [0; 2048];
        assert!(matches!(
            with(sparse(5 << 30, 512, &[(0, 512)]), &end),
            Err(Rejection::ImageTooLarge { .. })
        ));
        assert!(matches!(with(sparse(4096, 512, &[(0, 1024)]), &end), Err(Rejection::SparseMap(_))));
        assert!(matches!(
            with(sparse(4096, 1024, &[(1024, 512), (512, 512)]), &end),
            Err(Rejection::SparseMap(_))
        ));
        assert!(matches!(
            with(sparse(4096, 1024, &[(0, 1024), (512, 512)]), &end),
            Err(Rejection::SparseMap(_))
        ));
        assert!(matches!(with(sparse(600, 1024, &[(0, 1024)]), &end), Err(Rejection::SparseMap(_))));
        let endless = header(b'S', 0, |h| {
            h[483..495].copy_from_slice(b"00000010000\0");
            h[482] = 1;
        });
        assert!(matches!(with(endless, &[0; 8192]), Err(Rejection::SparseMap(_))));
        let padding = [&header(b'0', 100, |_| {})[..], &[1; 512], &[0; 1024]].concat();
        assert!(matches!(open(&padding), Err(Rejection::Tar(_))));
    }
}
