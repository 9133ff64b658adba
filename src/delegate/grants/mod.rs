//! The file of grants: for each caller, what it may ask of this qube. Nothing is granted that is not written there.
//!
//! ```toml
//! version = 1
//! audit-log = "/var/log/qvm-template/audit.jsonl"   # default: audit.jsonl in the state directory
//!
//! [[grant]]
//! caller = "help-desk"                 # a qube's name, or "@tag:NAME"
//! verbs = ["list", "plan", "install"]
//! templates = ["debian-13-xfce", "fedora-4?-xfce"]
//! repositories = ["qubes-templates-itl"]
//! pools = []                           # none but the default one
//! whose = "own"                        # or "shared": templates that nobody owns as well
//! max-image-size = "20 GiB"
//! max-templates = 3
//! max-total-size = "60 GiB"
//! max-changes-per-hour = 6
//! owner-tag = "help-desk-template"     # set on what is installed, where policy grants admin.vm.tag.Set
//! ```
//!
//! Grants of one caller add up: a request is granted when one single grant covers all of it. Within a grant every
//! limit that is not written is the narrowest: no repository, no pool but the default, own templates only, one change
//! an hour. Options that weaken verification or destroy other qubes cannot be granted; there is no key for them.

mod file;

use std::fmt;

pub use file::{GrantsError, MAX_FILE};

use super::Verb;
use crate::template::{RepoId, TemplateName};

/// Where the file of grants is.
pub const PATH: &str = "/etc/qubes/qvm-template-grants.toml";

/// All grants of this qube.
#[derive(Clone, Debug, Default)]
pub struct Grants {
    grants: Vec<Grant>,
    audit_log: Option<String>,
}

/// One `[[grant]]`.
#[derive(Clone, Debug)]
pub struct Grant {
    caller: Caller,
    verbs: Vec<Verb>,
    templates: Vec<String>,
    repositories: Vec<RepoId>,
    pools: Vec<String>,
    whose: Whose,
    limits: Limits,
    owner_tag: Option<String>,
    lines: Lines,
    /// The grant as it was read, in one line: another one is another grant.
    text: String,
}

/// Where the keys of a grant stand in the file, counted from 1. A key that is not written stands where `caller` does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lines {
    caller: usize,
    verbs: usize,
    templates: usize,
    repositories: usize,
    pools: usize,
    whose: usize,
}

/// Numbers that a grant sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest root image, in bytes.
    pub max_image_size: u64,
    /// Templates that the caller may own at a time.
    pub max_templates: u32,
    /// Sum of the root images of the caller's templates, in bytes.
    pub max_total_size: u64,
    /// Changes that may be started within any 3,600 seconds.
    pub max_changes_per_hour: u32,
}

/// Whom a grant is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// The qube of this name.
    Name(String),
    /// Every qube with this tag, as dom0 tells.
    Tag(String),
}

/// Which templates a grant reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Whose {
    /// Only those that the caller had installed.
    #[default]
    Own,
    /// Those, and the ones that nobody owns.
    Shared,
}

/// Whose a template is, seen from a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The template is not there yet.
    Nobody,
    /// The caller had it installed.
    Caller,
    /// No caller had it installed.
    Unowned,
    /// Another caller had it installed.
    Other,
}

/// A request, as far as grants look at it.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// Name of the qube that asks, as qrexec reports it.
    pub caller: &'a str,
    /// Tags of that qube, as dom0 reports them; empty where they were not asked for.
    pub caller_tags: &'a [String],
    /// What is asked.
    pub verb: Verb,
    /// The template; `None` for verbs about all of them.
    pub template: Option<&'a TemplateName>,
    /// Whose the template is.
    pub owner: Owner,
    /// Repository asked for; `None` leaves the choice to the grant.
    pub repository: Option<&'a RepoId>,
    /// Pool asked for; `None` is the default one.
    pub pool: Option<&'a str>,
}

/// Why a request is not granted. The text is for the audit log and for `grants explain`, never for the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No grant names the caller.
    Caller,
    /// Grants name the caller; the closest one, by its number in the file, lacks this.
    Lacks {
        /// Number of the grant, counted from 1.
        grant: usize,
        /// The line that would have to say something else.
        line: usize,
        /// What it does not cover.
        what: Missing,
    },
}

/// The first thing that a grant does not cover, in the order in which they are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Missing {
    /// The verb.
    Verb,
    /// The name of the template.
    Template,
    /// Templates of this owner.
    Owner,
    /// The repository.
    Repository,
    /// The pool.
    Pool,
}

impl Grants {
    /// The grant that covers `wish`, with its number in the file.
    ///
    /// # Errors
    /// What the closest grant lacks.
    pub fn decide(&self, wish: &Wish<'_>) -> Result<(usize, &Grant), Refusal> {
        let mut closest: Option<(Missing, usize, usize)> = None;
        for (index, grant) in self.grants.iter().enumerate() {
            if !grant.is_for(wish.caller, wish.caller_tags) {
                continue;
            }
            match grant.covers(wish) {
                Ok(()) => return Ok((index + 1, grant)),
                Err(what) if closest.is_none_or(|(best, ..)| what > best) => {
                    closest = Some((what, index + 1, grant.line_of(what)));
                }
                Err(_) => {}
            }
        }
        Err(closest.map_or(Refusal::Caller, |(what, grant, line)| Refusal::Lacks { grant, line, what }))
    }

    /// Whether some grant is for a tag, so that dom0 has to be asked for the caller's tags.
    #[must_use]
    pub fn need_tags(&self) -> bool {
        self.grants.iter().any(|grant| matches!(grant.caller, Caller::Tag(_)))
    }

    /// The grants in the order of the file.
    #[must_use]
    pub fn all(&self) -> &[Grant] {
        &self.grants
    }

    /// Where the audit log is to be; `None` for the state directory.
    #[must_use]
    pub fn audit_log(&self) -> Option<&str> {
        self.audit_log.as_deref()
    }
}

impl Grant {
    /// Whom it is for.
    #[must_use]
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Name patterns of the templates it reaches.
    #[must_use]
    pub fn templates(&self) -> &[String] {
        &self.templates
    }

    /// Verbs it grants.
    #[must_use]
    pub fn verbs(&self) -> &[Verb] {
        &self.verbs
    }

    /// Repositories that a package may come from.
    #[must_use]
    pub fn repositories(&self) -> &[RepoId] {
        &self.repositories
    }

    /// Pools beside the default one.
    #[must_use]
    pub fn pools(&self) -> &[String] {
        &self.pools
    }

    /// Which templates it reaches.
    #[must_use]
    pub fn whose(&self) -> Whose {
        self.whose
    }

    /// Its numbers.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The tag that what is installed by it gets.
    #[must_use]
    pub fn owner_tag(&self) -> Option<&str> {
        self.owner_tag.as_deref()
    }

    /// The line of its `caller`, counted from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.lines.caller
    }

    /// The lines of its caller, verbs and templates: what a decision for it goes by.
    #[must_use]
    pub fn deciding_lines(&self) -> [usize; 3] {
        [self.lines.caller, self.lines.verbs, self.lines.templates]
    }

    /// The grant in one line: a plan that was made under another one is void.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it is for this caller.
    #[must_use]
    pub fn is_for(&self, caller: &str, tags: &[String]) -> bool {
        match &self.caller {
            Caller::Name(name) => name == caller,
            Caller::Tag(tag) => tags.contains(tag),
        }
    }

    fn covers(&self, wish: &Wish<'_>) -> Result<(), Missing> {
        let all_of = |holds: bool, what: Missing| if holds { Ok(()) } else { Err(what) };
        all_of(self.verbs.contains(&wish.verb), Missing::Verb)?;
        if let Some(name) = wish.template {
            all_of(self.templates.iter().any(|glob| matches(glob, name.as_str())), Missing::Template)?;
            all_of(
                match wish.owner {
                    Owner::Nobody | Owner::Caller => true,
                    Owner::Unowned => self.whose == Whose::Shared,
                    Owner::Other => false,
                },
                Missing::Owner,
            )?;
        }
        all_of(wish.repository.is_none_or(|repo| self.repositories.contains(repo)), Missing::Repository)?;
        all_of(wish.pool.is_none_or(|pool| self.pools.iter().any(|known| known == pool)), Missing::Pool)
    }

    fn line_of(&self, what: Missing) -> usize {
        match what {
            Missing::Verb => self.lines.verbs,
            Missing::Template => self.lines.templates,
            Missing::Owner => self.lines.whose,
            Missing::Repository => self.lines.repositories,
            Missing::Pool => self.lines.pools,
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Tag(tag) => write!(f, "@tag:{tag}"),
        }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Verb => "the verb is not granted",
            Self::Template => "the name of the template is not granted",
            Self::Owner => "the template is not the caller's",
            Self::Repository => "the repository is not granted",
            Self::Pool => "the pool is not granted",
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Caller => f.write_str("no grant names the caller"),
            Self::Lacks { grant, line, what } => write!(f, "grant {grant}, line {line}: {what}"),
        }
    }
}

/// Whether a name fits: `*` and `?` only, since brackets would make a grant hard to read.
#[must_use]
pub fn matches(glob: &str, name: &str) -> bool {
    let (glob, name) = (glob.as_bytes(), name.as_bytes());
    let (mut g, mut n, mut retry) = (0, 0, None);
    while n < name.len() {
        match glob.get(g) {
            Some(b'*') => {
                retry = Some((g, n));
                g += 1;
            }
            Some(&b) if b == b'?' || b == name[n] => {
                g += 1;
                n += 1;
            }
            _ => match retry {
                Some((star, from)) => {
                    retry = Some((star, from + 1));
                    g = star + 1;
                    n = from + 1;
                }
                None => return false,
            },
        }
    }
    glob[g..].iter().all(|&b| b == b'*')
}

#[cfg(test)]
mod tests;
