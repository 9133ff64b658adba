//! Numbers of the tags that are read, as rpm's `rpmtag.h` has them. The two headers number apart from each other.

pub(super) const NAME: u32 = 1000;
pub(super) const VERSION: u32 = 1001;
pub(super) const RELEASE: u32 = 1002;
pub(super) const EPOCH: u32 = 1003;
pub(super) const SUMMARY: u32 = 1004;
pub(super) const DESCRIPTION: u32 = 1005;
pub(super) const BUILD_TIME: u32 = 1006;
pub(super) const LICENSE: u32 = 1014;
pub(super) const URL: u32 = 1020;
pub(super) const ARCH: u32 = 1022;
pub(super) const OLD_FILE_NAMES: u32 = 1027;
pub(super) const FILE_SIZES: u32 = 1028;
pub(super) const FILE_MODES: u32 = 1030;
pub(super) const FILE_FLAGS: u32 = 1037;
pub(super) const SOURCE_RPM: u32 = 1044;
pub(super) const SOURCE_PACKAGE: u32 = 1106;
pub(super) const DIR_INDEXES: u32 = 1116;
pub(super) const BASE_NAMES: u32 = 1117;
pub(super) const DIR_NAMES: u32 = 1118;
pub(super) const PAYLOAD_FORMAT: u32 = 1124;
pub(super) const COMPRESSOR: u32 = 1125;
pub(super) const LONG_FILE_SIZES: u32 = 5008;
pub(super) const PAYLOAD_DIGEST: u32 = 5092;
pub(super) const PAYLOAD_DIGEST_ALGORITHM: u32 = 5093;

/// Those of the signature header.
pub(super) mod signature {
    /// Over the header: by any algorithm but RSA, and by RSA.
    pub(crate) const OTHER: u32 = 267;
    pub(crate) const RSA: u32 = 268;
    pub(crate) const SHA1: u32 = 269;
    pub(crate) const LONG_SIZE: u32 = 270;
    pub(crate) const SHA256: u32 = 273;
    /// The list of signatures of rpm 6, in base64.
    pub(crate) const LIST: u32 = 278;
    /// Space that rpm leaves for later signatures: rpm 6, and older ones.
    pub(crate) const RESERVED: [u32; 2] = [999, 1008];
    pub(crate) const SIZE: u32 = 1000;
    /// Over header and payload, as older rpm wrote it: RSA, and any other algorithm.
    pub(crate) const OVER_BOTH: [u32; 2] = [1002, 1005];
    pub(crate) const MD5: u32 = 1004;
}
