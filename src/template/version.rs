use std::cmp::Ordering;
use std::fmt;

use rpm_version::rpm_evr_compare;

/// Epoch, version and release of a build. Ordered as rpm orders package labels; texts that rpm calls equal though they
/// differ (`1.0` and `1..0`) are ordered as texts, so that equality means the same text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Evr {
    epoch: u32,
    version: String,
    release: String,
}

/// Name, epoch, version, release and architecture of a package.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Nevra {
    /// Name of the package, with its prefix.
    pub name: String,
    /// Build.
    pub evr: Evr,
    /// Architecture; templates are `noarch`.
    pub arch: String,
}

/// Why three texts are not an epoch, a version and a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvrError {
    /// The epoch is not a decimal number below 2^32.
    #[error("the epoch is not a number")]
    Epoch,
    /// A version or release is empty, or has a character that rpm does not know.
    #[error("the version or release is not one of an RPM package")]
    Character,
    /// Longer than [`Evr::MAX_LEN`].
    #[error("the version or release is too long")]
    TooLong,
}

impl Evr {
    /// Longest version or release accepted, in bytes. Qubes' own stay under 20.
    pub const MAX_LEN: usize = 128;

    /// Checks the three parts. An empty epoch, or the word `None` that old tools wrote, counts as 0.
    ///
    /// # Errors
    /// The first part that is not what rpm would accept.
    pub fn new(epoch: &str, version: &str, release: &str) -> Result<Self, EvrError> {
        let epoch = match epoch {
            "" | "None" | "(none)" => 0,
            digits if digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().map_err(|_| EvrError::Epoch)?
            }
            _ => return Err(EvrError::Epoch),
        };
        for part in [version, release] {
            if part.len() > Self::MAX_LEN {
                return Err(EvrError::TooLong);
            }
            if part.is_empty() || !part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._+~^".contains(&b)) {
                return Err(EvrError::Character);
            }
        }
        Ok(Self { epoch, version: version.to_owned(), release: release.to_owned() })
    }

    /// Epoch; 0 where the package names none.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Version.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Release.
    #[must_use]
    pub fn release(&self) -> &str {
        &self.release
    }
}

impl fmt::Display for Evr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}-{}", self.epoch, self.version, self.release)
    }
}

impl Ord for Evr {
    fn cmp(&self, other: &Self) -> Ordering {
        self.epoch
            .cmp(&other.epoch)
            .then_with(|| rpm_evr_compare(&self.version, &other.version))
            .then_with(|| rpm_evr_compare(&self.release, &other.release))
            .then_with(|| (&self.version, &self.release).cmp(&(&other.version, &other.release)))
    }
}

impl PartialOrd for Evr {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Nevra {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}.{}", self.name, self.evr, self.arch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evr(epoch: &str, version: &str, release: &str) -> Evr {
        Evr::new(epoch, version, release).unwrap()
    }

    #[test]
    fn orders_as_rpm_does() {
        let rising = [evr("0", "5.0~beta2", "1"), evr("", "5.0", "1"), evr("0", "5.0^git1", "1")];
        assert!(rising[0] < rising[1]);
        assert!(rising[1] < rising[2]);
        assert!(evr("0", "1.9", "1") < evr("0", "1.10", "1"));
        assert!(evr("0", "1.10", "1") < evr("2", "1.2", "7"));
        assert!(evr("0", "4.3.0", "202509011200") < evr("0", "4.3.0", "202511051200"));
    }

    #[test]
    fn refuses_what_is_no_label() {
        assert_eq!(Evr::new("x", "1", "1").unwrap_err(), EvrError::Epoch);
        assert_eq!(Evr::new("99999999999", "1", "1").unwrap_err(), EvrError::Epoch);
        for (v, r) in [("", "1"), ("1", ""), ("1-2", "1"), ("1 ", "1"), ("1", "a|b"), ("ü", "1")] {
            assert_eq!(Evr::new("0", v, r).unwrap_err(), EvrError::Character, "{v:?} {r:?}");
        }
        assert_eq!(evr("None", "1", "1").epoch(), 0);
    }
}
