//! OpenPGP packets and version 4 signatures, as far as packages and their certificates use them.
//!
//! The digest of a signature is computed over the bytes as they stand in the packet, never over a form that was
//! parsed and written again. Only numbers for the mathematics (the key, the signature's integers) go to a library.
//!
//! ```text
//! packet     tag and definite length (old or new form), body
//! signature  4 type:u8 key:u8 hash:u8  n:u16 hashed[n]  m:u16 unhashed[m]  left:u16  integers
//! ```

use pgp::types::{Mpi, SignatureBytes};

use super::policy;
use crate::io::hash::{Hash, Running};

/// Signature of a binary document.
pub(crate) const BINARY: u8 = 0x00;
/// Numbers of packet types.
pub(crate) const SIGNATURE: u8 = 2;
pub(crate) const PRIMARY_KEY: u8 = 6;
pub(crate) const USER_ID: u8 = 13;
pub(crate) const SUBKEY: u8 = 14;
pub(crate) const USER_ATTRIBUTE: u8 = 17;

/// Takes one packet from the front of `bytes`: its tag, its body, and what follows. Partial and indeterminate lengths
/// belong to data packets only and are refused.
pub(crate) fn split(bytes: &[u8]) -> Result<(u8, &[u8], &[u8]), &'static str> {
    const CUT: &str = "a packet is cut off";
    let (&first, rest) = bytes.split_first().ok_or(CUT)?;
    let take = |n: usize| rest.split_at_checked(n).ok_or(CUT);
    let (tag, len, rest) = match first {
        0xc0.. => {
            let (&[l], after) = rest.split_first_chunk().ok_or(CUT)?;
            match l {
                ..192 => (first & 0x3f, usize::from(l), after),
                192..224 => {
                    let (&[m], after) = after.split_first_chunk().ok_or(CUT)?;
                    (first & 0x3f, (usize::from(l) - 192) * 256 + usize::from(m) + 192, after)
                }
                255 => {
                    let (len, after) = after.split_at_checked(4).ok_or(CUT)?;
                    (first & 0x3f, be(len), after)
                }
                _ => return Err("a packet has a partial length"),
            }
        }
        0x80.. => {
            let width = match first & 3 {
                0 => 1,
                1 => 2,
                2 => 4,
                _ => return Err("a packet has no length"),
            };
            let (len, after) = take(width)?;
            ((first >> 2) & 15, be(len), after)
        }
        _ => return Err("there is no OpenPGP packet"),
    };
    if len > policy::MAX_PACKET {
        return Err("a packet is too long");
    }
    let (body, after) = rest.split_at_checked(len).ok_or(CUT)?;
    Ok((tag, body, after))
}

/// One signature, read from the body of its packet.
#[derive(Clone, Debug)]
pub(crate) struct Signature {
    /// What it is about.
    pub(crate) kind: u8,
    /// Number of the key's algorithm.
    pub(crate) key_algorithm: u8,
    /// Number of the hash algorithm.
    pub(crate) hash: u8,
    /// When it was made; seconds since 1970.
    pub(crate) created: Option<u32>,
    /// Seconds after `created` at which it expires; 0 for never.
    pub(crate) expires_after: u32,
    /// Seconds after the key's creation at which the key expires; 0 for never.
    pub(crate) key_expires_after: u32,
    /// First octet of the key flags, where there are any.
    pub(crate) key_flags: Option<u8>,
    /// Whether it marks the primary user id.
    pub(crate) primary: bool,
    /// Key ids (8 bytes) and fingerprints (20 bytes) of whoever says to have made it.
    pub(crate) issuers: Vec<Vec<u8>>,
    /// Body of a signature inside of this one.
    pub(crate) embedded: Option<Vec<u8>>,
    /// Fingerprints of keys that may revoke.
    pub(crate) revokers: Vec<Vec<u8>>,
    /// Types of the subpackets that stand outside of the signed part.
    pub(crate) unsigned_types: Vec<u8>,
    /// Types of the subpackets in the signed part.
    pub(crate) signed_types: Vec<u8>,
    hashed: Vec<u8>,
    left: [u8; 2],
    value: SignatureBytes,
}

impl Signature {
    /// Reads the body of a signature packet.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, &'static str> {
        const CUT: &str = "it is cut off";
        let (&[version, kind, key_algorithm, hash], _) = body.split_first_chunk().ok_or(CUT)?;
        if version != 4 {
            return Err("it is not of version 4");
        }
        let (hashed_area, rest) = area(&body[4..]).ok_or(CUT)?;
        let hashed = body[..6 + hashed_area.len()].to_vec();
        let (unhashed_area, rest) = area(rest).ok_or(CUT)?;
        let (left, integers) = rest.split_first_chunk().ok_or(CUT)?;
        let mut signature = Self {
            kind,
            key_algorithm,
            hash,
            created: None,
            expires_after: 0,
            key_expires_after: 0,
            key_flags: None,
            primary: false,
            issuers: Vec::new(),
            embedded: None,
            revokers: Vec::new(),
            unsigned_types: Vec::new(),
            signed_types: Vec::new(),
            hashed,
            left: *left,
            value: value(key_algorithm, integers)?,
        };
        signature.subpackets(hashed_area, true)?;
        signature.subpackets(unhashed_area, false)?;
        Ok(signature)
    }

    /// Number and bytes for the mathematics.
    pub(crate) fn value(&self) -> &SignatureBytes {
        &self.value
    }

    /// Completes the digest of the signed bytes that `running` has taken in. `None` if it cannot be the one that was
    /// signed.
    pub(crate) fn digest(&self, mut running: Running) -> Option<Vec<u8>> {
        running.update(&self.hashed);
        running.update(&[4, 0xff]);
        running.update(&u32::try_from(self.hashed.len()).ok()?.to_be_bytes());
        let digest = running.finish();
        digest.starts_with(&self.left).then_some(digest)
    }

    /// Whether the hash is one that the policy allows.
    pub(crate) fn strong_hash(&self) -> Option<Hash> {
        policy::HASHES.contains(&self.hash).then(|| Hash::from_number(u64::from(self.hash))).flatten()
    }

    /// When it expires; `None` for never.
    pub(crate) fn expires(&self) -> Option<u64> {
        let created = u64::from(self.created?);
        (self.expires_after != 0).then(|| created + u64::from(self.expires_after))
    }

    fn subpackets(&mut self, mut area: &[u8], signed: bool) -> Result<(), &'static str> {
        const CUT: &str = "a subpacket is cut off";
        while let Some((&first, rest)) = area.split_first() {
            let (len, rest) = match first {
                ..192 => (usize::from(first), rest),
                192..255 => {
                    let (&second, rest) = rest.split_first().ok_or(CUT)?;
                    ((usize::from(first) - 192) * 256 + usize::from(second) + 192, rest)
                }
                255 => {
                    let (len, rest) = rest.split_at_checked(4).ok_or(CUT)?;
                    (be(len), rest)
                }
            };
            let (subpacket, rest) = rest.split_at_checked(len).ok_or(CUT)?;
            area = rest;
            let (&kind, data) = subpacket.split_first().ok_or("a subpacket is empty")?;
            self.subpacket(kind & 0x7f, kind & 0x80 != 0, data, signed)?;
        }
        Ok(())
    }

    /// Takes over what a subpacket says. Only issuer and embedded signature count outside of the signed part: both are
    /// proven by the mathematics.
    fn subpacket(&mut self, kind: u8, critical: bool, data: &[u8], signed: bool) -> Result<(), &'static str> {
        let types = if signed { &mut self.signed_types } else { &mut self.unsigned_types };
        if types.contains(&kind) && matches!(kind, 2 | 3 | 9 | 16 | 25 | 27 | 32 | 33) {
            return Err("a subpacket is there twice");
        }
        types.push(kind);
        match (kind, signed) {
            (2, true) => self.created = Some(seconds(data)?),
            (3, true) => self.expires_after = seconds(data)?,
            (9, true) => self.key_expires_after = seconds(data)?,
            (25, true) => self.primary = data.first().is_some_and(|b| *b != 0),
            (27, true) => self.key_flags = Some(data.first().copied().unwrap_or(0)),
            (12, true) if data.len() == 22 => self.revokers.push(data[2..].to_vec()),
            (16, _) if data.len() == 8 => self.issuers.push(data.to_vec()),
            (33, _) if data.len() == 21 && data[0] == 4 => self.issuers.push(data[1..].to_vec()),
            (32, _) => self.embedded = Some(data.to_vec()),
            (12 | 16 | 33, _) => return Err("a subpacket has the wrong size"),
            // Preferences, key servers, features, reasons: they change nothing in what the signature proves.
            (4..=7 | 11 | 21..=24 | 26 | 28..=31 | 34 | 39, _) => {}
            _ if critical => return Err("it has a critical subpacket that is not known"),
            _ => {}
        }
        Ok(())
    }
}

fn area(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_at_checked(2)?;
    rest.split_at_checked(be(len))
}

fn seconds(data: &[u8]) -> Result<u32, &'static str> {
    data.try_into().map(u32::from_be_bytes).map_err(|_| "a subpacket has the wrong size")
}

/// The numbers of a signature: one for RSA, two for DSA, ECDSA and EdDSA, 64 plain bytes for Ed25519.
fn value(key_algorithm: u8, mut bytes: &[u8]) -> Result<SignatureBytes, &'static str> {
    let count = match key_algorithm {
        1 | 3 => 1,
        17 | 19 | 22 => 2,
        27 if bytes.len() == 64 => return Ok(SignatureBytes::Native(bytes.to_vec().into())),
        _ => return Err("its algorithm is not known"),
    };
    let mut integers = Vec::with_capacity(count);
    for _ in 0..count {
        let (bits, rest) = bytes.split_at_checked(2).ok_or("a number is cut off")?;
        let bits = be(bits);
        let (integer, rest) = rest.split_at_checked(bits.div_ceil(8)).ok_or("a number is cut off")?;
        // The count of bits must be that of the number, so that there is one way to write it.
        let found = integer
            .first()
            .map_or(0, |first| integer.len() * 8 - usize::try_from(first.leading_zeros()).unwrap_or(0));
        if found != bits || bits == 0 {
            return Err("a number is not in its one form");
        }
        integers.push(Mpi::from_slice(integer));
        bytes = rest;
    }
    if !bytes.is_empty() {
        return Err("bytes follow after its numbers");
    }
    Ok(SignatureBytes::Mpis(integers))
}

fn be(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |n, b| n << 8 | usize::from(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_packets_of_either_form() {
        assert_eq!(split(&[0x88, 1, 7, 9]), Ok((2, &[7][..], &[9][..])));
        assert_eq!(split(&[0x89, 0, 1, 7]), Ok((2, &[7][..], &[][..])));
        assert_eq!(split(&[0xc2, 1, 7]), Ok((2, &[7][..], &[][..])));
        let mut long = vec![0xc6, 192, 0];
        long.resize(3 + 192, 1);
        assert_eq!(split(&long).unwrap().1.len(), 192);
        for bad in [
            &[][..],
            &[0x08, 1, 7],
            &[0x8b, 1],
            &[0xc2, 224, 7],
            &[0xc2, 255, 0xff, 0xff, 0xff, 0xff],
            &[0x88, 2, 7],
        ] {
            assert!(split(bad).is_err(), "{bad:x?}");
        }
    }

    #[test]
    fn signatures_have_one_form() {
        // version, type, RSA, SHA-256, created, issuer, left, a number of 9 bits
        let good = [
            4, 0, 1, 8, 0, 6, 5, 2, 1, 2, 3, 4, 0, 10, 9, 16, 1, 2, 3, 4, 5, 6, 7, 8, 0xaa, 0xbb, 0, 9, 1,
            0xff,
        ];
        let signature = Signature::parse(&good).unwrap();
        assert_eq!(signature.created, Some(0x0102_0304));
        assert_eq!(signature.issuers, [[1, 2, 3, 4, 5, 6, 7, 8]]);
        assert_eq!((signature.unsigned_types, signature.signed_types), (vec![16], vec![2]));
        for len in 0..good.len() {
            assert!(Signature::parse(&good[..len]).is_err(), "cut at {len}");
        }
        let change = |at: usize, to: u8| {
            let mut bytes = good;
            bytes[at] = to;
            Signature::parse(&bytes)
        };
        assert!(change(0, 3).is_err(), "version");
        assert!(change(2, 99).is_err(), "algorithm");
        assert!(change(27, 10).is_err(), "count of bits");
        assert!(change(7, 0xff).is_err(), "critical and unknown");
        assert!(change(7, 0x7f).is_ok(), "unknown");
        assert!(change(6, 0).is_err(), "empty subpacket");
    }
}
