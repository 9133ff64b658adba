//! How a template came to be what it is, told by evidence alone.
//!
//! The features that every tool writes say which build was installed, and not by whom. So beside them we write one of our own,
//! [`RECORD`], which repeats what they say: where another tool installs another build over ours, it is stale and counts for
//! nothing. It also has the qube's name for ever and the system that announced itself at the first start, where these are known:
//! a restored qube has another one, and a system that was upgraded inside announces another version.
//!
//! ```text
//! install fedora-43-xfce 0:4.3.0-202511210000 2025-11-21T10:00:00 uuid=... os=fedora/43
//! ```

use super::installed::MARKER;
use super::{Evr, Timestamp};
use crate::untrusted::displayable;

/// The feature with our record.
pub const RECORD: &str = "qvm-template-record";
/// The features in which a running template names its system.
pub const SYSTEM: [&str; 2] = ["os-distribution", "os-version"];

/// What we wrote down about an installation of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whether we installed it, or took over what was there.
    pub adopted: bool,
    /// Name of the template in its package.
    pub package: String,
    /// The build, as `epoch:version-release`.
    pub evr: String,
    /// When it was installed.
    pub time: Timestamp,
    /// The qube's name for ever, where dom0 tells it.
    pub uuid: Option<String>,
    /// The system that announced itself, as `distribution/version`.
    pub os: Option<String>,
}

/// How a template came to be what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Provenance {
    /// Installed by this tool, and nothing speaks against its being so still.
    Installed,
    /// Taken under management by this tool.
    Adopted,
    /// Installed by another tool.
    OtherTool,
    /// Its features are those of another qube: a clone, or a copy under another name.
    Clone {
        /// That one's name.
        of: String,
    },
    /// Installed by this tool, in a qube that was since made anew: restored from a backup.
    Restored,
    /// Installed by this tool, and another system has announced itself since.
    UpgradedInPlace {
        /// What announced itself after the installation.
        from: String,
        /// What did last.
        to: String,
    },
    /// Installed by rpm in dom0.
    Rpm,
    /// Managed, but which build it is was never written down in full.
    Half,
    /// Nothing tells.
    Unknown,
}

impl Record {
    /// The feature's value.
    #[must_use]
    pub fn to_feature(&self) -> String {
        let how = if self.adopted { "adopt" } else { "install" };
        let time = self.time.to_string().replace(' ', "T");
        let mut text = format!("{how} {} {} {time}", self.package, self.evr);
        for (key, value) in [("uuid", &self.uuid), ("os", &self.os)] {
            if let Some(value) = value {
                text.push_str(&format!(" {key}={value}"));
            }
        }
        text
    }

    /// Reads the feature's value; `None` when it is none of ours.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let adopted = match words.next()? {
            "install" => false,
            "adopt" => true,
            _ => return None,
        };
        let (package, evr) = (words.next()?.to_owned(), words.next()?.to_owned());
        let time = Timestamp::parse(&words.next()?.replace('T', " "))?;
        let mut own = Self { adopted, package, evr, time, uuid: None, os: None };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            match key {
                "uuid" => own.uuid = Some(value.to_owned()),
                "os" => own.os = Some(value.to_owned()),
                _ => {}
            }
        }
        Some(own)
    }
}

/// The system that the features name, as `distribution/version`; `None` where they do not, or not in one word each.
#[must_use]
pub fn system(get: impl Fn(&str) -> Option<String>) -> Option<String> {
    let word = |feature: &str| {
        get(feature)
            .filter(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && b != b'/'))
    };
    Some(format!("{}/{}", word(SYSTEM[0])?, word(SYSTEM[1])?))
}

impl Provenance {
    /// Judges the template `qube` by its features, by its name for ever, and by whether rpm installed it.
    #[must_use]
    pub fn judge(qube: &str, uuid: Option<&str>, by_rpm: bool, get: impl Fn(&str) -> Option<String>) -> Self {
        match get(MARKER).filter(|name| !name.is_empty()) {
            None if by_rpm => return Self::Rpm,
            None => return Self::Unknown,
            Some(name) if name != qube => return Self::Clone { of: displayable(&name, false) },
            Some(_) => {}
        }
        let value = |feature: &str| get(feature).unwrap_or_default();
        let parts = ["template-epoch", "template-version", "template-release"].map(value);
        let Ok(evr) = Evr::new(&parts[0], &parts[1], &parts[2]) else { return Self::Half };
        let time = Timestamp::parse(&value("template-installtime"));
        let record = get(RECORD).and_then(|text| Record::parse(&text));
        let Some(record) = record.filter(|r| r.evr == evr.to_string() && Some(r.time) == time) else {
            return Self::OtherTool;
        };
        let differs =
            |then: &Option<String>, now: Option<&str>| then.as_deref().zip(now).is_some_and(|(a, b)| a != b);
        if differs(&record.uuid, uuid) {
            return Self::Restored;
        }
        let now = system(get);
        match (&record.os, &now) {
            (Some(from), Some(to)) if from != to => {
                Self::UpgradedInPlace { from: displayable(from, false), to: displayable(to, false) }
            }
            _ if record.adopted => Self::Adopted,
            _ => Self::Installed,
        }
    }

    /// The word for it in our JSON.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Installed => "installed",
            Self::Adopted => "adopted",
            Self::OtherTool => "other-tool",
            Self::Clone { .. } => "clone",
            Self::Restored => "restored",
            Self::UpgradedInPlace { .. } => "upgraded-in-place",
            Self::Rpm => "rpm",
            Self::Half => "half-described",
            Self::Unknown => "unknown",
        }
    }

    /// A few words for people; none where all is as it should be.
    #[must_use]
    pub fn mark(&self) -> Option<String> {
        Some(match self {
            Self::Installed => return None,
            Self::Adopted => "adopted".to_owned(),
            Self::OtherTool => "by another tool".to_owned(),
            Self::Clone { of } => format!("clone of {of}"),
            Self::Restored => "restored".to_owned(),
            Self::UpgradedInPlace { from, to } => format!("upgraded in place, {from} to {to}"),
            Self::Rpm => "by rpm".to_owned(),
            Self::Half => "half described".to_owned(),
            Self::Unknown => "not managed".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: &str = "2025-11-21 10:00:00";

    fn record() -> Record {
        Record {
            adopted: false,
            package: "t".to_owned(),
            evr: "0:1-2".to_owned(),
            time: Timestamp::parse(TIME).unwrap(),
            uuid: Some("u-1".to_owned()),
            os: Some("fedora/43".to_owned()),
        }
    }

    fn judged(uuid: Option<&str>, by_rpm: bool, more: &[(&str, &str)]) -> Provenance {
        let base = [
            (MARKER, "t"),
            ("template-epoch", "0"),
            ("template-version", "1"),
            ("template-release", "2"),
            ("template-installtime", TIME),
        ];
        let find = |all: &[(&str, &str)], wanted: &str| {
            all.iter().rev().find(|(name, _)| *name == wanted).map(|(_, value)| (*value).to_owned())
        };
        Provenance::judge("t", uuid, by_rpm, |wanted| {
            find(more, wanted).or_else(|| find(&base, wanted)).filter(|value| value != "-")
        })
    }

    #[test]
    fn records_go_there_and_back() {
        let whole = record();
        assert_eq!(whole.to_feature(), "install t 0:1-2 2025-11-21T10:00:00 uuid=u-1 os=fedora/43");
        assert_eq!(Record::parse(&whole.to_feature()), Some(whole.clone()));
        let bare = Record { adopted: true, uuid: None, os: None, ..whole };
        assert_eq!(Record::parse(&bare.to_feature()), Some(bare.clone()));
        assert_eq!(Record::parse(&format!("{} later=x y", bare.to_feature())), Some(bare));
        for bad in [
            "",
            "install",
            "install t 0:1-2",
            "install t 0:1-2 yesterday",
            "made t 0:1-2 2025-11-21T10:00:00",
        ] {
            assert_eq!(Record::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn evidence_decides() {
        let ours = record().to_feature();
        let ours = (RECORD, ours.as_str());
        assert_eq!(judged(Some("u-1"), false, &[ours]), Provenance::Installed);
        assert_eq!(judged(None, false, &[ours]), Provenance::Installed);
        assert_eq!(judged(Some("u-2"), false, &[ours]), Provenance::Restored);
        let upgraded = [ours, (SYSTEM[0], "fedora"), (SYSTEM[1], "44")];
        assert_eq!(
            judged(None, false, &upgraded),
            Provenance::UpgradedInPlace { from: "fedora/43".to_owned(), to: "fedora/44".to_owned() }
        );
        assert_eq!(judged(None, false, &[ours, (SYSTEM[0], "fedora")]), Provenance::Installed);
        let adopted = Record { adopted: true, ..record() }.to_feature();
        assert_eq!(judged(None, false, &[(RECORD, &adopted)]), Provenance::Adopted);
    }

    #[test]
    fn a_stale_record_counts_for_nothing() {
        let ours = record().to_feature();
        let ours = (RECORD, ours.as_str());
        for change in [("template-version", "2"), ("template-installtime", "2025-11-22 10:00:00")] {
            assert_eq!(judged(None, false, &[ours, change]), Provenance::OtherTool, "{change:?}");
        }
        assert_eq!(judged(None, false, &[(RECORD, "rubbish")]), Provenance::OtherTool);
        assert_eq!(judged(None, false, &[]), Provenance::OtherTool);
    }

    #[test]
    fn what_is_not_managed_is_told_apart() {
        let ours = record().to_feature();
        let ours = (RECORD, ours.as_str());
        assert_eq!(
            judged(None, false, &[ours, (MARKER, "o\u{1b}")]),
            Provenance::Clone { of: "o_".to_owned() }
        );
        assert_eq!(judged(None, false, &[ours, (MARKER, "-")]), Provenance::Unknown);
        assert_eq!(judged(None, true, &[(MARKER, "-")]), Provenance::Rpm);
        assert_eq!(judged(None, true, &[ours]), Provenance::Installed);
        assert_eq!(judged(None, false, &[ours, ("template-version", "-")]), Provenance::Half);
    }
}
