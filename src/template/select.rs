//! Which of the offered builds is taken.

use std::collections::BTreeSet;

use super::{Evr, Offer, TemplateSpec};

/// Which of the offered builds of a template is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selector {
    /// The newest (install, download).
    Latest,
    /// The one that is installed (reinstall).
    Same,
    /// The newest that is older than the installed one (downgrade).
    Lower,
    /// The newest that is newer than the installed one (upgrade).
    Higher,
    /// The newest, of a template that is installed (reinstall with the newest build).
    Newest,
}

/// What there is in this system under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    /// No qube of that name.
    Absent,
    /// A qube, but no managed template.
    Unmanaged,
    /// A managed template with this build; `None` where its features do not tell one.
    Managed(Option<Evr>),
}

/// What was chosen for a list of specifications.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// One offer for each template, in the order of the specifications.
    pub chosen: Vec<Offer>,
    /// Specifications for which nothing newer (or older) is offered.
    pub nothing: Vec<TemplateSpec>,
}

/// Why nothing can be chosen. The texts are those of the original.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// No repository has a match.
    #[error("Template '{0}' not found.")]
    NotFound(TemplateSpec),
    /// No repository has the installed build; the builds that they do have.
    #[error("Same version of template '{spec}' not found.")]
    SameNotFound {
        /// What was asked for.
        spec: TemplateSpec,
        /// What there is instead.
        offered: Vec<Offer>,
    },
    /// A literal name that is not installed.
    #[error("Template '{0}' not already installed.")]
    NotInstalled(String),
    /// A literal name of a qube that is not a managed template.
    #[error("Template '{0}' is not managed by qvm-template.")]
    NotManaged(String),
}

impl Selector {
    /// Whether the choice depends on what is installed.
    #[must_use]
    pub fn needs_installed(self) -> bool {
        self != Self::Latest
    }

    /// Chooses one build of each template that the specifications mean.
    ///
    /// Among equal builds the repositories whose name has no `testing` come first, and of those the last one offered;
    /// if all are testing, the first. Between specifications a strictly newer build wins.
    ///
    /// A pattern passes over templates that are not installed where the choice needs that; a literal name does not.
    ///
    /// # Errors
    /// When a specification has no match, or means a template that is not there.
    pub fn select(
        self,
        offers: &[Offer],
        specs: &[TemplateSpec],
        installed: impl Fn(&str) -> Presence,
    ) -> Result<Selection, SelectError> {
        let mut selection = Selection::default();
        for spec in specs {
            let found = self.select_one(offers, spec, &installed)?;
            if found.is_empty() {
                selection.nothing.push(spec.clone());
            }
            for offer in found {
                match selection.chosen.iter_mut().find(|have| have.name == offer.name) {
                    Some(have) if have.evr < offer.evr => *have = offer.clone(),
                    Some(_) => {}
                    None => selection.chosen.push(offer.clone()),
                }
            }
        }
        Ok(selection)
    }

    fn select_one<'o>(
        self,
        offers: &'o [Offer],
        spec: &TemplateSpec,
        installed: &impl Fn(&str) -> Presence,
    ) -> Result<Vec<&'o Offer>, SelectError> {
        let mut best: Vec<&Offer> = Vec::new();
        let matching: Vec<&Offer> = offers.iter().filter(|o| spec.matches(&o.name, &o.evr)).collect();
        for &offer in &matching {
            if self.needs_installed() && !self.wants(offer, spec, &installed(&offer.name))? {
                continue;
            }
            match best.iter_mut().find(|have| have.name == offer.name) {
                Some(have) if supersedes(offer, have) => *have = offer,
                Some(_) => {}
                None => best.push(offer),
            }
        }
        match self {
            Self::Latest | Self::Newest if best.is_empty() => Err(SelectError::NotFound(spec.clone())),
            Self::Same if best.is_empty() => {
                let offered = matching.into_iter().cloned().collect();
                Err(SelectError::SameNotFound { spec: spec.clone(), offered })
            }
            _ => Ok(best),
        }
    }

    fn wants(self, offer: &Offer, spec: &TemplateSpec, there: &Presence) -> Result<bool, SelectError> {
        let evr = match there {
            Presence::Managed(evr) => evr.as_ref(),
            _ if spec.is_pattern() => return Ok(false),
            Presence::Absent => return Err(SelectError::NotInstalled(offer.name.clone())),
            Presence::Unmanaged => return Err(SelectError::NotManaged(offer.name.clone())),
        };
        let order = offer.evr.partial_cmp_to(evr);
        Ok(match self {
            Self::Latest | Self::Newest => true,
            Self::Same => order.is_eq(),
            Self::Lower => order.is_lt(),
            Self::Higher => order.is_gt(),
        })
    }
}

/// The newest build of each template, by the same rule, in the order of first appearance.
#[must_use]
pub fn newest_of_each(offers: &[Offer]) -> Vec<&Offer> {
    let mut best: Vec<&Offer> = Vec::new();
    for offer in offers {
        match best.iter_mut().find(|have| have.name == offer.name) {
            Some(have) if supersedes(offer, have) => *have = offer,
            Some(_) => {}
            None => best.push(offer),
        }
    }
    best
}

/// The names that the specifications mean among the offers.
#[must_use]
pub fn names<'o>(offers: &'o [Offer], specs: &[TemplateSpec]) -> BTreeSet<&'o str> {
    let meant = |offer: &&Offer| specs.iter().any(|spec| spec.matches(&offer.name, &offer.evr));
    offers.iter().filter(meant).map(|offer| offer.name.as_str()).collect()
}

/// Whether `later`, which comes after `have` in the reply, takes its place.
fn supersedes(later: &Offer, have: &Offer) -> bool {
    later.evr > have.evr || (later.evr.cmp(&have.evr).is_eq() && !later.repo.is_testing())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::{RepoId, Timestamp};

    fn offer(name: &str, version: &str, repo: &str) -> Offer {
        Offer {
            name: name.to_owned(),
            evr: Evr::new("0", version, "1").unwrap(),
            repo: RepoId::new(repo).unwrap(),
            download_size: 1,
            build_time: Timestamp(0),
            license: String::new(),
            url: String::new(),
            summary: String::new(),
            description: String::new(),
        }
    }

    fn specs(texts: &[&str]) -> Vec<TemplateSpec> {
        texts.iter().map(|text| TemplateSpec::new(text).unwrap()).collect()
    }

    fn has(version: &str) -> Presence {
        Presence::Managed(Evr::new("0", version, "1").ok())
    }

    fn chosen(selector: Selector, offers: &[Offer], wanted: &[&str], there: Presence) -> Vec<String> {
        let selection = selector.select(offers, &specs(wanted), |_| there.clone()).unwrap();
        selection.chosen.iter().map(|o| format!("{} {} {}", o.name, o.evr.version(), o.repo)).collect()
    }

    #[test]
    fn equal_builds_prefer_the_last_that_is_not_testing() {
        for selector in
            [Selector::Latest, Selector::Newest, Selector::Same, Selector::Higher, Selector::Lower]
        {
            let there = has(match selector {
                Selector::Higher => "0",
                Selector::Lower => "2",
                _ => "1",
            });
            for (repos, expected) in [
                (vec!["r", "r-testing"], "r"),
                (vec!["r-testing", "r"], "r"),
                (vec!["x-testing", "y-testing"], "x-testing"),
                (vec!["first", "second"], "second"),
            ] {
                let offers: Vec<Offer> = repos.iter().map(|repo| offer("a", "1", repo)).collect();
                assert_eq!(
                    chosen(selector, &offers, &["a"], there.clone()),
                    [format!("a 1 {expected}")],
                    "{selector:?} {repos:?}"
                );
            }
        }
    }

    #[test]
    fn the_selector_decides_about_the_build() {
        let offers = [offer("a", "1", "r"), offer("a", "2", "r"), offer("a", "3", "r"), offer("a", "4", "r")];
        assert_eq!(chosen(Selector::Latest, &offers, &["a"], Presence::Absent), ["a 4 r"]);
        assert_eq!(chosen(Selector::Same, &offers, &["a"], has("3")), ["a 3 r"]);
        assert_eq!(chosen(Selector::Lower, &offers, &["a"], has("3")), ["a 2 r"]);
        assert_eq!(chosen(Selector::Higher, &offers, &["a"], has("3")), ["a 4 r"]);
        assert_eq!(chosen(Selector::Newest, &offers, &["a"], has("4")), ["a 4 r"]);
        assert_eq!(chosen(Selector::Higher, &offers, &["a-2", "a-3", "a-2"], has("1")), ["a 3 r"]);
        let none = Selector::Higher.select(&offers, &specs(&["a"]), |_| has("4")).unwrap();
        assert_eq!(none, Selection { chosen: vec![], nothing: specs(&["a"]) });
    }

    #[test]
    fn a_literal_name_must_be_there_and_a_pattern_need_not() {
        let offers = [offer("a", "1", "r"), offer("b", "1", "r")];
        let there = |name: &str| if name == "a" { has("0") } else { Presence::Absent };
        let select = |wanted: &str, selector: Selector| selector.select(&offers, &specs(&[wanted]), there);
        assert_eq!(select("*", Selector::Higher).unwrap().chosen, [offers[0].clone()]);
        assert_eq!(select("b", Selector::Higher), Err(SelectError::NotInstalled("b".to_owned())));
        let unmanaged = Selector::Same.select(&offers, &specs(&["b"]), |_| Presence::Unmanaged);
        assert_eq!(unmanaged, Err(SelectError::NotManaged("b".to_owned())));
        assert_eq!(select("x", Selector::Latest), Err(SelectError::NotFound(specs(&["x"])[0].clone())));
        let gone = select("a", Selector::Same);
        assert!(matches!(gone, Err(SelectError::SameNotFound { offered, .. }) if offered.len() == 1));
    }
}
