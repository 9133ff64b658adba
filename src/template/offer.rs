use std::fmt;

use super::Evr;

/// Identifier of a repository: the section name in a `.repo` file, or `@commandline` for a local file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepoId(String);

impl RepoId {
    /// What stands in the place of a repository for a package given as a local file.
    pub const COMMAND_LINE: &'static str = "@commandline";

    /// Checks the characters that dnf allows in the name of a repository, with `@commandline` beside them.
    #[must_use]
    pub fn new(id: &str) -> Option<Self> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._+:-".contains(&b);
        let named = !id.is_empty() && id.len() <= 256 && !id.starts_with('-') && id.bytes().all(plain);
        (named || id == Self::COMMAND_LINE).then(|| Self(id.to_owned()))
    }

    /// The repository of local files.
    #[must_use]
    pub fn command_line() -> Self {
        Self(Self::COMMAND_LINE.to_owned())
    }

    /// The identifier as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether rule R23 puts this repository after others at equal builds.
    #[must_use]
    pub fn is_testing(&self) -> bool {
        self.0.contains("testing")
    }
}

impl fmt::Display for RepoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A moment in UTC, in whole seconds since 1970. Shown as `YYYY-MM-DD HH:MM:SS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Reads `YYYY-MM-DD HH:MM[:SS]`; month, day and hour may have one digit.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        ["%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M"]
            .iter()
            .find_map(|form| jiff::civil::DateTime::strptime(form, text).ok())
            .and_then(|civil| civil.to_zoned(jiff::tz::TimeZone::UTC).ok())
            .map(|zoned| Self(zoned.timestamp().as_second()))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = jiff::Timestamp::from_second(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        write!(f, "{}", moment.strftime("%Y-%m-%d %H:%M:%S"))
    }
}

/// A template that a repository says it has. Every field comes from the UpdateVM and is untrusted in what it
/// claims; the texts are bounded and free of control characters once the search reply was parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Name of the template: the package's name without its prefix. Not yet known to suit a qube.
    pub name: String,
    /// Build.
    pub evr: Evr,
    /// Repository that the UpdateVM names.
    pub repo: RepoId,
    /// Size of the package, in bytes.
    pub download_size: u64,
    /// When the package was built.
    pub build_time: Timestamp,
    /// Licence text.
    pub license: String,
    /// Address of the project; empty where the package has none.
    pub url: String,
    /// One line about the template.
    pub summary: String,
    /// Longer text; may hold line feeds.
    pub description: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_go_there_and_back() {
        let moment = Timestamp::parse("2023-11-20 22:26").unwrap();
        assert_eq!(moment, Timestamp(1_700_519_160));
        assert_eq!(moment.to_string(), "2023-11-20 22:26:00");
        assert_eq!(Timestamp::parse(&moment.to_string()), Some(moment));
        assert_eq!(Timestamp::parse("2023-1-2 3:04").unwrap().to_string(), "2023-01-02 03:04:00");
        for bad in ["", "2023-11-20", "2023-02-30 10:00", "tomorrow", "2023-11-20 22:26:00 x"] {
            assert_eq!(Timestamp::parse(bad), None, "{bad:?}");
        }
    }
}
