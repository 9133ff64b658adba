//! The threads behind an image, and the rings of buffers between them.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use super::source::Source;
use super::tar::{Image, Piece as ImagePiece};
use crate::confine;
use crate::io::at::ReadAt;
use crate::io::hash::Hash;
use crate::payload::TemplateFiles;
use crate::verify::Rejection;

/// Size of one buffer. Four of them in each ring keep all threads busy; larger ones fall out of the processor's cache.
const BUFFER: usize = 256 << 10;

/// Buffers in each ring.
const RING: usize = 4;

/// Holes up to this size are copied as zeros together with the data around them: cheaper than another write.
const SMALL_HOLE: u64 = 32 << 10;

/// Most pieces in one chunk.
const MAX_PIECES: usize = 64;

/// A part of an image: bytes, and where holes lie between them.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    pub(super) bytes: Vec<u8>,
    pub(super) pieces: Vec<Piece>,
}

/// Data up to a place in the chunk, and zeros behind it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) data_end: usize,
    pub(super) zeros: u64,
}

/// What the decoding thread has to say.
#[derive(Debug)]
pub(super) enum Message {
    Chunk(Chunk),
    End(Result<TemplateFiles, Rejection>),
}

/// The decoding thread, from the side of the caller.
#[derive(Debug)]
pub(super) struct Pump {
    messages: Option<Receiver<Message>>,
    free: Option<SyncSender<Chunk>>,
    thread: Option<JoinHandle<()>>,
    reader: Option<Reader>,
}

impl Pump {
    /// Starts the thread; `open` runs in it. Returns with the size of the image.
    pub(super) fn start<S: Source + 'static>(
        open: impl FnOnce() -> Result<Image<S>, Rejection> + Send + 'static,
        reader: Option<Reader>,
    ) -> Result<(u64, Self), Rejection> {
        let (to_caller, messages) = sync_channel(RING);
        let (free, from_caller) = sync_channel(RING);
        let (size_to_caller, size) = sync_channel(1);
        let thread = thread::Builder::new().name("decoder".to_owned()).spawn(move || {
            confine::this_thread();
            let mut image = match open() {
                Ok(image) => image,
                Err(e) => return drop(size_to_caller.send(Err(e))),
            };
            if size_to_caller.send(Ok(image.size())).is_err() {
                return;
            }
            let end = match run(&mut image, &to_caller, &from_caller) {
                Ok(true) => image.finish(),
                Ok(false) => return,
                Err(e) => Err(e),
            };
            drop(to_caller.send(Message::End(end)));
        })?;
        let mut pump = Self { messages: Some(messages), free: Some(free), thread: Some(thread), reader };
        match size.recv() {
            Ok(Ok(size)) => {
                for _ in 0..RING {
                    pump.recycle(Chunk::default());
                }
                Ok((size, pump))
            }
            // What is simply too large needs no second look.
            Ok(Err(rejection @ Rejection::ImageTooLarge { .. })) => Err(rejection),
            Ok(Err(rejection)) => {
                pump.join()?;
                Err(rejection)
            }
            Err(_) => Err(died()),
        }
    }

    /// Waits for the next message.
    pub(super) fn next(&self) -> Message {
        self.messages.as_ref().and_then(|m| m.recv().ok()).unwrap_or_else(|| Message::End(Err(died())))
    }

    /// Gives a chunk back to be filled again.
    pub(super) fn recycle(&mut self, chunk: Chunk) {
        // A thread that has ended needs no chunks.
        self.free.as_ref().map(|free| free.try_send(chunk).is_ok());
    }

    /// Waits for the reading thread to have read and hashed everything.
    pub(super) fn join(&mut self) -> Result<(), Rejection> {
        self.reader.take().map_or(Ok(()), Reader::join)
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        if let Some(reader) = &self.reader {
            reader.stop.store(true, Ordering::Relaxed);
        }
        // With the channels gone, the thread ends at its next chunk; with it the reading one.
        (self.messages, self.free) = (None, None);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
        drop(self.reader.take().map(Reader::join));
    }
}

/// Sends the image chunk by chunk; `false` if nobody wants it any more.
fn run<S: Source>(
    image: &mut Image<S>,
    to: &SyncSender<Message>,
    free: &Receiver<Chunk>,
) -> Result<bool, Rejection> {
    loop {
        let Ok(mut chunk) = free.recv() else { return Ok(false) };
        let ended = fill(image, &mut chunk)?;
        if to.send(Message::Chunk(chunk)).is_err() {
            return Ok(false);
        }
        if ended {
            return Ok(true);
        }
    }
}

/// Fills a chunk; `true` at the end of the image.
fn fill<S: Source>(image: &mut Image<S>, chunk: &mut Chunk) -> Result<bool, Rejection> {
    chunk.pieces.clear();
    chunk.bytes.resize(BUFFER, 0);
    let mut at = 0;
    let mut ended = false;
    while at < BUFFER && chunk.pieces.len() < MAX_PIECES {
        match image.next(&mut chunk.bytes[at..])? {
            ImagePiece::Data(n) => at += n,
            ImagePiece::Zeros(n) if n <= SMALL_HOLE.min((BUFFER - at) as u64) => {
                let end = at + usize::try_from(n).unwrap_or(0);
                chunk.bytes[at..end].fill(0);
                at = end;
            }
            ImagePiece::Zeros(zeros) => chunk.pieces.push(Piece { data_end: at, zeros }),
            ImagePiece::End => {
                ended = true;
                break;
            }
        }
    }
    chunk.pieces.push(Piece { data_end: at, zeros: 0 });
    Ok(ended)
}

fn died() -> Rejection {
    Rejection::Read(io::Error::other("the decoding thread ended unexpectedly"))
}

/// The thread that reads the compressed bytes and hashes them again.
#[derive(Debug)]
pub(super) struct Reader {
    thread: JoinHandle<Result<(), Rejection>>,
    stop: Arc<AtomicBool>,
}

impl Reader {
    /// Starts reading; the other end of the ring is for the decoder.
    pub(super) fn start(bytes: ReadAt, digest: (Hash, Vec<u8>)) -> Result<(Self, Chunks), Rejection> {
        let (full, from_reader) = sync_channel(RING);
        let (back, free) = sync_channel(RING);
        for _ in 0..RING {
            drop(back.try_send(Vec::new()));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::Builder::new()
            .name("reader".to_owned())
            .spawn(move || read_all(bytes, &digest, &full, &free, &stopped))?;
        Ok((Self { thread, stop }, Chunks { full: from_reader, back, present: Vec::new(), at: 0 }))
    }

    fn join(self) -> Result<(), Rejection> {
        self.thread
            .join()
            .unwrap_or_else(|_| Err(Rejection::Read(io::Error::other("the reading thread failed"))))
    }
}

/// Reads everything, also after the decoder gave up: what it complains about may be the fault of changed bytes.
fn read_all(
    mut bytes: ReadAt,
    (hash, wanted): &(Hash, Vec<u8>),
    full: &SyncSender<Vec<u8>>,
    free: &Receiver<Vec<u8>>,
    stop: &AtomicBool,
) -> Result<(), Rejection> {
    let mut running = hash.start();
    while !stop.load(Ordering::Relaxed) {
        let mut buf = free.recv().unwrap_or_default();
        buf.resize(BUFFER, 0);
        let mut len = 0;
        while len < BUFFER {
            match bytes.read(&mut buf[len..]) {
                Ok(0) => break,
                Ok(n) => len += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        buf.truncate(len);
        running.update(&buf);
        if len == 0 {
            return if running.finish() == *wanted { Ok(()) } else { Err(Rejection::ChangedOnDisk) };
        }
        drop(full.send(buf));
    }
    Ok(())
}

/// The compressed bytes, as the decoder reads them.
#[derive(Debug)]
pub(super) struct Chunks {
    full: Receiver<Vec<u8>>,
    back: SyncSender<Vec<u8>>,
    present: Vec<u8>,
    at: usize,
}

impl BufRead for Chunks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.present.len() {
            self.at = 0;
            let empty = std::mem::take(&mut self.present);
            if empty.capacity() > 0 {
                drop(self.back.try_send(empty));
            }
            // The reader hangs up at the end.
            self.present = self.full.recv().unwrap_or_default();
        }
        Ok(&self.present[self.at..])
    }

    fn consume(&mut self, n: usize) {
        self.at = (self.at + n).min(self.present.len());
    }
}

impl Read for Chunks {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buf)?;
        self.consume(n);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::process::Command;

    use super::*;

    /// A source that tries to break out where a hostile payload would have taken over the decoder.
    struct Planted(u64);

    impl Source for Planted {
        fn read(&mut self, buf: &mut [u8]) -> Result<usize, Rejection> {
            let out = File::open("/etc/hostname").is_ok()
                || std::os::unix::net::UnixStream::pair().is_ok()
                || Command::new("/bin/true").spawn().is_ok();
            if out {
                return Err(Rejection::Archive("broke out"));
            }
            let len = buf.len().min(usize::try_from(self.0).unwrap());
            self.0 -= len as u64;
            Ok(len)
        }

        fn finish(self) -> Result<TemplateFiles, Rejection> {
            assert_eq!(self.0, 0);
            Ok(TemplateFiles::default())
        }
    }

    #[test]
    fn the_decoding_thread_has_no_rights() {
        if confine::walls().unwrap().missing().is_some() {
            eprintln!("SKIPPED: this kernel has neither seccomp nor Landlock");
            return;
        }
        let (size, pump) = Pump::start(|| Image::raw(Planted(1 << 20), 1 << 20, 1 << 30), None).unwrap();
        assert_eq!(size, 1 << 20);
        let mut pump = pump;
        let end = loop {
            match pump.next() {
                Message::Chunk(chunk) => pump.recycle(chunk),
                Message::End(end) => break end,
            }
        };
        assert!(end.is_ok(), "{end:?}");
    }

    #[test]
    fn an_image_that_nobody_takes_leaves_no_thread() {
        let (_, pump) = Pump::start(|| Image::raw(Planted(1 << 30), 1 << 30, 1 << 40), None).unwrap();
        drop(pump);
    }
}
