//! One entry of a layer, whatever form the layer has.

use crate::build::tree::content::Content;
use crate::build::tree::{Device, Meta};

/// What a reader of layers found, in the order in which it found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The path as the layer has it; not checked yet.
    pub path: Vec<u8>,
    /// Owner, permissions and so on.
    pub meta: Meta,
    /// What it is.
    pub what: What,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A directory.
    Directory,
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
    /// Another name of what is at this path, in this layer or below it.
    Link(Vec<u8>),
}

/// Receives the entries of a layer.
pub type Sink<'a> = dyn FnMut(Entry) -> anyhow::Result<()> + 'a;
