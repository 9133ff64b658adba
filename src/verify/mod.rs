//! From a spooled package to a verified one.
//!
//! [`verify`] is the only way to a [`Verified`], and there is no way to one without it but
//! [`check_digests_only`], which is for local files under `--nogpgcheck` and leaves [`Verified::signer`] empty. The
//! rules stand in [`policy`]; each way to break one is a variant of [`Rejection`].
//!
//! No clock, no environment: the caller passes the time in. Everything that looks at the package's bytes runs in a
//! thread without rights ([`crate::confine`]).

mod container;
pub(crate) mod digest;
pub mod head;
mod header;
pub mod keyring;
mod ordinary;
mod package;
mod packet;
pub mod policy;
mod rejection;
mod signature;
mod tag;

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

pub use keyring::Keyring;
pub use ordinary::Ordinary;
pub use package::{FileInfo, PackageInfo, TEMPLATES};
pub use policy::Policy;
pub use rejection::{Rejection, Section};
pub use signature::Signer;

use crate::confine;
use crate::io::at::ReadAt;
use crate::io::hash::Hash;
use crate::spool::Spooled;
use digest::Measured;

/// A package that fulfils the policy, still in the one file in which it was measured.
#[derive(Debug)]
pub struct Verified {
    spooled: Spooled,
    info: PackageInfo,
    signer: Option<Signer>,
    payload_offset: u64,
    payload_digest: (Hash, Vec<u8>),
}

/// Judges a package by the policy, with the certificates of `keyring`, at the time `now`.
///
/// # Errors
/// The first rule that it breaks.
pub fn verify(
    spooled: Spooled,
    policy: &Policy,
    keyring: &Keyring,
    now: SystemTime,
) -> Result<Verified, Rejection> {
    let (spooled, measured) = spooled.into_measured()?;
    let judge = || -> Result<_, Rejection> {
        check_tags(&measured, &[])?;
        // A damaged download is to be called damaged, not forged: digests are what a mirror's fault breaks first.
        measured.check()?;
        let signer = signature::judge(&measured.head, keyring, now)?;
        signature::judge_over_both(&measured.head, measured.both.clone(), keyring, now)?;
        Ok((PackageInfo::read(&measured.head, policy)?, signer))
    };
    let (info, signer) = confine::run(judge)??;
    Verified::new(spooled, &measured, info, Some(signer))
}

/// Judges a package by everything in the policy but its signatures: what `--nogpgcheck` means for a local file.
///
/// # Errors
/// The first rule that it breaks.
pub fn check_digests_only(spooled: Spooled, policy: &Policy) -> Result<Verified, Rejection> {
    let (spooled, measured) = spooled.into_measured()?;
    let judge = || {
        check_tags(&measured, &[])?;
        measured.check()?;
        PackageInfo::read(&measured.head, policy)
    };
    let info = confine::run(judge)??;
    Verified::new(spooled, &measured, info, None)
}

fn check_tags(measured: &Measured, besides: &[u32]) -> Result<(), Rejection> {
    check_signature_tags(&measured.head.signature, besides)
}

fn check_signature_tags(header: &header::Header, besides: &[u32]) -> Result<(), Rejection> {
    let known = |tag: &u32| policy::SIGNATURE_TAGS.contains(tag) || besides.contains(tag);
    if let Some(tag) = header.tags().find(|tag| !known(tag)) {
        return Err(Rejection::SignatureTag(tag));
    }
    for tag in tag::signature::RESERVED {
        let reserved = header.binary(tag).map_err(|_| Rejection::SignatureTag(tag))?;
        if reserved.is_some_and(|bytes| bytes.iter().any(|b| *b != 0)) {
            return Err(Rejection::Header(Section::Signature, "its reserved space is not empty"));
        }
    }
    Ok(())
}

impl Verified {
    fn new(
        spooled: Spooled,
        measured: &Measured,
        info: PackageInfo,
        signer: Option<Signer>,
    ) -> Result<Self, Rejection> {
        Ok(Self {
            info,
            payload_offset: measured.head.payload_offset,
            payload_digest: digest::payload_digest(&measured.head.header)?,
            spooled,
            signer,
        })
    }

    /// What the package says about itself.
    #[must_use]
    pub fn info(&self) -> &PackageInfo {
        &self.info
    }

    /// Who signed it; `None` only where the caller asked for no check.
    #[must_use]
    pub fn signer(&self) -> Option<&Signer> {
        self.signer.as_ref()
    }

    /// Bytes of the whole package.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.spooled.size()
    }

    /// Gives the package a name: the file appears complete or not at all, and replaces one that is there.
    ///
    /// # Errors
    /// What the file system says.
    pub fn persist(&self, path: &Path) -> io::Result<()> {
        self.spooled.persist(path)
    }

    /// The compressed payload, from its first byte.
    pub(crate) fn payload(&self) -> ReadAt {
        ReadAt::new(self.file(), self.payload_offset, self.spooled.size())
    }

    /// What the payload's digest must be.
    pub(crate) fn payload_digest(&self) -> (Hash, &[u8]) {
        (self.payload_digest.0, &self.payload_digest.1)
    }

    fn file(&self) -> Arc<File> {
        self.spooled.file()
    }
}

/// The head of a package and everything that is read from it: see [`crate::fuzzing`].
pub fn fuzz_head(data: &[u8]) {
    let Ok(container::Extent::Exactly(len)) = container::extent(data) else { return };
    let Some(bytes) = data.get(..len) else { return };
    let Ok(head) = container::Head::parse(bytes) else { return };
    drop(digest::payload_digest(&head.header));
    let _: Option<Hash> = signature::hash_over_both(&head.signature);
    drop(signature::judge(&head, &Keyring::default(), SystemTime::UNIX_EPOCH));
    drop(PackageInfo::read(&head, &Policy::any()));
}

/// A signature packet and what is signed, by the keys of `keyring`: see [`crate::fuzzing`].
pub(crate) fn fuzz_signature(keyring: &Keyring, data: &[u8], now: SystemTime) {
    let Ok((_, body, signed)) = packet::split(data) else { return };
    let Ok(signature) = packet::Signature::parse(body) else { return };
    for issuer in &signature.issuers {
        for certificate in keyring.certificates() {
            let Some(key) = certificate.key(issuer) else { continue };
            drop(certificate.check(key, signature.created.unwrap_or(0), keyring::seconds(now)));
            key.made(&signature, false, |running| running.update(signed));
        }
    }
}
