//! Which repositories take part in a call: `--enablerepo`, `--disablerepo` and `--repoid` as dnf applies them.
//!
//! Each option takes identifiers or patterns, separated by commas or white space. Enabling and disabling happen in the
//! order of the command line; if `--repoid` is there, everything is disabled before all of them, and what it names is
//! enabled after all of them.

use super::file::Repo;
use crate::template::fnmatch;

/// One option, with its argument as it was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RepoOption {
    /// `--enablerepo`
    Enable(String),
    /// `--disablerepo`
    Disable(String),
    /// `--repoid`
    Only(String),
}

/// Why dnf would refuse the options.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    /// Enabled by name or pattern, but nothing matches.
    #[error("Unknown repo: '{}'", crate::untrusted::displayable(.0, false))]
    Unknown(String),
    /// `--repoid` beside `--disablerepo`.
    #[error("argument --disablerepo: not allowed with argument --repo/--repoid")]
    OnlyAndDisable,
}

impl RepoOption {
    /// The option's name on the command line and in the request, without its dashes.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Enable(_) => "enablerepo",
            Self::Disable(_) => "disablerepo",
            Self::Only(_) => "repoid",
        }
    }

    /// The argument as it was typed.
    #[must_use]
    pub fn argument(&self) -> &str {
        match self {
            Self::Enable(text) | Self::Disable(text) | Self::Only(text) => text,
        }
    }

    /// The option of this name.
    #[must_use]
    pub fn from_name(name: &str, argument: &str) -> Option<Self> {
        let argument = argument.to_owned();
        match name {
            "enablerepo" => Some(Self::Enable(argument)),
            "disablerepo" => Some(Self::Disable(argument)),
            "repoid" => Some(Self::Only(argument)),
            _ => None,
        }
    }

    fn words(&self) -> impl Iterator<Item = &str> {
        self.argument().split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty())
    }
}

/// The repositories that take part, in the order given.
#[must_use]
pub fn enabled<'a>(repos: &'a [Repo], options: &[RepoOption]) -> Vec<&'a Repo> {
    let only = options.iter().any(|option| matches!(option, RepoOption::Only(_)));
    let mut on: Vec<bool> = repos.iter().map(|repo| repo.enabled && !only).collect();
    let (last, first): (Vec<_>, Vec<_>) =
        options.iter().partition(|option| matches!(option, RepoOption::Only(_)));
    for option in first.into_iter().chain(last) {
        for word in option.words() {
            for (repo, on) in repos.iter().zip(&mut on) {
                if names(word, repo) {
                    *on = !matches!(option, RepoOption::Disable(_));
                }
            }
        }
    }
    repos.iter().zip(on).filter(|(_, on)| *on).map(|(repo, _)| repo).collect()
}

/// Checks the options the way dnf does before it starts.
///
/// # Errors
/// The first option that dnf refuses.
pub fn check(repos: &[Repo], options: &[RepoOption]) -> Result<(), ChoiceError> {
    let has = |want: fn(&RepoOption) -> bool| options.iter().any(want);
    if has(|o| matches!(o, RepoOption::Only(_))) && has(|o| matches!(o, RepoOption::Disable(_))) {
        return Err(ChoiceError::OnlyAndDisable);
    }
    for option in options.iter().filter(|o| !matches!(o, RepoOption::Disable(_))) {
        if let Some(word) = option.words().find(|word| !repos.iter().any(|repo| names(word, repo))) {
            return Err(ChoiceError::Unknown(word.to_owned()));
        }
    }
    Ok(())
}

fn names(word: &str, repo: &Repo) -> bool {
    word == repo.id.as_str() || (fnmatch::is_pattern(word) && fnmatch::matches(word, repo.id.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::file;

    fn chosen(options: &[RepoOption]) -> String {
        let repos = file::parse("[a]\n[a-testing]\nenabled=0\n[b]\nenabled=no\n").repos;
        enabled(&repos, options).iter().map(|repo| repo.id.as_str()).collect::<Vec<_>>().join(" ")
    }

    fn on(text: &str) -> RepoOption {
        RepoOption::Enable(text.into())
    }
    fn off(text: &str) -> RepoOption {
        RepoOption::Disable(text.into())
    }
    fn only(text: &str) -> RepoOption {
        RepoOption::Only(text.into())
    }

    #[test]
    fn applies_options_in_order() {
        assert_eq!(chosen(&[]), "a");
        assert_eq!(chosen(&[on("*testing")]), "a a-testing");
        assert_eq!(chosen(&[off("*"), on("b")]), "b");
        assert_eq!(chosen(&[on("b"), off("*")]), "");
        assert_eq!(chosen(&[on("b, a-testing"), off("a")]), "a-testing b");
        assert_eq!(chosen(&[only("b")]), "b");
        assert_eq!(chosen(&[only("b"), on("a"), only("a-*")]), "a a-testing b");
        assert_eq!(chosen(&[on("[ab]")]), "a b");
        assert_eq!(chosen(&[on("B")]), "a");
    }

    #[test]
    fn refuses_what_dnf_refuses() {
        let repos = file::parse("[a]\n").repos;
        assert_eq!(check(&repos, &[on("x")]), Err(ChoiceError::Unknown("x".into())));
        assert_eq!(check(&repos, &[on("a,x*")]), Err(ChoiceError::Unknown("x*".into())));
        assert_eq!(check(&repos, &[only("x")]), Err(ChoiceError::Unknown("x".into())));
        assert_eq!(check(&repos, &[only("a"), off("a")]), Err(ChoiceError::OnlyAndDisable));
        assert_eq!(check(&repos, &[off("x"), on("a")]), Ok(()));
    }
}
