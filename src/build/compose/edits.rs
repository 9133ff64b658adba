//! Small changes to a tree, for which nobody wants to make a layer.

use anyhow::{Context, Result, bail, ensure};

use crate::build::tree::content::{Content, Source};
use crate::build::tree::{Entries, Kind, Meta, Missing, NodeId, Tree, shown};

/// A change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// What is changed; symbolic links on the way to it are followed inside the tree.
    pub path: Vec<u8>,
    /// What happens.
    pub action: Action,
    /// New permissions.
    pub mode: Option<u16>,
    /// New owner and group.
    pub owner: Option<(u32, u32)>,
}

/// What happens to a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// It becomes a file with this content. A file that is there keeps owner and permissions; a new one is root's, 644.
    Write(Vec<u8>),
    /// It is removed, with everything below it; it must be there.
    Remove,
    /// It becomes a symbolic link.
    Symlink(Vec<u8>),
    /// It becomes a directory if it is none.
    Directory,
    /// Only permissions and owner change; it must be there.
    Set,
}

/// Makes a change; what it makes gets the time `time`.
pub fn edit(tree: &mut Tree, edit: &Edit, time: i64) -> Result<()> {
    change(tree, edit, time).with_context(|| format!("editing `{}`", shown(&edit.path)))
}

fn change(tree: &mut Tree, edit: &Edit, time: i64) -> Result<()> {
    let there = tree.find(&edit.path);
    let id = match &edit.action {
        Action::Set => there.context("it is not there")?,
        Action::Remove => {
            ensure!(there.is_some(), "it is not there");
            let (parent, name) = tree.place(&edit.path, Missing::Nothing)?.context("it is not there")?;
            tree.remove(parent, name);
            return Ok(());
        }
        Action::Directory => match there.filter(|id| tree.node(*id).entries().is_some()) {
            Some(id) => id,
            None => put(tree, &edit.path, Meta::root(0o755, time), Kind::Directory(Entries::new()), time)?,
        },
        Action::Symlink(target) => {
            put(tree, &edit.path, Meta::root(0o777, time), Kind::Symlink(target.as_slice().into()), time)?
        }
        Action::Write(bytes) => {
            let mut meta = Meta::root(0o644, time);
            if let Some(node) = there.map(|id| tree.node(id)) {
                match &node.kind {
                    Kind::File(_) => meta = Meta { mtime: time, ..node.meta.clone() },
                    Kind::Directory(_) => bail!("it is a directory"),
                    _ => {}
                }
            }
            let source = tree.sources.add(Source::Bytes(bytes.clone()))?;
            let content = Content::whole(source, 0, bytes.len() as u64);
            put(tree, &edit.path, meta, Kind::File(content), time)?
        }
    };
    let meta = tree.meta_mut(id);
    if let Some(mode) = edit.mode {
        meta.mode = mode;
    }
    if let Some((uid, gid)) = edit.owner {
        (meta.uid, meta.gid) = (uid, gid);
    }
    Ok(())
}

fn put(tree: &mut Tree, path: &[u8], meta: Meta, kind: Kind, time: i64) -> Result<NodeId> {
    let (parent, name) = tree.place(path, Missing::Create(time))?.context("its parent is not there")?;
    tree.put(parent, name, meta, kind)
}
