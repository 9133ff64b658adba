//! The two streams of a call: counted, their beginning kept for the log, with faults on the way.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::faults::{Action, Direction};

/// One direction of a call.
#[derive(Clone, Debug, Default)]
pub(super) struct Tap {
    shared: Arc<Shared>,
    /// How much of the beginning is kept.
    keep: usize,
    is_inward: bool,
    /// What goes wrong, by its place.
    events: Vec<(u64, Event)>,
}

#[derive(Debug, Default)]
struct Shared {
    count: AtomicU64,
    beginning: Mutex<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Event {
    Cut,
    Flip,
    Stall(Duration),
    Kill(Pid),
}

impl Tap {
    /// A direction that keeps so many bytes of its beginning. `kill` says which process a fault means.
    pub(super) fn new(
        keep: usize,
        (direction, at_first_byte): (Direction, bool),
        faults: &[Action],
        victim: impl Fn(super::faults::Victim) -> Option<Pid>,
    ) -> Self {
        let event = |action: &Action| match action {
            Action::Cut { direction: d, at, .. } if *d == direction => Some((*at, Event::Cut)),
            Action::Flip { direction: d, at } if *d == direction => Some((*at, Event::Flip)),
            Action::Stall { direction: d, at, milliseconds } if *d == direction => {
                Some((*at, Event::Stall(Duration::from_millis(*milliseconds))))
            }
            Action::KillAt { victim: v, direction: d, at } if *d == direction => {
                victim(*v).map(|pid| (*at, Event::Kill(pid)))
            }
            // What an answer of dom0 tells has happened: its first byte is the last moment before it is told.
            Action::KillAfter(v) if at_first_byte && direction == Direction::Out => {
                victim(*v).map(|pid| (0, Event::Kill(pid)))
            }
            _ => None,
        };
        let mut events: Vec<_> = faults.iter().filter_map(event).collect();
        events.sort_by_key(|(at, _)| *at);
        events.reverse();
        Self { shared: Arc::default(), keep, is_inward: direction == Direction::In, events }
    }

    /// Whether bytes must be looked at on their way.
    pub(super) fn is_plain(&self) -> bool {
        self.events.is_empty()
    }

    pub(super) fn counter(&self) -> &AtomicU64 {
        &self.shared.count
    }

    pub(super) fn count(&self) -> u64 {
        self.shared.count.load(Ordering::Relaxed)
    }

    pub(super) fn keep(&self) -> usize {
        self.keep
    }

    /// The beginning of what went through.
    pub(super) fn beginning(&self) -> Vec<u8> {
        self.shared.beginning.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What happens before the next byte: how many bytes may pass until something else does, none at the end.
    fn before(&mut self) -> Option<usize> {
        let at = self.count();
        while let Some((place, event)) = self.events.last().copied() {
            if place > at {
                return Some(usize::try_from(place - at).unwrap_or(usize::MAX));
            }
            match event {
                // It stays where it is, and ends the stream again and again.
                Event::Cut => return None,
                // One byte passes, changed by `pass`.
                Event::Flip => return Some(1),
                Event::Stall(time) => thread::sleep(time),
                Event::Kill(pid) => {
                    // It may have ended by itself.
                    let _ = kill(pid, Signal::SIGKILL);
                }
            }
            self.events.pop();
            if self.is_inward && matches!(event, Event::Kill(_)) {
                // What it had sent ahead is not to arrive.
                self.events.push((at, Event::Cut));
            }
        }
        Some(usize::MAX)
    }

    /// Bytes go through.
    fn pass(&mut self, bytes: &mut [u8]) {
        let at = self.count();
        if let (Some((place, Event::Flip)), Some(first)) = (self.events.last().copied(), bytes.first_mut())
            && place <= at
        {
            *first ^= 1;
            self.events.pop();
        }
        let mut beginning = self.shared.beginning.lock().unwrap_or_else(PoisonError::into_inner);
        let room = self.keep.saturating_sub(beginning.len());
        beginning.extend_from_slice(&bytes[..bytes.len().min(room)]);
        drop(beginning);
        self.shared.count.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    }
}

/// What the caller sends.
#[derive(Debug)]
pub(super) struct Inlet {
    pub(super) stream: UnixStream,
    pub(super) tap: Tap,
}

impl Read for Inlet {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(room) = self.tap.before() else { return Ok(0) };
        let room = room.min(buffer.len());
        let length = match self.stream.read(&mut buffer[..room]) {
            // A caller that was killed ends like one that has said everything.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            other => other?,
        };
        self.tap.pass(&mut buffer[..length]);
        Ok(length)
    }
}

/// What the caller gets.
#[derive(Debug)]
pub(super) struct Outlet {
    pub(super) stream: UnixStream,
    pub(super) tap: Tap,
}

impl Write for Outlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.tap.before().ok_or(io::ErrorKind::BrokenPipe)?.min(bytes.len());
        if self.tap.is_plain() && self.tap.beginning_is_full() {
            let length = self.stream.write(&bytes[..room])?;
            self.tap.shared.count.fetch_add(length as u64, Ordering::Relaxed);
            return Ok(length);
        }
        let mut changed = bytes[..room].to_vec();
        self.tap.pass(&mut changed);
        self.stream.write_all(&changed)?;
        Ok(room)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl Tap {
    fn beginning_is_full(&self) -> bool {
        self.shared.beginning.lock().unwrap_or_else(PoisonError::into_inner).len() >= self.keep
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(faults: &[Action], bytes: &[u8]) -> Vec<u8> {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(bytes).unwrap();
        drop(ours);
        let tap = Tap::new(4, (Direction::In, false), faults, |_| None);
        let mut inlet = Inlet { stream: theirs, tap: tap.clone() };
        let mut arrived = Vec::new();
        inlet.read_to_end(&mut arrived).unwrap();
        assert_eq!(tap.count(), arrived.len() as u64);
        assert_eq!(tap.beginning(), arrived[..arrived.len().min(4)]);
        arrived
    }

    #[test]
    fn faults_happen_at_their_byte() {
        let (direction, status) = (Direction::In, None);
        assert_eq!(through(&[], b"abcdef"), b"abcdef");
        assert_eq!(through(&[Action::Cut { direction, at: 3, status }], b"abcdef"), b"abc");
        assert_eq!(through(&[Action::Cut { direction, at: 0, status }], b"abcdef"), b"");
        let flip = Action::Flip { direction, at: 2 };
        assert_eq!(through(std::slice::from_ref(&flip), b"abcdef"), b"abbdef");
        assert_eq!(through(&[Action::Cut { direction, at: 4, status }, flip], b"abcdef"), b"abbd");
        let other = Action::Cut { direction: Direction::Out, at: 1, status };
        assert_eq!(through(&[other], b"abcdef"), b"abcdef");
    }
}
