//! Writing a tar archive: for `--format tar`, for layers of OCI images, and as input of other programs.
//!
//! POSIX headers; an extended header before a member only where the plain one cannot say it (names of more than 100
//! bytes or of other than ASCII characters, large numbers, times before 1970, extended attributes). Members come in
//! the order of their paths; files with several names are stored at the first. Holes are written as zeros. The archive
//! depends on nothing but the tree, and ends with two records of zeros.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Context, Result};

use crate::build::tree::content::Content;
use crate::build::tree::{Device, Kind, Meta, NodeId, Tree, shown};

const RECORD: usize = 512;
const COPY: u64 = 1 << 18;

/// Writes members one after the other.
#[derive(Debug)]
pub struct Archive<W> {
    out: W,
    /// No time is later.
    latest: i64,
}

/// What a member is.
#[derive(Debug, Clone, Copy)]
pub enum Member<'a> {
    /// A directory.
    Directory,
    /// A file; its content follows.
    File(u64),
    /// A symbolic link with its target.
    Symlink(&'a [u8]),
    /// Another name of a member before.
    Link(&'a [u8]),
    /// A character device.
    Char(Device),
    /// A block device.
    Block(Device),
    /// A named pipe.
    Fifo,
}

impl<W: Write> Archive<W> {
    /// An archive in which no time is later than `latest`.
    pub fn new(out: W, latest: i64) -> Self {
        Self { out, latest }
    }

    /// Writes a header; a file's content must follow with [`Archive::content`].
    pub fn member(&mut self, path: &[u8], meta: &Meta, member: Member<'_>) -> Result<()> {
        let time = meta.mtime.min(self.latest);
        let (kind, size, link, device) = match member {
            Member::Directory => (b'5', 0, &b""[..], None),
            Member::File(size) => (b'0', size, &b""[..], None),
            Member::Symlink(target) => (b'2', 0, target, None),
            Member::Link(target) => (b'1', 0, target, None),
            Member::Char(device) => (b'3', 0, &b""[..], Some(device)),
            Member::Block(device) => (b'4', 0, &b""[..], Some(device)),
            Member::Fifo => (b'6', 0, &b""[..], None),
        };
        let mut path = if path.is_empty() { b".".to_vec() } else { path.to_vec() };
        if kind == b'5' {
            path.push(b'/');
        }
        let mut records: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let mut note = |key: &[u8], value: &[u8]| records.push((key.to_vec(), value.to_vec()));
        if path.len() > 100 || !path.is_ascii() {
            note(b"path", &path);
        }
        if link.len() > 100 || !link.is_ascii() {
            note(b"linkpath", link);
        }
        for (key, value, limit) in [
            ("uid", meta.uid.into(), 0o777_7777),
            ("gid", meta.gid.into(), 0o777_7777),
            ("size", size, 0o777_7777_7777),
        ] {
            if value > limit {
                note(key.as_bytes(), value.to_string().as_bytes());
            }
        }
        if !(0..=0o777_7777_7777).contains(&time) {
            note(b"mtime", time.to_string().as_bytes());
        }
        if !matches!(member, Member::Link(_)) {
            for (name, value) in meta.xattrs() {
                note(&[b"SCHILY.xattr.", name].concat(), value);
            }
        }
        if !records.is_empty() {
            let content: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
            let head = Head {
                path: b"PaxHeaders",
                mode: 0o644,
                uid: 0,
                gid: 0,
                size: content.len() as u64,
                time: 0,
            };
            self.out.write_all(&head.bytes(b'x', b"", None)?)?;
            self.out.write_all(&content)?;
            self.pad(content.len() as u64)?;
        }
        let cut = |name: &[u8]| name[..name.len().min(100)].to_vec();
        let head = Head {
            path: &cut(&path),
            mode: meta.mode,
            uid: if meta.uid > 0o777_7777 { 0 } else { meta.uid },
            gid: if meta.gid > 0o777_7777 { 0 } else { meta.gid },
            size: if size > 0o777_7777_7777 { 0 } else { size },
            time: u64::try_from(time).unwrap_or(0).min(0o777_7777_7777),
        };
        Ok(self.out.write_all(&head.bytes(kind, &cut(link), device)?)?)
    }

    /// Writes a file's content, which must have the size that was announced.
    pub fn content(&mut self, tree: &Tree, content: &Content) -> Result<()> {
        let mut reader = tree.sources.open(content);
        let size = content.size();
        let mut at = 0;
        let mut buffer = Vec::new();
        while at < size {
            buffer.resize(usize::try_from((size - at).min(COPY))?, 0);
            reader.read_at(&mut buffer, at)?;
            self.out.write_all(&buffer)?;
            at += buffer.len() as u64;
        }
        self.pad(size)
    }

    /// Ends the archive.
    pub fn finish(mut self) -> Result<W> {
        self.out.write_all(&[0; 2 * RECORD])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let count = usize::try_from(size.wrapping_neg() % RECORD as u64)?;
        Ok(self.out.write_all(&[0; RECORD][..count])?)
    }
}

/// Writes a whole tree; `progress` is told how many bytes of content were written.
pub fn write_tree<W: Write>(out: W, tree: &Tree, latest: i64, progress: &mut dyn FnMut(u64)) -> Result<W> {
    let mut archive = Archive::new(out, latest);
    let mut first: BTreeMap<NodeId, Vec<u8>> = BTreeMap::new();
    let mut done = 0;
    for step in tree.walk() {
        let node = tree.node(step.id);
        let context = || format!("writing `/{}` to the archive", shown(&step.path));
        let known = first.get(&step.id).cloned();
        if let Some(target) = &known {
            archive.member(&step.path, &node.meta, Member::Link(target)).with_context(context)?;
            continue;
        }
        if node.names() > 1 {
            first.insert(step.id, step.path.clone());
        }
        write_node(&mut archive, tree, &step.path, step.id).with_context(context)?;
        if let Kind::File(content) = &node.kind {
            done += content.size();
            progress(done);
        }
    }
    archive.finish()
}

/// Writes one node under a name. A socket is left out: it means nothing without the process that made it, and archives
/// cannot hold it.
pub fn write_node<W: Write>(archive: &mut Archive<W>, tree: &Tree, path: &[u8], id: NodeId) -> Result<()> {
    let node = tree.node(id);
    let member = match &node.kind {
        Kind::Directory(_) => Member::Directory,
        Kind::File(content) => Member::File(content.size()),
        Kind::Symlink(target) => Member::Symlink(target),
        Kind::Char(device) => Member::Char(*device),
        Kind::Block(device) => Member::Block(*device),
        Kind::Fifo => Member::Fifo,
        Kind::Socket => return Ok(()),
    };
    archive.member(path, &node.meta, member)?;
    match &node.kind {
        Kind::File(content) => archive.content(tree, content),
        _ => Ok(()),
    }
}

struct Head<'a> {
    path: &'a [u8],
    mode: u16,
    uid: u32,
    gid: u32,
    size: u64,
    time: u64,
}

impl Head<'_> {
    fn bytes(&self, kind: u8, link: &[u8], device: Option<Device>) -> Result<[u8; RECORD]> {
        let mut bytes = [0; RECORD];
        bytes[..self.path.len()].copy_from_slice(self.path);
        bytes[157..157 + link.len()].copy_from_slice(link);
        let mut octal = |at: usize, len: usize, value: u64| {
            let digits = format!("{value:0width$o}", width = len - 1);
            bytes[at..at + len - 1].copy_from_slice(digits.as_bytes());
        };
        octal(100, 8, u64::from(self.mode));
        octal(108, 8, u64::from(self.uid));
        octal(116, 8, u64::from(self.gid));
        octal(124, 12, self.size);
        octal(136, 12, self.time);
        let device = device.unwrap_or_default();
        octal(329, 8, u64::from(device.major));
        octal(337, 8, u64::from(device.minor));
        bytes[156] = kind;
        bytes[257..265].copy_from_slice(b"ustar\x0000");
        bytes[148..156].fill(b' ');
        let sum: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
        bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        Ok(bytes)
    }
}

/// `LENGTH KEY=VALUE\n`, where the length counts itself.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    [len.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_length() {
        assert_eq!(record(b"path", b"a"), b"9 path=a\n");
        assert_eq!(record(b"path", b""), b"8 path=\n");
        let long = record(b"k", &[b'x'; 94]);
        assert!(long.starts_with(b"101 k=") && long.len() == 101);
        assert_eq!(record(b"k", &[b'x'; 93]).len(), 99);
    }
}
