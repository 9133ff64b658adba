//! Reading one file by position.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Reads a range of a file by position, so that any number of readers share one descriptor without meeting.
#[derive(Clone, Debug)]
pub struct ReadAt {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl ReadAt {
    /// Reads the bytes from `at` up to, not including, `end`.
    #[must_use]
    pub fn new(file: Arc<File>, at: u64, end: u64) -> Self {
        Self { file, at, end }
    }
}

impl Read for ReadAt {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let len = buf.len().min(left);
        let n = self.file.read_at(&mut buf[..len], self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}
