//! Trees as text that can be compared, whoever read them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use qvm_template::build::tree::{Kind, Tree, shown};
use sha2::{Digest, Sha256};

/// The latest time in every image of the tests.
pub const TIME: i64 = 1_700_000_000;

/// A tree as one line for each name: all that must survive.
pub fn lines(tree: &Tree) -> BTreeMap<String, String> {
    let mut first: BTreeMap<usize, String> = BTreeMap::new();
    let mut lines = BTreeMap::new();
    for step in tree.walk() {
        let node = tree.node(step.id);
        let path = shown(&step.path);
        if path == "lost+found" {
            continue;
        }
        let mut line = format!(
            "{:o} {}:{} {}",
            node.kind.type_bits() | node.meta.mode,
            node.meta.uid,
            node.meta.gid,
            node.meta.mtime.min(TIME)
        );
        for (name, value) in node.meta.xattrs() {
            write!(line, " {}={}", shown(name), shown(value)).unwrap();
        }
        match &node.kind {
            Kind::File(content) => {
                let mut hash = Sha256::new();
                let mut reader = tree.sources.open(content);
                let mut at = 0;
                while at < content.size() {
                    let mut part = vec![0; usize::try_from((content.size() - at).min(1 << 20)).unwrap()];
                    reader.read_at(&mut part, at).unwrap();
                    hash.update(&part);
                    at += part.len() as u64;
                }
                write!(line, " {} {:x}", content.size(), hash.finalize()).unwrap();
            }
            Kind::Symlink(target) => write!(line, " -> {}", shown(target)).unwrap(),
            Kind::Char(device) | Kind::Block(device) => {
                write!(line, " {}:{}", device.major, device.minor).unwrap()
            }
            _ => {}
        }
        if node.entries().is_none() {
            let name = first.entry(step.id.index()).or_insert_with(|| path.clone());
            write!(line, " = {name}").unwrap();
        }
        lines.insert(path, line);
    }
    lines
}

/// The same, of what the kernel shows below a mount point.
pub fn mounted_lines(root: &Path) -> BTreeMap<String, String> {
    use std::os::unix::ffi::OsStrExt;
    let mut first: BTreeMap<u64, String> = BTreeMap::new();
    let mut lines = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let relative = shown(path.strip_prefix(root).unwrap().as_os_str().as_bytes());
        if relative == "lost+found" {
            continue;
        }
        let meta = std::fs::symlink_metadata(&path).unwrap();
        let mut line = format!("{:o} {}:{} {}", meta.mode(), meta.uid(), meta.gid(), meta.mtime());
        let mut names = vec![0; 65536];
        let len = rustix::fs::llistxattr(&path, &mut names).unwrap();
        let mut names: Vec<&[u8]> =
            names[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
        names.sort_unstable();
        for name in names {
            let mut value = vec![0; 65536];
            let name_text = std::str::from_utf8(name).unwrap();
            let len = rustix::fs::lgetxattr(&path, name_text, &mut value).unwrap();
            write!(line, " {}={}", shown(name), shown(&value[..len])).unwrap();
        }
        let kind = meta.file_type();
        if kind.is_file() {
            let content = std::fs::read(&path).unwrap();
            write!(line, " {} {:x}", content.len(), Sha256::digest(&content)).unwrap();
        } else if kind.is_symlink() {
            let target = std::fs::read_link(&path).unwrap();
            write!(line, " -> {}", shown(target.as_os_str().as_bytes())).unwrap();
        } else if kind.is_char_device() || kind.is_block_device() {
            let device = meta.rdev();
            let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
            write!(line, " {major}:{minor}").unwrap();
        } else if kind.is_dir() {
            let mut inside: Vec<_> =
                std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
            inside.sort();
            inside.reverse();
            todo.extend(inside);
        }
        if !kind.is_dir() {
            let name = first.entry(meta.ino()).or_insert_with(|| relative.clone());
            write!(line, " = {name}").unwrap();
        }
        lines.insert(relative, line);
    }
    lines
}

/// A generator of numbers that is the same everywhere.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    pub fn bytes(&mut self, len: u64) -> Vec<u8> {
        (0..len).map(|_| u8::try_from(self.roll(256)).unwrap()).collect()
    }
}
