//! Keeping the end back until it is earned.

use std::io::{self, Write};

use super::zeros::Sink;

/// Passes on all of a stream of known length but its last bytes; those come only with [`HoldBack::release`].
///
/// A receiver that acts when it has all announced bytes cannot act before: dropped, this never gives it the last ones.
#[derive(Debug)]
pub struct HoldBack<W> {
    inner: W,
    pass: u64,
    held: Vec<u8>,
    keep: usize,
}

impl<W: Write> HoldBack<W> {
    /// Holds back the last `keep` of `size` bytes (all, where there are fewer).
    pub fn new(inner: W, size: u64, keep: usize) -> Self {
        let keep = usize::try_from(size).map_or(keep, |size| size.min(keep));
        Self { inner, pass: size - keep as u64, held: Vec::with_capacity(keep), keep }
    }

    /// Bytes that have not been written to this.
    fn missing(&self) -> u64 {
        self.pass + (self.keep - self.held.len()) as u64
    }

    /// Writes what was held back.
    ///
    /// # Errors
    /// If fewer bytes came than were announced, and what the stream inside says.
    pub fn release(mut self) -> io::Result<()> {
        if self.missing() != 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "fewer bytes came than were announced"));
        }
        self.inner.write_all(&self.held)?;
        self.inner.flush()
    }
}

impl<W: Write> Write for HoldBack<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if buf.len() as u64 > self.missing() {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "more bytes came than were announced"));
        }
        if self.pass == 0 {
            self.held.extend_from_slice(buf);
            return Ok(buf.len());
        }
        let len = usize::try_from(self.pass).map_or(buf.len(), |pass| pass.min(buf.len()));
        let n = self.inner.write(&buf[..len])?;
        self.pass -= n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<W: Sink> Sink for HoldBack<W> {
    fn write_zeros(&mut self, count: u64) -> io::Result<u64> {
        if count > self.missing() {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "more bytes came than were announced"));
        }
        if self.pass == 0 {
            let length = self.held.len() + usize::try_from(count).unwrap_or(0);
            self.held.resize(length, 0);
            return Ok(count);
        }
        let written = self.inner.write_zeros(count.min(self.pass))?;
        self.pass -= written;
        Ok(written)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::io::zeros::Copied;

    proptest! {
        #[test]
        fn holds_exactly_the_last_bytes(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..20),
            keep in 0usize..30,
            zeros in 0u64..20,
        ) {
            let all: Vec<u8> =
                pieces.iter().flat_map(|piece| piece.iter().copied().chain((0..zeros).map(|_| 0))).collect();
            let mut out = Vec::new();
            let mut holder = HoldBack::new(Copied(&mut out), all.len() as u64, keep);
            for piece in &pieces {
                holder.write_all(piece).unwrap();
                let mut left = zeros;
                while left > 0 {
                    left -= holder.write_zeros(left).unwrap();
                }
            }
            prop_assert_eq!(&holder.held, &all[all.len().saturating_sub(keep)..]);
            prop_assert!(holder.write_all(b"x").is_err());
            prop_assert!(holder.write_zeros(1).is_err());
            holder.release().unwrap();
            prop_assert_eq!(out, all);
        }
    }

    #[test]
    fn an_early_end_releases_nothing() {
        let mut out = Vec::new();
        let mut holder = HoldBack::new(&mut out, 10, 4);
        holder.write_all(b"12345678").unwrap();
        assert_eq!(holder.release().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(out, b"123456");
    }
}
