//! Where the bytes of an archive come from: the file itself, or what a decompressor makes of it.
//!
//! Contents of a plain archive stay where they are. Those of a compressed one go to the spool while the archive is
//! read: an anonymous file with a limit, which all layers of a tree share. Formats are told by their first bytes, never
//! by the name. Decompressors get bounded memory: windows of at most 128 MiB.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};

use crate::build::tree::content::{Content, Source, SourceId, Sources};

const XZ_MEMORY: u64 = 192 << 20;
const ZSTD_WINDOW: u32 = 27;
const COPY: usize = 1 << 18;

/// The contents of compressed layers.
#[derive(Debug)]
pub struct Spool {
    file: Arc<File>,
    source: Option<SourceId>,
    len: u64,
    limit: u64,
    folder: std::path::PathBuf,
}

impl Spool {
    /// A spool in `directory` that holds at most `limit` bytes; it has no name and is gone with the program.
    pub fn new(directory: &Path, limit: u64) -> Result<Self> {
        let file = tempfile::tempfile_in(directory)
            .with_context(|| format!("making a temporary file in {}", directory.display()))?;
        Ok(Self { file: Arc::new(file), source: None, len: 0, limit, folder: directory.to_owned() })
    }

    /// Keeps `bytes`, and says where they are.
    pub fn keep(&mut self, sources: &mut Sources, bytes: &[u8]) -> Result<Content> {
        let offset = self.len;
        self.append(bytes)?;
        Ok(Content::whole(self.source(sources)?, offset, bytes.len() as u64))
    }

    /// The spool as a source of contents.
    pub fn source(&mut self, sources: &mut Sources) -> Result<SourceId> {
        match self.source {
            Some(id) => Ok(id),
            None => Ok(*self.source.insert(sources.add(Source::File(Arc::clone(&self.file)))?)),
        }
    }

    /// The file behind it.
    #[must_use]
    pub fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// How many bytes it holds.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// How many bytes more it may hold.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.limit - self.len
    }

    /// Where it is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether nothing was put into it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends bytes; where they begin is [`Spool::len`] before.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let len = self.len + bytes.len() as u64;
        ensure!(
            len <= self.limit,
            "the contents of the compressed layers are larger than the limit of the spool, {} MiB",
            self.limit >> 20
        );
        (&*self.file).write_all(bytes).context("writing to the spool")?;
        self.len = len;
        Ok(())
    }
}

/// An archive that is read from its start to its end.
pub enum Input<'a> {
    /// A file that is no archive in another form.
    Plain {
        /// The file.
        file: Arc<File>,
        /// It as a source.
        source: SourceId,
        /// Where reading has come to.
        position: u64,
        /// Where it ends.
        end: u64,
    },
    /// A stream, whose contents go to the spool.
    Stream {
        /// What is read.
        stream: Box<dyn Read + 'a>,
        /// Where contents go.
        spool: &'a mut Spool,
        /// The spool as a source.
        source: SourceId,
    },
}

impl std::fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Plain { .. } => "Input::Plain",
            Self::Stream { .. } => "Input::Stream",
        })
    }
}

impl<'a> Input<'a> {
    /// Opens an archive, compressed or not.
    pub fn open(file: File, sources: &mut Sources, spool: &'a mut Spool) -> Result<Self> {
        match Compression::of(&file)? {
            Compression::None => {
                let end = file.metadata().context("asking for the size of the archive")?.len();
                let file = Arc::new(file);
                let source = sources.add(Source::File(Arc::clone(&file)))?;
                Ok(Self::Plain { file, source, position: 0, end })
            }
            compression => Self::stream(compression.reader(file)?, sources, spool),
        }
    }

    /// Reads an archive from a stream.
    pub fn stream(stream: Box<dyn Read + 'a>, sources: &mut Sources, spool: &'a mut Spool) -> Result<Self> {
        let source = spool.source(sources)?;
        Ok(Self::Stream { stream, spool, source })
    }

    /// Fills `buffer`, or says `false` when the archive has ended before the first byte.
    pub fn fill(&mut self, buffer: &mut [u8]) -> Result<bool> {
        let mut done = 0;
        while done < buffer.len() {
            let count = match self {
                Self::Plain { file, position, .. } => {
                    let count =
                        file.read_at(&mut buffer[done..], *position).context("reading the archive")?;
                    *position += count as u64;
                    count
                }
                Self::Stream { stream, .. } => match stream.read(&mut buffer[done..]) {
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                    result => result.context("decompressing the archive")?,
                },
            };
            if count == 0 {
                ensure!(done == 0, "the archive ends in the middle");
                return Ok(false);
            }
            done += count;
        }
        Ok(true)
    }

    /// Passes over `count` bytes.
    pub fn skip(&mut self, count: u64) -> Result<()> {
        self.pass(count, |_, _| Ok(()))
    }

    /// Keeps the next `count` bytes as content, and says where they are.
    pub fn keep(&mut self, count: u64) -> Result<(SourceId, u64)> {
        let at = match self {
            Self::Plain { source, position, .. } => (*source, *position),
            Self::Stream { source, spool, .. } => (*source, spool.len()),
        };
        self.pass(count, |spool, bytes| spool.append(bytes))?;
        Ok(at)
    }

    /// Reads a stream to its end, so that what comes after the archive is seen by whoever hashes it.
    pub fn drain(&mut self) -> Result<()> {
        if let Self::Stream { stream, .. } = self {
            std::io::copy(stream, &mut std::io::sink()).context("reading the archive to its end")?;
        }
        Ok(())
    }

    fn pass(&mut self, count: u64, mut each: impl FnMut(&mut Spool, &[u8]) -> Result<()>) -> Result<()> {
        match self {
            Self::Plain { position, end, .. } => {
                let to = position.checked_add(count).filter(|to| to <= end);
                *position = to.with_context(|| format!("the archive ends {count} bytes too early"))?;
            }
            Self::Stream { stream, spool, .. } => {
                let mut left = count;
                let mut buffer = vec![0; COPY.min(usize::try_from(count)?)];
                while left > 0 {
                    let part = usize::try_from(left.min(COPY as u64))?;
                    let read = match stream.read(&mut buffer[..part]) {
                        Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                        result => result.context("decompressing the archive")?,
                    };
                    ensure!(read > 0, "the archive ends in the middle");
                    each(spool, &buffer[..read])?;
                    left -= read as u64;
                }
            }
        }
        Ok(())
    }
}

/// A form of compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// None.
    None,
    /// gzip.
    Gzip,
    /// xz.
    Xz,
    /// zstd.
    Zstd,
}

impl Compression {
    /// Tells the form by the first bytes of a file.
    pub fn of(file: &File) -> Result<Self> {
        let mut start = [0; 6];
        let count = file.read_at(&mut start, 0).context("reading the start of the archive")?;
        Ok(match &start[..count] {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0xfd, b'7', b'z', b'X', b'Z', 0] => Self::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            [b'B', b'Z', b'h', ..] => bail!("it is compressed with bzip2, which is not supported"),
            _ => Self::None,
        })
    }

    /// What is in a stream of this form.
    pub fn reader<'a>(self, stream: impl Read + 'a) -> Result<Box<dyn Read + 'a>> {
        let stream = BufReader::with_capacity(COPY, stream);
        Ok(match self {
            Self::None => Box::new(stream),
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(stream)),
            Self::Xz => {
                let decoder =
                    liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)
                        .context("starting the xz decompressor")?;
                Box::new(liblzma::bufread::XzDecoder::new_stream(stream, decoder))
            }
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(stream)
                    .context("starting the zstd decompressor")?;
                decoder.window_log_max(ZSTD_WINDOW).context("limiting the zstd decompressor")?;
                Box::new(decoder)
            }
        })
    }
}
