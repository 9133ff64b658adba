//! Cutting up RPM packages: everything that rpmbuild and rpmsign cannot be made to write.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

pub const INT32: u32 = 4;
pub const STRING: u32 = 6;
pub const BIN: u32 = 7;
pub const STRING_ARRAY: u32 = 8;

/// A package in its parts.
#[derive(Clone)]
pub struct Rpm {
    pub lead: Vec<u8>,
    pub signature: Header,
    pub header: Header,
    pub payload: Vec<u8>,
}

/// A header as a list of values; written with one region over all of them.
#[derive(Clone)]
pub struct Header {
    pub region: u32,
    pub magic: [u8; 8],
    pub entries: Vec<Entry>,
    /// Entries behind the region, which is then shorter than the header.
    pub dribbles: Vec<Entry>,
}

#[derive(Clone)]
pub struct Entry {
    pub tag: u32,
    pub kind: u32,
    pub count: u32,
    pub data: Vec<u8>,
}

impl Rpm {
    pub fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let (lead, rest) = bytes.split_at(96);
        let (signature, len) = Header::parse(rest);
        let rest = &rest[len.next_multiple_of(8)..];
        let (header, len) = Header::parse(rest);
        Self { lead: lead.to_vec(), signature, header, payload: rest[len..].to_vec() }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = self.lead.clone();
        out.extend(self.signature.bytes());
        out.resize(out.len().next_multiple_of(8), 0);
        out.extend(self.header.bytes());
        out.extend(&self.payload);
        out
    }

    /// Sets MD5, size and the header's digests to what they should be, where they are there.
    pub fn fix_digests(mut self) -> Self {
        let header = self.header.bytes();
        let both = [&header[..], &self.payload].concat();
        let size = u32::try_from(both.len()).unwrap();
        for (tag, data) in [
            (269, text(&digest("sha1sum", &header))),
            (273, text(&digest("sha256sum", &header))),
            (1000, size.to_be_bytes().to_vec()),
            (1004, unhex(&digest("md5sum", &both))),
        ] {
            if let Some(entry) = self.signature.entries.iter_mut().find(|e| e.tag == tag) {
                entry.data = data;
            }
        }
        self
    }

    /// Sets the digest of the payload in the header to what it should be.
    pub fn fix_payload_digest(mut self) -> Self {
        let digest = digest("sha256sum", &self.payload);
        self.header.set(5092, STRING_ARRAY, &text(&digest));
        self
    }

    /// Without any signature.
    pub fn unsigned(mut self) -> Self {
        self.signature.entries.retain(|e| !matches!(e.tag, 267 | 268 | 1002 | 1005));
        self
    }
}

impl Header {
    fn parse(bytes: &[u8]) -> (Self, usize) {
        let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        let (count, size) = (number(8) as usize, number(12) as usize);
        let store = &bytes[16 + 16 * count..];
        let mut entries = Vec::new();
        for i in 1..count {
            let at = 16 + 16 * i;
            let (tag, kind, offset, count) =
                (number(at), number(at + 4), number(at + 8) as usize, number(at + 12));
            let rest = &store[offset..size];
            let len = match kind {
                STRING | STRING_ARRAY | 9 => {
                    rest.iter().enumerate().filter(|(_, b)| **b == 0).nth(count as usize - 1).unwrap().0 + 1
                }
                3 => count as usize * 2,
                INT32 => count as usize * 4,
                5 => count as usize * 8,
                _ => count as usize,
            };
            entries.push(Entry { tag, kind, count, data: rest[..len].to_vec() });
        }
        let magic = bytes[..8].try_into().unwrap();
        (Self { region: number(16), magic, entries, dribbles: Vec::new() }, 16 + 16 * count + size)
    }

    pub fn bytes(&self) -> Vec<u8> {
        let (mut index, mut store) = (Vec::new(), Vec::new());
        let add = |entries: &[Entry], index: &mut Vec<[u32; 4]>, store: &mut Vec<u8>| {
            for e in entries {
                let width = match e.kind {
                    3 => 2,
                    INT32 => 4,
                    5 => 8,
                    _ => 1,
                };
                store.resize(store.len().next_multiple_of(width), 0);
                index.push([e.tag, e.kind, u32::try_from(store.len()).unwrap(), e.count]);
                store.extend(&e.data);
            }
        };
        add(&self.entries, &mut index, &mut store);
        let back = (16 * (u32::try_from(self.entries.len()).unwrap() + 1)).wrapping_neg();
        let trailer = [self.region, BIN, back, 16];
        index.insert(0, [self.region, BIN, u32::try_from(store.len()).unwrap(), 16]);
        store.extend(trailer.iter().flat_map(|n| n.to_be_bytes()));
        add(&self.dribbles, &mut index, &mut store);
        let mut out = self.magic.to_vec();
        out.extend(u32::try_from(index.len()).unwrap().to_be_bytes());
        out.extend(u32::try_from(store.len()).unwrap().to_be_bytes());
        out.extend(index.iter().flatten().flat_map(|n| n.to_be_bytes()));
        out.extend(store);
        out
    }

    pub fn get(&self, tag: u32) -> &Entry {
        self.entries.iter().find(|e| e.tag == tag).unwrap_or_else(|| panic!("no tag {tag}"))
    }

    pub fn get_mut(&mut self, tag: u32) -> &mut Entry {
        self.entries.iter_mut().find(|e| e.tag == tag).unwrap_or_else(|| panic!("no tag {tag}"))
    }

    pub fn remove(&mut self, tag: u32) {
        self.entries.retain(|e| e.tag != tag);
    }

    /// Sets the one value of a tag, at its place in the order.
    pub fn set(&mut self, tag: u32, kind: u32, data: &[u8]) {
        self.remove(tag);
        self.insert(tag, kind, data);
    }

    /// Adds a value behind others of the same tag.
    pub fn insert(&mut self, tag: u32, kind: u32, data: &[u8]) {
        let count = match kind {
            STRING | STRING_ARRAY => data.iter().filter(|b| **b == 0).count(),
            3 => data.len() / 2,
            INT32 => data.len() / 4,
            5 => data.len() / 8,
            _ => data.len(),
        };
        let at = self.entries.partition_point(|e| e.tag <= tag);
        let count = u32::try_from(count).unwrap();
        self.entries.insert(at, Entry { tag, kind, count, data: data.to_vec() });
    }
}

/// A text with the NUL that ends it in a header.
pub fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), b"\0"].concat()
}

/// Digest in hexadecimal digits, by another program than ours.
pub fn digest(program: &str, bytes: &[u8]) -> String {
    let out = pipe(&mut Command::new(program), bytes);
    String::from_utf8(out).unwrap().split(' ').next().unwrap().to_owned()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

/// Runs a program with `input` and returns what it wrote.
pub fn pipe(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
