//! A file tree in memory: what will be in the image.
//!
//! Metadata is held in memory, contents as places in their sources (see [`content`]). Paths are bytes, names are
//! anything but `/` and NUL. A node can have several names (hard links); a directory has one. The order of
//! everything is the byte order of the names, so it depends on nothing but the tree.
//!
//! Times are whole seconds: half of the formats that layers come in cannot say more, and the same tree must give the
//! same image in whatever form it comes.
//!
//! Limits: a name has at most 255 bytes, a path 4096, a symbolic link's target 4095 (what the kernel allows); there
//! are at most [`MAX_NODES`] nodes.

pub mod content;
mod path;
mod walk;

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};
use content::{Content, Sources};

pub use path::{Missing, Parts, shown};
pub use walk::{Step, Walk};

/// The most nodes a tree can have.
pub const MAX_NODES: usize = 1 << 26;

/// The longest target of a symbolic link.
pub const MAX_TARGET: usize = 4095;

/// Extended attributes by full name (`security.capability`, ...), as the kernel shows them.
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// The entries of a directory.
pub type Entries = BTreeMap<Box<[u8]>, NodeId>;

/// Names a node of a [`Tree`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u32);

impl NodeId {
    /// A number below the number of nodes that ever were in the tree.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Owner, permissions, time and extended attributes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meta {
    /// The lower twelve bits: permissions, set-id bits, sticky.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of last change, in seconds since 1970.
    pub mtime: i64,
    /// Extended attributes, if any.
    pub xattrs: Option<Box<Xattrs>>,
}

impl Meta {
    /// Root's, with these permissions and this time.
    #[must_use]
    pub fn root(mode: u16, mtime: i64) -> Self {
        Self { mode, mtime, ..Self::default() }
    }

    /// All extended attributes in order.
    pub fn xattrs(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.xattrs
            .iter()
            .flat_map(|xattrs| xattrs.iter())
            .map(|(name, value)| (name.as_slice(), value.as_slice()))
    }

    /// Sets an extended attribute.
    pub fn set_xattr(&mut self, name: &[u8], value: &[u8]) {
        self.xattrs.get_or_insert_default().insert(name.to_vec(), value.to_vec());
    }

    /// Removes the extended attributes for which `unwanted` says so.
    pub fn drop_xattrs(&mut self, mut unwanted: impl FnMut(&[u8]) -> bool) {
        if let Some(xattrs) = &mut self.xattrs {
            xattrs.retain(|name, _| !unwanted(name));
            if xattrs.is_empty() {
                self.xattrs = None;
            }
        }
    }
}

/// Number of a device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Device {
    /// Upper part.
    pub major: u32,
    /// Lower part.
    pub minor: u32,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory(Entries),
    /// A regular file.
    File(Content),
    /// A symbolic link with its target.
    Symlink(Box<[u8]>),
    /// A character device.
    Char(Device),
    /// A block device.
    Block(Device),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

impl Kind {
    /// The type bits of a mode, as `stat` gives them.
    #[must_use]
    pub fn type_bits(&self) -> u16 {
        match self {
            Self::Fifo => 0o010_000,
            Self::Char(_) => 0o020_000,
            Self::Directory(_) => 0o040_000,
            Self::Block(_) => 0o060_000,
            Self::File(_) => 0o100_000,
            Self::Symlink(_) => 0o120_000,
            Self::Socket => 0o140_000,
        }
    }
}

/// One file, directory, ... of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Owner, permissions and so on.
    pub meta: Meta,
    /// What it is.
    pub kind: Kind,
    names: u32,
}

impl Node {
    /// How many names it has in the tree.
    #[must_use]
    pub fn names(&self) -> u32 {
        self.names
    }

    /// The entries, if it is a directory.
    #[must_use]
    pub fn entries(&self) -> Option<&Entries> {
        match &self.kind {
            Kind::Directory(entries) => Some(entries),
            _ => None,
        }
    }
}

/// A tree; see the module's head.
#[derive(Debug)]
pub struct Tree {
    nodes: Vec<Node>,
    /// Where the contents are.
    pub sources: Sources,
}

impl Default for Tree {
    fn default() -> Self {
        Self::new()
    }
}

impl Tree {
    /// The directory everything is in.
    pub const ROOT: NodeId = NodeId(0);

    /// A tree with nothing but its root directory: root's, mode 755, time 0.
    #[must_use]
    pub fn new() -> Self {
        let root = Node { meta: Meta::root(0o755, 0), kind: Kind::Directory(Entries::new()), names: 1 };
        Self { nodes: vec![root], sources: Sources::default() }
    }

    /// A node.
    #[must_use]
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// The metadata of a node, to change it.
    pub fn meta_mut(&mut self, id: NodeId) -> &mut Meta {
        &mut self.nodes[id.index()].meta
    }

    /// Gives a file other content, under all of its names.
    pub fn set_content(&mut self, id: NodeId, content: Content) -> Result<()> {
        match &mut self.nodes[id.index()].kind {
            Kind::File(old) => *old = content,
            _ => bail!("only a file has content"),
        }
        Ok(())
    }

    /// How many nodes ever were in the tree; every [`NodeId`] is below it.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.nodes.len()
    }

    /// The node called `name` in the directory `parent`.
    #[must_use]
    pub fn child(&self, parent: NodeId, name: &[u8]) -> Option<NodeId> {
        self.node(parent).entries()?.get(name).copied()
    }

    /// Puts a new node into the directory `parent`; what had the name before is gone, with everything below it.
    pub fn put(&mut self, parent: NodeId, name: &[u8], meta: Meta, kind: Kind) -> Result<NodeId> {
        if let Kind::Symlink(target) = &kind {
            ensure!(
                !target.is_empty() && target.len() <= MAX_TARGET && !target.contains(&0),
                "the target of symbolic link `{}` is empty, too long or has a NUL",
                shown(name)
            );
        }
        ensure!(self.nodes.len() < MAX_NODES, "the tree has more than {MAX_NODES} entries");
        let id = NodeId(u32::try_from(self.nodes.len())?);
        self.nodes.push(Node { meta, kind, names: 0 });
        self.name(parent, name, id)?;
        Ok(id)
    }

    /// Gives a node that exists another name.
    pub fn link(&mut self, parent: NodeId, name: &[u8], id: NodeId) -> Result<()> {
        ensure!(
            self.node(id).entries().is_none(),
            "a directory cannot have a second name (`{}`)",
            shown(name)
        );
        if self.child(parent, name) == Some(id) {
            return Ok(());
        }
        self.name(parent, name, id)
    }

    /// Removes a name, and everything below it; says whether it was there.
    pub fn remove(&mut self, parent: NodeId, name: &[u8]) -> bool {
        let Kind::Directory(entries) = &mut self.nodes[parent.index()].kind else { return false };
        let Some(id) = entries.remove(name) else { return false };
        self.forget(id);
        true
    }

    /// Removes everything in a directory.
    pub fn clear(&mut self, directory: NodeId) {
        let Kind::Directory(entries) = &mut self.nodes[directory.index()].kind else { return };
        for id in std::mem::take(entries).into_values() {
            self.forget(id);
        }
    }

    /// Everything in the tree; see [`Walk`].
    #[must_use]
    pub fn walk(&self) -> Walk<'_> {
        Walk::new(self)
    }

    /// Number of names, the root's included, and bytes in files, holes included.
    #[must_use]
    pub fn totals(&self) -> (u64, u64) {
        let mut seen = vec![false; self.nodes.len()];
        self.walk().fold((0, 0), |(names, bytes), step| {
            let first = !std::mem::replace(&mut seen[step.id.index()], true);
            let size = match &self.node(step.id).kind {
                Kind::File(content) if first => content.size(),
                _ => 0,
            };
            (names + 1, bytes + size)
        })
    }

    fn name(&mut self, parent: NodeId, name: &[u8], id: NodeId) -> Result<()> {
        path::check_name(name)?;
        let Kind::Directory(entries) = &mut self.nodes[parent.index()].kind else {
            bail!("`{}` cannot be put into something that is no directory", shown(name));
        };
        let before = entries.insert(name.into(), id);
        self.nodes[id.index()].names += 1;
        if let Some(before) = before {
            self.forget(before);
        }
        Ok(())
    }

    /// Takes one name from a node; without names it loses its content, and what is below it loses its name too.
    fn forget(&mut self, id: NodeId) {
        let mut doomed = vec![id];
        while let Some(id) = doomed.pop() {
            let node = &mut self.nodes[id.index()];
            node.names -= 1;
            if node.names == 0 {
                if let Kind::Directory(entries) = std::mem::replace(&mut node.kind, Kind::Fifo) {
                    doomed.extend(entries.into_values());
                }
                node.meta = Meta::default();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overwriting_one_name_leaves_the_other() {
        let mut tree = Tree::new();
        let file = tree.put(Tree::ROOT, b"a", Meta::root(0o644, 1), Kind::File(Content::Empty)).unwrap();
        tree.link(Tree::ROOT, b"b", file).unwrap();
        assert_eq!(tree.node(file).names(), 2);
        tree.put(Tree::ROOT, b"a", Meta::root(0o600, 2), Kind::Fifo).unwrap();
        assert_eq!(tree.node(file).names(), 1);
        assert_eq!(tree.child(Tree::ROOT, b"b"), Some(file));
        assert_eq!(tree.node(file).meta.mode, 0o644);
    }

    #[test]
    fn removing_a_directory_removes_what_is_below() {
        let mut tree = Tree::new();
        let directory = || Kind::Directory(Entries::new());
        let mut parent = Tree::ROOT;
        for _ in 0..10_000 {
            parent = tree.put(parent, b"d", Meta::root(0o755, 0), directory()).unwrap();
        }
        let file = tree.put(parent, b"f", Meta::root(0o644, 1), Kind::File(Content::Empty)).unwrap();
        tree.link(Tree::ROOT, b"f", file).unwrap();
        assert!(tree.remove(Tree::ROOT, b"d"));
        assert!(!tree.remove(Tree::ROOT, b"d"));
        assert_eq!(tree.node(file).names(), 1);
        assert!(tree.link(Tree::ROOT, b"r", Tree::ROOT).is_err());
        assert!(tree.put(file, b"x", Meta::default(), Kind::Fifo).is_err());
        for name in [&b""[..], b".", b"..", b"a/b", b"a\0b", &[b'x'; 256]] {
            assert!(tree.put(Tree::ROOT, name, Meta::default(), Kind::Fifo).is_err(), "{name:?}");
        }
    }
}
