//! zstd payloads of many frames, decoded on several cores.
//!
//! Where every frame says how long its content is and that is not much, as our builder writes them, frames are
//! independent: each goes to a thread that decodes it in one go, and the contents come out in order. A stream that is
//! not so from its beginning is decoded in one piece, and one that stops to be so, from there on.
//!
//! Memory is bounded: at most [`AHEAD`] frames are under way beside the one that is being read, each with its
//! compressed bytes and at most [`MAX_FRAME`] bytes of content. The threads are started by the confined thread, so
//! they have no rights either.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use zstd::zstd_safe::{compress_bound, find_frame_compressed_size, get_frame_content_size};

/// Longest content of a frame that is decoded beside others.
const MAX_FRAME: usize = 8 << 20;

/// Frames under way beside the one that is read.
const AHEAD: usize = 2;

/// Bytes that surely hold a frame's header.
const HEADER: usize = 18;

type Done = io::Result<Vec<u8>>;

struct Job {
    packed: Vec<u8>,
    content: Vec<u8>,
    length: usize,
    done: SyncSender<(Vec<u8>, Done)>,
}

/// A stream of frames.
pub(crate) struct Frames<R> {
    input: R,
    /// Compressed bytes that are not part of a frame under way.
    packed: Vec<u8>,
    jobs: SyncSender<Job>,
    awaited: VecDeque<Receiver<(Vec<u8>, Done)>>,
    content: Vec<u8>,
    at: usize,
    /// Buffers to use again: for compressed bytes, for content.
    spare: (Vec<Vec<u8>>, Vec<Vec<u8>>),
    /// No further frame can be decoded beside others: the input is at its end, or goes on differently.
    last: bool,
}

/// What a stream begins with.
pub(super) fn begins_with_frames(beginning: &[u8]) -> bool {
    length_of(beginning).is_some()
}

/// The length of the content of the frame that `packed` begins with, if it can be decoded beside others.
fn length_of(packed: &[u8]) -> Option<usize> {
    let length = get_frame_content_size(packed).ok().flatten()?;
    usize::try_from(length).ok().filter(|length| (1..=MAX_FRAME).contains(length))
}

impl<R: BufRead> Frames<R> {
    /// Starts `threads` threads that decode what `input` yields.
    pub(super) fn new(input: R, threads: u32) -> io::Result<Self> {
        let (jobs, queue) = sync_channel::<Job>(AHEAD);
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..threads {
            let queue = Arc::clone(&queue);
            thread::Builder::new().name("decoder".to_owned()).spawn(move || work(&queue))?;
        }
        Ok(Self {
            input,
            packed: Vec::new(),
            jobs,
            awaited: VecDeque::new(),
            content: Vec::new(),
            at: 0,
            spare: (Vec::new(), Vec::new()),
            last: false,
        })
    }

    /// Reads content; 0 at the end of the frames, which is not always the end of the stream: see
    /// [`Frames::into_rest`].
    pub(super) fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.at == self.content.len() {
            while !self.last && self.awaited.len() < AHEAD {
                self.begin()?;
            }
            let Some(next) = self.awaited.pop_front() else { return Ok(0) };
            let (packed, content) = next.recv().map_err(|_| io::Error::other("a decoding thread failed"))?;
            self.spare.0.push(packed);
            self.spare.1.push(std::mem::replace(&mut self.content, content?));
            self.at = 0;
        }
        let n = (&self.content[self.at..]).read(buf)?;
        self.at += n;
        Ok(n)
    }

    /// What is left of the stream when [`Frames::read`] has come to its end: the compressed bytes that were taken in and
    /// not decoded, and the input behind them.
    pub(super) fn into_rest(self) -> (Vec<u8>, R) {
        (self.packed, self.input)
    }

    /// Whether nothing is left of the stream.
    pub(super) fn at_end(&mut self) -> io::Result<bool> {
        Ok(self.packed.is_empty() && self.input.fill_buf()?.is_empty())
    }

    /// Takes in the next frame and hands it to a thread.
    fn begin(&mut self) -> io::Result<()> {
        while self.packed.len() < HEADER && self.take_in()? {}
        let Some(length) = length_of(&self.packed) else {
            self.last = true;
            return Ok(());
        };
        let end = loop {
            match find_frame_compressed_size(&self.packed) {
                Ok(end) => break end,
                // More than the content can need: the blocks are not what the header says.
                Err(_) if self.packed.len() > compress_bound(length) + HEADER => {
                    return Err(io::Error::other("a frame is longer than its content can need"));
                }
                Err(_) if self.take_in()? => {}
                Err(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        };
        let mut rest = self.spare.0.pop().unwrap_or_default();
        rest.clear();
        rest.extend_from_slice(&self.packed[end..]);
        self.packed.truncate(end);
        let packed = std::mem::replace(&mut self.packed, rest);
        let (done, next) = sync_channel(1);
        let job = Job { packed, content: self.spare.1.pop().unwrap_or_default(), length, done };
        self.jobs.send(job).map_err(|_| io::Error::other("the decoding threads ended"))?;
        self.awaited.push_back(next);
        Ok(())
    }

    /// Takes in some more of the input; `false` at its end.
    fn take_in(&mut self) -> io::Result<bool> {
        let more = self.input.fill_buf()?;
        let length = more.len();
        self.packed.extend_from_slice(more);
        self.input.consume(length);
        Ok(length > 0)
    }
}

/// One thread: decodes frames until there will be no more.
fn work(queue: &Mutex<Receiver<Job>>) {
    let mut decoder = zstd::bulk::Decompressor::new();
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { packed, mut content, length, done }) = job else { return };
        content.clear();
        content.reserve_exact(length);
        let decoded = match &mut decoder {
            Ok(decoder) => decoder.decompress_to_buffer(&packed, &mut content),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        // The frame's own checks have passed, and its content is as long as it says.
        if done.send((packed, decoded.map(|_| content))).is_err() {
            return;
        }
    }
}
