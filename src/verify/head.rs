//! A package's head alone: enough for what the package says about itself, and for nothing else.
//!
//! The signature over the header is judged as ever, so that every text in it is the signer's. What needs the payload is not
//! looked at: digests of the payload, and an older signature over header and payload. So there is no way from here to a
//! [`Verified`](super::Verified).

use std::time::SystemTime;

use super::container::{Extent, Head, extent};
use super::keyring::Keyring;
use super::package::PackageInfo;
use super::policy::Policy;
use super::rejection::Rejection;
use super::signature::{self, Signer};
use crate::confine;

/// A head that fulfils the policy, as far as a head can.
#[derive(Debug)]
pub struct VerifiedHead {
    info: PackageInfo,
    signer: Signer,
}

/// How many bytes of `beginning` are the head, once all of it is there. Never wants more than the limits of the policy allow.
///
/// # Errors
/// When these bytes are not the beginning of a package.
pub fn whole(beginning: &[u8]) -> Result<Option<usize>, Rejection> {
    Ok(match extent(beginning)? {
        Extent::Exactly(len) if len <= beginning.len() => Some(len),
        Extent::Exactly(_) | Extent::AtLeast(_) => None,
    })
}

/// Judges a head by the policy, with the certificates of `keyring`, at the time `now`. `bytes` are exactly as many as
/// [`whole`] says.
///
/// # Errors
/// The first rule that it breaks.
pub fn judge(
    bytes: &[u8],
    policy: &Policy,
    keyring: &Keyring,
    now: SystemTime,
) -> Result<VerifiedHead, Rejection> {
    let work = || -> Result<_, Rejection> {
        let head = Head::parse(bytes)?;
        super::check_signature_tags(&head.signature, &[])?;
        let signer = signature::judge(&head, keyring, now)?;
        Ok(VerifiedHead { info: PackageInfo::read(&head, policy)?, signer })
    };
    confine::run(work)?
}

impl VerifiedHead {
    /// What the package says about itself.
    #[must_use]
    pub fn info(&self) -> &PackageInfo {
        &self.info
    }

    /// Who signed it.
    #[must_use]
    pub fn signer(&self) -> &Signer {
        &self.signer
    }
}
