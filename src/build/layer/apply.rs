//! Putting a layer on a tree.
//!
//! A layer is applied in two passes, so that it does not matter where in it a whiteout stands: first what it deletes,
//! which acts on the layers below only, then what it brings. A directory over a directory merges (the metadata is the
//! new one's); everything else replaces what was there, with all that was below it.
//!
//! What deletes depends on the mode, which is given for each layer and never guessed:
//!
//! | mode | deletes | is special besides |
//! |---|---|---|
//! | `oci` | an entry `.wh.NAME` deletes `NAME`, `.wh..wh..opq` everything in its directory | other names with `.wh..wh.` are dropped |
//! | `overlayfs` | a character device 0:0, a file with `overlay.whiteout`; a directory with `overlay.opaque=y` hides what is below | `trusted.overlay.*`, `user.overlay.*` are dropped, `redirect` and `metacopy` refused; symbolic links are not followed |
//! | `ostree` | as `oci` | a file `.ostree-wh.NAME` becomes the character device 0:0 `NAME` |
//! | `none` | nothing | a directory does not replace a symbolic link to a directory |
//!
//! Sources: the OCI image layer specification ("Whiteouts"), the kernel's Documentation/filesystems/overlayfs, and
//! what umoci 0.4.7, the kernel and ostree 2022.7 do.
//!
//! Refused, with the name of the entry: `..` in a name or in the target of a hard link, the names `.wh.`, `.wh..` and
//! `.wh...` (a program that takes them literally removes the directory above), a parent that is no directory, a hard
//! link to itself or to what is not there.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};

use super::{Entry, What};
use crate::build::tree::{Device, Entries, Kind, Meta, Missing, NodeId, Parts, Tree, shown};

/// How a layer says that something of the layers below is gone; see the head of the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Whiteouts {
    /// `.wh.NAME`, as in the layers of OCI images.
    Oci,
    /// Devices 0:0 and opaque directories, as in the upper directory of an overlay.
    Overlayfs,
    /// As OCI, and `.ostree-wh.NAME` stands for the device.
    Ostree,
    /// Every name is literal.
    None,
}

const PREFIX: &[u8] = b".wh.";
const AUFS: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
const OSTREE: &[u8] = b".ostree-wh.";
const NOTHING: Device = Device { major: 0, minor: 0 };

/// Puts a layer on the tree and returns what a person should know. Directories that the layer does not mention, but
/// has something in, are made with the time `time`.
pub fn apply(tree: &mut Tree, entries: Vec<Entry>, mode: Whiteouts, time: i64) -> Result<Vec<String>> {
    let mut layer = Layer { tree, mode, time, warnings: Vec::new() };
    match mode {
        Whiteouts::None => layer.bring(entries)?,
        Whiteouts::Oci | Whiteouts::Ostree => {
            let (whiteouts, rest): (Vec<Entry>, Vec<Entry>) =
                entries.into_iter().partition(|entry| last_part(&entry.path).starts_with(PREFIX));
            for entry in &whiteouts {
                layer.marked(entry).with_context(|| refused(entry))?;
            }
            layer.bring(rest)?;
            for entry in &whiteouts {
                // a whiteout below something that is no directory would have been an error when it was applied
                layer.whiteout_parent(&entry.path).with_context(|| refused(entry))?;
            }
        }
        Whiteouts::Overlayfs => {
            let rest = layer.overlay(entries)?;
            layer.bring(rest)?;
        }
    }
    Ok(layer.warnings)
}

struct Layer<'a> {
    tree: &'a mut Tree,
    mode: Whiteouts,
    time: i64,
    warnings: Vec<String>,
}

impl Layer<'_> {
    /// A whiteout that its name marks.
    fn marked(&mut self, entry: &Entry) -> Result<()> {
        let name = last_part(&entry.path);
        let victim = &name[PREFIX.len()..];
        ensure!(
            !matches!(victim, b"" | b"." | b".."),
            "`{}` marks no file, but a directory above it",
            shown(name)
        );
        let parts = Parts::new(&entry.path)?;
        let (parents, _) = parts.split_last().context("a whiteout without a name")?;
        if name != OPAQUE && name.starts_with(AUFS) {
            return Ok(());
        }
        // a parent that is no directory may still be replaced by this layer
        let Ok(Some(parent)) = self.tree.directory(parents, Missing::Nothing) else { return Ok(()) };
        if name == OPAQUE {
            self.tree.clear(parent);
        } else {
            self.tree.remove(parent, victim);
        }
        Ok(())
    }

    fn whiteout_parent(&mut self, path: &[u8]) -> Result<()> {
        let parts = Parts::new(path)?;
        if let Some((parents, _)) = parts.split_last() {
            self.tree.directory(parents, Missing::Nothing)?;
        }
        Ok(())
    }

    /// Deletes what an overlay's upper directory deletes, and returns the rest without the marks.
    fn overlay(&mut self, entries: Vec<Entry>) -> Result<Vec<Entry>> {
        let mut gone: BTreeSet<Vec<u8>> = BTreeSet::new();
        let mut rest = Vec::with_capacity(entries.len());
        for mut entry in entries {
            let parts = Parts::new(&entry.path).with_context(|| refused(&entry))?;
            let whiteout = match &entry.what {
                What::Char(device) => *device == NOTHING,
                What::File(content) => {
                    content.size() == 0 && overlay_mark(&entry.meta, b"whiteout").is_some()
                }
                // all whiteouts of an overlay may be one inode
                What::Link(target) => gone.contains(&plain(target)?),
                _ => false,
            };
            if whiteout {
                let (parents, name) = parts.split_last().context("the root cannot be a whiteout")?;
                if let Some(parent) = self.tree.plain_directory(parents) {
                    self.tree.remove(parent, name);
                }
                gone.insert(plain(&entry.path)?);
                continue;
            }
            for mark in [&b"redirect"[..], b"metacopy"] {
                ensure!(
                    overlay_mark(&entry.meta, mark).is_none(),
                    "layer entry `{}`: the overlay attribute `{}` refers to another layer, which is not supported",
                    shown(&entry.path),
                    shown(mark)
                );
            }
            if entry.what == What::Directory && overlay_mark(&entry.meta, b"opaque") == Some(b"y") {
                let directory = match parts.split_last() {
                    None => Some(Tree::ROOT),
                    Some((parents, name)) => {
                        self.tree.plain_directory(parents).and_then(|parent| self.tree.child(parent, name))
                    }
                };
                if let Some(directory) = directory {
                    self.tree.clear(directory);
                }
            }
            without_overlay_marks(&mut entry.meta);
            rest.push(entry);
        }
        Ok(rest)
    }

    fn bring(&mut self, entries: Vec<Entry>) -> Result<()> {
        for entry in entries {
            let path = entry.path.clone();
            self.entry(entry).with_context(|| format!("layer entry `{}`", shown(&path)))?;
        }
        Ok(())
    }

    fn entry(&mut self, entry: Entry) -> Result<()> {
        let parts = Parts::new(&entry.path)?;
        let Some((parents, name)) = parts.split_last() else {
            ensure!(entry.what == What::Directory, "the root of a layer must be a directory");
            *self.tree.meta_mut(Tree::ROOT) = entry.meta;
            return Ok(());
        };
        let mut name = name;
        let mut what = entry.what;
        if matches!(self.mode, Whiteouts::Oci | Whiteouts::Ostree)
            && let Some(part) = parents.iter().find(|part| part.starts_with(PREFIX))
        {
            ensure!(
                part.starts_with(AUFS),
                "`{}` is the name of a whiteout, not of a directory",
                shown(part)
            );
            return Ok(());
        }
        if self.mode == Whiteouts::Ostree
            && matches!(what, What::File(_) | What::Link(_))
            && let Some(device) = name.strip_prefix(OSTREE)
        {
            ensure!(!matches!(device, b"" | b"." | b".."), "`{}` stands for no name", shown(name));
            (name, what) = (device, What::Char(NOTHING));
        }
        let parent = self.parent(parents)?;
        let kind = match what {
            What::Directory => return self.directory(parent, name, entry.meta, &entry.path),
            What::Link(target) => return self.link(parent, name, &target),
            What::File(content) => Kind::File(content),
            What::Symlink(target) => Kind::Symlink(target),
            What::Char(device) => Kind::Char(device),
            What::Block(device) => Kind::Block(device),
            What::Fifo => Kind::Fifo,
            What::Socket => Kind::Socket,
        };
        self.tree.put(parent, name, entry.meta, kind)?;
        Ok(())
    }

    fn parent(&mut self, parents: &[&[u8]]) -> Result<NodeId> {
        if self.mode == Whiteouts::Overlayfs {
            return self.tree.plain_directory(parents).context("its parent is no directory of the layer");
        }
        self.tree.directory(parents, Missing::Create(self.time))?.context("its parent is not there")
    }

    fn directory(&mut self, parent: NodeId, name: &[u8], meta: Meta, path: &[u8]) -> Result<()> {
        if let Some(there) = self.tree.child(parent, name) {
            match &self.tree.node(there).kind {
                Kind::Directory(_) => {
                    *self.tree.meta_mut(there) = meta;
                    return Ok(());
                }
                Kind::Symlink(target) => {
                    let leads = self
                        .tree
                        .find_following(path)
                        .is_some_and(|id| self.tree.node(id).entries().is_some());
                    if leads && self.mode == Whiteouts::None {
                        return Ok(());
                    }
                    if leads {
                        let text = format!(
                            "the directory `{}` replaces a symbolic link to `{}`, as the rules of the layer want it",
                            shown(path),
                            shown(target)
                        );
                        self.warnings.push(text);
                    }
                }
                _ => {}
            }
        }
        self.tree.put(parent, name, meta, Kind::Directory(Entries::new()))?;
        Ok(())
    }

    fn link(&mut self, parent: NodeId, name: &[u8], target: &[u8]) -> Result<()> {
        let missing = || format!("it is a hard link to `{}`, which is not there", shown(target));
        let parts = Parts::new(target)?;
        let (parents, last) = parts.split_last().with_context(missing)?;
        let directory = self.tree.directory(parents, Missing::Nothing)?.with_context(missing)?;
        ensure!((directory, last) != (parent, name), "it is a hard link to itself");
        let id = self.tree.child(directory, last).with_context(missing)?;
        self.tree.link(parent, name, id)
    }
}

fn refused(entry: &Entry) -> String {
    format!("layer entry `{}`", shown(&entry.path))
}

fn last_part(path: &[u8]) -> &[u8] {
    path.split(|byte| *byte == b'/').rfind(|part| !matches!(*part, b"" | b".")).unwrap_or_default()
}

/// A path in the one form that can be compared.
fn plain(path: &[u8]) -> Result<Vec<u8>> {
    let parts = Parts::new(path)?;
    Ok(parts.split_last().map_or_else(Vec::new, |(parents, last)| [parents, &[last]].concat().join(&b'/')))
}

const OVERLAY: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];

fn overlay_mark<'a>(meta: &'a Meta, mark: &[u8]) -> Option<&'a [u8]> {
    meta.xattrs()
        .find(|(name, _)| OVERLAY.iter().any(|prefix| name.strip_prefix(*prefix) == Some(mark)))
        .map(|(_, value)| value)
}

/// Drops the overlay's own attributes; one that an inner overlay had escaped gets its name back.
fn without_overlay_marks(meta: &mut Meta) {
    let mut inner = Vec::new();
    for (name, value) in meta.xattrs() {
        for prefix in OVERLAY {
            if let Some(rest) = name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix(b"overlay.")) {
                inner.push(([prefix, rest].concat(), value.to_vec()));
            }
        }
    }
    meta.drop_xattrs(|name| OVERLAY.iter().any(|prefix| name.starts_with(prefix)));
    for (name, value) in inner {
        meta.set_xattr(&name, &value);
    }
}

/// The whiteout mode that a name on the command line or in a recipe means.
impl std::str::FromStr for Whiteouts {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "oci" => Self::Oci,
            "overlayfs" => Self::Overlayfs,
            "ostree" => Self::Ostree,
            "none" => Self::None,
            _ => bail!("`{text}` is no whiteout mode; there are `oci`, `overlayfs`, `ostree` and `none`"),
        })
    }
}
