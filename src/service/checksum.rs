//! The checksums that repository metadata uses for files.

use sha1::Sha1;
use sha2::{Digest as _, Sha224, Sha256, Sha384, Sha512};

/// A checksum as metadata gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checksum {
    kind: Kind,
    hex: String,
}

/// Which sum. MD5 is not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

/// A sum in the making.
#[derive(Clone, Debug)]
pub struct Hasher(State);

#[derive(Clone, Debug)]
enum State {
    Sha1(Sha1),
    Sha224(Sha224),
    Sha256(Sha256),
    Sha384(Sha384),
    Sha512(Sha512),
}

impl Checksum {
    /// Reads the `type` attribute and the text of a `checksum` or `hash` element. `None` for an unknown sum or a text
    /// of another length.
    #[must_use]
    pub fn new(kind: &str, hex: &str) -> Option<Self> {
        let (kind, length) = match kind.trim().to_ascii_lowercase().as_str() {
            "sha" | "sha1" => (Kind::Sha1, 40),
            "sha224" => (Kind::Sha224, 56),
            "sha256" => (Kind::Sha256, 64),
            "sha384" => (Kind::Sha384, 96),
            "sha512" => (Kind::Sha512, 128),
            _ => return None,
        };
        let hex = hex.trim().to_ascii_lowercase();
        (hex.len() == length && hex.bytes().all(|b| b.is_ascii_hexdigit())).then_some(Self { kind, hex })
    }

    /// Whether nobody can make two files with this sum today.
    #[must_use]
    pub fn is_strong(&self) -> bool {
        self.kind != Kind::Sha1
    }

    /// Starts a sum of this kind.
    #[must_use]
    pub fn hasher(&self) -> Hasher {
        Hasher(match self.kind {
            Kind::Sha1 => State::Sha1(Sha1::new()),
            Kind::Sha224 => State::Sha224(Sha224::new()),
            Kind::Sha256 => State::Sha256(Sha256::new()),
            Kind::Sha384 => State::Sha384(Sha384::new()),
            Kind::Sha512 => State::Sha512(Sha512::new()),
        })
    }

    /// Whether `bytes` have this sum.
    #[must_use]
    pub fn fits(&self, bytes: &[u8]) -> bool {
        let mut hasher = self.hasher();
        hasher.update(bytes);
        hasher.finish() == *self
    }
}

impl Hasher {
    /// Takes more bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha1(h) => h.update(bytes),
            State::Sha224(h) => h.update(bytes),
            State::Sha256(h) => h.update(bytes),
            State::Sha384(h) => h.update(bytes),
            State::Sha512(h) => h.update(bytes),
        }
    }

    /// The sum of everything taken in.
    #[must_use]
    pub fn finish(self) -> Checksum {
        let (kind, bytes) = match self.0 {
            State::Sha1(h) => (Kind::Sha1, h.finalize().to_vec()),
            State::Sha224(h) => (Kind::Sha224, h.finalize().to_vec()),
            State::Sha256(h) => (Kind::Sha256, h.finalize().to_vec()),
            State::Sha384(h) => (Kind::Sha384, h.finalize().to_vec()),
            State::Sha512(h) => (Kind::Sha512, h.finalize().to_vec()),
        };
        Checksum { kind, hex: bytes.iter().map(|byte| format!("{byte:02x}")).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_sums_of_metadata() {
        for (kind, hex) in [
            ("sha", "a9993e364706816aba3e25717850c26c9cd0d89d"),
            ("sha256", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            ("SHA256", "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD"),
        ] {
            assert!(Checksum::new(kind, hex).unwrap().fits(b"abc"));
            assert!(!Checksum::new(kind, hex).unwrap().fits(b"abd"));
        }
        assert!(!Checksum::new("sha1", &"0".repeat(40)).unwrap().is_strong());
        for (kind, hex) in
            [("md5", "900150983cd24fb0d6963f7d28e17f72"), ("sha256", "00"), ("sha", &"g".repeat(40))]
        {
            assert_eq!(Checksum::new(kind, hex), None);
        }
    }
}
