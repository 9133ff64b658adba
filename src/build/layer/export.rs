//! The way back: a tree, or what makes one tree into another, as a layer with whiteouts.
//!
//! | mode | what is gone | a device 0:0 of the tree |
//! |---|---|---|
//! | `oci` | `.wh.NAME` | itself |
//! | `overlayfs` | a character device 0:0 | refused: it would delete |
//! | `ostree` | `.wh.NAME` | a file `.ostree-wh.NAME` |
//! | `none` | refused: it cannot be said | itself |
//!
//! A layer holds what is new or different, and the directories on the way to it. Names that are one file are written
//! together when one of them changed. Names that the mode would take for something else are refused. Putting the layer
//! on the first tree gives the second one again.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use anyhow::{Context, Result, bail, ensure};

use super::Whiteouts;
use super::archive::{Archive, Member, write_node};
use crate::build::compare::same;
use crate::build::tree::{Device, Entries, Kind, Meta, NodeId, Tree, shown};

const NOTHING: Device = Device { major: 0, minor: 0 };

/// Writes the archive that makes `base` into `top`; no time in it is later than `latest`.
pub fn difference<W: Write>(base: &Tree, top: &Tree, mode: Whiteouts, latest: i64, out: W) -> Result<W> {
    let items = Comparison { base, top, names: linked(top), unchanged: BTreeMap::new() }.items()?;
    let mut needed: BTreeSet<&[u8]> = BTreeSet::new();
    let mut wanted = vec![false; items.len()];
    for (index, item) in items.iter().enumerate().rev() {
        wanted[index] = item.changed || needed.contains(item.path.as_slice());
        if wanted[index] {
            needed.insert(parent(&item.path));
        }
    }
    let mut archive = Archive::new(out, latest);
    let mut first: BTreeMap<NodeId, Vec<u8>> = BTreeMap::new();
    for (item, _) in items.iter().zip(wanted).filter(|(_, wanted)| *wanted) {
        write(&mut archive, top, item, mode, latest, &mut first)
            .with_context(|| format!("writing `/{}` to the layer", shown(&item.path)))?;
    }
    archive.finish()
}

/// A path of a layer.
struct Item {
    path: Vec<u8>,
    /// What is there; `None` when it is gone.
    node: Option<NodeId>,
    changed: bool,
}

struct Comparison<'a> {
    base: &'a Tree,
    top: &'a Tree,
    names: BTreeMap<NodeId, Vec<Vec<u8>>>,
    /// For nodes with several names: whether all of them are as they were.
    unchanged: BTreeMap<NodeId, bool>,
}

impl Comparison<'_> {
    /// All paths of the upper tree, and those that are gone from the lower one, parents first.
    fn items(&mut self) -> Result<Vec<Item>> {
        let mut items = Vec::new();
        let mut todo: Vec<(Vec<u8>, Option<NodeId>, Option<NodeId>)> =
            vec![(Vec::new(), Some(Tree::ROOT), Some(Tree::ROOT))];
        while let Some((path, below, above)) = todo.pop() {
            let changed = match (below, above) {
                (Some(below), Some(above)) => !self.same(&path, below, above)?,
                _ => true,
            };
            if let Some(above) = above {
                let none = Entries::new();
                let inside = self.top.node(above).entries();
                let under = below.and_then(|id| self.base.node(id).entries()).filter(|_| inside.is_some());
                let (inside, under) = (inside.unwrap_or(&none), under.unwrap_or(&none));
                let names: BTreeSet<&[u8]> = inside.keys().chain(under.keys()).map(|name| &**name).collect();
                for name in names.into_iter().rev() {
                    let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
                    todo.push((
                        [&path, slash, name].concat(),
                        under.get(name).copied(),
                        inside.get(name).copied(),
                    ));
                }
            }
            items.push(Item { path, node: above, changed });
        }
        Ok(items)
    }

    fn same(&mut self, path: &[u8], below: NodeId, above: NodeId) -> Result<bool> {
        let Some(names) = self.names.get(&above) else {
            let alone = self.base.node(below).names() < 2 || self.base.node(below).entries().is_some();
            return Ok(alone && same((self.base, below), (self.top, above))?);
        };
        if let Some(known) = self.unchanged.get(&above) {
            return Ok(*known);
        }
        let together = names.len() == usize::try_from(self.base.node(below).names())?
            && names.iter().all(|name| plain(self.base, name) == Some(below))
            && names.iter().any(|name| name == path);
        let equal = together && same((self.base, below), (self.top, above))?;
        self.unchanged.insert(above, equal);
        Ok(equal)
    }
}

fn write<W: Write>(
    archive: &mut Archive<W>,
    top: &Tree,
    item: &Item,
    mode: Whiteouts,
    latest: i64,
    first: &mut BTreeMap<NodeId, Vec<u8>>,
) -> Result<()> {
    let path = &item.path;
    let Some(id) = item.node else {
        return match mode {
            Whiteouts::Oci | Whiteouts::Ostree => {
                archive.member(&marked(path, b".wh."), &Meta::root(0, latest), Member::File(0))
            }
            Whiteouts::Overlayfs => archive.member(path, &Meta::root(0, latest), Member::Char(NOTHING)),
            Whiteouts::None => bail!("it is gone, which a layer without whiteouts cannot say"),
        };
    };
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let reserved = match mode {
        Whiteouts::Oci => name.starts_with(b".wh."),
        Whiteouts::Ostree => name.starts_with(b".wh.") || name.starts_with(b".ostree-wh."),
        Whiteouts::Overlayfs | Whiteouts::None => false,
    };
    ensure!(!reserved, "its name would be taken for a whiteout");
    let node = top.node(id);
    if node.kind == Kind::Char(NOTHING) {
        match mode {
            Whiteouts::Overlayfs => bail!("a device 0:0 would be taken for a whiteout"),
            Whiteouts::Ostree => {
                return archive.member(&marked(path, b".ostree-wh."), &node.meta, Member::File(0));
            }
            Whiteouts::Oci | Whiteouts::None => {}
        }
    }
    ensure!(node.kind != Kind::Socket, "a socket cannot be in an archive");
    if let Some(target) = first.get(&id) {
        return archive.member(path, &node.meta, Member::Link(target));
    }
    if node.names() > 1 {
        first.insert(id, path.clone());
    }
    write_node(archive, top, path, id)
}

/// All names of the files that have several.
fn linked(tree: &Tree) -> BTreeMap<NodeId, Vec<Vec<u8>>> {
    let mut names: BTreeMap<NodeId, Vec<Vec<u8>>> = BTreeMap::new();
    for step in tree.walk() {
        let node = tree.node(step.id);
        if node.names() > 1 && node.entries().is_none() {
            names.entry(step.id).or_default().push(step.path);
        }
    }
    names
}

/// The node at a path, no symbolic link followed.
fn plain(tree: &Tree, path: &[u8]) -> Option<NodeId> {
    path.split(|byte| *byte == b'/').try_fold(Tree::ROOT, |here, part| tree.child(here, part))
}

fn parent(path: &[u8]) -> &[u8] {
    path.iter().rposition(|byte| *byte == b'/').map_or(&[], |at| &path[..at])
}

fn marked(path: &[u8], prefix: &[u8]) -> Vec<u8> {
    let at = path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    [&path[..at], prefix, &path[at..]].concat()
}
