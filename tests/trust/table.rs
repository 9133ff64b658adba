//! Every case, what Debian's rpmkeys (strictest setting) and rpmcanon (qubes-rpm-oxide) say of it, and what we say.
//!
//! rpmkeys is asked again in every run; rpmcanon's column is a recording, because nobody packages it for Debian.

use super::table::Peer::{No, Ok, Unknown};

/// What another program says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Ok,
    No,
    /// Not asked: the case is newer than the recording.
    Unknown,
}

/// One case: its name, rpmkeys, rpmcanon, ours (`ok` or the code of the rejection), and why where we are stricter than
/// both.
pub type Row = (&'static str, Peer, Peer, &'static str, &'static str);

pub const TABLE: &[Row] = &[
    // Good ones.
    ("good-rsa", Ok, Ok, "ok", ""),
    ("good-rsa-v3", Ok, Ok, "ok", ""),
    ("good-ed", Ok, Ok, "ok", ""),
    ("good-ed-v3", Ok, Ok, "ok", ""),
    ("sha512sig", Ok, Ok, "ok", ""),
    ("subkey-rsa", Ok, Ok, "ok", ""),
    ("subkey-ed", Ok, Ok, "ok", ""),
    ("m-ref-rsa", Ok, Ok, "ok", ""),
    ("m-ref-ed", Ok, Ok, "ok", ""),
    ("m-rsa-sha384", Ok, Unknown, "ok", ""),
    ("m-ed-in-rsatag", Ok, Ok, "ok", ""),
    ("m-rsa-in-dsatag", Ok, Ok, "ok", ""),
    ("m-rsa-good+v3-good", Ok, Ok, "ok", ""),
    ("m-list", Ok, Unknown, "ok", ""),
    ("d-only-sha1-signed", Ok, Ok, "ok", ""),
    ("p-tag-unknown", Ok, Unknown, "ok", ""),
    // Digests.
    ("a-uncompressed-payload-alt", Ok, No, "payload-wrong", ""),
    ("d-md5-wrong", No, No, "older-value", ""),
    ("d-no-digests-signed", No, Ok, "no-header-digest", ""),
    ("d-only-md5", No, No, "no-header-digest", ""),
    ("d-sha1-wrong", No, No, "header-digest", ""),
    ("d-sha256-wrong", No, No, "header-digest", ""),
    ("d-size-wrong", Ok, Ok, "older-value", "a value that is there and wrong is a changed package"),
    (
        "d-archive-size-wrong",
        Ok,
        Unknown,
        "older-value",
        "as above; the right one follows from the list of files",
    ),
    ("n-nopaydigest-nomd5-evil", No, No, "no-payload-digest", ""),
    ("n-nopaydigest-signed", No, No, "no-payload-digest", ""),
    ("n-nopaydigest-signed-evilpayload", No, No, "no-payload-digest", ""),
    ("n-nopaydigest-signed-v3", Ok, No, "no-payload-digest", ""),
    ("n-paydigest-md5", No, No, "payload-digest-kind", ""),
    ("n-paydigest-sha1", No, No, "payload-digest-kind", ""),
    ("n-paydigest-sha512", No, Unknown, "payload-digest-kind", ""),
    ("n-paydigest-two", Ok, Unknown, "no-payload-digest", "one payload has one digest"),
    // Forms.
    ("h-dribble-origsig", No, No, "header", ""),
    ("h-dribble-resigned-digests", No, No, "header", ""),
    (
        "h-leadname",
        Ok,
        Ok,
        "lead",
        "the lead is not signed, so nothing in it may differ from what rpm writes",
    ),
    ("h-leadtype", Ok, No, "lead", ""),
    ("h-magic3", No, No, "header", ""),
    ("h-reserved", No, No, "header", ""),
    ("h-sigreserved", No, No, "signature-header", ""),
    ("s-sigdribble", Ok, No, "signature-header", ""),
    (
        "s-unknown-tag",
        Ok,
        Unknown,
        "signature-tag",
        "what nobody reads has no place outside of the signature",
    ),
    ("s-reserved-used", Ok, Unknown, "signature-header", "as above"),
    ("s-many-entries", No, Unknown, "header-too-large", ""),
    ("h-many-entries", No, Unknown, "header-too-large", ""),
    ("h-large", No, Unknown, "header-too-large", ""),
    ("p-tag-private", Ok, No, "header", ""),
    // Signatures.
    ("m-both-good", Ok, No, "several-signatures", ""),
    ("m-dup-rsatag-good-first", Ok, No, "signature-header", ""),
    ("m-dup-rsatag-wrong-first", No, No, "signature-header", ""),
    ("m-rsa-bad+dsa-good", No, No, "several-signatures", ""),
    ("m-rsa-good+dsa-wrongkey", No, No, "several-signatures", ""),
    ("m-rsa-wrongkey+dsa-good", No, No, "several-signatures", ""),
    ("m-rsa-good+v3-bad", No, No, "older-value", ""),
    ("m-rsa-bad", No, Unknown, "signature-wrong", ""),
    ("m-rsa-sha1", Ok, No, "weak-hash", ""),
    ("m-sig-trailing-junk", No, No, "signature-malformed", ""),
    ("m-sigexpired", No, No, "signature-expired", ""),
    ("m-textsig", No, No, "signature-kind", ""),
    ("m-two-pkts-bad-first", No, No, "signature-malformed", ""),
    ("m-two-pkts-in-tag", No, No, "signature-malformed", ""),
    ("m-notation", No, Unknown, "signature-malformed", ""),
    ("m-list-other", Ok, Unknown, "several-signatures", "a second signature that nobody judged"),
    ("m-list-only", No, Unknown, "unsigned", ""),
    ("m-v3only", Ok, No, "obsolete-signature", ""),
    ("m-v3only-ed", Ok, No, "obsolete-signature", ""),
    ("sha1sig", Ok, No, "weak-hash", ""),
    ("sha224sig", Ok, No, "weak-hash", ""),
    ("unsigned", No, No, "unsigned", ""),
    ("wrongkey", No, No, "unknown-signer", ""),
    // Keys and time.
    ("expired", Ok, Unknown, "key-expired", "a key that has expired vouches for nothing any more"),
    ("future", Ok, No, "from-the-future", ""),
    ("revoked", Ok, Unknown, "revoked", "rpm 4.18 does not look; a revoked key may be in other hands"),
    (
        "subrevoked",
        Ok,
        Unknown,
        "revoked",
        "rpm was given the certificate from before, it refuses the revoked one",
    ),
    ("weakrsa1024", Ok, Ok, "weak-key", "1024 bits can be broken by those who have the means"),
    (
        "dsa",
        Ok,
        Unknown,
        "weak-key",
        "DSA gives its key away with one bad random number; nobody here uses it",
    ),
    // Changed bytes.
    ("t-empty-payload", No, No, "truncated", ""),
    ("t-header", No, No, "header-digest", ""),
    ("t-header-fixdigests", No, No, "signature-wrong", ""),
    ("t-payload", No, No, "payload-wrong", ""),
    ("t-payload-fixmd5", No, No, "payload-wrong", ""),
    ("t-payload-nomd5nosize", No, No, "payload-wrong", ""),
    ("t-payload-fixall", No, Unknown, "signature-wrong", ""),
    ("t-trailing", No, No, "trailing-bytes", ""),
    ("t-truncated", No, No, "truncated", ""),
    // Packages that are signed well, and are no template or another one.
    ("ordinary", Ok, Unknown, "not-a-template", "not a question of signatures"),
    ("other-template", Ok, Unknown, "file-outside", "its files belong to another template than its name"),
    ("source", No, Unknown, "source-package", ""),
    ("p-arch", Ok, Unknown, "architecture", "templates are noarch"),
    ("p-nosource", Ok, Unknown, "source-package", "what names no source is a source package"),
    ("p-source-tag", Ok, Unknown, "source-package", "as above"),
    ("p-name-of-no-qube", Ok, Unknown, "template-name", "no qube can have this name"),
];
