//! Two trees side by side: what a person needs when two builds are not equal.

use anyhow::Result;

use super::tree::content::{Content, Sources};
use super::tree::{Kind, NodeId, Tree, shown};
use crate::io::hash::hex;

/// A path and what is different about it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Difference {
    /// The path, escaped for people.
    pub path: String,
    /// What: `only` (in one of them), `type`, `mode`, `owner`, `mtime`, `xattr NAME`, `size`, `content`, `target`,
    /// `device`, `links`.
    pub attribute: String,
    /// What the first has.
    pub a: String,
    /// What the second has.
    pub b: String,
}

/// The first `limit` differences in the order of the paths.
pub fn differences(a: &Tree, b: &Tree, limit: usize) -> Result<Vec<Difference>> {
    let mut found = Vec::new();
    let (mut left, mut right) = (a.walk().peekable(), b.walk().peekable());
    let (mut names_a, mut names_b) = (Names::default(), Names::default());
    while found.len() < limit {
        // both walks are in the order of the parts of the paths, so the smaller one is missing in the other
        let order = match (left.peek(), right.peek()) {
            (None, None) => break,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(l), Some(r)) => parts(&l.path).cmp(parts(&r.path)),
        };
        let l = if order.is_le() { left.next() } else { None };
        let r = if order.is_ge() { right.next() } else { None };
        match (l, r) {
            (Some(l), Some(r)) => {
                let path = shown(&l.path);
                let mut note = |attribute: &str, a: String, b: String| {
                    if a != b {
                        found.push(Difference { path: path.clone(), attribute: attribute.to_owned(), a, b });
                    }
                };
                note("links", names_a.first(a, l.id, &l.path), names_b.first(b, r.id, &r.path));
                node((a, l.id), (b, r.id), &mut note)?;
            }
            (l, r) => {
                let there = |there: bool| if there { "there" } else { "not there" }.to_owned();
                let step = l.as_ref().or(r.as_ref());
                found.push(Difference {
                    path: step.map(|step| shown(&step.path)).unwrap_or_default(),
                    attribute: "only".to_owned(),
                    a: there(l.is_some()),
                    b: there(r.is_some()),
                });
            }
        }
    }
    found.truncate(limit);
    Ok(found)
}

fn parts(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|part| !part.is_empty())
}

/// First names of nodes that have several.
#[derive(Default)]
struct Names(std::collections::BTreeMap<NodeId, String>);

impl Names {
    fn first(&mut self, tree: &Tree, id: NodeId, path: &[u8]) -> String {
        if tree.node(id).names() < 2 {
            return "only this name".to_owned();
        }
        self.0.entry(id).or_insert_with(|| shown(path)).clone()
    }
}

/// The word for what a node is.
#[must_use]
pub fn word(kind: &Kind) -> &'static str {
    match kind {
        Kind::Directory(_) => "directory",
        Kind::File(_) => "file",
        Kind::Symlink(_) => "symbolic link",
        Kind::Char(_) => "character device",
        Kind::Block(_) => "block device",
        Kind::Fifo => "pipe",
        Kind::Socket => "socket",
    }
}

fn node(a: (&Tree, NodeId), b: (&Tree, NodeId), note: &mut dyn FnMut(&str, String, String)) -> Result<()> {
    let (x, y) = (a.0.node(a.1), b.0.node(b.1));
    note("mode", format!("{:04o}", x.meta.mode), format!("{:04o}", y.meta.mode));
    note("owner", format!("{}:{}", x.meta.uid, x.meta.gid), format!("{}:{}", y.meta.uid, y.meta.gid));
    note("mtime", x.meta.mtime.to_string(), y.meta.mtime.to_string());
    let all = x.meta.xattrs().chain(y.meta.xattrs()).map(|(name, _)| name);
    for name in all.collect::<std::collections::BTreeSet<&[u8]>>() {
        let value = |node: &super::tree::Node| {
            node.meta
                .xattrs()
                .find(|(other, _)| *other == name)
                .map_or_else(|| "none".to_owned(), |(_, value)| format!("0x{}", hex(value)))
        };
        note(&format!("xattr {}", shown(name)), value(x), value(y));
    }
    match (&x.kind, &y.kind) {
        (Kind::File(c), Kind::File(d)) if c.size() != d.size() => {
            note("size", c.size().to_string(), d.size().to_string())
        }
        (Kind::File(c), Kind::File(d)) => {
            if let Some(at) = first_difference((&a.0.sources, c), (&b.0.sources, d))? {
                note("content", format!("byte {at}"), "another".to_owned());
            }
        }
        (Kind::Symlink(c), Kind::Symlink(d)) => note("target", shown(c), shown(d)),
        (Kind::Char(c), Kind::Char(d)) | (Kind::Block(c), Kind::Block(d)) => {
            note("device", format!("{}:{}", c.major, c.minor), format!("{}:{}", d.major, d.minor));
        }
        (c, d) => note("type", word(c).to_owned(), word(d).to_owned()),
    }
    Ok(())
}

/// Whether two nodes are equal in everything but their names and what is in a directory.
pub fn same(a: (&Tree, NodeId), b: (&Tree, NodeId)) -> Result<bool> {
    let mut equal = true;
    node(a, b, &mut |_, a, b| equal &= a == b)?;
    Ok(equal)
}

/// Whether two files have the same bytes.
pub fn same_content(sources: &Sources, a: &Content, b: &Content) -> Result<bool> {
    Ok(a.size() == b.size() && first_difference((sources, a), (sources, b))?.is_none())
}

/// Where two files of the same size differ first.
fn first_difference(a: (&Sources, &Content), b: (&Sources, &Content)) -> Result<Option<u64>> {
    const PIECE: u64 = 1 << 18;
    let (mut x, mut y) = (a.0.open(a.1), b.0.open(b.1));
    let size = a.1.size();
    let mut at = 0;
    let (mut left, mut right) = (Vec::new(), Vec::new());
    while at < size {
        let len = usize::try_from((size - at).min(PIECE))?;
        left.resize(len, 0);
        right.resize(len, 0);
        x.read_at(&mut left, at)?;
        y.read_at(&mut right, at)?;
        if let Some(offset) = left.iter().zip(&right).position(|(l, r)| l != r) {
            return Ok(Some(at + offset as u64));
        }
        at += len as u64;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::super::tree::content::Source;
    use super::super::tree::{Device, Entries, Meta};
    use super::*;

    fn tree(change: bool) -> Tree {
        let mut tree = Tree::new();
        let directory =
            tree.put(Tree::ROOT, b"d", Meta::root(0o755, 1), Kind::Directory(Entries::new())).unwrap();
        let bytes = if change { b"abd" } else { b"abc" };
        let source = tree.sources.add(Source::Bytes(bytes.to_vec())).unwrap();
        let mut meta = Meta::root(if change { 0o600 } else { 0o644 }, 1);
        if change {
            meta.set_xattr(b"user.x", b"1");
        }
        let file = tree.put(directory, b"f", meta, Kind::File(Content::whole(source, 0, 3))).unwrap();
        if change {
            tree.link(Tree::ROOT, b"e", file).unwrap();
        }
        tree.put(
            Tree::ROOT,
            b"d-",
            Meta::root(0o644, 1),
            Kind::Char(Device { major: 1, minor: change.into() }),
        )
        .unwrap();
        tree
    }

    #[test]
    fn every_attribute_is_compared() {
        assert!(differences(&tree(true), &tree(true), 9).unwrap().is_empty());
        let found: Vec<(String, String)> = differences(&tree(false), &tree(true), 99)
            .unwrap()
            .into_iter()
            .map(|d| (d.path, d.attribute))
            .collect();
        let expected = [
            ("d/f", "links"),
            ("d/f", "mode"),
            ("d/f", "xattr user.x"),
            ("d/f", "content"),
            ("d-", "device"),
            ("e", "only"),
        ];
        assert_eq!(found, expected.map(|(path, what)| (path.to_owned(), what.to_owned())));
        assert_eq!(differences(&tree(false), &tree(true), 2).unwrap().len(), 2);
    }
}
