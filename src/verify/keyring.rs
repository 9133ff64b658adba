//! OpenPGP certificates: which keys may have signed a package.
//!
//! A file holds one or several certificates, binary or armored (several armored blocks are fine). A certificate is
//!
//! ```text
//! primary key  (signature)*  ( user id (signature)* | user attribute (signature)* )*  ( subkey (signature)* )*
//! ```
//!
//! Only version 4 keys count. What cannot be read inside a certificate is left out, with two exceptions: a revocation
//! that cannot be read revokes, and a primary key that cannot be read makes the whole certificate unknown.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::SystemTime;

use base64::Engine as _;
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{PacketHeader, PublicKey};
use pgp::types::{Tag, VerifyingKey as _};

use super::packet::{self, Signature};
use super::policy;
use super::rejection::Rejection;
use crate::io::hash::{Hash, Running, hex};
use crate::io::limit::LimitRead;
use crate::template::Timestamp;
use crate::untrusted::displayable;

/// Largest key file. The key of a distribution with all its certifications stays far below.
pub const MAX_FILE: u64 = 1 << 20;

/// Most certificates in one keyring.
pub const MAX_CERTIFICATES: usize = 64;

/// Most signatures, user ids and subkeys in one certificate.
const MAX_PARTS: usize = 2048;

/// The certificates that may vouch for a package.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    certificates: Vec<Certificate>,
}

/// Why a file is not a keyring.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The file cannot be read.
    #[error("cannot read the key file {0}")]
    Read(String, #[source] io::Error),
    /// It holds no certificate.
    #[error("there is no OpenPGP certificate in it")]
    Empty,
    /// It is not what OpenPGP says.
    #[error("the key file is malformed: {0}")]
    Malformed(&'static str),
    /// It holds a secret key.
    #[error("it holds a secret key; only certificates belong here")]
    Secret,
}

impl Keyring {
    /// Reads certificates from files; all of them count.
    ///
    /// # Errors
    /// The first file that cannot be read or is not a keyring, by name.
    pub fn from_files<P: AsRef<Path>>(paths: &[P]) -> Result<Self, KeyringError> {
        let mut keyring = Self::default();
        for path in paths.iter().map(AsRef::as_ref) {
            let name = path.display().to_string();
            let mut bytes = Vec::new();
            File::open(path)
                .and_then(|file| LimitRead::new(file, MAX_FILE, "the key file").read_to_end(&mut bytes))
                .map_err(|e| KeyringError::Read(name, e))?;
            keyring.extend(Self::parse(&bytes)?)?;
        }
        Ok(keyring)
    }

    /// Reads certificates, armored or binary.
    ///
    /// # Errors
    /// If it holds no certificate, a secret key, or is not OpenPGP.
    pub fn parse(bytes: &[u8]) -> Result<Self, KeyringError> {
        let mut keyring = Self::default();
        if bytes.first().is_some_and(|b| b & 0x80 != 0) {
            keyring.add(bytes)?;
        } else {
            for block in armored(bytes)? {
                keyring.add(&block)?;
            }
        }
        if keyring.certificates.is_empty() { Err(KeyringError::Empty) } else { Ok(keyring) }
    }

    /// Takes in the certificates of another keyring.
    ///
    /// # Errors
    /// If there are more than [`MAX_CERTIFICATES`].
    pub fn extend(&mut self, other: Self) -> Result<(), KeyringError> {
        self.certificates.extend(other.certificates);
        if self.certificates.len() > MAX_CERTIFICATES {
            return Err(KeyringError::Malformed("too many certificates"));
        }
        Ok(())
    }

    /// All certificates, in the order in which they were read.
    #[must_use]
    pub fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    fn add(&mut self, mut bytes: &[u8]) -> Result<(), KeyringError> {
        let mut parts = Vec::new();
        while !bytes.is_empty() {
            let (tag, body, rest) = packet::split(bytes).map_err(KeyringError::Malformed)?;
            bytes = rest;
            match tag {
                5 | 7 => return Err(KeyringError::Secret),
                packet::PRIMARY_KEY => self.push(std::mem::take(&mut parts))?,
                _ => {}
            }
            parts.push((tag, body));
            if parts.len() > MAX_PARTS {
                return Err(KeyringError::Malformed("too many packets in a certificate"));
            }
        }
        self.push(parts)
    }

    fn push(&mut self, parts: Vec<(u8, &[u8])>) -> Result<(), KeyringError> {
        let one = Certificate::read(&parts).map(|c| Self { certificates: vec![c] });
        one.map_or(Ok(()), |one| self.extend(one))
    }
}

/// One certificate: a primary key, who it belongs to, and its subkeys.
#[derive(Clone, Debug)]
pub struct Certificate {
    primary: Key,
    signatures: Vec<Signature>,
    users: Vec<(Vec<u8>, Vec<Signature>)>,
    subkeys: Vec<(Key, Vec<Signature>)>,
    unreadable_revocation: bool,
}

/// A public key, as it stands in its packet.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    body: Vec<u8>,
    created: u32,
    algorithm: u8,
    packet: PublicKey,
    fingerprint: Vec<u8>,
}

impl Certificate {
    /// Fingerprint of the primary key, in upper-case hexadecimal digits.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.primary.name()
    }

    /// User ids, safe to display.
    #[must_use]
    pub fn user_ids(&self) -> Vec<String> {
        self.users.iter().map(|(id, _)| displayable(&String::from_utf8_lossy(id), false)).collect()
    }

    /// When the certificate expires, as seen at `now`.
    #[must_use]
    pub fn expires(&self, now: SystemTime) -> Option<Timestamp> {
        let expiry = self.self_signatures(seconds(now)).filter_map(|s| self.primary.expiry(s)).min()?;
        Some(timestamp(expiry))
    }

    /// Whether a signature made now by any key of this certificate would count.
    ///
    /// # Errors
    /// Why the last of its keys would not.
    pub fn usable(&self, now: SystemTime) -> Result<(), Rejection> {
        let now = seconds(now);
        let at = u32::try_from(now).unwrap_or(u32::MAX);
        let mut verdict = self.check(&self.primary, at, now);
        for (key, _) in &self.subkeys {
            if verdict.is_ok() {
                break;
            }
            if self.check(key, at, now).is_ok() {
                verdict = Ok(());
            }
        }
        verdict
    }

    /// The key of this certificate that `issuer` (a key id or a fingerprint) names.
    pub(crate) fn key(&self, issuer: &[u8]) -> Option<&Key> {
        std::iter::once(&self.primary)
            .chain(self.subkeys.iter().map(|(key, _)| key))
            .find(|key| key.is_named(issuer))
    }

    /// Whether a signature that `key` made at `at` counts at `now`.
    pub(crate) fn check(&self, key: &Key, at: u32, now: u64) -> Result<(), Rejection> {
        let primary = &self.primary;
        if self.unreadable_revocation || self.is_revoked() {
            return Err(Rejection::Revoked(primary.name()));
        }
        primary.check(at)?;
        if self.self_signatures(now).next().is_none() {
            return Err(Rejection::NotBound(primary.name()));
        }
        for signature in self.self_signatures(now) {
            primary.check_expiry(signature, at, now)?;
        }
        if std::ptr::eq(key, primary) {
            let flags = self.self_signatures(now).find_map(|s| s.key_flags);
            return if flags.is_some_and(may_sign) {
                Ok(())
            } else {
                Err(Rejection::NotForSigning(key.name()))
            };
        }
        let Some((_, signatures)) = self.subkeys.iter().find(|(other, _)| std::ptr::eq(other, key)) else {
            return Err(Rejection::NotBound(key.name()));
        };
        self.check_subkey(key, signatures, at, now)
    }

    fn check_subkey(&self, key: &Key, signatures: &[Signature], at: u32, now: u64) -> Result<(), Rejection> {
        let bound = |s: &Signature, revocation| {
            self.primary.made(s, revocation, |r| {
                self.primary.hash_into(r);
                key.hash_into(r);
            })
        };
        if signatures.iter().any(|s| s.kind == 0x28 && bound(s, true)) {
            return Err(Rejection::Revoked(key.name()));
        }
        key.check(at)?;
        let binding = signatures
            .iter()
            .filter(|s| s.kind == 0x18 && in_force(s, now) && bound(s, false))
            .max_by_key(|s| s.created)
            .ok_or_else(|| Rejection::NotBound(key.name()))?;
        key.check_expiry(binding, at, now)?;
        if !binding.key_flags.is_some_and(may_sign) {
            return Err(Rejection::NotForSigning(key.name()));
        }
        // The subkey must have agreed: else anybody could adopt a foreign signing key into a certificate.
        let back = binding.embedded.as_deref().and_then(|body| Signature::parse(body).ok());
        let agreed = back.is_some_and(|back| {
            back.kind == 0x19
                && in_force(&back, now)
                && key.made(&back, false, |r| {
                    self.primary.hash_into(r);
                    key.hash_into(r);
                })
        });
        if agreed { Ok(()) } else { Err(Rejection::NotBound(key.name())) }
    }

    /// The self-signatures that say what the primary key may do: that of the primary user id (else the newest one),
    /// then the newest one over the key alone.
    fn self_signatures(&self, now: u64) -> impl Iterator<Item = &Signature> {
        let user = self
            .users
            .iter()
            .filter_map(|(id, signatures)| self.user_binding(id, signatures, now))
            .max_by_key(|s| (s.primary, s.created));
        let direct = self
            .signatures
            .iter()
            .filter(|s| s.kind == 0x1f && in_force(s, now))
            .filter(|s| self.primary.made(s, false, |r| self.primary.hash_into(r)))
            .max_by_key(|s| s.created);
        user.into_iter().chain(direct)
    }

    fn user_binding<'a>(&self, id: &[u8], signatures: &'a [Signature], now: u64) -> Option<&'a Signature> {
        let about = |s: &Signature, revocation| {
            self.primary.made(s, revocation, |r| {
                self.primary.hash_into(r);
                r.update(&[0xb4]);
                r.update(&u32::try_from(id.len()).unwrap_or(u32::MAX).to_be_bytes());
                r.update(id);
            })
        };
        let binding = signatures
            .iter()
            .filter(|s| (0x10..=0x13).contains(&s.kind) && in_force(s, now) && about(s, false))
            .max_by_key(|s| s.created)?;
        let revoked =
            signatures.iter().any(|s| s.kind == 0x30 && s.created >= binding.created && about(s, true));
        (!revoked).then_some(binding)
    }

    /// A revocation counts whenever it was made, whatever its reason, with whatever hash; one by a key that the
    /// certificate names as a revoker counts without being checked, for its key is not here.
    fn is_revoked(&self) -> bool {
        let revocations = || self.signatures.iter().filter(|s| s.kind == 0x20);
        let revokers: Vec<_> = self.signatures.iter().flat_map(|s| &s.revokers).collect();
        revocations().any(|s| self.primary.made(s, true, |r| self.primary.hash_into(r)))
            || revocations().any(|s| s.issuers.iter().any(|i| revokers.iter().any(|r| r.ends_with(i))))
    }

    fn read(parts: &[(u8, &[u8])]) -> Option<Self> {
        let ((packet::PRIMARY_KEY, body), rest) = parts.split_first()? else { return None };
        let mut certificate = Self {
            primary: Key::read(body)?,
            signatures: Vec::new(),
            users: Vec::new(),
            subkeys: Vec::new(),
            unreadable_revocation: false,
        };
        // What the next signatures belong to; `None` while they belong to something that is left out.
        let mut last = Some(packet::PRIMARY_KEY);
        for (tag, body) in rest {
            match *tag {
                packet::USER_ID => {
                    certificate.users.push((body.to_vec(), Vec::new()));
                    last = Some(packet::USER_ID);
                }
                packet::SUBKEY => {
                    let key = Key::read(body);
                    last = key.is_some().then_some(packet::SUBKEY);
                    certificate.subkeys.extend(key.map(|key| (key, Vec::new())));
                }
                packet::USER_ATTRIBUTE => last = None,
                packet::SIGNATURE => match (Signature::parse(body), last) {
                    (Ok(s), Some(packet::PRIMARY_KEY)) => certificate.signatures.push(s),
                    (Ok(s), Some(packet::USER_ID)) => certificate.users.last_mut()?.1.push(s),
                    (Ok(s), Some(_)) => certificate.subkeys.last_mut()?.1.push(s),
                    (Err(_), Some(_)) if is_revocation(body) => certificate.unreadable_revocation = true,
                    _ => {}
                },
                _ => {}
            }
        }
        Some(certificate)
    }
}

impl Key {
    fn read(body: &[u8]) -> Option<Self> {
        let (&[4, a, b, c, d, algorithm], _) = body.split_first_chunk()? else { return None };
        let len = u32::try_from(body.len()).ok()?;
        let packet = PublicKey::try_from_reader(PacketHeader::new_fixed(Tag::PublicKey, len), body).ok()?;
        let mut running = Hash::Sha1.start();
        hash_key(&mut running, body);
        let created = u32::from_be_bytes([a, b, c, d]);
        Some(Self { body: body.to_vec(), created, algorithm, packet, fingerprint: running.finish() })
    }

    /// Fingerprint in upper-case hexadecimal digits.
    pub(crate) fn name(&self) -> String {
        hex(&self.fingerprint).to_uppercase()
    }

    /// Whether a key id or fingerprint is that of this key.
    pub(crate) fn is_named(&self, issuer: &[u8]) -> bool {
        matches!(issuer.len(), 8 | 20) && self.fingerprint.ends_with(issuer)
    }

    /// Whether this key made `signature` over what `about` hashes. A weak hash proves nothing, and disproves nothing
    /// either: under `revocation`, a signature with one counts if it names this key.
    pub(crate) fn made(
        &self,
        signature: &Signature,
        revocation: bool,
        about: impl FnOnce(&mut Running),
    ) -> bool {
        let Some(hash) = signature.strong_hash() else {
            let named = signature.issuers.iter().all(|issuer| self.is_named(issuer));
            return revocation && named && !signature.issuers.is_empty();
        };
        let mut running = hash.start();
        about(&mut running);
        self.made_over(signature, running)
    }

    /// Whether this key made `signature` over what `running` has taken in.
    pub(crate) fn made_over(&self, signature: &Signature, running: Running) -> bool {
        signature.key_algorithm == self.algorithm
            && (signature.issuers.is_empty() || signature.issuers.iter().all(|issuer| self.is_named(issuer)))
            && signature.digest(running).is_some_and(|digest| {
                self.packet.verify(HashAlgorithm::from(signature.hash), &digest, signature.value()).is_ok()
            })
    }

    /// Kind, size and age of the key alone.
    fn check(&self, at: u32) -> Result<(), Rejection> {
        // Algorithm 1 and 3: RSA, whose modulus comes first. 19: ECDSA and 22: EdDSA, with the curve's name first.
        let rest = &self.body[6..];
        let fine = match self.algorithm {
            1 | 3 => rest.first_chunk().is_some_and(|bits| u16::from_be_bytes(*bits) >= policy::MIN_RSA_BITS),
            19 => CURVES_NIST.iter().any(|oid| rest.starts_with(oid)),
            22 => rest.starts_with(CURVE_ED25519),
            27 => true,
            _ => false,
        };
        if !fine {
            return Err(Rejection::WeakKey(self.name()));
        }
        if at < self.created {
            return Err(Rejection::KeyNotYetValid(self.name()));
        }
        Ok(())
    }

    fn expiry(&self, signature: &Signature) -> Option<u64> {
        let after = u64::from(signature.key_expires_after);
        (after != 0).then(|| u64::from(self.created) + after)
    }

    fn check_expiry(&self, signature: &Signature, at: u32, now: u64) -> Result<(), Rejection> {
        match self.expiry(signature) {
            Some(end) if now >= end || u64::from(at) >= end => {
                Err(Rejection::KeyExpired(self.name(), timestamp(end)))
            }
            _ => Ok(()),
        }
    }

    fn hash_into(&self, running: &mut Running) {
        hash_key(running, &self.body);
    }
}

const CURVES_NIST: [&[u8]; 3] = [
    &[8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07],
    &[5, 0x2b, 0x81, 0x04, 0x00, 0x22],
    &[5, 0x2b, 0x81, 0x04, 0x00, 0x23],
];
const CURVE_ED25519: &[u8] = &[9, 0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x0f, 0x01];

fn hash_key(running: &mut Running, body: &[u8]) {
    running.update(&[0x99]);
    running.update(&u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes());
    running.update(body);
}

fn may_sign(flags: u8) -> bool {
    flags & 2 != 0
}

/// Whether a self-signature has begun to count and has not expired.
fn in_force(signature: &Signature, now: u64) -> bool {
    signature.created.is_some_and(|made| u64::from(made) <= now + policy::CLOCK_SKEW.as_secs())
        && signature.expires().is_none_or(|end| now < end)
}

fn is_revocation(body: &[u8]) -> bool {
    let kind = match body.first() {
        Some(2 | 3) => body.get(2),
        _ => body.get(1),
    };
    matches!(kind, Some(0x20 | 0x28))
}

pub(crate) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

pub(crate) fn timestamp(seconds: u64) -> Timestamp {
    Timestamp(i64::try_from(seconds).unwrap_or(i64::MAX))
}

/// The bytes of each armored block of public keys in `text`. The checksum of armor is not looked at: it protects
/// from nothing that matters here.
fn armored(text: &[u8]) -> Result<Vec<Vec<u8>>, KeyringError> {
    let text = std::str::from_utf8(text).map_err(|_| KeyringError::Malformed("neither armor nor packets"))?;
    let mut blocks = Vec::new();
    let mut lines = text.lines().map(str::trim_end);
    while lines.by_ref().any(|line| line == "-----BEGIN PGP PUBLIC KEY BLOCK-----") {
        let mut digits = String::new();
        let mut complete = false;
        let mut in_headers = true;
        for line in lines.by_ref() {
            if line == "-----END PGP PUBLIC KEY BLOCK-----" {
                complete = true;
                break;
            }
            if in_headers && (line.is_empty() || line.contains(": ")) {
                in_headers = !line.is_empty();
            } else if !line.starts_with('=') {
                in_headers = false;
                digits.push_str(line);
            }
        }
        if !complete {
            return Err(KeyringError::Malformed("an armored block has no end"));
        }
        let block = base64::engine::general_purpose::STANDARD.decode(digits);
        blocks.push(block.map_err(|_| KeyringError::Malformed("an armored block is not base64"))?);
    }
    Ok(blocks)
}
