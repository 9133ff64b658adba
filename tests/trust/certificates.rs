//! Certificates and signatures that gpg cannot be made to write, put together byte by byte.

use std::time::{Duration, SystemTime};

use pgp::crypto::Signer as _;
use pgp::crypto::ed25519::{Mode, SecretKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::types::{Ed25519PublicParams, SignatureBytes};
use qvm_template::verify::{Keyring, Policy, verify};

use super::surgery::Rpm;
use super::{code, package, spool};

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

/// Certificates as gpg does not write them. Each signs the same header; only what stands around the key differs.
#[test]
fn a_key_must_be_bound_flagged_and_alive() {
    const MADE: u32 = 1_700_000_000;
    const SIGNED: u32 = 1_710_000_000;
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_720_000_000);
    let (primary, sub) = (Key::new(1, MADE), Key::new(2, MADE));
    let base = Rpm::read(&package("tiny"));
    let header = base.header.bytes();
    let signed_by = |key: &Key, signed: &[Vec<u8>], unsigned: &[Vec<u8>]| {
        let mut rpm = base.clone().unsigned();
        rpm.signature.insert(267, 7, &packet(2, &key.sign(0, SHA256, signed, unsigned, &header)));
        rpm.bytes()
    };
    let by_primary = signed_by(&primary, &[time(SIGNED), primary.issuer()], &[]);
    let by_sub = signed_by(&sub, &[time(SIGNED), sub.issuer()], &[]);
    let judged = |package: &[u8], certificate: &[Vec<u8>]| {
        code(verify(spool(package), &Policy::any(), &Keyring::parse(&certificate.concat()).unwrap(), now))
    };
    let user = packet(13, b"somebody");
    let certificate = |subpackets: &[Vec<u8>]| {
        vec![primary.packet(6), user.clone(), primary.certify("somebody", SHA256, subpackets)]
    };
    let fine = certificate(&[time(MADE), flags(3), primary.issuer()]);
    let short = |seconds: u32| subpacket(9, &seconds.to_be_bytes());

    assert_eq!(judged(&by_primary, &fine), "ok");
    assert_eq!(judged(&by_primary, &[primary.packet(6)]), "not-bound");
    assert_eq!(judged(&by_primary, &[primary.packet(6), user.clone()]), "not-bound");
    assert_eq!(judged(&by_primary, &certificate(&[time(MADE), flags(1)])), "not-for-signing");
    assert_eq!(judged(&by_primary, &certificate(&[time(MADE), flags(12)])), "not-for-signing");
    assert_eq!(judged(&by_primary, &certificate(&[time(MADE)])), "not-for-signing");
    assert_eq!(judged(&by_primary, &certificate(&[time(MADE), flags(3), short(1000)])), "key-expired");
    assert_eq!(
        judged(&by_primary, &certificate(&[time(MADE), flags(3), short(15_000_000)])),
        "key-expired",
        "since"
    );
    assert_eq!(judged(&by_primary, &certificate(&[time(MADE), flags(3), short(25_000_000)])), "ok");
    assert_eq!(
        judged(&by_primary, &certificate(&[time(1_730_000_000), flags(3)])),
        "not-bound",
        "bound in the future"
    );
    let weak =
        vec![primary.packet(6), user.clone(), primary.certify("somebody", SHA1, &[time(MADE), flags(3)])];
    assert_eq!(judged(&by_primary, &weak), "not-bound", "bound with SHA-1");
    let other = vec![
        primary.packet(6),
        user.clone(),
        Key::new(3, MADE).certify("somebody", SHA256, &[time(MADE), flags(3)]),
    ];
    assert_eq!(judged(&by_primary, &other), "not-bound", "bound by another key");
    for hash in [SHA1, SHA256] {
        let revoked =
            [vec![primary.packet(6), primary.revoke(hash, 1_715_000_000)], fine[1..].to_vec()].concat();
        assert_eq!(judged(&by_primary, &revoked), "revoked", "also after it signed, and with a weak hash");
    }
    let odd = packet(2, &[6, 0x20, 27, 8, 0, 0]);
    let unreadable = [vec![primary.packet(6), odd], fine[1..].to_vec()].concat();
    assert_eq!(judged(&by_primary, &unreadable), "revoked", "by a signature of a kind that is not known");

    // Subkeys.
    let back =
        |hash| subpacket(32, &sub.sign(0x19, hash, &[time(MADE), sub.issuer()], &[], &primary.with(&sub)));
    let bind = |subpackets: &[Vec<u8>], unsigned: &[Vec<u8>]| {
        packet(2, &primary.sign(0x18, SHA256, subpackets, unsigned, &primary.with(&sub)))
    };
    let with_sub = |binding: &[Vec<u8>]| [fine.clone(), vec![sub.packet(14)], binding.to_vec()].concat();
    let bound = bind(&[time(MADE), flags(2), back(SHA256)], &[]);
    assert_eq!(judged(&by_sub, &with_sub(std::slice::from_ref(&bound))), "ok");
    assert_eq!(
        judged(&by_sub, &with_sub(&[bind(&[time(MADE), flags(2)], &[back(SHA256)])])),
        "ok",
        "unsigned back signature"
    );
    assert_eq!(judged(&by_sub, &with_sub(&[])), "not-bound");
    assert_eq!(
        judged(&by_sub, &with_sub(&[bind(&[time(MADE), flags(2)], &[])])),
        "not-bound",
        "no back signature"
    );
    assert_eq!(judged(&by_sub, &with_sub(&[bind(&[time(MADE), flags(2), back(SHA1)], &[])])), "not-bound");
    let stolen =
        subpacket(32, &Key::new(3, MADE).sign(0x19, SHA256, &[time(MADE)], &[], &primary.with(&sub)));
    assert_eq!(judged(&by_sub, &with_sub(&[bind(&[time(MADE), flags(2), stolen], &[])])), "not-bound");
    assert_eq!(
        judged(&by_sub, &with_sub(&[bind(&[time(MADE), flags(12), back(SHA256)], &[])])),
        "not-for-signing"
    );
    assert_eq!(judged(&by_sub, &with_sub(&[bind(&[time(MADE), back(SHA256)], &[])])), "not-for-signing");
    assert_eq!(
        judged(&by_sub, &with_sub(&[bind(&[time(MADE), flags(2), back(SHA256), short(1000)], &[])])),
        "key-expired"
    );
    let revocation = packet(2, &primary.sign(0x28, SHA256, &[time(1_715_000_000)], &[], &primary.with(&sub)));
    assert_eq!(
        judged(&by_sub, &with_sub(std::slice::from_ref(&revocation))),
        "revoked",
        "a revocation is no binding"
    );
    assert_eq!(judged(&by_sub, &with_sub(&[bound.clone(), revocation])), "revoked");
    let foreign = packet(2, &Key::new(3, MADE).sign(0x28, SHA256, &[time(MADE)], &[], &primary.with(&sub)));
    assert_eq!(judged(&by_sub, &with_sub(&[bound.clone(), foreign])), "ok", "nobody else can revoke");
    let newer = bind(&[time(1_712_000_000), flags(2), back(SHA256), short(1000)], &[]);
    assert_eq!(
        judged(&by_sub, &with_sub(&[bound.clone(), newer])),
        "key-expired",
        "the newest binding counts"
    );
    let expired =
        [certificate(&[time(MADE), flags(1), short(1000)]), vec![sub.packet(14), bound.clone()]].concat();
    assert_eq!(judged(&by_sub, &expired), "key-expired", "with its primary key");

    // Signatures.
    let odd =
        |signed: &[Vec<u8>], unsigned: &[Vec<u8>]| judged(&signed_by(&primary, signed, unsigned), &fine);
    let issuer = || primary.issuer();
    assert_eq!(odd(&[issuer()], &[]), "signature-malformed", "no time");
    assert_eq!(odd(&[issuer()], &[time(SIGNED)]), "signature-malformed", "time not signed");
    assert_eq!(odd(&[time(SIGNED)], &[issuer()]), "ok");
    assert_eq!(odd(&[time(SIGNED)], &[]), "signature-malformed", "no issuer");
    let two = signed_by(&primary, &[time(SIGNED), issuer()], &[sub.issuer()]);
    assert_eq!(judged(&two, &with_sub(std::slice::from_ref(&bound))), "signature-malformed", "two issuers");
    assert_eq!(odd(&[time(SIGNED), issuer()], &[flags(2)]), "signature-malformed", "unsigned parts");
    assert_eq!(
        odd(&[time(SIGNED), issuer(), subpacket(0x80 | 99, b"")], &[]),
        "signature-malformed",
        "critical"
    );
    assert_eq!(odd(&[time(SIGNED), issuer(), back(SHA256)], &[]), "signature-malformed", "embedded");
    assert_eq!(odd(&[time(SIGNED), issuer(), subpacket(3, &[0, 0, 0, 9])], &[]), "signature-expired");
    assert_eq!(odd(&[time(SIGNED), time(SIGNED), issuer()], &[]), "signature-malformed", "two times");
    assert_eq!(odd(&[time(1_600_000_000), issuer()], &[]), "key-not-yet-valid");
}
