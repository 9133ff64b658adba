use std::fmt;

use super::fnmatch::{is_pattern, matches};
use super::{Evr, PACKAGE_PREFIX};

/// What a user typed to name templates: a name, a name with a version, or a shell pattern of either.
///
/// It is matched against `name`, `name-version`, `name-version-release` and the same with `epoch:` before the version. Without
/// an epoch in the text, only builds of epoch 0 match by version. The architecture plays no part.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TemplateSpec(String);

/// Why a text cannot be sent to an UpdateVM as a specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// A line feed would end the line of the request.
    #[error("Malformed template name: argument should not contain '\\n'.")]
    LineFeed,
}

impl TemplateSpec {
    /// Takes what was typed.
    ///
    /// # Errors
    /// When the text cannot stand on one line of a request.
    pub fn new(text: &str) -> Result<Self, SpecError> {
        if text.contains('\n') { Err(SpecError::LineFeed) } else { Ok(Self(text.to_owned())) }
    }

    /// As typed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it can name several templates.
    #[must_use]
    pub fn is_pattern(&self) -> bool {
        is_pattern(&self.0)
    }

    /// The specification of packages that an UpdateVM is asked for.
    #[must_use]
    pub fn package_spec(&self) -> String {
        format!("{PACKAGE_PREFIX}{}", self.0)
    }

    /// Whether this build of this template is meant.
    #[must_use]
    pub fn matches(&self, name: &str, evr: &Evr) -> bool {
        self.matches_parts(name, &evr.epoch().to_string(), evr.version(), evr.release())
    }

    /// The same with texts that need not be a valid build, as features of a damaged template hold them.
    #[must_use]
    pub fn matches_parts(&self, name: &str, epoch: &str, version: &str, release: &str) -> bool {
        let hit = |text: &str| matches(&self.0, text);
        let epoch = if epoch.is_empty() { "0" } else { epoch };
        hit(name)
            || hit(&format!("{name}-{epoch}:{version}-{release}"))
            || hit(&format!("{name}-{epoch}:{version}"))
            || (epoch == "0"
                && (hit(&format!("{name}-{version}-{release}")) || hit(&format!("{name}-{version}"))))
    }
}

impl fmt::Display for TemplateSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(spec: &str, epoch: &str) -> bool {
        TemplateSpec::new(spec).unwrap().matches("fedora-40", &Evr::new(epoch, "4.2.0", "2023").unwrap())
    }

    #[test]
    fn forms_without_epoch_need_epoch_zero() {
        for spec in ["fedora-40", "fedora-*", "fedora-40-0:4.2.0-2023", "fedora-40-0:4.2.0"] {
            assert!(matches(spec, "0"), "{spec}");
        }
        for spec in ["fedora-40-4.2.0", "fedora-40-4.2.0-2023", "fedora-40-4.2.?-2*"] {
            assert!(matches(spec, "0"), "{spec}");
            assert!(!matches(spec, "1"), "{spec}");
        }
        for spec in ["fedora-40-1:4.2.0", "fedora-40-1:4.2.0-2023", "fedora-40"] {
            assert!(matches(spec, "1"), "{spec}");
        }
        for spec in
            ["Fedora-40", "fedora", "fedora-40-4.2", "fedora-40-4.2.0-2023.noarch", "", "fedora-40-2023"]
        {
            assert!(!matches(spec, "0"), "{spec}");
        }
    }

    #[test]
    fn a_line_feed_is_refused() {
        assert_eq!(TemplateSpec::new("a\nb"), Err(SpecError::LineFeed));
    }
}
