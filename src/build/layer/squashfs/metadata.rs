//! Blocks of metadata, and the numbers in them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, bail, ensure};

/// The most that a block of metadata holds.
pub(super) const BLOCK: usize = 8192;
/// Blocks kept unpacked.
const KEPT: usize = 512;
const XZ_MEMORY: u64 = 192 << 20;

/// How blocks are compressed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Compressor {
    Gzip,
    Xz,
    Zstd,
}

impl Compressor {
    pub fn new(number: u16) -> Result<Self> {
        Ok(match number {
            1 => Self::Gzip,
            4 => Self::Xz,
            6 => Self::Zstd,
            2 => bail!("it is compressed with lzma, which is not supported"),
            3 => bail!("it is compressed with lzo, which is not supported"),
            5 => bail!("it is compressed with lz4, which is not supported"),
            other => bail!("it is compressed with the unknown method {other}"),
        })
    }

    /// What a block unpacks to, which may have `limit` bytes at most.
    pub fn unpack(self, packed: &[u8], limit: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let most = limit as u64 + 1;
        match self {
            Self::Gzip => flate2::bufread::ZlibDecoder::new(packed).take(most).read_to_end(&mut bytes),
            Self::Xz => {
                let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, 0)?;
                liblzma::bufread::XzDecoder::new_stream(packed, stream).take(most).read_to_end(&mut bytes)
            }
            Self::Zstd => {
                zstd::stream::read::Decoder::with_buffer(packed)?.take(most).read_to_end(&mut bytes)
            }
        }
        .context("unpacking a block")?;
        ensure!(bytes.len() <= limit, "a block unpacks to more than {limit} bytes");
        Ok(bytes)
    }
}

/// A position: where a block of metadata begins in the file, and an offset in what it unpacks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub block: u64,
    pub offset: usize,
}

impl Place {
    /// A reference as inodes have it, relative to a table.
    pub fn of(table: u64, reference: u64) -> Result<Self> {
        let block = table.checked_add(reference >> 16).context("a reference beyond every file")?;
        Ok(Self { block, offset: usize::try_from(reference & 0xffff)? })
    }
}

/// Unpacked blocks of metadata.
#[derive(Debug)]
pub(super) struct Metadata<'a> {
    pub file: &'a File,
    pub compressor: Compressor,
    /// Nothing lies behind this.
    pub end: u64,
    kept: BTreeMap<u64, (Vec<u8>, u64)>,
}

impl<'a> Metadata<'a> {
    pub fn new(file: &'a File, compressor: Compressor, end: u64) -> Self {
        Self { file, compressor, end, kept: BTreeMap::new() }
    }

    /// Bytes of the file itself.
    pub fn plain(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        let end = offset.checked_add(len as u64);
        ensure!(end.is_some_and(|end| end <= self.end), "something lies behind the end of the file system");
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, offset).context("reading the file system")?;
        Ok(bytes)
    }

    /// Reads `len` bytes at a place, and moves the place behind them.
    pub fn read(&mut self, place: &mut Place, len: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while bytes.len() < len {
            let (block, next) = self.block(place.block)?;
            let rest = block.get(place.offset..).context("a reference behind the end of a block")?;
            if rest.is_empty() {
                ensure!(next > place.block, "metadata that does not end");
                *place = Place { block: next, offset: 0 };
                ensure!(!self.block(next)?.0.is_empty(), "an empty block of metadata");
                continue;
            }
            let count = rest.len().min(len - bytes.len());
            bytes.extend_from_slice(&rest[..count]);
            place.offset += count;
        }
        Ok(bytes)
    }

    fn block(&mut self, start: u64) -> Result<(&[u8], u64)> {
        if !self.kept.contains_key(&start) {
            let head = self.plain(start, 2)?;
            let head = u16::from_le_bytes([head[0], head[1]]);
            let size = usize::from(head & 0x7fff);
            let stored = self.plain(start + 2, size)?;
            let block = if head & 0x8000 != 0 { stored } else { self.compressor.unpack(&stored, BLOCK)? };
            ensure!(block.len() <= BLOCK, "a block of metadata with {} bytes", block.len());
            if self.kept.len() >= KEPT {
                self.kept.clear();
            }
            self.kept.insert(start, (block, start + 2 + size as u64));
        }
        let (block, next) = self.kept.get(&start).context("a block that was just read")?;
        Ok((block, *next))
    }

    /// A table whose blocks are listed at `start`: `count` records of `size` bytes.
    pub fn table(&mut self, start: u64, count: usize, size: usize) -> Result<Vec<u8>> {
        let total = count.checked_mul(size).context("a table that is too large")?;
        let blocks = total.div_ceil(BLOCK);
        let list = self.plain(start, blocks.checked_mul(8).context("a table that is too large")?)?;
        let mut table = Vec::new();
        for (number, at) in list.chunks_exact(8).enumerate() {
            let want = (total - number * BLOCK).min(BLOCK);
            let mut place = Place { block: long(at, 0), offset: 0 };
            table.extend(self.read(&mut place, want)?);
        }
        Ok(table)
    }
}

pub(super) fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(super) fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(super) fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from(word(bytes, at)) | (u64::from(word(bytes, at + 4)) << 32)
}
