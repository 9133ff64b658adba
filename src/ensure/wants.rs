//! What is asked of a template, and whether a build is that.

use std::cmp::Ordering;
use std::fmt;

use crate::template::{Evr, Timestamp};

const DAY: i64 = 24 * 60 * 60;

/// A build as it is typed: `[EPOCH:]VERSION[-RELEASE]`. What is left out may be anything where a build is to be equal, and
/// where it is a bound an epoch that is left out is 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    text: String,
    epoch: Option<u32>,
    version: String,
    release: Option<String>,
}

/// What is asked of a build; what is `None` or false does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// It is this one.
    pub build: Option<Bound>,
    /// It is this one or newer.
    pub min_build: Option<Bound>,
    /// It was built so many days ago at most.
    pub max_age: Option<u32>,
    /// It comes from this repository.
    pub from: Option<String>,
    /// The certificate with this fingerprint signed it: hexadecimal digits.
    pub signer: Option<String>,
}

/// What is known of a build.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The build; none where nobody knows.
    pub evr: Option<Evr>,
    /// Repository that it comes from.
    pub repo: String,
    /// When it was built.
    pub built: Option<Timestamp>,
    /// Fingerprint of what signed it.
    pub signer: Option<String>,
}

impl Bound {
    /// Reads what was typed.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (epoch, rest) = match text.split_once(':') {
            Some((epoch, rest)) if epoch.bytes().all(|b| b.is_ascii_digit()) && !epoch.is_empty() => {
                (Some(epoch), rest)
            }
            Some(_) => return None,
            None => (None, text),
        };
        let (version, release) = match rest.rsplit_once('-') {
            Some((version, release)) => (version, Some(release)),
            None => (rest, None),
        };
        // The rules for the parts of a build are those of `Evr`.
        let evr = Evr::new(epoch.unwrap_or("0"), version, release.unwrap_or("0")).ok()?;
        Some(Self {
            text: text.to_owned(),
            epoch: epoch.map(|_| evr.epoch()),
            version: evr.version().to_owned(),
            release: release.map(|_| evr.release().to_owned()),
        })
    }

    /// Whether `evr` is this build.
    #[must_use]
    pub fn is(&self, evr: &Evr) -> bool {
        self.epoch.is_none_or(|epoch| epoch == evr.epoch()) && self.parts_of(evr) == Ordering::Equal
    }

    /// Whether `evr` is this build or a newer one.
    #[must_use]
    pub fn is_reached_by(&self, evr: &Evr) -> bool {
        let epoch = evr.epoch().cmp(&self.epoch.unwrap_or(0));
        epoch.then_with(|| self.parts_of(evr)) != Ordering::Less
    }

    /// Version and release of `evr` against these; a release that was left out is equal to any.
    fn parts_of(&self, evr: &Evr) -> Ordering {
        let release = self.release.as_deref().unwrap_or_else(|| evr.release());
        let parts = |version: &str, release: &str| Evr::new("0", version, release).ok();
        parts(evr.version(), evr.release()).cmp(&parts(&self.version, release))
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Wants {
    /// What of this a build is not, as ends of a sentence that begins with the template's name; none when it is all of it.
    #[must_use]
    pub fn lacking(&self, build: &Known, now: Timestamp) -> Vec<String> {
        let mut lacking = Vec::new();
        let is = build.evr.as_ref().map_or_else(|| "unknown".to_owned(), Evr::to_string);
        if let Some(wanted) = &self.build
            && !build.evr.as_ref().is_some_and(|evr| wanted.is(evr))
        {
            lacking.push(format!("is of build {is}, not {wanted}"));
        }
        if let Some(least) = &self.min_build
            && !build.evr.as_ref().is_some_and(|evr| least.is_reached_by(evr))
        {
            lacking.push(format!("is of build {is}, older than {least}"));
        }
        if let Some(days) = self.max_age {
            match build.built.map(|built| now.0.saturating_sub(built.0) / DAY) {
                Some(age) if age <= i64::from(days) => {}
                Some(age) => lacking.push(format!("was built {age} days ago, more than {days}")),
                None => lacking
                    .push(format!("does not say when it was built, which is to be {days} days ago at most")),
            }
        }
        if let Some(repo) = &self.from
            && build.repo != *repo
        {
            let is = if build.repo.is_empty() { "an unknown repository" } else { &build.repo };
            lacking.push(format!("comes from {is}, not {repo}"));
        }
        lacking.extend(self.other_signer(build.signer.as_deref()));
        lacking
    }

    /// The same of its signer alone.
    #[must_use]
    pub fn other_signer(&self, signer: Option<&str>) -> Option<String> {
        let wanted = self.signer.as_deref()?;
        match signer {
            Some(signer) if signer.eq_ignore_ascii_case(wanted) => None,
            Some(signer) => Some(format!("is signed by {signer}, not {wanted}")),
            None => Some(format!("has no record of who signed it, which is to be {wanted}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evr(text: &str) -> Evr {
        let (epoch, rest) = text.split_once(':').unwrap();
        let (version, release) = rest.split_once('-').unwrap();
        Evr::new(epoch, version, release).unwrap()
    }

    #[test]
    fn an_equal_build_is_equal_in_what_was_typed() {
        for (typed, build, equal) in [
            ("4.3.0", "0:4.3.0-202601010000", true),
            ("4.3.0", "2:4.3.0-1", true),
            ("4.3.0-1", "0:4.3.0-1", true),
            ("4.3.0-1", "0:4.3.0-2", false),
            ("0:4.3.0-1", "1:4.3.0-1", false),
            ("4.3", "0:4.3.0-1", false),
        ] {
            assert_eq!(Bound::parse(typed).unwrap().is(&evr(build)), equal, "{typed} {build}");
        }
    }

    #[test]
    fn a_bound_is_reached_by_what_rpm_holds_newer() {
        for (typed, build, reached) in [
            ("4.3.0", "0:4.3.0-0", true),
            ("4.3.0-2", "0:4.3.0-10", true),
            ("4.3.0-2", "0:4.3.0-1", false),
            ("4.10.0", "0:4.9.0-1", false),
            ("4.3.0~rc1", "0:4.3.0-1", true),
            ("4.3.0", "0:4.3.0~rc1-1", false),
            ("1:1.0", "0:9-1", false),
            ("9", "1:1.0-1", true),
        ] {
            assert_eq!(Bound::parse(typed).unwrap().is_reached_by(&evr(build)), reached, "{typed} {build}");
        }
    }

    #[test]
    fn what_is_no_build_is_refused() {
        for text in ["", "-1", "1-", "x:1", "1 2", "1-2\n", "a/b", ":1", "None:1"] {
            assert_eq!(Bound::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn what_is_lacking_is_said() {
        let now = Timestamp(1_000 * DAY);
        let build = Known {
            evr: Some(evr("0:4.3.0-1")),
            repo: "itl".to_owned(),
            built: Some(Timestamp(900 * DAY)),
            signer: Some("AA".to_owned()),
        };
        let wants = Wants {
            build: Bound::parse("4.3.0"),
            min_build: Bound::parse("4.2"),
            max_age: Some(100),
            from: Some("itl".to_owned()),
            signer: Some("aa".to_owned()),
        };
        assert!(wants.lacking(&build, now).is_empty());
        assert!(Wants::default().lacking(&Known::default(), now).is_empty());
        let wants = Wants {
            build: Bound::parse("4.2"),
            min_build: Bound::parse("4.4"),
            max_age: Some(99),
            from: Some("own".to_owned()),
            signer: Some("BB".to_owned()),
        };
        assert_eq!(
            wants.lacking(&build, now),
            [
                "is of build 0:4.3.0-1, not 4.2",
                "is of build 0:4.3.0-1, older than 4.4",
                "was built 100 days ago, more than 99",
                "comes from itl, not own",
                "is signed by AA, not BB"
            ]
        );
        assert_eq!(wants.lacking(&Known::default(), now).len(), 5);
    }
}
