//! The policy: what a template package must be before a single byte of its payload is opened.
//!
//! A package is accepted when **all** of this holds, over the bytes exactly as they were received:
//!
//! | part | rule |
//! |---|---|
//! | lead | what rpm writes: version 3.0, binary, os 1, signature type 5, reserved bytes zero, the name is that of the package; nothing is taken from it |
//! | both headers | magic and reserved bytes, one region that covers every entry, tags in rising order and none twice, values one after the other without gap or overlap, padding zero, within the limits below |
//! | signature header | only tags that rpm writes for a binary package ([`SIGNATURE_TAGS`]) |
//! | signature | exactly one over the header, one OpenPGP packet, version 4, of a binary document, [`HASHES`], creation time signed and not in the future, not expired, issuer named; no other subpackets outside its signed part |
//! | certificate | from the keyring given; the key that signed and its primary key are [`KEY_RULES`], created before the signature, not expired (then or now), not revoked (ever), flagged for signing and bound by a signature with a strong hash; a subkey also binds itself back |
//! | header digests | at least one of SHA-256 and SHA-1; every one that is there is right (the signature is what proves the header; these only show damage) |
//! | payload digest | in the signed header, SHA-256 (what every rpm computes there), exactly one, equal to the digest of every byte after the header to the end of the file |
//! | older values | MD5, sizes, the signature over header and payload together: never needed, never sufficient; if one is there and wrong the package is refused |
//! | tag 278 | the list of signatures of rpm 6: if there, exactly the one signature that was judged |
//! | package | not a source package, `noarch`, named `qubes-template-NAME` with a name that a qube can have |
//! | files | only directories and regular files under `/var/lib/qubes/vm-templates/NAME`, none twice, no link, no device, no `..` |
//! | scripts, triggers, dependencies | never looked at, never run |
//!
//! Where rpmkeys (strictest setting) and rpmcanon disagree this follows the stricter one; `tests/trust.rs` holds the
//! table of differences and their reasons.
//!
//! What happens after the verdict (the archive, the image) is the business of [`crate::payload`] and
//! [`crate::root_image`]; their rules stand there.

use std::time::Duration;

use crate::template::{Evr, TemplateName};

/// How far a signature may lie in the future: clocks of a signer and of a qube without network differ a little.
pub const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// Hash algorithms of signatures, as OpenPGP numbers them: SHA-256, SHA-384, SHA-512.
pub const HASHES: [u8; 3] = [8, 9, 10];

/// Keys that may sign, in words for error messages.
pub const KEY_RULES: &str = "RSA of at least 2048 bits, Ed25519, or ECDSA over a NIST curve";

/// Smallest modulus of an RSA key. 2048 is what NIST and BSI still allow and what rpm-sequoia accepts; Qubes signs
/// with 4096.
pub const MIN_RSA_BITS: u16 = 2048;

/// Most entries in the signature header. rpm itself writes ten at most and refuses more than 32.
pub const MAX_SIGNATURE_ENTRIES: usize = 32;

/// Most bytes of values in the signature header. rpm reserves room of 4 KiB to 16 KiB for later signatures.
pub const MAX_SIGNATURE_STORE: usize = 128 << 10;

/// Most entries in the header. rpmbuild writes about 90 for a template; rpm knows about 400 tags.
pub const MAX_HEADER_ENTRIES: usize = 1024;

/// Most bytes of values in the header. A template has a few dozen files and some ten KiB; digests of the pieces of a
/// 6 GiB payload would take 192 KiB.
pub const MAX_HEADER_STORE: usize = 2 << 20;

/// Greatest tag in the header. Greater ones have no meaning for rpm and other tools refuse them.
pub const MAX_HEADER_TAG: u32 = 0x7fff;

/// Most files that a template package may list. Qubes' own list under twenty.
pub const MAX_FILES: usize = 4096;

/// Longest path of a file in the package, in bytes.
pub const MAX_PATH: usize = 512;

/// Longest OpenPGP packet that is looked at, in bytes: room for RSA 16384 with all its subpackets.
pub const MAX_PACKET: usize = 16 << 10;

/// Tags that may stand in the signature header: region, DSA and RSA signature of the header, SHA-1, sizes, SHA-256,
/// OpenPGP list, reserved space of rpm 6, size, signature over header and payload (RSA), MD5, the same (DSA), size of
/// the archive, reserved space.
pub const SIGNATURE_TAGS: [u32; 15] =
    [62, 267, 268, 269, 270, 271, 273, 278, 999, 1000, 1002, 1004, 1005, 1007, 1008];

/// What the caller asked for; the rest of the policy is not to be chosen.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// The template that the package must be, where the caller asked for one.
    pub name: Option<TemplateName>,
    /// The build that the package must be, where the caller chose one from an offer.
    pub evr: Option<Evr>,
}

impl Policy {
    /// Any template: for local files, where the name comes from the package itself.
    #[must_use]
    pub fn any() -> Self {
        Self::default()
    }

    /// Exactly this build of this template.
    #[must_use]
    pub fn build(name: TemplateName, evr: Evr) -> Self {
        Self { name: Some(name), evr: Some(evr) }
    }
}
