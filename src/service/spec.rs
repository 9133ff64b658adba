//! Which packages a spec means, as dnf reads it: `name`, `name.arch`, `name-version`, `name-version-release`, the last
//! two with an epoch, all of them with patterns. The first form that anything matches is the one that is meant.
//!
//! More exact than dnf 4 in two points: upper and lower case differ, and an epoch that is given has to be equal.

use super::metadata::Package;

use crate::template::{PACKAGE_PREFIX, fnmatch};

/// A spec taken apart; each part may be a pattern, what is absent fits everything.
#[derive(Clone, Copy, Debug, Default)]
struct Form<'a> {
    name: &'a str,
    epoch: Option<&'a str>,
    version: Option<&'a str>,
    release: Option<&'a str>,
    arch: Option<&'a str>,
}

/// The packages that `spec` means, in the order given.
#[must_use]
pub fn select<'p>(spec: &str, packages: &[&'p Package]) -> Vec<&'p Package> {
    forms(spec)
        .iter()
        .map(|form| packages.iter().copied().filter(|package| form.fits(package)).collect::<Vec<_>>())
        .find(|found| !found.is_empty())
        .unwrap_or_default()
}

/// The ways to read `spec`, the most exact first.
fn forms(spec: &str) -> Vec<Form<'_>> {
    let with_arch = spec.rsplit_once('.').filter(|(_, arch)| !arch.is_empty() && !arch.contains(['-', ':']));
    [
        with_arch.and_then(|(rest, arch)| Some(Form { arch: Some(arch), ..release(rest)? })),
        with_arch.map(|(name, arch)| Form { name, arch: Some(arch), ..Form::default() }),
        Some(Form { name: spec, ..Form::default() }),
        release(spec),
        version(spec),
    ]
    .into_iter()
    .flatten()
    .filter(|form| !form.name.is_empty())
    .collect()
}

fn release(text: &str) -> Option<Form<'_>> {
    let (rest, release) =
        text.rsplit_once('-').filter(|(_, release)| !release.is_empty() && !release.contains(':'))?;
    Some(Form { release: Some(release), ..version(rest)? })
}

fn version(text: &str) -> Option<Form<'_>> {
    let (name, version) = text.rsplit_once('-').filter(|(_, version)| !version.is_empty())?;
    let (epoch, version) = match version.split_once(':') {
        Some((epoch, version)) => (Some(epoch), version),
        None => (None, version),
    };
    Some(Form { name, epoch, version: Some(version), ..Form::default() })
}

impl Form<'_> {
    fn fits(&self, package: &Package) -> bool {
        let evr = &package.offer.evr;
        let fits = |part: Option<&str>, text: &str| part.is_none_or(|part| fnmatch::matches(part, text));
        fnmatch::matches(self.name, &format!("{PACKAGE_PREFIX}{}", package.offer.name))
            && fits(self.epoch, &evr.epoch().to_string())
            && fits(self.version, evr.version())
            && fits(self.release, evr.release())
            && fits(self.arch, &package.arch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::metadata::tests::package;

    #[test]
    fn the_forms_of_dnf() {
        let all = [
            package("debian-13", "0", "4.3.0", "1"),
            package("debian-13", "0", "4.3.0", "2"),
            package("debian-13-xfce", "0", "4.3.0", "1"),
            package("build", "2", "1.2", "7"),
            package("build", "0", "1.10", "1"),
        ];
        let all: Vec<&Package> = all.iter().collect();
        let found = |spec: &str| {
            let text = if spec == "*" { spec.to_owned() } else { format!("{PACKAGE_PREFIX}{spec}") };
            select(&text, &all)
                .iter()
                .map(|p| format!("{}-{}", p.offer.name, p.offer.evr))
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(select("*", &all).len(), 5);
        assert_eq!(found("debian-13"), "debian-13-0:4.3.0-1 debian-13-0:4.3.0-2");
        assert_eq!(found("debian-13.noarch"), "debian-13-0:4.3.0-1 debian-13-0:4.3.0-2");
        assert_eq!(found("debian-13-4.3.0"), "debian-13-0:4.3.0-1 debian-13-0:4.3.0-2");
        assert_eq!(found("debian-13-4.3.0-2"), "debian-13-0:4.3.0-2");
        assert_eq!(found("debian-13-0:4.3.0-2"), "debian-13-0:4.3.0-2");
        assert_eq!(found("debian-13-0:4.3.0-2.noarch"), "debian-13-0:4.3.0-2");
        assert_eq!(found("debian-1?-*"), "debian-13-xfce-0:4.3.0-1");
        assert_eq!(found("build-1.2-7"), "build-2:1.2-7");
        assert_eq!(found("build-2:1.2"), "build-2:1.2-7");
        for none in ["build-0:1.2-7", "Build", "", "--help", "debian-13.x86_64", "{debian-13,build}"] {
            assert_eq!(found(none), "", "{none:?}");
        }
        assert!(select("", &all).is_empty());
        assert!(select("--help", &all).is_empty());
    }
}
