//! Everything in a tree, parents before children, names in byte order.

use super::{Entries, NodeId, Tree};

/// One name of a node, as [`Walk`] gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The path without `/` at its start; empty for the root.
    pub path: Vec<u8>,
    /// The node.
    pub id: NodeId,
    /// The directory it is in (for the root: the root).
    pub parent: NodeId,
}

/// An iterator over all names. It uses no recursion, so depth costs no stack.
#[derive(Debug)]
pub struct Walk<'a> {
    tree: &'a Tree,
    started: bool,
    path: Vec<u8>,
    open: Vec<Level<'a>>,
}

#[derive(Debug)]
struct Level<'a> {
    id: NodeId,
    rest: std::collections::btree_map::Iter<'a, Box<[u8]>, NodeId>,
    path_len: usize,
}

impl<'a> Walk<'a> {
    pub(super) fn new(tree: &'a Tree) -> Self {
        Self { tree, started: false, path: Vec::new(), open: Vec::new() }
    }

    fn enter(&mut self, id: NodeId, entries: &'a Entries) {
        self.open.push(Level { id, rest: entries.iter(), path_len: self.path.len() });
    }
}

impl Iterator for Walk<'_> {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        if !self.started {
            self.started = true;
            if let Some(entries) = self.tree.node(Tree::ROOT).entries() {
                self.enter(Tree::ROOT, entries);
            }
            return Some(Step { path: Vec::new(), id: Tree::ROOT, parent: Tree::ROOT });
        }
        loop {
            let level = self.open.last_mut()?;
            self.path.truncate(level.path_len);
            let Some((name, id)) = level.rest.next() else {
                self.open.pop();
                continue;
            };
            let parent = level.id;
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name);
            if let Some(entries) = self.tree.node(*id).entries() {
                self.enter(*id, entries);
            }
            return Some(Step { path: self.path.clone(), id: *id, parent });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, Meta};
    use super::*;

    #[test]
    fn parents_come_first_and_names_in_byte_order() {
        let mut tree = Tree::new();
        for path in [&b"b/y"[..], b"a", b"b/x/q", b"b-", b"\xff"] {
            let (parent, name) = tree.place(path, super::super::path::Missing::Create(0)).unwrap().unwrap();
            tree.put(parent, name, Meta::default(), Kind::Fifo).unwrap();
        }
        let paths: Vec<Vec<u8>> = tree.walk().map(|step| step.path).collect();
        let expected: [&[u8]; 8] = [b"", b"a", b"b", b"b/x", b"b/x/q", b"b/y", b"b-", b"\xff"];
        assert_eq!(paths, expected);
    }
}
