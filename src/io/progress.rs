//! Counting what passes.

use std::io::{self, Read, Write};

/// Tells how many bytes have passed so far.
pub struct Progress<T, F> {
    inner: T,
    passed: u64,
    report: F,
}

impl<T, F: FnMut(u64)> Progress<T, F> {
    /// Calls `report` with the sum of bytes after each piece that passed.
    pub fn new(inner: T, report: F) -> Self {
        Self { inner, passed: 0, report }
    }

    /// The stream inside.
    pub fn into_inner(self) -> T {
        self.inner
    }

    fn passed(&mut self, n: usize) {
        self.passed += n as u64;
        (self.report)(self.passed);
    }
}

impl<T, F> std::fmt::Debug for Progress<T, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Progress").field("passed", &self.passed).finish_non_exhaustive()
    }
}

impl<T: Read, F: FnMut(u64)> Read for Progress<T, F> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.passed(n);
        Ok(n)
    }
}

impl<T: Write, F: FnMut(u64)> Write for Progress<T, F> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.passed(n);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_sums() {
        let mut seen = Vec::new();
        let mut source = Progress::new(&b"abcdef"[..], |n| seen.push(n));
        source.read_exact(&mut [0; 4]).unwrap();
        source.read_exact(&mut [0; 2]).unwrap();
        assert_eq!(seen, [4, 6]);
    }
}
