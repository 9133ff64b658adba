use std::io;

use crate::untrusted::displayable;

/// Why a package was refused: one cause, one variant, one message, one next step.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// The first bytes are not those of an RPM package.
    #[error("this is not an RPM package")]
    NotAPackage,
    /// The file ends inside of a part, or before the size that the package itself names.
    #[error("the package is cut off: it ends inside {0}")]
    Truncated(&'static str),
    /// Bytes follow where the package should end.
    #[error("{0} bytes follow after the end of the package")]
    TrailingBytes(u64),
    /// The lead is not what rpm writes.
    #[error("the lead of the package is malformed: {0}")]
    Lead(&'static str),
    /// A header is not what rpm writes.
    #[error("the {0} of the package is malformed: {1}")]
    Header(Section, &'static str),
    /// A header is larger than any template needs.
    #[error("the {0} of the package has too many {1}")]
    HeaderTooLarge(Section, &'static str),
    /// A tag in the signature header that rpm does not write.
    #[error("the signature header holds the unexpected tag {0}")]
    SignatureTag(u32),
    /// No signature at all.
    #[error("the package is not signed")]
    Unsigned,
    /// Only a signature over header and payload together, which would have to be opened to be checked.
    #[error("the package has no signature over its header, only one of an obsolete kind")]
    ObsoleteSignature,
    /// More than one signature over the header.
    #[error("the package has more than one signature")]
    SeveralSignatures,
    /// The signature packet is malformed or has parts that a package signature does not have.
    #[error("the signature is malformed: {0}")]
    SignatureMalformed(&'static str),
    /// The signature is of another kind than of a binary document.
    #[error("the signature is of kind 0x{0:02x}, not of a binary document")]
    SignatureKind(u8),
    /// A hash algorithm that is not allowed.
    #[error("the signature uses {0}, which is not allowed")]
    WeakHash(&'static str),
    /// The key that signed is of a kind or size that is not allowed.
    #[error("the signing key {0} is too weak: {rules} is needed", rules = super::policy::KEY_RULES)]
    WeakKey(String),
    /// No certificate of the keyring has the key that is named as the signer.
    #[error("signed by key {0}, which is not among the keys of this repository")]
    UnknownSigner(String),
    /// The keyring holds no certificate at all.
    #[error("there is no certificate to check the signature with")]
    EmptyKeyring,
    /// The certificate, or the key in it that signed, was revoked.
    #[error("the signing key {0} was revoked")]
    Revoked(String),
    /// The certificate, or the key in it that signed, has expired.
    #[error("the signing key {0} expired on {1}")]
    KeyExpired(String, crate::template::Timestamp),
    /// The signature is older than the key that made it.
    #[error("the signature is older than the signing key {0}")]
    KeyNotYetValid(String),
    /// The key is not flagged for signing.
    #[error("the key {0} is not meant for signing")]
    NotForSigning(String),
    /// The key is not bound to its certificate by a valid self-signature with a strong hash.
    #[error("the key {0} is not properly bound to its certificate")]
    NotBound(String),
    /// The signature is dated in the future.
    #[error("the signature is dated in the future ({0}); is this clock right?")]
    FromTheFuture(crate::template::Timestamp),
    /// The signature has expired.
    #[error("the signature expired on {0}")]
    SignatureExpired(crate::template::Timestamp),
    /// The signature does not fit the header.
    #[error("the signature is wrong: the package was changed after it was signed")]
    SignatureWrong,
    /// A digest of the header is wrong.
    #[error("the {0} digest of the header is wrong: the package is damaged")]
    HeaderDigest(&'static str),
    /// No digest of the header.
    #[error("the package has no digest of its header")]
    NoHeaderDigest,
    /// The signed header has no digest of the payload.
    #[error("the signed header names no digest of the payload")]
    NoPayloadDigest,
    /// The digest of the payload is of another kind than SHA-256.
    #[error("the payload digest is of kind {0}; only SHA-256 (8) is taken")]
    PayloadDigestKind(u32),
    /// The payload is not the one that was signed.
    #[error("the payload is not the one that was signed: the package is damaged or was changed")]
    PayloadWrong,
    /// A value of older rpm versions is there and wrong.
    #[error("the {0} in the signature header is wrong: the package is damaged or was changed")]
    OlderValue(&'static str),
    /// A source package.
    #[error("this is a source package")]
    SourcePackage,
    /// Not a package of a template.
    #[error("the package {name} is not a template", name = displayable(.0, false))]
    NotATemplate(String),
    /// The name after the prefix cannot be the name of a qube.
    #[error("the package {name} has no usable template name: {1}", name = displayable(.0, false))]
    TemplateName(String, crate::template::NameError),
    /// Another architecture than `noarch`.
    #[error("the package is for {arch}, a template is noarch", arch = displayable(.0, false))]
    Architecture(String),
    /// A field of the header that a template needs is missing or not usable.
    #[error("the package's {0} is missing or not usable")]
    Field(&'static str),
    /// Not the template that was asked for.
    #[error("got the template {found} in place of {wanted}")]
    OtherTemplate {
        /// The name in the package.
        found: String,
        /// The name that was asked for.
        wanted: String,
    },
    /// Not the build that was asked for.
    #[error("got the build {found} in place of {wanted}")]
    OtherBuild {
        /// The build in the package.
        found: String,
        /// The build that was asked for.
        wanted: String,
    },
    /// The package wants to put something outside of the template's directory.
    #[error("the package has a file outside of its template's directory: {path}", path = displayable(.0, false))]
    FileOutside(String),
    /// A path with `..`, an empty part or characters that no path of a template has.
    #[error("the package has a file with a malformed path: {path}", path = displayable(.0, false))]
    FilePath(String),
    /// A file twice.
    #[error("the package has the file {path} twice", path = displayable(.0, false))]
    FileTwice(String),
    /// A link, a device or another thing that is neither a directory nor a regular file.
    #[error("the package has {path}, which is neither a file nor a directory", path = displayable(.0, false))]
    FileKind(String),
    /// The list of files is malformed or too long.
    #[error("the package's list of files is malformed: {0}")]
    FileList(&'static str),
    /// The payload is compressed in a way that is not read.
    #[error("the payload is compressed with {name}; zstd, xz and gzip can be read", name = displayable(.0, false))]
    Compressor(String),
    /// The compressed stream is damaged.
    #[error("the payload cannot be decompressed: {0}")]
    Compression(String),
    /// The decoder would need more memory than is allowed.
    #[error("the payload needs more memory to decompress than is allowed")]
    Window,
    /// Bytes follow after the end of the compressed stream or of an archive.
    #[error("bytes follow after the end of {0}")]
    TrailingData(&'static str),
    /// The archive of the payload is malformed.
    #[error("the archive in the payload is malformed: {0}")]
    Archive(&'static str),
    /// The archive and the signed list of files do not agree.
    #[error("the archive does not fit the package's list of files at {path}: {1}", path = displayable(.0, false))]
    ArchiveEntry(String, &'static str),
    /// No root image.
    #[error("the package has no root image")]
    NoRootImage,
    /// Parts of the root image are missing, or in another order than they were cut.
    #[error("the parts of the root image are not complete and in order: {0}")]
    Parts(&'static str),
    /// A second root image.
    #[error("the package has more than one root image")]
    SecondImage,
    /// The tar archive around the image is malformed.
    #[error("the tar archive of the root image is malformed: {0}")]
    Tar(&'static str),
    /// A tar format that would yield something else than the image.
    #[error("the root image is in a tar format that is not supported ({0})")]
    TarFormat(&'static str),
    /// The map of a sparse image is malformed.
    #[error("the sparse map of the root image is malformed: {0}")]
    SparseMap(&'static str),
    /// The image has no byte, which dom0 would take for success.
    #[error("the root image is empty")]
    EmptyImage,
    /// The image is larger than allowed.
    #[error("the root image has {size} bytes, at most {limit} are allowed")]
    ImageTooLarge {
        /// Bytes that the image would have.
        size: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// A file for dom0 is larger than any of its kind.
    #[error("{0} in the package is too large")]
    TemplateFile(&'static str),
    /// The bytes on disk are not any more those that were verified.
    #[error("the package changed on disk after it was verified")]
    ChangedOnDisk,
    /// The package could not be read.
    #[error("the package cannot be read: {0}")]
    Read(#[from] io::Error),
}

/// One of the two headers of a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// The header with signatures and digests; itself not signed.
    Signature,
    /// The header that is signed.
    Header,
}

impl std::fmt::Display for Section {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Signature => "signature header",
            Self::Header => "header",
        })
    }
}

impl Rejection {
    /// A name for machines that does not change when the message does.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotAPackage => "not-a-package",
            Self::Truncated(_) => "truncated",
            Self::TrailingBytes(_) => "trailing-bytes",
            Self::Lead(_) => "lead",
            Self::Header(Section::Signature, _) => "signature-header",
            Self::Header(Section::Header, _) => "header",
            Self::HeaderTooLarge(..) => "header-too-large",
            Self::SignatureTag(_) => "signature-tag",
            Self::Unsigned => "unsigned",
            Self::ObsoleteSignature => "obsolete-signature",
            Self::SeveralSignatures => "several-signatures",
            Self::SignatureMalformed(_) => "signature-malformed",
            Self::SignatureKind(_) => "signature-kind",
            Self::WeakHash(_) => "weak-hash",
            Self::WeakKey(_) => "weak-key",
            Self::UnknownSigner(_) => "unknown-signer",
            Self::EmptyKeyring => "empty-keyring",
            Self::Revoked(_) => "revoked",
            Self::KeyExpired(..) => "key-expired",
            Self::KeyNotYetValid(_) => "key-not-yet-valid",
            Self::NotForSigning(_) => "not-for-signing",
            Self::NotBound(_) => "not-bound",
            Self::FromTheFuture(_) => "from-the-future",
            Self::SignatureExpired(_) => "signature-expired",
            Self::SignatureWrong => "signature-wrong",
            Self::HeaderDigest(_) => "header-digest",
            Self::NoHeaderDigest => "no-header-digest",
            Self::NoPayloadDigest => "no-payload-digest",
            Self::PayloadDigestKind(_) => "payload-digest-kind",
            Self::PayloadWrong => "payload-wrong",
            Self::OlderValue(_) => "older-value",
            Self::SourcePackage => "source-package",
            Self::NotATemplate(_) => "not-a-template",
            Self::TemplateName(..) => "template-name",
            Self::Architecture(_) => "architecture",
            Self::Field(_) => "field",
            Self::OtherTemplate { .. } => "other-template",
            Self::OtherBuild { .. } => "other-build",
            Self::FileOutside(_) => "file-outside",
            Self::FilePath(_) => "file-path",
            Self::FileTwice(_) => "file-twice",
            Self::FileKind(_) => "file-kind",
            Self::FileList(_) => "file-list",
            Self::Compressor(_) => "compressor",
            Self::Compression(_) => "compression",
            Self::Window => "window",
            Self::TrailingData(_) => "trailing-data",
            Self::Archive(_) => "archive",
            Self::ArchiveEntry(..) => "archive-entry",
            Self::NoRootImage => "no-root-image",
            Self::Parts(_) => "parts",
            Self::SecondImage => "second-image",
            Self::Tar(_) => "tar",
            Self::TarFormat(_) => "tar-format",
            Self::SparseMap(_) => "sparse-map",
            Self::EmptyImage => "empty-image",
            Self::ImageTooLarge { .. } => "image-too-large",
            Self::TemplateFile(_) => "template-file",
            Self::ChangedOnDisk => "changed-on-disk",
            Self::Read(_) => "read",
        }
    }

    /// What to do next, as one sentence for a `help:` line.
    #[must_use]
    pub fn help(&self) -> &'static str {
        match self {
            Self::Truncated(_) | Self::HeaderDigest(_) | Self::PayloadWrong | Self::OlderValue(_) => {
                "download it again; if that does not help, the mirror has a damaged file"
            }
            Self::UnknownSigner(_) | Self::EmptyKeyring => {
                "check `gpgkey` of the repository, or give the right key with --keyring"
            }
            Self::Unsigned | Self::ObsoleteSignature => {
                "use a signed package; a local file that you trust can be installed with --nogpgcheck"
            }
            Self::Revoked(_) | Self::KeyExpired(..) | Self::NotBound(_) | Self::NotForSigning(_) => {
                "update the package that brings the repository's keys"
            }
            Self::FromTheFuture(_) => "check the clock of this qube",
            Self::OtherTemplate { .. } | Self::OtherBuild { .. } => {
                "the UpdateVM or a mirror sent something else; try again or use another UpdateVM"
            }
            Self::ImageTooLarge { .. } => "raise the limit if you trust the repository with that much space",
            Self::ChangedOnDisk => {
                "somebody changes files of this qube while they are read; the volume was left alone"
            }
            Self::Read(_) => "check the disk of this qube",
            _ => "report this to whoever built the package; nothing was changed",
        }
    }
}
