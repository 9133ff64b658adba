//! OpenPGP keys that sign packages and repositories.
//!
//! Signatures are version 4, SHA-256, with the moment of signing and the signer's fingerprint in the signed part, as
//! rpm's own tools make them. The moment is given by the caller (and never before the key's own), so the same key
//! over the same bytes gives the same signature: RSA PKCS #1 v1.5 and Ed25519 need no random numbers.

use std::io::Read;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use pgp::composed::{
    ArmorOptions, Deserializable as _, DetachedSignature, KeyType, SignedKeyDetails, SignedPublicKey,
    SignedSecretKey,
};
use pgp::crypto::hash::HashAlgorithm;
use pgp::crypto::public_key::PublicKeyAlgorithm;
use pgp::packet::{
    KeyFlags, PacketTrait as _, PubKeyInner, PublicKey, SecretKey, Signature, SignatureConfig, SignatureType,
    Subpacket, SubpacketData, UserId,
};
use pgp::types::{
    Duration as KeyDuration, KeyDetails as _, KeyVersion, Password, SignedUser, Tag, Timestamp,
};
use rand::{CryptoRng, RngCore};
use sha2::{Digest as _, Sha256};

/// What a new key is made of.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// Whose key: `Name <address>`.
    pub user: String,
    /// Algorithm.
    pub algorithm: Algorithm,
    /// When it was made, in seconds since 1970.
    pub created: u32,
    /// For how many seconds it is good; for ever when there is none.
    pub lifetime: Option<u32>,
    /// Makes the same key from the same words, for demonstrations and tests. Whoever knows the words has the key.
    pub seed: Option<String>,
}

/// Algorithm of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Ed25519 as GnuPG 2.2 and rpm 4.18 know it.
    Ed25519,
    /// RSA with so many bits (2048 or more).
    Rsa(u32),
}

/// A secret key that can sign.
pub struct SigningKey {
    key: SignedSecretKey,
    password: Password,
    /// Index of the signing subkey; the primary key when there is none.
    subkey: Option<usize>,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SigningKey").field(&self.fingerprint()).finish()
    }
}

impl SigningKey {
    /// Reads an armored or plain secret key. A subkey that may sign goes before the primary key, as with GnuPG.
    ///
    /// # Errors
    /// Text that is no secret key of version 4, a wrong or missing passphrase, an algorithm that rpm does not take.
    pub fn read(bytes: &[u8], passphrase: Option<&str>) -> Result<Self> {
        let (key, _) = SignedSecretKey::from_reader_single(bytes).context("reading the secret key")?;
        let password = passphrase.map_or_else(Password::empty, Password::from);
        let subkey = key.secret_subkeys.iter().position(|subkey| {
            subkey
                .signatures
                .iter()
                .any(|s| s.typ() == Some(SignatureType::SubkeyBinding) && s.key_flags().sign())
        });
        let signing = Self { key, password, subkey };
        ensure!(
            signing.key.primary_key.version() == KeyVersion::V4,
            "only keys of version 4 can sign packages"
        );
        signing.is_rsa()?;
        signing.sign(b"".as_slice(), 0).context("unlocking the secret key")?;
        Ok(signing)
    }

    /// Makes a new key.
    ///
    /// # Errors
    /// A size that is not possible.
    pub fn generate(new: &NewKey) -> Result<Self> {
        let key = match &new.seed {
            Some(seed) => generate(new, SeededRng::new(seed)),
            None => generate(new, rand::rngs::OsRng),
        }?;
        Ok(Self { key, password: Password::empty(), subkey: None })
    }

    /// The armored secret key.
    ///
    /// # Errors
    /// Never in practice.
    pub fn secret(&self) -> Result<String> {
        self.key.to_armored_string(ArmorOptions::default()).context("writing the secret key")
    }

    /// The armored certificate: what others verify with.
    ///
    /// # Errors
    /// Never in practice.
    pub fn certificate(&self) -> Result<String> {
        SignedPublicKey::from(self.key.clone())
            .to_armored_string(ArmorOptions::default())
            .context("writing the certificate")
    }

    /// Fingerprint of the primary key, in lower-case hexadecimal digits.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.key.primary_key.fingerprint().to_string().to_lowercase()
    }

    /// Whether it is an RSA key; rpm keeps the two kinds of signatures under different tags.
    ///
    /// # Errors
    /// When it is neither RSA nor Ed25519.
    pub fn is_rsa(&self) -> Result<bool> {
        let algorithm = match self.subkey {
            Some(at) => self.key.secret_subkeys[at].key.algorithm(),
            None => self.key.primary_key.algorithm(),
        };
        match algorithm {
            PublicKeyAlgorithm::RSA | PublicKeyAlgorithm::RSASign => Ok(true),
            PublicKeyAlgorithm::EdDSALegacy => Ok(false),
            other => bail!("rpm does not know keys of the kind {other:?}"),
        }
    }

    /// The packet of a signature over `data`, made at `moment` or when the key was made, whichever is later.
    ///
    /// # Errors
    /// When reading or signing fails.
    pub fn sign(&self, data: impl Read, moment: u32) -> Result<Vec<u8>> {
        let signature = self.signature(data, moment)?;
        let mut bytes = Vec::new();
        signature.to_writer_with_header(&mut bytes).context("writing the signature")?;
        Ok(bytes)
    }

    /// The same, armored, for a file of its own.
    ///
    /// # Errors
    /// When reading or signing fails.
    pub fn sign_detached(&self, data: impl Read, moment: u32) -> Result<String> {
        DetachedSignature::new(self.signature(data, moment)?)
            .to_armored_string(ArmorOptions::default())
            .context("writing the signature")
    }

    fn signature(&self, data: impl Read, moment: u32) -> Result<Signature> {
        match self.subkey.map(|at| &self.key.secret_subkeys[at].key) {
            Some(key) => sign_with(key, &self.password, data, moment),
            None => sign_with(&self.key.primary_key, &self.password, data, moment),
        }
    }
}

fn sign_with(
    key: &impl pgp::types::SigningKey,
    password: &Password,
    data: impl Read,
    moment: u32,
) -> Result<Signature> {
    let made = key.created_at().as_secs().max(moment);
    let mut config = SignatureConfig::v4(SignatureType::Binary, key.algorithm(), HashAlgorithm::Sha256);
    config.hashed_subpackets = stamps(key, made)?;
    config.unhashed_subpackets = vec![Subpacket::regular(SubpacketData::IssuerKeyId(key.legacy_key_id()))?];
    config.sign(key, password, data).context("signing")
}

fn stamps(key: &impl pgp::types::KeyDetails, moment: u32) -> Result<Vec<Subpacket>> {
    Ok(vec![
        Subpacket::regular(SubpacketData::IssuerFingerprint(key.fingerprint()))?,
        Subpacket::regular(SubpacketData::SignatureCreationTime(Timestamp::from_secs(moment)))?,
    ])
}

fn generate(new: &NewKey, rng: impl CryptoRng + RngCore) -> Result<SignedSecretKey> {
    let kind = match new.algorithm {
        Algorithm::Ed25519 => KeyType::Ed25519Legacy,
        Algorithm::Rsa(bits) => {
            ensure!((2048..=16384).contains(&bits), "RSA keys have 2048 to 16384 bits");
            KeyType::Rsa(bits)
        }
    };
    let (public, secret) = kind.generate(rng).context("making a key")?;
    let created = Timestamp::from_secs(new.created);
    let inner = PubKeyInner::new(KeyVersion::V4, kind.to_alg(), created, None, public)?;
    let public = PublicKey::from_inner(inner)?;
    let primary = SecretKey::new(public.clone(), secret)?;

    let user = UserId::from_str(Default::default(), &new.user).context("reading the user of the key")?;
    let mut flags = KeyFlags::default();
    flags.set_certify(true);
    flags.set_sign(true);
    let mut config =
        SignatureConfig::v4(SignatureType::CertPositive, primary.algorithm(), HashAlgorithm::Sha256);
    config.hashed_subpackets = stamps(&primary, new.created)?;
    config.hashed_subpackets.push(Subpacket::regular(SubpacketData::KeyFlags(flags))?);
    config.hashed_subpackets.push(Subpacket::regular(SubpacketData::IsPrimary(true))?);
    if let Some(lifetime) = new.lifetime {
        let lifetime = KeyDuration::from_secs(lifetime);
        config.hashed_subpackets.push(Subpacket::regular(SubpacketData::KeyExpirationTime(lifetime))?);
    }
    config.unhashed_subpackets =
        vec![Subpacket::regular(SubpacketData::IssuerKeyId(primary.legacy_key_id()))?];
    let signature = config.sign_certification(&primary, &public, &Password::empty(), Tag::UserId, &user)?;
    let details = SignedKeyDetails {
        revocation_signatures: Vec::new(),
        direct_signatures: Vec::new(),
        users: vec![SignedUser::new(user, vec![signature])],
        user_attributes: Vec::new(),
    };
    Ok(SignedSecretKey::new(primary, details, Vec::new(), Vec::new()))
}

/// Numbers that follow from words: SHA-256 of the words and a counter.
struct SeededRng {
    seed: Vec<u8>,
    counter: u64,
    rest: Vec<u8>,
}

impl SeededRng {
    fn new(seed: &str) -> Self {
        Self { seed: seed.as_bytes().to_vec(), counter: 0, rest: Vec::new() }
    }
}

impl RngCore for SeededRng {
    fn next_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.fill_bytes(&mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill_bytes(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn fill_bytes(&mut self, into: &mut [u8]) {
        for byte in into {
            if self.rest.is_empty() {
                let block = Sha256::new().chain_update(self.counter.to_be_bytes()).chain_update(&self.seed);
                self.rest = block.finalize().to_vec();
                self.counter += 1;
            }
            *byte = self.rest.pop().unwrap_or(0);
        }
    }

    fn try_fill_bytes(&mut self, into: &mut [u8]) -> Result<(), rand::Error> {
        self.fill_bytes(into);
        Ok(())
    }
}

impl CryptoRng for SeededRng {}

/// Now, in seconds since 1970, as keys and signatures count it.
#[must_use]
pub fn seconds(now: std::time::SystemTime) -> u32 {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: &str) -> SigningKey {
        SigningKey::generate(&NewKey {
            user: "Test <test@example.invalid>".into(),
            algorithm: Algorithm::Ed25519,
            created: 1_600_000_000,
            lifetime: None,
            seed: Some(seed.into()),
        })
        .unwrap()
    }

    #[test]
    fn a_seed_gives_one_key_and_a_key_one_signature() {
        assert_eq!(key("a").secret().unwrap(), key("a").secret().unwrap());
        assert_eq!(key("a").certificate().unwrap(), key("a").certificate().unwrap());
        assert_ne!(key("a").fingerprint(), key("b").fingerprint());
        let signature = key("a").sign(b"x".as_slice(), 1_700_000_000).unwrap();
        assert_eq!(signature, key("a").sign(b"x".as_slice(), 1_700_000_000).unwrap());
        assert_ne!(signature, key("a").sign(b"y".as_slice(), 1_700_000_000).unwrap());
    }

    #[test]
    fn a_written_key_can_be_read_and_signs_the_same() {
        let again = SigningKey::read(key("a").secret().unwrap().as_bytes(), None).unwrap();
        assert_eq!(again.fingerprint(), key("a").fingerprint());
        let data = b"x".as_slice();
        assert_eq!(again.sign(data, 1).unwrap(), key("a").sign(data, 1).unwrap());
        assert!(SigningKey::read(key("a").certificate().unwrap().as_bytes(), None).is_err());
    }
}
