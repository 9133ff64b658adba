//! Words that stand for qubes: names, `uuid:...`, and the keywords with `@`.

use super::facts::{Domain, Facts};
use super::python::quoted;

/// Where a word stands, which says what it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The third column of a rule.
    Source,
    /// The fourth column of a rule.
    Target,
    /// `target=` and `default_target=`.
    Redirect,
    /// What the caller asked for.
    Intended,
}

impl Place {
    fn word(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Target => "target",
            Self::Redirect => "redirect",
            Self::Intended => "intendedtarget",
        }
    }
}

/// Makes a token of what follows its prefix.
type Make = fn(String) -> Token;

/// A word that stands for one qube or for several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// A name or `uuid:...`.
    Name(String),
    /// `*`
    Everything,
    /// `@adminvm`
    AdminVm,
    /// `@anyvm`
    AnyVm,
    /// `@default`
    Default,
    /// `@type:C`
    Type(String),
    /// `@tag:T`
    Tag(String),
    /// `@dispvm`
    DispVm,
    /// `@dispvm:NAME`
    DispVmTemplate(String),
    /// `@dispvm:@tag:T`
    DispVmTag(String),
}

impl Token {
    /// Reads a word, or says what is wrong with it.
    pub fn parse(text: &str, place: Place) -> Result<Self, String> {
        use Place::{Intended, Redirect, Source, Target};
        if text.is_empty() {
            return Err(format!("invalid empty {} token", place.word()));
        }
        if !text.starts_with('@') && text != "*" {
            return Ok(Self::Name(text.to_owned()));
        }
        let exact: [(&str, Self, &[Place]); 5] = [
            ("*", Self::Everything, &[Source, Target]),
            ("@adminvm", Self::AdminVm, &[Source, Target, Redirect, Intended]),
            ("@anyvm", Self::AnyVm, &[Source, Target]),
            ("@default", Self::Default, &[Target, Intended]),
            ("@dispvm", Self::DispVm, &[Target, Redirect, Intended]),
        ];
        for (word, token, places) in exact {
            if text == word && places.contains(&place) {
                return Ok(token);
            }
        }
        let prefixed: [(&str, Make, &[Place]); 4] = [
            ("@type:", Self::Type, &[Source, Target]),
            ("@tag:", Self::Tag, &[Source, Target]),
            ("@dispvm:", Self::DispVmTemplate, &[Source, Target, Redirect, Intended]),
            ("@dispvm:@tag:", Self::DispVmTag, &[Source, Target]),
        ];
        for (prefix, make, places) in prefixed {
            let Some(value) = text.strip_prefix(prefix).filter(|_| places.contains(&place)) else { continue };
            if value.is_empty() {
                return Err(format!("invalid empty {prefix} token: {}", quoted(text)));
            }
            if !value.starts_with('@') {
                return Ok(make(value.to_owned()));
            }
        }
        Err(format!("invalid {} token: {}", place.word(), quoted(text)))
    }

    /// Whether this word of a rule fits `other`, a name or what was asked for. `source` is who asks, where `other` is a
    /// target.
    pub(super) fn fits(&self, other: &Self, source: Option<&str>, facts: &Facts) -> bool {
        match self {
            Self::Everything => true,
            Self::AdminVm => other.is_dom0(),
            Self::AnyVm => !other.is_dom0(),
            Self::Name(_) if self.is_dom0() => other.is_dom0(),
            Self::Name(name) => facts.same(name, &other.text()),
            Self::Default | Self::DispVm => self == other,
            Self::Type(class) => facts.find(&other.text()).is_some_and(|(_, domain)| domain.class == *class),
            Self::Tag(tag) => facts.find(&other.text()).is_some_and(|(_, domain)| domain.tags.contains(tag)),
            Self::DispVmTemplate(template) => match (other, source) {
                (Self::DispVm, Some(source)) => {
                    facts.dispvm_template(source).is_some_and(|default| default == self.text())
                }
                (Self::DispVmTemplate(wanted), _) => facts.same(template, wanted),
                _ => false,
            },
            Self::DispVmTag(tag) => {
                let wanted = match (other, source) {
                    (Self::DispVm, Some(source)) => facts.dispvm_template(source),
                    (Self::DispVmTemplate(_), _) => Some(other.text()),
                    _ => None,
                };
                wanted
                    .and_then(|wanted| facts.find(wanted.trim_start_matches("@dispvm:")))
                    .is_some_and(|(_, domain)| domain.template_for_dispvms && domain.tags.contains(tag))
            }
        }
    }

    /// Every target that this word stands for, as offered to a user.
    pub(super) fn expand(&self, facts: &Facts) -> Vec<String> {
        let names = |wanted: &dyn Fn(&str, &Domain) -> bool| -> Vec<String> {
            let fitting = facts.domains.iter().filter(|(name, domain)| wanted(name, domain));
            fitting.map(|(name, _)| name.clone()).collect()
        };
        let templates = |wanted: &dyn Fn(&Domain) -> bool| -> Vec<String> {
            let names = names(&|_, domain| domain.template_for_dispvms && wanted(domain));
            names.into_iter().map(|name| format!("@dispvm:{name}")).collect()
        };
        match self {
            Self::Name(name) => facts.find(name).map(|(name, _)| name.to_owned()).into_iter().collect(),
            Self::Everything | Self::AnyVm => {
                let everything = *self == Self::Everything;
                let mut all = names(&|name, _| everything || !is_dom0(name));
                all.extend(templates(&|_| true));
                all.push("@dispvm".to_owned());
                all
            }
            Self::AdminVm | Self::DispVm => vec![self.text()],
            Self::Default => Vec::new(),
            Self::Type(class) => names(&|_, domain| domain.class == *class),
            Self::Tag(tag) => names(&|_, domain| domain.tags.contains(tag)),
            Self::DispVmTemplate(template) => match facts.find(template) {
                Some((name, domain)) if domain.template_for_dispvms => vec![format!("@dispvm:{name}")],
                _ => Vec::new(),
            },
            Self::DispVmTag(tag) => templates(&|domain| domain.tags.contains(tag)),
        }
    }

    /// Whether this is dom0, by any of its names.
    #[must_use]
    pub fn is_dom0(&self) -> bool {
        is_dom0(&self.text())
    }

    /// The word itself.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Name(name) => name.clone(),
            Self::Everything => "*".to_owned(),
            Self::AdminVm => "@adminvm".to_owned(),
            Self::AnyVm => "@anyvm".to_owned(),
            Self::Default => "@default".to_owned(),
            Self::Type(class) => format!("@type:{class}"),
            Self::Tag(tag) => format!("@tag:{tag}"),
            Self::DispVm => "@dispvm".to_owned(),
            Self::DispVmTemplate(template) => format!("@dispvm:{template}"),
            Self::DispVmTag(tag) => format!("@dispvm:@tag:{tag}"),
        }
    }
}

/// Whether a word names dom0.
pub(super) fn is_dom0(word: &str) -> bool {
    matches!(word, "@adminvm" | "dom0" | "uuid:00000000-0000-0000-0000-000000000000")
}
