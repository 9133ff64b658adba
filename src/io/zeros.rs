//! Writing holes without touching their bytes.
//!
//! A hole of an image crosses a pipe as zeros. [`Zeros`] is a pipe that holds a megabyte of them; `tee(2)` puts the same
//! pages into another pipe, as often as one likes: nothing is copied and no page is allocated.

use std::io::{self, PipeReader, Write};
use std::os::fd::AsFd;

use nix::fcntl::{FcntlArg, SpliceFFlags, fcntl, tee};

/// Zeros to write where they have to be copied. Never written to, so it takes no memory of its own.
static ZEROS: [u8; 256 << 10] = [0; 256 << 10];

/// Takes bytes, and zeros without being handed them.
pub trait Sink: Write {
    /// Writes some zeros, at most `count`, and says how many.
    ///
    /// # Errors
    /// As [`Write::write`].
    fn write_zeros(&mut self, count: u64) -> io::Result<u64> {
        let length = usize::try_from(count).map_or(ZEROS.len(), |count| count.min(ZEROS.len()));
        self.write(&ZEROS[..length]).map(|written| written as u64)
    }
}

impl<S: Sink + ?Sized> Sink for &mut S {
    fn write_zeros(&mut self, count: u64) -> io::Result<u64> {
        (**self).write_zeros(count)
    }
}

/// A writer whose zeros are copied like anything else.
#[derive(Debug)]
pub struct Copied<W>(pub W);

impl<W: Write> Write for Copied<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<W: Write> Sink for Copied<W> {}

/// A pipe full of zeros, which nobody empties.
#[derive(Debug)]
pub struct Zeros(PipeReader);

impl Zeros {
    /// Fills one.
    ///
    /// # Errors
    /// What the system says when it gives no pipe.
    pub fn new() -> io::Result<Self> {
        let (reader, mut writer) = io::pipe()?;
        // A larger one needs fewer calls; where that is not allowed it works as well.
        let _ = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(1 << 20));
        let mut room = usize::try_from(fcntl(&writer, FcntlArg::F_GETPIPE_SZ)?).unwrap_or(4096);
        while room > 0 {
            let length = room.min(ZEROS.len());
            writer.write_all(&ZEROS[..length])?;
            room -= length;
        }
        Ok(Self(reader))
    }

    /// Puts some of them, at most `count`, into `pipe` and says how many.
    ///
    /// # Errors
    /// As of a write into that pipe; `EINVAL` when it is none.
    pub fn put_into(&self, pipe: impl AsFd, count: u64) -> nix::Result<u64> {
        let length = usize::try_from(count).unwrap_or(usize::MAX).min(1 << 30);
        tee(&self.0, pipe, length, SpliceFFlags::empty()).map(|put| put as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::thread;

    use nix::errno::Errno;

    use super::*;

    #[test]
    fn a_pipe_gets_as_many_zeros_as_are_asked_for_between_other_bytes() {
        let zeros = Zeros::new().unwrap();
        let (mut reader, mut writer) = io::pipe().unwrap();
        let read = thread::spawn(move || {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).map(|_| bytes)
        });
        let mut wanted = Vec::new();
        for count in [1, 4095, 4096, 4097, 70_001, 3 << 20] {
            // What is written next must not land in the pages that are shared.
            writer.write_all(b"data").unwrap();
            wanted.extend(b"data");
            wanted.resize(wanted.len() + count, 0);
            let mut left = count as u64;
            while left > 0 {
                left -= zeros.put_into(&writer, left).unwrap();
            }
        }
        drop(writer);
        assert!(read.join().unwrap().unwrap() == wanted);
    }

    #[test]
    fn a_broken_pipe_and_a_file_are_errors() {
        let zeros = Zeros::new().unwrap();
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        assert_eq!(zeros.put_into(&writer, 10), Err(Errno::EPIPE));
        assert_eq!(zeros.put_into(tempfile::tempfile().unwrap(), 10), Err(Errno::EINVAL));
    }

    #[test]
    fn other_writers_are_handed_them() {
        let mut out = Copied(Vec::new());
        let mut left = 300_000;
        while left > 0 {
            left -= out.write_zeros(left).unwrap();
        }
        assert!(out.0 == vec![0; 300_000]);
    }
}
