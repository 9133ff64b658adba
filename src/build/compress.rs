//! Compresses a package's payload on all cores, with the same bytes whatever the number of cores.
//!
//! zstd: the payload is cut into pieces of [`FRAME`] bytes and each piece becomes a frame of its own, with its length
//! and a checksum. Readers take the frames one after the other as one stream (rpm does), or several at a time, and a
//! later resumed or incremental verification has seams. xz: blocks of [`XZ_BLOCK`] bytes in one stream, for the same
//! reasons. gzip: one stream, on one core, for consumers that know nothing else.
//!
//! Memory is bounded by the number of cores times the size of a piece, not by the payload.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

/// Length of what one zstd frame holds: the window of level 19. Whole templates become 1.4 % larger by it than in one
/// frame (0.6 % with 16 MiB, 2.6 % with 4); in return a reader needs no more than for Qubes' own packages.
pub const FRAME: usize = 8 << 20;
/// Length of what one xz block holds: what xz takes by itself at its usual level.
pub const XZ_BLOCK: u64 = 24 << 20;

/// How a payload is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Zstandard, levels 1 to 22.
    Zstd,
    /// LZMA2 in an xz stream, levels 0 to 9.
    Xz,
    /// Deflate in a gzip stream, levels 1 to 9.
    Gzip,
}

/// A method with its level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compression {
    method: Method,
    level: u32,
    seams: bool,
}

impl Default for Compression {
    /// What Qubes' own templates have: zstd, level 19.
    fn default() -> Self {
        Self { method: Method::Zstd, level: 19, seams: true }
    }
}

impl Compression {
    /// A method with a level; the method's usual level when there is none.
    ///
    /// # Errors
    /// A level that the method does not have.
    pub fn new(method: Method, level: Option<u32>) -> Result<Self> {
        let (usual, possible) = match method {
            Method::Zstd => (19, 1..=22),
            Method::Xz => (6, 0..=9),
            Method::Gzip => (9, 1..=9),
        };
        let level = level.unwrap_or(usual);
        ensure!(
            possible.contains(&level),
            "level {level} is not possible here, but {} to {} are",
            possible.start(),
            possible.end()
        );
        Ok(Self { method, level, seams: true })
    }

    /// The same without seams: one zstd frame, one xz block, as rpmbuild writes them. Readers have to begin at the
    /// beginning and can use one core only; this is for comparisons with such packages.
    #[must_use]
    pub fn without_seams(self) -> Self {
        Self { seams: false, ..self }
    }

    /// The method's name as it stands in a package.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.method {
            Method::Zstd => "zstd",
            Method::Xz => "xz",
            Method::Gzip => "gzip",
        }
    }

    /// The method.
    #[must_use]
    pub fn method(self) -> Method {
        self.method
    }

    /// The level.
    #[must_use]
    pub fn level(self) -> u32 {
        self.level
    }

    /// A writer that compresses into `out` on `threads` cores.
    ///
    /// # Errors
    /// When the compressor cannot be set up.
    pub fn writer<W: Write>(self, out: W, threads: NonZeroUsize) -> Result<Compressor<W>> {
        let inner = match self.method {
            Method::Zstd if !self.seams => {
                let mut encoder = zstd::stream::write::Encoder::new(out, i32::try_from(self.level)?)?;
                encoder.include_checksum(true)?;
                encoder.multithread(u32::try_from(threads.get())?)?;
                Inner::Frame(encoder)
            }
            Method::Xz if !self.seams => {
                let check = liblzma::stream::Check::Crc64;
                let stream = liblzma::stream::Stream::new_easy_encoder(self.level, check);
                let stream = stream.context("setting up the xz compressor")?;
                Inner::Xz(liblzma::write::XzEncoder::new_stream(out, stream))
            }
            Method::Zstd => Inner::Zstd(Frames::new(out, i32::try_from(self.level)?, threads)),
            Method::Xz => {
                Inner::Xz(liblzma::write::XzEncoder::new_stream(out, xz_stream(self.level, threads)?))
            }
            Method::Gzip => {
                let level = flate2::Compression::new(self.level);
                Inner::Gzip(flate2::GzBuilder::new().write(out, level))
            }
        };
        Ok(Compressor { inner })
    }
}

fn xz_stream(level: u32, threads: NonZeroUsize) -> Result<liblzma::stream::Stream> {
    liblzma::stream::MtStreamBuilder::new()
        .threads(u32::try_from(threads.get())?)
        .preset(level)
        .block_size(XZ_BLOCK)
        .check(liblzma::stream::Check::Crc64)
        .encoder()
        .context("setting up the xz compressor")
}

/// A payload being compressed. [`Compressor::finish`] ends it; dropping only stops.
#[derive(Debug)]
pub struct Compressor<W: Write> {
    inner: Inner<W>,
}

enum Inner<W: Write> {
    Zstd(Frames<W>),
    Frame(zstd::stream::write::Encoder<'static, W>),
    Xz(liblzma::write::XzEncoder<W>),
    Gzip(flate2::write::GzEncoder<W>),
}

impl<W: Write> std::fmt::Debug for Inner<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Zstd(_) => "Zstd",
            Self::Frame(_) => "Frame",
            Self::Xz(_) => "Xz",
            Self::Gzip(_) => "Gzip",
        })
    }
}

impl<W: Write> Compressor<W> {
    /// Compresses what is left and gives the writer back.
    ///
    /// # Errors
    /// When compressing or writing fails.
    pub fn finish(self) -> io::Result<W> {
        match self.inner {
            Inner::Zstd(frames) => frames.finish(),
            Inner::Frame(encoder) => encoder.finish(),
            Inner::Xz(encoder) => encoder.finish(),
            Inner::Gzip(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.inner {
            Inner::Zstd(frames) => frames.write(bytes),
            Inner::Frame(encoder) => encoder.write(bytes),
            Inner::Xz(encoder) => encoder.write(bytes),
            Inner::Gzip(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

type Frame = io::Result<(Vec<u8>, Vec<u8>)>;
type Job = (Vec<u8>, SyncSender<Frame>);

/// Frames of equal length, compressed by several threads and written in order.
struct Frames<W> {
    out: W,
    piece: Vec<u8>,
    /// Buffers that a frame gave back.
    spare: Vec<Vec<u8>>,
    jobs: Option<SyncSender<Job>>,
    /// Frames that are being made, oldest first.
    awaited: VecDeque<Receiver<Frame>>,
    most: usize,
    any: bool,
    threads: Vec<JoinHandle<()>>,
}

impl<W: Write> Frames<W> {
    fn new(out: W, level: i32, threads: NonZeroUsize) -> Self {
        let (jobs, queue) = sync_channel::<Job>(threads.get());
        let queue = Arc::new(Mutex::new(queue));
        let threads: Vec<_> = (0..threads.get())
            .map(|_| {
                let queue = Arc::clone(&queue);
                std::thread::spawn(move || work(level, &queue))
            })
            .collect();
        Self {
            out,
            piece: Vec::new(),
            spare: Vec::new(),
            jobs: Some(jobs),
            awaited: VecDeque::new(),
            most: threads.len() + 1,
            any: false,
            threads,
        }
    }

    fn hand_over(&mut self) -> io::Result<()> {
        while self.awaited.len() >= self.most {
            self.take_back()?;
        }
        let piece = std::mem::replace(&mut self.piece, self.spare.pop().unwrap_or_default());
        let (done, frame) = sync_channel(1);
        let jobs = self.jobs.as_ref().ok_or_else(stopped)?;
        jobs.send((piece, done)).map_err(|_| stopped())?;
        self.awaited.push_back(frame);
        self.any = true;
        Ok(())
    }

    fn take_back(&mut self) -> io::Result<()> {
        let Some(frame) = self.awaited.pop_front() else { return Ok(()) };
        let (mut piece, frame) = frame.recv().map_err(|_| stopped())??;
        self.out.write_all(&frame)?;
        piece.clear();
        self.spare.push(piece);
        Ok(())
    }

    fn finish(mut self) -> io::Result<W> {
        if !self.piece.is_empty() || !self.any {
            self.hand_over()?;
        }
        while !self.awaited.is_empty() {
            self.take_back()?;
        }
        self.jobs = None;
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| stopped())?;
        }
        Ok(self.out)
    }
}

impl<W: Write> Write for Frames<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(FRAME - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        if self.piece.len() == FRAME {
            self.hand_over()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn stopped() -> io::Error {
    io::Error::other("a compressing thread has stopped")
}

/// One thread: takes pieces until there will be no more.
fn work(level: i32, queue: &Mutex<Receiver<Job>>) {
    let compressor = (|| {
        let mut compressor = zstd::bulk::Compressor::new(level)?;
        compressor.include_checksum(true)?;
        compressor.include_contentsize(true)?;
        io::Result::Ok(compressor)
    })();
    let Ok(mut compressor) = compressor else { return };
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((piece, done)) = job else { return };
        let frame = compressor.compress(&piece).map(|frame| (piece, frame));
        if done.send(frame).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn pack(compression: Compression, content: &[u8], threads: usize) -> Vec<u8> {
        let mut writer = compression.writer(Vec::new(), NonZeroUsize::new(threads).unwrap()).unwrap();
        for piece in content.chunks(70_001) {
            writer.write_all(piece).unwrap();
        }
        writer.finish().unwrap()
    }

    fn content() -> Vec<u8> {
        (0..(2 * FRAME + 12_345) as u64).map(|n| (n.wrapping_mul(n) >> 13).to_le_bytes()[0]).collect()
    }

    #[test]
    fn zstd_does_not_depend_on_the_number_of_threads_and_has_bounded_frames() {
        let content = content();
        let zstd = Compression::new(Method::Zstd, Some(1)).unwrap();
        let one = pack(zstd, &content, 1);
        assert!(one == pack(zstd, &content, 5));
        assert!(zstd::stream::decode_all(one.as_slice()).unwrap() == content);
        let first = zstd::zstd_safe::find_frame_compressed_size(&one).unwrap();
        assert!(first < one.len());
        assert_eq!(zstd::zstd_safe::get_frame_content_size(&one).unwrap(), Some(FRAME as u64));
        assert_eq!(zstd::stream::decode_all(pack(zstd, b"", 2).as_slice()).unwrap(), b"");
    }

    #[test]
    fn without_seams_there_is_one_frame_or_block() {
        let content = content();
        let pack = |method| {
            let compression = Compression::new(method, Some(1)).unwrap().without_seams();
            super::tests::pack(compression, &content, 2)
        };
        let zstd = pack(Method::Zstd);
        assert_eq!(zstd::zstd_safe::find_frame_compressed_size(&zstd).unwrap(), zstd.len());
        assert!(zstd::stream::decode_all(zstd.as_slice()).unwrap() == content);
        let xz = pack(Method::Xz);
        // The flags of the first block: no sizes, so nothing to begin at but the beginning.
        assert_eq!(xz[13] & 0xc0, 0);
    }

    #[test]
    fn xz_does_not_depend_on_the_number_of_threads() {
        let content = content();
        let xz = Compression::new(Method::Xz, Some(0)).unwrap();
        let one = pack(xz, &content, 1);
        assert!(one == pack(xz, &content, 3));
        let mut back = Vec::new();
        liblzma::read::XzDecoder::new(one.as_slice()).read_to_end(&mut back).unwrap();
        assert!(back == content);
    }

    #[test]
    fn levels_are_checked() {
        assert_eq!(Compression::new(Method::Zstd, None).unwrap(), Compression::default());
        for (method, level) in [(Method::Zstd, 0), (Method::Zstd, 23), (Method::Xz, 10), (Method::Gzip, 0)] {
            assert!(Compression::new(method, Some(level)).is_err());
        }
    }
}
