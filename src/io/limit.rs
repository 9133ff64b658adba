//! A bound that is an error, not an end.

use std::io::{self, Read};

/// Reads at most so many bytes; one more is an error that names the limit, never a silent end.
#[derive(Debug)]
pub struct LimitRead<R> {
    inner: R,
    left: u64,
    limit: u64,
    what: &'static str,
}

impl<R: Read> LimitRead<R> {
    /// Allows `limit` bytes of `inner`, which the error message calls `what`.
    pub fn new(inner: R, limit: u64, what: &'static str) -> Self {
        Self { inner, left: limit, limit, what }
    }
}

impl<R: Read> Read for LimitRead<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !buf.is_empty() {
            return match self.inner.read(&mut [0])? {
                0 => Ok(0),
                _ => Err(io::Error::new(
                    io::ErrorKind::FileTooLarge,
                    format!("{} is larger than {} bytes", self.what, self.limit),
                )),
            };
        }
        let len = buf.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let n = self.inner.read(&mut buf[..len])?;
        self.left -= n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_at_the_limit_is_an_end_and_one_more_is_not() {
        let mut out = Vec::new();
        assert_eq!(LimitRead::new(&b"abc"[..], 3, "it").read_to_end(&mut out).unwrap(), 3);
        let error = LimitRead::new(&b"abcd"[..], 3, "it").read_to_end(&mut out).unwrap_err();
        assert_eq!(error.to_string(), "it is larger than 3 bytes");
    }
}
