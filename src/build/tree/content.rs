//! Where the bytes of a file come from: places in sources, never the bytes themselves.
//!
//! A [`Source`] is something that can be read at any offset: a layer's own file, the spool into which a compressed
//! layer was unpacked, a file of a directory layer, or a few bytes of the recipe. [`Content`] names places in sources;
//! what no place covers is a hole and reads as zeros.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};

/// Number of a source in [`Sources`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(u32);

/// Something to read from.
#[derive(Debug)]
pub enum Source {
    /// A file that stays open.
    File(Arc<File>),
    /// Bytes in memory, for small things only.
    Bytes(Vec<u8>),
    /// A file of a directory layer, opened when it is needed; it must be what it was when the layer was read.
    Host {
        /// Where it is.
        path: PathBuf,
        /// Inode number when the layer was read.
        inode: u64,
        /// Size when the layer was read.
        size: u64,
        /// Change time (seconds and nanoseconds) when the layer was read.
        changed: (i64, i64),
    },
}

/// All sources of a tree.
#[derive(Debug, Default)]
pub struct Sources(Vec<Source>);

impl Sources {
    /// Adds a source.
    pub fn add(&mut self, source: Source) -> Result<SourceId> {
        let id = SourceId(u32::try_from(self.0.len()).context("too many sources")?);
        self.0.push(source);
        Ok(id)
    }

    /// Whether a source is this file.
    #[must_use]
    pub fn is(&self, id: SourceId, file: &Arc<File>) -> bool {
        matches!(self.0.get(id.0 as usize), Some(Source::File(known)) if Arc::ptr_eq(known, file))
    }

    /// Opens the content of a file for reading.
    pub fn open<'a>(&'a self, content: &'a Content) -> Reader<'a> {
        Reader { sources: self, content, host: None }
    }

    /// The whole content in memory, when it has at most `limit` bytes.
    pub fn read_all(&self, content: &Content, limit: u64) -> Result<Vec<u8>> {
        ensure!(content.size() <= limit, "{} bytes are more than the {limit} allowed here", content.size());
        let mut bytes = vec![0; usize::try_from(content.size())?];
        self.open(content).read_at(&mut bytes, 0)?;
        Ok(bytes)
    }
}

/// A part of a file that lies in one piece in a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Offset in the file.
    pub at: u64,
    /// Number of bytes.
    pub len: u64,
    /// Where the bytes are.
    pub source: SourceId,
    /// Offset there.
    pub offset: u64,
}

/// What is in a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Content {
    /// Nothing.
    #[default]
    Empty,
    /// All of it in one piece.
    Whole {
        /// Where the bytes are.
        source: SourceId,
        /// Offset there.
        offset: u64,
        /// Number of bytes.
        size: u64,
    },
    /// Pieces and holes.
    Pieces(Box<Pieces>),
}

/// A file with holes, or one that is scattered over its source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pieces {
    /// Size of the file.
    pub size: u64,
    /// Its parts in ascending order, not overlapping, none beyond `size`.
    pub list: Vec<Piece>,
}

impl Content {
    /// A file in one piece.
    #[must_use]
    pub fn whole(source: SourceId, offset: u64, size: u64) -> Self {
        if size == 0 { Self::Empty } else { Self::Whole { source, offset, size } }
    }

    /// A file with holes; refused when its pieces are not in order or lie beyond its end.
    pub fn pieces(size: u64, mut list: Vec<Piece>) -> Result<Self> {
        list.retain(|piece| piece.len > 0);
        let mut end = 0;
        for piece in &list {
            ensure!(piece.at >= end, "the pieces of a file overlap at {}", piece.at);
            end = piece.at.checked_add(piece.len).context("a piece of a file lies beyond every file")?;
            piece.offset.checked_add(piece.len).context("a piece of a file lies beyond every source")?;
        }
        ensure!(end <= size, "a piece ends at {end} in a file of {size} bytes");
        Ok(match list.as_slice() {
            [] if size == 0 => Self::Empty,
            [one] if one.at == 0 && one.len == size => Self::whole(one.source, one.offset, size),
            _ => Self::Pieces(Box::new(Pieces { size, list })),
        })
    }

    /// Number of bytes, holes included.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Whole { size, .. } => *size,
            Self::Pieces(pieces) => pieces.size,
        }
    }
}

/// Reads one file's content.
#[derive(Debug)]
pub struct Reader<'a> {
    sources: &'a Sources,
    content: &'a Content,
    host: Option<(SourceId, File)>,
}

impl Reader<'_> {
    /// Fills `buffer` with what is at `at`; all of it must lie within the file.
    pub fn read_at(&mut self, buffer: &mut [u8], at: u64) -> Result<()> {
        match self.content {
            Content::Empty => Ok(()),
            Content::Whole { source, offset, .. } => self.fill(*source, offset + at, buffer),
            Content::Pieces(pieces) => {
                buffer.fill(0);
                let end = at + buffer.len() as u64;
                let first = pieces.list.partition_point(|piece| piece.at + piece.len <= at);
                for piece in pieces.list[first..].iter().take_while(|piece| piece.at < end) {
                    let from = piece.at.max(at);
                    let to = (piece.at + piece.len).min(end);
                    let part = usize::try_from(from - at)?..usize::try_from(to - at)?;
                    self.fill(piece.source, piece.offset + (from - piece.at), &mut buffer[part])?;
                }
                Ok(())
            }
        }
    }

    /// The first byte at or after `at` that may not be zero: the rest up to it is a hole. `None` at the end.
    #[must_use]
    pub fn next_data(&self, at: u64) -> Option<u64> {
        match self.content {
            Content::Pieces(pieces) => {
                let next = pieces.list.partition_point(|piece| piece.at + piece.len <= at);
                pieces.list.get(next).map(|piece| piece.at.max(at))
            }
            whole => (at < whole.size()).then_some(at),
        }
    }

    fn fill(&mut self, id: SourceId, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let source = self.sources.0.get(id.0 as usize).context("a source that does not exist")?;
        match source {
            Source::File(file) => file
                .read_exact_at(buffer, offset)
                .with_context(|| format!("reading {} bytes at {offset} of a layer", buffer.len())),
            Source::Bytes(bytes) => {
                let start = usize::try_from(offset)?;
                let part = bytes.get(start..).and_then(|rest| rest.get(..buffer.len()));
                buffer.copy_from_slice(part.context("content beyond the end of its source")?);
                Ok(())
            }
            Source::Host { path, inode, size, changed } => {
                let context = || format!("reading {}", path.display());
                if self.host.as_ref().is_none_or(|(open, _)| *open != id) {
                    let file = std::fs::OpenOptions::new()
                        .read(true)
                        .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY)
                        .open(path)
                        .with_context(context)?;
                    let now = file.metadata().with_context(context)?;
                    ensure!(
                        (now.ino(), now.len(), (now.ctime(), now.ctime_nsec())) == (*inode, *size, *changed),
                        "{} was changed while it was being read",
                        path.display()
                    );
                    self.host = Some((id, file));
                }
                let (_, file) = self.host.as_ref().context("a file that is not open")?;
                file.read_exact_at(buffer, offset).with_context(context)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_read_as_zeros() {
        let mut sources = Sources::default();
        let id = sources.add(Source::Bytes(b"abcdef".to_vec())).unwrap();
        let piece = |at, len, offset| Piece { at, len, source: id, offset };
        let content = Content::pieces(10, vec![piece(1, 2, 4), piece(6, 3, 0)]).unwrap();
        assert_eq!(sources.read_all(&content, 10).unwrap(), b"\0ef\0\0\0abc\0");
        let mut reader = sources.open(&content);
        let mut four = [1; 4];
        reader.read_at(&mut four, 5).unwrap();
        assert_eq!(&four, b"\0abc");
        assert_eq!(
            [0, 2, 3, 8, 9].map(|at| reader.next_data(at)),
            [Some(1), Some(2), Some(6), Some(8), None]
        );
        assert!(sources.read_all(&content, 9).is_err());
        assert!(Content::pieces(10, vec![piece(1, 2, 0), piece(2, 1, 0)]).is_err());
        assert!(Content::pieces(2, vec![piece(1, 2, 0)]).is_err());
        assert_eq!(Content::pieces(6, vec![piece(0, 6, 0)]).unwrap(), Content::whole(id, 0, 6));
        assert!(sources.read_all(&Content::whole(id, 4, 3), 10).is_err());
    }
}
