//! Hashing what passes.

use std::fmt;
use std::io::{self, Read};

use sha2::digest::DynDigest;

/// A hash function, by the number that OpenPGP and RPM headers give it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// MD5 (1). Only ever to find damage.
    Md5,
    /// SHA-1 (2). Only ever to find damage.
    Sha1,
    /// SHA-256 (8).
    Sha256,
    /// SHA-384 (9).
    Sha384,
    /// SHA-512 (10).
    Sha512,
}

impl Hash {
    /// The function of that number.
    #[must_use]
    pub fn from_number(number: u64) -> Option<Self> {
        Some(match number {
            1 => Self::Md5,
            2 => Self::Sha1,
            8 => Self::Sha256,
            9 => Self::Sha384,
            10 => Self::Sha512,
            _ => return None,
        })
    }

    /// A running digest.
    #[must_use]
    pub fn start(self) -> Running {
        Running(match self {
            Self::Md5 => Box::<md5::Md5>::default(),
            Self::Sha1 => Box::<sha1::Sha1>::default(),
            Self::Sha256 => Box::<sha2::Sha256>::default(),
            Self::Sha384 => Box::<sha2::Sha384>::default(),
            Self::Sha512 => Box::<sha2::Sha512>::default(),
        })
    }

    /// Digest of `bytes`.
    #[must_use]
    pub fn of(self, bytes: &[u8]) -> Vec<u8> {
        let mut running = self.start();
        running.update(bytes);
        running.finish()
    }
}

/// A digest in the making.
#[derive(Clone)]
pub struct Running(Box<dyn Digest>);

trait Digest: DynDigest + Send + Sync {
    fn boxed(&self) -> Box<dyn Digest>;
}

impl<T: DynDigest + Clone + Send + Sync + 'static> Digest for T {
    fn boxed(&self) -> Box<dyn Digest> {
        Box::new(self.clone())
    }
}

impl Clone for Box<dyn Digest> {
    fn clone(&self) -> Self {
        (**self).boxed()
    }
}

impl Running {
    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of everything taken in.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.0.finalize_reset().into_vec()
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Running")
    }
}

/// Passes bytes through and hashes them.
#[derive(Debug)]
pub struct HashRead<R> {
    inner: R,
    running: Running,
}

impl<R: Read> HashRead<R> {
    /// Hashes what is read from `inner`.
    pub fn new(inner: R, hash: Hash) -> Self {
        Self { inner, running: hash.start() }
    }

    /// The digest of everything that was read.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.running.finish()
    }
}

impl<R: Read> Read for HashRead<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.running.update(&buf[..n]);
        Ok(n)
    }
}

/// Lower-case hexadecimal digits of `bytes`.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, b| {
        text.extend([b >> 4, b & 15].map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])));
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_the_standards() {
        assert_eq!(hex(&Hash::Md5.of(b"abc")), "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(hex(&Hash::Sha1.of(b"abc")), "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert!(hex(&Hash::Sha256.of(b"abc")).starts_with("ba7816bf8f01cfea"));
        assert!(hex(&Hash::Sha384.of(b"abc")).starts_with("cb00753f45a35e8b"));
        assert!(hex(&Hash::Sha512.of(b"abc")).starts_with("ddaf35a193617aba"));
        let mut reader = HashRead::new(&b"abc"[..], Hash::Sha256);
        io::copy(&mut reader, &mut io::sink()).unwrap();
        assert_eq!(reader.finish(), Hash::Sha256.of(b"abc"));
    }
}
