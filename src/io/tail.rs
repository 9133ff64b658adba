//! Keeping the end back until it is earned.

use std::io::{self, Write};

/// Writes everything but the last `keep` bytes; those come only with [`HoldBack::release`].
///
/// A receiver that commits when it has all bytes gets none of this promise broken: dropped, it never had them all.
#[derive(Debug)]
pub struct HoldBack<W> {
    inner: W,
    held: Vec<u8>,
    keep: usize,
}

impl<W: Write> HoldBack<W> {
    /// Holds back `keep` bytes from `inner`.
    pub fn new(inner: W, keep: usize) -> Self {
        Self { inner, held: Vec::with_capacity(keep), keep }
    }

    /// Writes what was held back.
    ///
    /// # Errors
    /// What the stream inside says.
    pub fn release(mut self) -> io::Result<()> {
        self.inner.write_all(&self.held)?;
        self.inner.flush()
    }
}

impl<W: Write> Write for HoldBack<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        // All of `buf` is taken: what is old enough is written, the youngest `keep` bytes stay.
        if buf.len() >= self.keep {
            let (pass, young) = buf.split_at(buf.len() - self.keep);
            self.inner.write_all(&self.held)?;
            self.held.clear();
            self.inner.write_all(pass)?;
            self.held.extend_from_slice(young);
        } else {
            let surplus = (self.held.len() + buf.len()).saturating_sub(self.keep);
            self.inner.write_all(&self.held[..surplus])?;
            self.held.drain(..surplus);
            self.held.extend_from_slice(buf);
        }
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn holds_exactly_the_last_bytes(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..20), keep in 0usize..30) {
            let all = pieces.concat();
            let mut out = Vec::new();
            let mut holder = HoldBack::new(&mut out, keep);
            for piece in &pieces {
                holder.write_all(piece).unwrap();
            }
            let held = holder.held.clone();
            let passed = all.len().saturating_sub(keep);
            prop_assert_eq!(&held, &all[passed..]);
            holder.release().unwrap();
            prop_assert_eq!(out, all);
        }
    }
}
