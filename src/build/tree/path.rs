//! Paths, and what they mean in a tree.
//!
//! A path that a layer gives is split into its parts; `..` in it is refused, because no layer has a reason for it.
//! On the way to the last part, symbolic links are followed **inside the tree**: an absolute target starts at the
//! tree's root, `..` stops there, and after 40 links it is a loop. So nothing a layer says can name anything outside.

use anyhow::{Context, Result, bail, ensure};

use super::{Entries, Kind, Meta, NodeId, Tree};

const MAX_PATH: usize = 4096;
const MAX_NAME: usize = 255;
const MAX_LINKS: u32 = 40;

/// The parts of a path as a layer gave it: `/` at the ends and `.` do not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts<'a>(Vec<&'a [u8]>);

impl<'a> Parts<'a> {
    /// Splits a path; refuses `..`, NUL and what is too long.
    pub fn new(path: &'a [u8]) -> Result<Self> {
        ensure!(
            path.len() <= MAX_PATH,
            "the path `{}...` is longer than {MAX_PATH} bytes",
            shown(&path[..80])
        );
        ensure!(!path.contains(&0), "the path `{}` has a NUL", shown(path));
        let mut parts = Vec::new();
        for part in path.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => bail!("the path `{}` has a `..`", shown(path)),
                part => {
                    check_name(part)?;
                    parts.push(part);
                }
            }
        }
        Ok(Self(parts))
    }

    /// The parts before the last, and the last; `None` for the root itself.
    #[must_use]
    pub fn split_last(&self) -> Option<(&[&'a [u8]], &'a [u8])> {
        self.0.split_last().map(|(last, parents)| (parents, *last))
    }
}

/// What to do about a parent that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Make it, root's with mode 755, with this time.
    Create(i64),
    /// Give up quietly.
    Nothing,
}

/// What a path meets on its way.
enum Met {
    /// The directories from the root to it.
    Directory(Vec<NodeId>),
    /// Not there: the directory and the name it lacks.
    Missing(NodeId, Vec<u8>),
    NoDirectory(Vec<u8>),
    TooManyLinks,
}

impl Tree {
    /// The directory that `parents` leads to, symbolic links followed.
    ///
    /// `None` when it is not there and `missing` says not to make it; an error when something on the way is no
    /// directory.
    pub fn directory(&mut self, parents: &[&[u8]], missing: Missing) -> Result<Option<NodeId>> {
        loop {
            match self.lead(vec![Self::ROOT], parents) {
                Met::Directory(way) => return Ok(way.last().copied()),
                Met::TooManyLinks => {
                    bail!("too many symbolic links on the way to `{}`", shown_parts(parents))
                }
                Met::NoDirectory(part) => {
                    bail!("`{}` on the way to `{}` is no directory", shown(&part), shown_parts(parents))
                }
                Met::Missing(here, part) => match missing {
                    Missing::Nothing => return Ok(None),
                    Missing::Create(time) => {
                        self.put(here, &part, Meta::root(0o755, time), Kind::Directory(Entries::new()))?;
                    }
                },
            }
        }
    }

    /// The directory that `parents` leads to without following a symbolic link; `None` when it is not there.
    #[must_use]
    pub fn plain_directory(&self, parents: &[&[u8]]) -> Option<NodeId> {
        let mut here = Self::ROOT;
        for part in parents {
            here = self.child(here, part)?;
        }
        self.node(here).entries().map(|_| here)
    }

    /// Follows `parents` from the directory that `way` leads to.
    fn lead(&self, mut way: Vec<NodeId>, parents: &[&[u8]]) -> Met {
        let mut links = 0;
        let mut todo: Vec<&[u8]> = parents.iter().rev().copied().collect();
        while let Some(part) = todo.pop() {
            match part {
                b"" | b"." => continue,
                b".." => {
                    way.truncate(way.len().saturating_sub(1).max(1));
                    continue;
                }
                _ => {}
            }
            let here = *way.last().unwrap_or(&Self::ROOT);
            match self.child(here, part).map(|id| (id, &self.node(id).kind)) {
                Some((id, Kind::Directory(_))) => way.push(id),
                Some((_, Kind::Symlink(target))) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Met::TooManyLinks;
                    }
                    if target.starts_with(b"/") {
                        way.truncate(1);
                    }
                    todo.extend(target.split(|byte| *byte == b'/').rev());
                }
                Some(_) => return Met::NoDirectory(part.to_vec()),
                None => return Met::Missing(here, part.to_vec()),
            }
        }
        Met::Directory(way)
    }

    /// The node at a path; symbolic links on the way are followed, one at its end is not.
    ///
    /// `None` when it is not there, also when something on the way is no directory.
    #[must_use]
    pub fn find(&self, path: &[u8]) -> Option<NodeId> {
        let parts = Parts::new(path).ok()?;
        let Some((parents, last)) = parts.split_last() else { return Some(Self::ROOT) };
        match self.lead(vec![Self::ROOT], parents) {
            Met::Directory(way) => self.child(*way.last()?, last),
            _ => None,
        }
    }

    /// The node at a path, symbolic links followed to the end; `None` when it is not there.
    #[must_use]
    pub fn find_following(&self, path: &[u8]) -> Option<NodeId> {
        let mut way = vec![Self::ROOT];
        let mut rest = path;
        for _ in 0..MAX_LINKS {
            let parts: Vec<&[u8]> = rest.split(|byte| *byte == b'/').collect();
            let (last, parents) = parts.split_last()?;
            let Met::Directory(found) = self.lead(way, parents) else { return None };
            way = found;
            let id = match *last {
                b"" | b"." | b".." => match self.lead(way, &[last]) {
                    Met::Directory(way) => return way.last().copied(),
                    _ => return None,
                },
                name => self.child(*way.last()?, name)?,
            };
            let Kind::Symlink(target) = &self.node(id).kind else { return Some(id) };
            if target.starts_with(b"/") {
                way.truncate(1);
            }
            rest = target;
        }
        None
    }

    /// Parent directory and last part of a path, the parents made where they are missing.
    pub fn place<'a>(&mut self, path: &'a [u8], missing: Missing) -> Result<Option<(NodeId, &'a [u8])>> {
        let parts = Parts::new(path)?;
        let (parents, last) = parts.split_last().context("the root itself has no name")?;
        Ok(self.directory(parents, missing)?.map(|parent| (parent, last)))
    }
}

pub(super) fn check_name(name: &[u8]) -> Result<()> {
    ensure!(name.len() <= MAX_NAME, "the name `{}` is longer than {MAX_NAME} bytes", shown(name));
    ensure!(
        !matches!(name, b"" | b"." | b"..") && !name.contains(&b'/') && !name.contains(&0),
        "`{}` cannot be the name of a file",
        shown(name)
    );
    Ok(())
}

/// A path for people: what is no plain text is escaped.
#[must_use]
pub fn shown(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '\\' || c.is_control() || ('\u{80}'..).contains(&c) && !c.is_alphanumeric() {
                text.extend(c.escape_default());
            } else {
                text.push(c);
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

fn shown_parts(parts: &[&[u8]]) -> String {
    shown(&parts.join(&b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::tree::content::Content;

    fn tree() -> Tree {
        let mut tree = Tree::new();
        for path in [&b"usr/lib/x"[..], b"etc", b"a/b/c"] {
            let parts = Parts::new(path).unwrap();
            tree.directory(&parts.0, Missing::Create(0)).unwrap();
        }
        for (name, target) in [
            (&b"lib"[..], &b"usr/lib"[..]),
            (b"abs", b"/usr/lib"),
            (b"up", b"../../../../etc"),
            (b"loop", b"loop"),
            (b"gone", b"nowhere"),
        ] {
            tree.put(Tree::ROOT, name, Meta::default(), Kind::Symlink(target.into())).unwrap();
        }
        tree.put(Tree::ROOT, b"file", Meta::default(), Kind::File(Content::Empty)).unwrap();
        tree
    }

    #[test]
    fn links_are_followed_inside_the_tree() {
        let mut tree = tree();
        let lib = tree.find(b"usr/lib").unwrap();
        for path in [&b"lib"[..], b"abs", b"./lib/", b"/abs/x/.", b"lib/x"] {
            let parts = Parts::new(path).unwrap();
            let found = tree.directory(&parts.0, Missing::Nothing).unwrap().unwrap();
            assert!(found == lib || Some(found) == tree.find(b"usr/lib/x"), "{}", shown(path));
        }
        assert_eq!(tree.find_following(b"up"), tree.find(b"etc"));
        assert_eq!(tree.find_following(b"abs"), Some(lib));
        assert!(tree.find_following(b"loop").is_none());
        assert!(tree.directory(&[b"loop"], Missing::Nothing).unwrap_err().to_string().contains("too many"));
        assert!(tree.directory(&[b"file", b"x"], Missing::Create(0)).is_err());
        assert!(tree.directory(&[b"gone"], Missing::Nothing).unwrap().is_none());
        let made = tree.directory(&[b"gone"], Missing::Create(7)).unwrap();
        assert_eq!(tree.find(b"nowhere"), made);
    }

    #[test]
    fn a_path_that_would_leave_is_refused() {
        for path in [&b".."[..], b"a/../b", b"a/b/..", b"a\0b", &[b'a'; 300], &[b'/'; 5000]] {
            assert!(Parts::new(path).is_err(), "{}", shown(path));
        }
        assert_eq!(Parts::new(b"/./").unwrap().split_last(), None);
    }

    #[test]
    fn what_is_no_text_is_escaped() {
        assert_eq!(shown(b"a\x1b[0m\xff\\ \xc3\xa9\n"), "a\\u{1b}[0m\\xff\\\\ \u{e9}\\n");
    }
}
