//! RPM headers: tagged values with an index, as they stand twice in every package.
//!
//! A header is an introduction of 16 bytes (magic, 4 zero bytes, number of entries, length of the store), the index
//! (16 bytes an entry: tag, type, offset, count) and the store with the values. Headers of packages begin with a
//! *region*: an entry whose 16 bytes at the end of the store say how many entries belong to what was signed. Numbers
//! are big-endian and stand at offsets that are multiples of their size; entries are sorted by tag, each tag once.
//!
//! The reader takes the same shape and nothing else, and never allocates more than [`MAX_INDEX`] and [`MAX_STORE`]
//! allow. It is for packages of our own making, or those that a repository is made of, not for trust: what is
//! verified is judged in [`crate::verify`].

use std::collections::BTreeMap;
use std::io::{self, Read};

use anyhow::{Context as _, Result, bail, ensure};

/// First eight bytes of a header.
pub const MAGIC: [u8; 8] = [0x8e, 0xad, 0xe8, 0x01, 0, 0, 0, 0];
/// Most entries that a header may have.
pub const MAX_INDEX: usize = 64 * 1024;
/// Longest store.
pub const MAX_STORE: usize = 64 * 1024 * 1024;

/// Tag of a signature header's region.
pub const REGION_SIGNATURES: u32 = 62;
/// Tag of a main header's region.
pub const REGION_IMMUTABLE: u32 = 63;

/// A value in a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// 16-bit numbers (type 3).
    Int16(Vec<u16>),
    /// 32-bit numbers (type 4).
    Int32(Vec<u32>),
    /// 64-bit numbers (type 5).
    Int64(Vec<u64>),
    /// One text (type 6).
    Text(String),
    /// Bytes (type 7).
    Bytes(Vec<u8>),
    /// Texts (type 8).
    Texts(Vec<String>),
    /// One text for each language of tag 100; ours is always "C" alone (type 9).
    Translated(Vec<String>),
}

impl Value {
    fn kind(&self) -> u32 {
        match self {
            Self::Int16(_) => 3,
            Self::Int32(_) => 4,
            Self::Int64(_) => 5,
            Self::Text(_) => 6,
            Self::Bytes(_) => 7,
            Self::Texts(_) => 8,
            Self::Translated(_) => 9,
        }
    }

    fn count(&self) -> usize {
        match self {
            Self::Int16(v) => v.len(),
            Self::Int32(v) => v.len(),
            Self::Int64(v) => v.len(),
            Self::Text(_) => 1,
            Self::Bytes(v) => v.len(),
            Self::Texts(v) | Self::Translated(v) => v.len(),
        }
    }

    /// Puts the value at the end of `store`, aligned; says where it begins.
    fn put(&self, store: &mut Vec<u8>) -> usize {
        let align = match self {
            Self::Int16(_) => 2,
            Self::Int32(_) => 4,
            Self::Int64(_) => 8,
            _ => 1,
        };
        store.resize(store.len().next_multiple_of(align), 0);
        let at = store.len();
        match self {
            Self::Int16(v) => v.iter().for_each(|n| store.extend(n.to_be_bytes())),
            Self::Int32(v) => v.iter().for_each(|n| store.extend(n.to_be_bytes())),
            Self::Int64(v) => v.iter().for_each(|n| store.extend(n.to_be_bytes())),
            Self::Bytes(v) => store.extend(v),
            Self::Text(text) => put_text(store, text),
            Self::Texts(v) | Self::Translated(v) => v.iter().for_each(|text| put_text(store, text)),
        }
        at
    }
}

fn put_text(store: &mut Vec<u8>, text: &str) {
    store.extend(text.bytes().take_while(|b| *b != 0));
    store.push(0);
}

/// The entries of one header, by tag.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    entries: BTreeMap<u32, Value>,
}

impl Header {
    /// Sets a value, over one that is there.
    pub fn set(&mut self, tag: u32, value: Value) -> &mut Self {
        self.entries.insert(tag, value);
        self
    }

    /// Sets one text.
    pub fn set_text(&mut self, tag: u32, text: &str) -> &mut Self {
        self.set(tag, Value::Text(text.to_owned()))
    }

    /// The value under a tag.
    #[must_use]
    pub fn get(&self, tag: u32) -> Option<&Value> {
        self.entries.get(&tag)
    }

    /// The text under a tag; the first of several.
    #[must_use]
    pub fn text(&self, tag: u32) -> Option<&str> {
        match self.get(tag)? {
            Value::Text(text) => Some(text),
            Value::Texts(texts) | Value::Translated(texts) => texts.first().map(String::as_str),
            _ => None,
        }
    }

    /// The texts under a tag; none where there is no such tag.
    #[must_use]
    pub fn texts(&self, tag: u32) -> &[String] {
        match self.get(tag) {
            Some(Value::Texts(texts) | Value::Translated(texts)) => texts,
            Some(Value::Text(text)) => std::slice::from_ref(text),
            _ => &[],
        }
    }

    /// The numbers under a tag, whatever their width.
    #[must_use]
    pub fn numbers(&self, tag: u32) -> Vec<u64> {
        match self.get(tag) {
            Some(Value::Int16(v)) => v.iter().map(|n| u64::from(*n)).collect(),
            Some(Value::Int32(v)) => v.iter().map(|n| u64::from(*n)).collect(),
            Some(Value::Int64(v)) => v.clone(),
            _ => Vec::new(),
        }
    }

    /// The first number under a tag.
    #[must_use]
    pub fn number(&self, tag: u32) -> Option<u64> {
        self.numbers(tag).first().copied()
    }

    /// The header's bytes, with `region` around all entries.
    ///
    /// # Errors
    /// More entries or longer values than the format can count.
    pub fn encode(&self, region: u32) -> Result<Vec<u8>> {
        let entries = u32::try_from(self.entries.len() + 1).context("counting the entries of a header")?;
        let mut index = Vec::with_capacity(self.entries.len() * 16);
        let mut store = Vec::new();
        for (tag, value) in &self.entries {
            let at = value.put(&mut store);
            index.extend(entry(*tag, value.kind(), u32::try_from(at)?, u32::try_from(value.count())?));
        }
        let region_at = u32::try_from(store.len())?;
        store.extend(entry(region, 7, 0_u32.wrapping_sub(entries * 16), 16));

        let mut bytes = Vec::with_capacity(32 + index.len() + store.len());
        bytes.extend(MAGIC);
        bytes.extend(entries.to_be_bytes());
        bytes.extend(u32::try_from(store.len())?.to_be_bytes());
        bytes.extend(entry(region, 7, region_at, 16));
        bytes.extend(index);
        bytes.extend(store);
        Ok(bytes)
    }

    /// Reads one header, and says how many bytes it took.
    ///
    /// # Errors
    /// Anything that is not a header of the shape above, or is too large.
    pub fn read(from: &mut impl Read) -> Result<(Self, u64)> {
        let mut intro = [0; 16];
        from.read_exact(&mut intro).context("reading the introduction of an RPM header")?;
        ensure!(intro[..8] == MAGIC, "this is not an RPM header");
        let entries = be32(&intro[8..12]) as usize;
        let length = be32(&intro[12..16]) as usize;
        ensure!(entries <= MAX_INDEX && length <= MAX_STORE, "the RPM header is too large");
        let index = exactly(from, entries * 16).context("reading the index of an RPM header")?;
        let store = exactly(from, length).context("reading the store of an RPM header")?;

        let mut header = Self::default();
        for raw in index.chunks_exact(16) {
            let (tag, kind) = (be32(&raw[..4]), be32(&raw[4..8]));
            if tag == REGION_SIGNATURES || tag == REGION_IMMUTABLE {
                continue;
            }
            let (at, count) = (be32(&raw[8..12]) as usize, be32(&raw[12..16]) as usize);
            let rest = store.get(at..).with_context(|| format!("tag {tag} lies outside its header"))?;
            let value = value(kind, count, rest).with_context(|| format!("reading tag {tag}"))?;
            ensure!(header.entries.insert(tag, value).is_none(), "tag {tag} is there twice");
        }
        let taken = 16 + index.len() + store.len();
        Ok((header, taken as u64))
    }
}

fn entry(tag: u32, kind: u32, at: u32, count: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (place, number) in bytes.chunks_exact_mut(4).zip([tag, kind, at, count]) {
        place.copy_from_slice(&number.to_be_bytes());
    }
    bytes
}

fn be32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |n, b| n << 8 | u32::from(*b))
}

fn exactly(from: &mut impl Read, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(length as u64).read_to_end(&mut bytes)?;
    if bytes.len() != length { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(bytes) }
}

fn value(kind: u32, count: usize, rest: &[u8]) -> Result<Value> {
    let numbers = |width: usize| {
        let bytes = count.checked_mul(width).and_then(|end| rest.get(..end));
        bytes.map(|bytes| bytes.chunks_exact(width)).context("the value is longer than the header")
    };
    let texts = || -> Result<Vec<String>> {
        ensure!(count <= rest.len(), "the value is longer than the header");
        let found: Vec<_> = rest
            .split_inclusive(|b| *b == 0)
            .take(count)
            .filter_map(|text| text.strip_suffix(&[0]))
            .map(|text| String::from_utf8_lossy(text).into_owned())
            .collect();
        ensure!(found.len() == count, "a text has no end");
        Ok(found)
    };
    Ok(match kind {
        3 => Value::Int16(numbers(2)?.map(|b| u16::from_be_bytes([b[0], b[1]])).collect()),
        4 => Value::Int32(numbers(4)?.map(be32).collect()),
        5 => Value::Int64(numbers(8)?.map(|b| b.iter().fold(0, |n, b| n << 8 | u64::from(*b))).collect()),
        6 => Value::Text(texts()?.pop().context("a text has no end")?),
        1 | 2 | 7 => Value::Bytes(numbers(1)?.flatten().copied().collect()),
        8 => Value::Texts(texts()?),
        9 => Value::Translated(texts()?),
        _ => bail!("the type {kind} is not known"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Header {
        let mut header = Header::default();
        header
            .set_text(1000, "name")
            .set(1030, Value::Int16(vec![1, 2, 0xffff]))
            .set(1028, Value::Int32(vec![7]))
            .set(5009, Value::Int64(vec![1 << 40]))
            .set(1004, Value::Bytes(b"\0\x01".to_vec()))
            .set(1117, Value::Texts(vec!["a".into(), String::new(), "b".into()]));
        header
    }

    #[test]
    fn goes_there_and_back() {
        let bytes = sample().encode(REGION_IMMUTABLE).unwrap();
        let (read, taken) = Header::read(&mut bytes.as_slice()).unwrap();
        assert_eq!(read, sample());
        assert_eq!(taken, bytes.len() as u64);
    }

    #[test]
    fn numbers_stand_at_multiples_of_their_size_and_the_region_is_first() {
        let bytes = sample().encode(REGION_IMMUTABLE).unwrap();
        assert_eq!(be32(&bytes[16..20]), REGION_IMMUTABLE);
        let entries = be32(&bytes[8..12]) as usize;
        let mut last = 0;
        for raw in bytes[16..16 + entries * 16].chunks_exact(16) {
            assert!(be32(&raw[..4]) > last);
            last = be32(&raw[..4]);
            let size = [1, 1, 1, 2, 4, 8, 1, 1, 1, 1][be32(&raw[4..8]) as usize];
            assert_eq!(be32(&raw[8..12]) % size, 0);
        }
        let trailer = &bytes[bytes.len() - 16..];
        assert_eq!(
            i32::from_be_bytes(trailer[8..12].try_into().unwrap()),
            -16 * i32::try_from(entries).unwrap()
        );
    }

    #[test]
    fn damaged_headers_are_errors_and_nothing_worse() {
        let bytes = sample().encode(REGION_IMMUTABLE).unwrap();
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] = value;
                let _ = Header::read(&mut damaged.as_slice());
            }
            assert!(Header::read(&mut &bytes[..at]).is_err());
        }
    }
}
