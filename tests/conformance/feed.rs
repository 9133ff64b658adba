//! Streams of a call that stays open while other things happen.

use std::io::{self, Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Input that comes in pieces. Clones feed the same call.
#[derive(Clone, Debug, Default)]
pub struct Feed(Arc<(Mutex<Input>, Condvar)>);

#[derive(Debug, Default)]
struct Input {
    bytes: Vec<u8>,
    taken: usize,
    /// What is handed over later.
    kept: Vec<u8>,
    closed: bool,
    /// Whether the reader has taken everything and wants more.
    thirsty: bool,
    /// Whether there is no reader any more.
    done: bool,
}

impl Feed {
    fn lock(&self) -> MutexGuard<'_, Input> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&'a self, input: MutexGuard<'a, Input>) -> MutexGuard<'a, Input> {
        self.0.1.wait(input).unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands over bytes.
    pub fn push(&self, bytes: &[u8]) {
        let mut input = self.lock();
        input.bytes.extend_from_slice(bytes);
        input.thirsty = false;
        self.0.1.notify_all();
    }

    /// Keeps bytes to be handed over later.
    pub fn keep(&self, bytes: &[u8]) {
        self.lock().kept = bytes.to_vec();
    }

    /// Hands over what was kept.
    pub fn push_kept(&self) {
        let kept = std::mem::take(&mut self.lock().kept);
        self.push(&kept);
    }

    /// Says that no more come.
    pub fn close(&self) {
        self.lock().closed = true;
        self.0.1.notify_all();
    }

    /// Waits until the reader has taken everything that came so far, or has gone.
    pub fn drained(&self) {
        let mut input = self.lock();
        while !input.thirsty && !input.done {
            input = self.wait(input);
        }
    }

    /// Says that nobody reads any more.
    pub fn done(&self) {
        self.lock().done = true;
        self.0.1.notify_all();
    }
}

impl Read for Feed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let feed = self.clone();
        let mut input = feed.lock();
        while input.taken == input.bytes.len() && !input.closed {
            input.thirsty = true;
            feed.0.1.notify_all();
            input = feed.wait(input);
        }
        let length = into.len().min(input.bytes.len() - input.taken);
        into[..length].copy_from_slice(&input.bytes[input.taken..input.taken + length]);
        input.taken += length;
        Ok(length)
    }
}

/// Output that is kept. Clones show the same.
#[derive(Clone, Debug, Default)]
pub struct Kept(Arc<(Mutex<Output>, Condvar)>);

#[derive(Debug, Default)]
struct Output {
    bytes: Vec<u8>,
    broken: bool,
}

impl Kept {
    fn lock(&self) -> MutexGuard<'_, Output> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What came so far.
    pub fn bytes(&self) -> Vec<u8> {
        self.lock().bytes.clone()
    }

    /// Waits for the first bytes, not for ever.
    pub fn started(&self) {
        let output = self.lock();
        let _ =
            self.0.1.wait_timeout_while(output, Duration::from_secs(10), |output| output.bytes.is_empty());
    }

    /// Waits until nothing has come for a moment.
    pub fn settled(&self) {
        let mut length = usize::MAX;
        while std::mem::replace(&mut length, self.lock().bytes.len()) != length {
            std::thread::sleep(Duration::from_millis(60));
        }
    }

    /// Takes no more.
    pub fn break_off(&self) {
        self.lock().broken = true;
    }
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut output = self.lock();
        if output.broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        output.bytes.extend_from_slice(bytes);
        self.0.1.notify_all();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
