//! One RPM header: index and values, taken apart without trusting any number in it.
//!
//! ```text
//! 8e ad e8 01  00 00 00 00  entries:u32  store:u32      all numbers big endian
//! entry[0] = region {tag 62 or 63, type 7, offset store-16, count 16}
//! entry[1..] = {tag, type, offset, count}, tags rising
//! store: values in the order of the entries, aligned, then the region's trailer {tag, 7, -16*entries, 16}
//! ```
//!
//! Every byte belongs to exactly one thing: no gaps but zero padding for alignment, no overlap, no entries outside
//! of the region, nothing twice. What passes is bounded by the limits in [`super::policy`].

use super::policy;
use super::rejection::{Rejection, Section};

/// Bytes before the index: magic, version, reserved bytes and the two counts.
pub(crate) const INTRO: usize = 16;
const MAGIC: [u8; 8] = [0x8e, 0xad, 0xe8, 0x01, 0, 0, 0, 0];
const ENTRY: usize = 16;

/// A header that passed every check of its form; what it says is a matter of signature and policy.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    entries: Vec<Entry>,
    store: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    tag: u32,
    kind: u32,
    start: usize,
    len: usize,
    count: usize,
}

/// Size of a header in bytes, from its first [`INTRO`] bytes; refuses magic and sizes before anything is stored.
pub(crate) fn measure(intro: &[u8; INTRO], section: Section) -> Result<usize, Rejection> {
    if intro[..8] != MAGIC {
        return Err(Rejection::Header(section, "it does not begin with the magic bytes of a header"));
    }
    let (max_entries, max_store) = match section {
        Section::Signature => (policy::MAX_SIGNATURE_ENTRIES, policy::MAX_SIGNATURE_STORE),
        Section::Header => (policy::MAX_HEADER_ENTRIES, policy::MAX_HEADER_STORE),
    };
    let (entries, store) = (number(&intro[8..12]), number(&intro[12..16]));
    if entries > max_entries {
        return Err(Rejection::HeaderTooLarge(section, "entries"));
    }
    if store > max_store {
        return Err(Rejection::HeaderTooLarge(section, "bytes"));
    }
    if entries == 0 || store < ENTRY {
        return Err(Rejection::Header(section, "it has no region"));
    }
    Ok(INTRO + entries * ENTRY + store)
}

impl Header {
    /// Takes apart `bytes`, which must be exactly the header that [`measure`] measured.
    pub(crate) fn parse(bytes: &[u8], section: Section) -> Result<Self, Rejection> {
        let fault = |what| Err(Rejection::Header(section, what));
        let Some((intro, rest)) = bytes.split_first_chunk::<INTRO>() else {
            return fault("it is cut off");
        };
        if measure(intro, section)? != bytes.len() {
            return fault("its size is wrong");
        }
        let (index, store) = rest.split_at(number(&intro[8..12]) * ENTRY);
        let mut raw = index
            .chunks_exact(ENTRY)
            .map(|e| (number32(&e[..4]), number32(&e[4..8]), number32(&e[8..12]), number32(&e[12..])));

        let region_tag = if section == Section::Signature { 62 } else { 63 };
        let end = store.len() - ENTRY;
        let (tag, kind, offset, count) = raw.next().unwrap_or_default();
        if (tag, kind, count) != (region_tag, BIN, 16) || usize::try_from(offset) != Ok(end) {
            return fault("its first entry is not the region");
        }
        let back = u32::try_from(index.len()).unwrap_or_default().wrapping_neg();
        let trailer: Vec<u32> = store[end..].chunks_exact(4).map(number32).collect();
        if trailer != [region_tag, BIN, back, 16] {
            return fault("its region does not cover all entries");
        }

        let mut entries = Vec::with_capacity(index.len() / ENTRY);
        let (mut cursor, mut last_tag) = (0, 99);
        for (tag, kind, offset, count) in raw {
            if tag <= last_tag {
                return fault("its tags are not in rising order, or one is there twice");
            }
            if tag > policy::MAX_HEADER_TAG {
                return fault("it has a tag that rpm does not know");
            }
            last_tag = tag;
            let start = align(cursor, kind);
            if usize::try_from(offset) != Ok(start) || start > end {
                return fault("its values have gaps or overlap");
            }
            if store[cursor..start].iter().any(|b| *b != 0) {
                return fault("its padding is not zero");
            }
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            let Some(len) = length(&store[start..end], kind, count) else {
                return fault("a value does not fit in it");
            };
            cursor = start + len;
            entries.push(Entry { tag, kind, start, len, count });
        }
        if cursor != end {
            return fault("bytes of it belong to no value");
        }
        Ok(Self { entries, store: store.to_vec() })
    }

    /// Tags in their order.
    pub(crate) fn tags(&self) -> impl Iterator<Item = u32> {
        self.entries.iter().map(|e| e.tag)
    }

    /// Whether the tag is there, of any type.
    pub(crate) fn has(&self, tag: u32) -> bool {
        self.entries.iter().any(|e| e.tag == tag)
    }

    /// Bytes of a binary value. `None` if absent; `Err` if it has another type.
    pub(crate) fn binary(&self, tag: u32) -> Result<Option<&[u8]>, WrongType> {
        self.typed(tag, &[BIN]).map(|found| found.map(|(_, bytes)| bytes))
    }

    /// One string. Text that is not UTF-8 counts as the wrong type.
    pub(crate) fn string(&self, tag: u32) -> Result<Option<&str>, WrongType> {
        let Some((_, bytes)) = self.typed(tag, &[STRING, I18N])? else { return Ok(None) };
        // A translated text is a list; the first is the untranslated one.
        let first = bytes.split(|b| *b == 0).next().unwrap_or_default();
        std::str::from_utf8(first).map(Some).map_err(|_| WrongType)
    }

    /// A list of strings; empty if absent.
    pub(crate) fn strings(&self, tag: u32) -> Result<Vec<&str>, WrongType> {
        let Some((entry, bytes)) = self.typed(tag, &[STRING_ARRAY])? else { return Ok(Vec::new()) };
        bytes
            .split(|b| *b == 0)
            .take(entry.count)
            .map(|s| std::str::from_utf8(s).map_err(|_| WrongType))
            .collect()
    }

    /// A list of 16, 32 or 64 bit numbers; empty if absent.
    pub(crate) fn numbers(&self, tag: u32) -> Result<Vec<u64>, WrongType> {
        let Some((entry, bytes)) = self.typed(tag, &[INT16, INT32, INT64])? else { return Ok(Vec::new()) };
        let width = width(entry.kind);
        Ok(bytes.chunks_exact(width).map(|c| c.iter().fold(0, |n, b| n << 8 | u64::from(*b))).collect())
    }

    /// Exactly one number, where the tag is there.
    pub(crate) fn number(&self, tag: u32) -> Result<Option<u64>, WrongType> {
        match self.numbers(tag)?.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(*one)),
            _ => Err(WrongType),
        }
    }

    fn typed(&self, tag: u32, kinds: &[u32]) -> Result<Option<(&Entry, &[u8])>, WrongType> {
        match self.entries.iter().find(|e| e.tag == tag) {
            None => Ok(None),
            Some(e) if kinds.contains(&e.kind) => Ok(Some((e, &self.store[e.start..e.start + e.len]))),
            Some(_) => Err(WrongType),
        }
    }
}

/// A tag is there with another type than rpm gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WrongType;

const INT16: u32 = 3;
const INT32: u32 = 4;
const INT64: u32 = 5;
const STRING: u32 = 6;
const BIN: u32 = 7;
const STRING_ARRAY: u32 = 8;
const I18N: u32 = 9;

fn width(kind: u32) -> usize {
    match kind {
        INT16 => 2,
        INT32 => 4,
        INT64 => 8,
        _ => 1,
    }
}

fn align(cursor: usize, kind: u32) -> usize {
    cursor.next_multiple_of(width(kind))
}

/// Length of a value at the start of `store`, or `None` if it has no known type, no element or does not fit.
fn length(store: &[u8], kind: u32, count: usize) -> Option<usize> {
    let len = match kind {
        1 | 2 | INT16 | INT32 | INT64 | BIN => count.checked_mul(width(kind))?,
        STRING | STRING_ARRAY | I18N => {
            if count == 0 || (kind == STRING && count != 1) || count > store.len() {
                return None;
            }
            let (last, _) = store.iter().enumerate().filter(|(_, b)| **b == 0).nth(count - 1)?;
            last + 1
        }
        _ => return None,
    };
    (len > 0 && len <= store.len()).then_some(len)
}

fn number32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |n, b| n << 8 | u32::from(*b))
}

fn number(bytes: &[u8]) -> usize {
    usize::try_from(number32(bytes)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Index entries and the store that belongs to them, with region.
    fn build(entries: &[(u32, u32, u32, u32)], values: &[u8]) -> Vec<u8> {
        let mut all = vec![(63, BIN, u32::try_from(values.len()).unwrap(), 16)];
        all.extend_from_slice(entries);
        let count = u32::try_from(all.len()).unwrap();
        let mut out = MAGIC.to_vec();
        out.extend(count.to_be_bytes());
        out.extend(u32::try_from(values.len() + 16).unwrap().to_be_bytes());
        for (a, b, c, d) in all {
            [a, b, c, d].iter().for_each(|n| out.extend(n.to_be_bytes()));
        }
        out.extend_from_slice(values);
        [63, BIN, (count * 16).wrapping_neg(), 16].iter().for_each(|n| out.extend(n.to_be_bytes()));
        out
    }

    fn parse(entries: &[(u32, u32, u32, u32)], values: &[u8]) -> Result<Header, Rejection> {
        Header::parse(&build(entries, values), Section::Header)
    }

    #[test]
    fn reads_what_rpm_writes() {
        let h = parse(
            &[(1000, STRING, 0, 1), (1006, INT32, 4, 1), (1117, STRING_ARRAY, 8, 2)],
            b"ab\0\0\0\0\x01\0a\0b\0",
        );
        let h = h.unwrap();
        assert_eq!(h.string(1000), Ok(Some("ab")));
        assert_eq!(h.number(1006), Ok(Some(256)));
        assert_eq!(h.strings(1117).unwrap(), ["a", "b"]);
        assert_eq!(
            (h.string(5), h.string(1006), h.numbers(1000)),
            (Ok(None), Err(WrongType), Err(WrongType))
        );
        assert!(h.has(1117) && !h.has(1118));
    }

    #[test]
    fn refuses_every_other_form() {
        type Case<'a> = (&'a str, &'a [(u32, u32, u32, u32)], &'a [u8]);
        let cases: [Case<'_>; 12] = [
            ("gap", &[(1000, STRING, 1, 1)], b"\0a\0"),
            ("overlap", &[(1000, STRING, 0, 1), (1001, STRING, 1, 1)], b"ab\0"),
            ("twice", &[(1000, STRING, 0, 1), (1000, STRING, 2, 1)], b"a\0b\0"),
            ("falling", &[(1001, STRING, 0, 1), (1000, STRING, 2, 1)], b"a\0b\0"),
            ("left over", &[(1000, STRING, 0, 1)], b"a\0b"),
            ("padding", &[(1000, STRING, 0, 1), (1006, INT32, 4, 1)], b"a\0\0x\0\0\0\0"),
            ("no end", &[(1000, STRING, 0, 1)], b"abc"),
            ("far away", &[(1000, STRING, 0x7fff_ffff, 1)], b"a\0"),
            ("negative", &[(1000, STRING, 0xffff_ffff, 1)], b"a\0"),
            ("count", &[(1117, STRING_ARRAY, 0, 0xffff_ffff)], b"a\0"),
            ("type", &[(1000, 10, 0, 1)], b"a"),
            ("tag", &[(0x8000, STRING, 0, 1)], b"a\0"),
        ];
        for (name, entries, values) in cases {
            assert!(matches!(parse(entries, values), Err(Rejection::Header(..))), "{name}");
        }
        for kind in 1..=7 {
            assert!(parse(&[(1000, kind, 0, 0)], b"").is_err(), "no element of type {kind}");
        }
    }

    #[test]
    fn measures_before_it_stores() {
        let mut intro = [0; INTRO];
        intro[..8].copy_from_slice(&MAGIC);
        intro[8..].copy_from_slice(&[0, 0, 0, 1, 0, 0, 0, 16]);
        assert_eq!(measure(&intro, Section::Header).unwrap(), 48);
        intro[8] = 0x7f;
        assert!(matches!(measure(&intro, Section::Header), Err(Rejection::HeaderTooLarge(..))));
        intro[8] = 0;
        intro[12] = 0x7f;
        assert!(matches!(measure(&intro, Section::Signature), Err(Rejection::HeaderTooLarge(..))));
        intro[4] = 1;
        assert!(matches!(measure(&intro, Section::Header), Err(Rejection::Header(..))));
    }
}
