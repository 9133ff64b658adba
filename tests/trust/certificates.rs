//! Certificates and signatures that gpg cannot be made to write, put together byte by byte.

use pgp::crypto::Signer as _;
use pgp::crypto::ed25519::{Mode, SecretKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::types::{Ed25519PublicParams, SignatureBytes};

pub const SHA1: u8 = 2;
pub const SHA256: u8 = 8;

/// A key pair of algorithm 27 (Ed25519 of RFC 9580), made at `created`.
pub struct Key {
    secret: SecretKey,
    body: Vec<u8>,
}

impl Key {
    pub fn new(seed: u8, created: u32) -> Self {
        let secret = SecretKey::try_from_bytes([seed; 32], Mode::Ed25519).unwrap();
        let public = Ed25519PublicParams::from(&secret);
        let body = [&[4][..], &created.to_be_bytes(), &[27], public.key.as_bytes()].concat();
        Self { secret, body }
    }

    fn hashed(&self) -> Vec<u8> {
        [&[0x99][..], &u16::try_from(self.body.len()).unwrap().to_be_bytes(), &self.body].concat()
    }

    fn fingerprint(&self) -> Vec<u8> {
        HashAlgorithm::Sha1.digest(&self.hashed()).unwrap()
    }

    /// The key as a packet: 6 for a primary key, 14 for a subkey.
    pub fn packet(&self, tag: u8) -> Vec<u8> {
        packet(tag, &self.body)
    }

    /// A signature of `kind` over `data`.
    pub fn sign(&self, kind: u8, hash: u8, signed: &[Vec<u8>], unsigned: &[Vec<u8>], data: &[u8]) -> Vec<u8> {
        let area = |subpackets: &[Vec<u8>]| {
            let all = subpackets.concat();
            [&u16::try_from(all.len()).unwrap().to_be_bytes()[..], &all].concat()
        };
        let head = [&[4, kind, 27, hash][..], &area(signed)].concat();
        let trailer = [&head[..], &[4, 0xff], &u32::try_from(head.len()).unwrap().to_be_bytes()].concat();
        let digest = HashAlgorithm::from(hash).digest(&[data, &trailer].concat()).unwrap();
        // The library signs no weak hash; a wrong signature does as well there, since nobody gets as far as to it.
        let made = if hash == SHA1 { vec![0; 32] } else { digest.clone() };
        let SignatureBytes::Native(value) = self.secret.sign(HashAlgorithm::Sha256, &made).unwrap() else {
            panic!("not native");
        };
        [&head[..], &area(unsigned), &digest[..2], &value].concat()
    }

    /// Subpackets that name this key as the issuer.
    pub fn issuer(&self) -> Vec<u8> {
        subpacket(33, &[&[4][..], &self.fingerprint()].concat())
    }

    /// A self-signature over a user id.
    pub fn certify(&self, id: &str, hash: u8, subpackets: &[Vec<u8>]) -> Vec<u8> {
        let data =
            [&self.hashed()[..], &[0xb4], &u32::try_from(id.len()).unwrap().to_be_bytes(), id.as_bytes()]
                .concat();
        packet(2, &self.sign(0x13, hash, subpackets, &[], &data))
    }

    /// What a binding (0x18), a revocation (0x28) or a back signature (0x19) of a subkey is over.
    pub fn with(&self, subkey: &Self) -> Vec<u8> {
        [self.hashed(), subkey.hashed()].concat()
    }

    /// A revocation of this key by itself.
    pub fn revoke(&self, hash: u8, created: u32) -> Vec<u8> {
        packet(2, &self.sign(0x20, hash, &[time(created), self.issuer()], &[], &self.hashed()))
    }
}

pub fn packet(tag: u8, body: &[u8]) -> Vec<u8> {
    [&[0xc0 | tag, 255][..], &u32::try_from(body.len()).unwrap().to_be_bytes(), body].concat()
}

pub fn subpacket(kind: u8, data: &[u8]) -> Vec<u8> {
    [&[255][..], &u32::try_from(data.len() + 1).unwrap().to_be_bytes(), &[kind], data].concat()
}

pub fn time(seconds: u32) -> Vec<u8> {
    subpacket(2, &seconds.to_be_bytes())
}

pub fn flags(flags: u8) -> Vec<u8> {
    subpacket(27, &[flags])
}
