//! What the features of a qube tell about the template in it.

use std::cmp::Ordering;

use super::provenance::{RECORD, Record};
use super::{Evr, TemplateSpec, Timestamp};
use crate::untrusted::{displayable, feature_value};

/// What the features of a qube say about the template in it.
///
/// Only a qube whose feature `template-name` equals its own name is managed: a clone carries the features of its original. The
/// texts are kept as they are, since a template may have been left half described; what is missing is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Installed {
    /// Name of the qube and of the template.
    pub name: String,
    /// Epoch, as text.
    pub epoch: String,
    /// Version.
    pub version: String,
    /// Release.
    pub release: String,
    /// Repository that it came from, or `@commandline`.
    pub repo: String,
    /// When the package was built: `YYYY-MM-DD HH:MM:SS`, UTC; empty where that is not known.
    pub build_time: String,
    /// When it was installed, in the same form.
    pub install_time: String,
    /// Licence.
    pub license: String,
    /// Address of the project; empty where there is none.
    pub url: String,
    /// One line about it.
    pub summary: String,
    /// Longer text, with line feeds.
    pub description: String,
    /// Name of the template in its package, where it was installed under another one and we wrote that down.
    pub package: Option<String>,
}

/// The feature that makes a qube a managed template.
pub const MARKER: &str = "template-name";

/// Feature of ours: the first start did not go as it should, or has not been; the value is a word that says why.
pub const NOT_FINALIZED: &str = "qvm-template-not-finalized";

/// All features that describe an installed template, in the order in which the original sets them.
pub const FEATURES: [&str; 11] = [
    MARKER,
    "template-epoch",
    "template-version",
    "template-release",
    "template-reponame",
    "template-buildtime",
    "template-installtime",
    "template-license",
    "template-url",
    "template-summary",
    "template-description",
];

/// Longest value that a text of a package leaves in a feature. A request to qubesd holds 64 KiB at most.
pub const MAX_FEATURE: usize = 48 * 1024;

impl Installed {
    /// Reads the features of `qube` through `get`; `None` when it is not a managed template.
    #[must_use]
    pub fn from_features(qube: &str, get: impl Fn(&str) -> Option<String>) -> Option<Self> {
        if get(MARKER)? != qube {
            return None;
        }
        let line = |feature: &str| displayable(&get(feature).unwrap_or_default(), false);
        let text =
            |feature: &str| Some(line(feature)).filter(|t| t != "None" && t != "(none)").unwrap_or_default();
        let time =
            |feature: &str| Timestamp::parse(&line(feature)).map(|t| t.to_string()).unwrap_or_default();
        // Stale where another tool has installed something else since.
        let evr = Evr::new(&line("template-epoch"), &line("template-version"), &line("template-release"));
        let evr = evr.ok().map(|evr| evr.to_string());
        Some(Self {
            name: qube.to_owned(),
            epoch: line("template-epoch"),
            version: line("template-version"),
            release: line("template-release"),
            repo: line("template-reponame"),
            build_time: time("template-buildtime"),
            install_time: time("template-installtime"),
            license: line("template-license"),
            url: text("template-url"),
            summary: line("template-summary"),
            description: line("template-description").replace('|', "\n"),
            package: get(RECORD)
                .and_then(|text| Record::parse(&text))
                .filter(|record| Some(&record.evr) == evr.as_ref())
                .map(|record| displayable(&record.package, false))
                .filter(|package| package != qube),
        })
    }

    /// The name under which repositories have it.
    #[must_use]
    pub fn origin(&self) -> &str {
        self.package.as_deref().unwrap_or(&self.name)
    }

    /// The features that describe this template, ready for dom0: printable ASCII of bounded length.
    #[must_use]
    pub fn to_features(&self) -> [(&'static str, String); FEATURES.len()] {
        let values = [
            &self.name,
            &self.epoch,
            &self.version,
            &self.release,
            &self.repo,
            &self.build_time,
            &self.install_time,
            &self.license,
            &self.url,
            &self.summary,
            &self.description.replace('\n', "|"),
        ];
        std::array::from_fn(|at| (FEATURES[at], feature_value(values[at], MAX_FEATURE)))
    }

    /// The installed build, when the features tell one.
    #[must_use]
    pub fn evr(&self) -> Option<Evr> {
        Evr::new(&self.epoch, &self.version, &self.release).ok()
    }

    /// `epoch:version-release` as the features have it, also where that is no valid build.
    #[must_use]
    pub fn evr_text(&self) -> String {
        format!("{}:{}-{}", self.epoch, self.version, self.release)
    }

    /// How `build` stands to the installed one. A build that is not known is older than any other.
    #[must_use]
    pub fn cmp_to(&self, build: &Evr) -> Ordering {
        build.partial_cmp_to(self.evr().as_ref())
    }

    /// Whether `spec` means this template.
    #[must_use]
    pub fn matches(&self, spec: &TemplateSpec) -> bool {
        spec.matches_parts(&self.name, &self.epoch, &self.version, &self.release)
    }
}

impl Evr {
    /// Order against a build that may be unknown; an unknown one is older than any other.
    #[must_use]
    pub fn partial_cmp_to(&self, other: Option<&Self>) -> Ordering {
        other.map_or(Ordering::Greater, |other| self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(qube: &str, features: &[(&str, &str)]) -> Option<Installed> {
        Installed::from_features(qube, |wanted| {
            features.iter().find(|(name, _)| *name == wanted).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn a_clone_is_not_managed() {
        assert_eq!(read("copy", &[(MARKER, "fedora-40")]), None);
        assert_eq!(read("copy", &[]), None);
        assert!(read("fedora-40", &[(MARKER, "fedora-40")]).is_some());
    }

    #[test]
    fn what_is_missing_is_empty() {
        let half =
            read("t", &[(MARKER, "t"), ("template-epoch", "None"), ("template-version", "4.3")]).unwrap();
        assert_eq!(half.evr(), None);
        assert_eq!(half.evr_text(), "None:4.3-");
        assert_eq!(half.cmp_to(&Evr::new("0", "1", "1").unwrap()), Ordering::Greater);
        let spec = |text| TemplateSpec::new(text).unwrap();
        assert!(half.matches(&spec("t")) && !half.matches(&spec("t-4")));
    }

    #[test]
    fn texts_go_there_and_back() {
        let own = Installed {
            name: "t".to_owned(),
            epoch: "0".to_owned(),
            version: "1".to_owned(),
            release: "2".to_owned(),
            description: "a\nb".to_owned(),
            summary: "\u{fc}\t".to_owned(),
            ..Installed::default()
        };
        let features = own.to_features();
        assert_eq!(features[10], ("template-description", "a|b".to_owned()));
        assert_eq!(features[9].1, "__");
        let back =
            Installed::from_features("t", |f| features.iter().find(|(n, _)| *n == f).map(|(_, v)| v.clone()));
        assert_eq!(back, Some(Installed { summary: "__".to_owned(), ..own }));
    }
}
