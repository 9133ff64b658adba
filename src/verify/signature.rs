//! The judgement over a package's signatures.

use super::container::Head;
use super::header::Header;
use super::keyring::{Certificate, Key, Keyring, seconds, timestamp};
use super::packet::{self, Signature};
use super::policy;
use super::rejection::Rejection;
use super::tag::signature::{LIST, OTHER, OVER_BOTH, RSA};
use crate::io::hash::{Hash, Running};
use crate::template::Timestamp;

use std::time::SystemTime;

use base64::Engine as _;

/// Who signed a package, as judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// Fingerprint of the certificate.
    pub certificate: String,
    /// Fingerprint of the key in it that signed; the same where the primary key did.
    pub key: String,
    /// User ids of the certificate, safe to display.
    pub user_ids: Vec<String>,
    /// When it was signed.
    pub time: Timestamp,
}

/// Judges the one signature over the header.
pub(crate) fn judge(head: &Head, keyring: &Keyring, now: SystemTime) -> Result<Signer, Rejection> {
    let bytes = the_signature(&head.signature)?;
    let signature = read(bytes)?;
    let hash = signature.strong_hash().ok_or_else(|| Rejection::WeakHash(hash_name(signature.hash)))?;
    let (certificate, key) = check(&signature, keyring, now)?;
    let mut running = hash.start();
    running.update(&head.signed);
    if !key.made_over(&signature, running) {
        return Err(Rejection::SignatureWrong);
    }
    Ok(Signer {
        certificate: certificate.fingerprint(),
        key: key.name(),
        user_ids: certificate.user_ids(),
        time: timestamp(u64::from(signature.created.unwrap_or(0))),
    })
}

/// The hash that a signature over header and payload needs, where there is one that can count at all.
pub(crate) fn hash_over_both(header: &Header) -> Option<Hash> {
    older(header).ok().flatten().and_then(|signature| signature.strong_hash())
}

/// Judges a signature over header and payload, where there is one: wrong is wrong, but right proves nothing more.
pub(crate) fn judge_over_both(
    head: &Head,
    running: Option<Running>,
    keyring: &Keyring,
    now: SystemTime,
) -> Result<(), Rejection> {
    let Some(signature) = older(&head.signature)? else { return Ok(()) };
    let running = running.ok_or_else(|| Rejection::WeakHash(hash_name(signature.hash)))?;
    let (_, key) = check(&signature, keyring, now)?;
    if key.made_over(&signature, running) {
        Ok(())
    } else {
        Err(Rejection::OlderValue("signature over header and payload"))
    }
}

/// Everything about a signature that can be said before the mathematics; finds the key that must have made it.
fn check<'a>(
    signature: &Signature,
    keyring: &'a Keyring,
    now: SystemTime,
) -> Result<(&'a Certificate, &'a Key), Rejection> {
    if signature.kind != packet::BINARY {
        return Err(Rejection::SignatureKind(signature.kind));
    }
    if signature.strong_hash().is_none() {
        return Err(Rejection::WeakHash(hash_name(signature.hash)));
    }
    // Outside of the signed part only the issuer's key id has a place: what stands there is not protected.
    if signature.unsigned_types.iter().any(|t| !matches!(t, 16 | 33)) {
        return Err(Rejection::SignatureMalformed("it has unsigned parts other than the issuer"));
    }
    let created = signature.created.ok_or(Rejection::SignatureMalformed("it has no signed creation time"))?;
    let seconds_now = seconds(now);
    if u64::from(created) > seconds_now + policy::CLOCK_SKEW.as_secs() {
        return Err(Rejection::FromTheFuture(timestamp(u64::from(created))));
    }
    if let Some(end) = signature.expires().filter(|end| *end <= seconds_now) {
        return Err(Rejection::SignatureExpired(timestamp(end)));
    }

    let longest = signature.issuers.iter().max_by_key(|i| i.len());
    let issuer = longest.ok_or(Rejection::SignatureMalformed("it does not name its issuer"))?;
    if keyring.certificates().is_empty() {
        return Err(Rejection::EmptyKeyring);
    }
    // One certificate may be there twice, in two states; every copy that has the key must agree.
    let mut found = None;
    for certificate in keyring.certificates() {
        if let Some(key) = certificate.key(issuer) {
            certificate.check(key, created, seconds_now)?;
            found = found.or(Some((certificate, key)));
        }
    }
    let (certificate, key) =
        found.ok_or_else(|| Rejection::UnknownSigner(crate::io::hash::hex(issuer).to_uppercase()))?;
    if !signature.issuers.iter().all(|issuer| key.is_named(issuer)) {
        return Err(Rejection::SignatureMalformed("it names two different issuers"));
    }
    Ok((certificate, key))
}

/// The bytes of the one signature over the header.
fn the_signature(header: &Header) -> Result<&[u8], Rejection> {
    let mut found = None;
    for tag in [RSA, OTHER] {
        let wrong = |_| Rejection::SignatureMalformed("it is not stored as bytes");
        let Some(bytes) = header.binary(tag).map_err(wrong)? else { continue };
        if found.replace(bytes).is_some() {
            return Err(Rejection::SeveralSignatures);
        }
    }
    let found = found.ok_or_else(|| {
        if OVER_BOTH.iter().any(|tag| header.has(*tag)) {
            Rejection::ObsoleteSignature
        } else {
            Rejection::Unsigned
        }
    })?;
    if header.has(LIST) {
        let list = header
            .strings(LIST)
            .map_err(|_| Rejection::SignatureMalformed("the list is of the wrong type"))?;
        let [one] = list[..] else { return Err(Rejection::SeveralSignatures) };
        if base64::engine::general_purpose::STANDARD.decode(one).ok().as_deref() != Some(found) {
            return Err(Rejection::SeveralSignatures);
        }
    }
    Ok(found)
}

/// The signature over header and payload, where there is one.
fn older(header: &Header) -> Result<Option<Signature>, Rejection> {
    let mut found = None;
    for tag in OVER_BOTH {
        let wrong = |_| Rejection::SignatureMalformed("it is not stored as bytes");
        let Some(bytes) = header.binary(tag).map_err(wrong)? else { continue };
        if found.replace(read(bytes)?).is_some() {
            return Err(Rejection::SeveralSignatures);
        }
    }
    Ok(found)
}

/// Exactly one signature packet and nothing else.
fn read(bytes: &[u8]) -> Result<Signature, Rejection> {
    let (tag, body, rest) = packet::split(bytes).map_err(Rejection::SignatureMalformed)?;
    if tag != packet::SIGNATURE {
        return Err(Rejection::SignatureMalformed("it is another kind of packet"));
    }
    if !rest.is_empty() {
        return Err(Rejection::SignatureMalformed("something follows after it"));
    }
    let signature = Signature::parse(body).map_err(Rejection::SignatureMalformed)?;
    // Such things belong into certificates.
    if signature.embedded.is_some()
        || signature.signed_types.iter().any(|t| !matches!(t, 2 | 3 | 16 | 20 | 26 | 28 | 33))
    {
        return Err(Rejection::SignatureMalformed("it has parts that a package signature does not have"));
    }
    Ok(signature)
}

fn hash_name(number: u8) -> &'static str {
    match number {
        1 => "MD5",
        2 => "SHA-1",
        3 => "RIPEMD-160",
        8 => "SHA-256",
        9 => "SHA-384",
        10 => "SHA-512",
        11 => "SHA-224",
        12 | 14 => "SHA-3",
        _ => "an unknown hash",
    }
}
