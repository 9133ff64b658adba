//! Services that the management qube offers to other qubes: who may ask, what may be asked, what is answered.
//!
//! Two locks stand before every request, and both must open. dom0's qrexec policy decides for caller, verb and
//! template name, because the verb is the service and the name is its argument. The [`grants`] of this qube decide
//! about everything that policy cannot see: repositories, pools, sizes, numbers, rates and whose templates.
//!
//! A caller is a hostile tenant until both agreed. What a caller wrote is data: it is bounded before it is parsed,
//! checked field by field, never part of a command line and never shown to another caller. An answer to a caller
//! names no other qube, no path and no rule; the full reason goes to the [`audit`] log.
//!
//! | file | what |
//! |---|---|
//! | [`grants`] | the file of grants and the decision made from it |
//! | [`request`] | the document on standard input, and its bounds |
//! | [`audit`] | one line for each decision and each outcome |
//! | [`records`] | owners, plans and jobs, as they are remembered |
//! | [`answer`] | the lines that a caller gets, also one that reads slowly or goes |
//! | [`serve`] | a service from its environment to its exit status |
//! | [`review`] | the file of grants as its author looks at it |
//! | [`client`] | the other end: a qube that asks |
//! | [`reads`], [`plan`], [`change`], [`jobs`] | what the verbs do |

pub mod answer;
pub mod audit;
pub mod change;
pub mod client;
pub mod grants;
pub mod jobs;
pub mod plan;
pub mod reads;
pub mod records;
pub mod request;
pub mod review;
pub mod serve;

use std::fmt;

/// What a caller may ask for: the part of the service's name after `template.`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// The templates that the caller may see.
    List,
    /// One template, with sizes and texts.
    Info,
    /// What repositories offer.
    Search,
    /// What a change would do, with an identifier to ask for exactly that.
    Plan,
    /// Install a template that is not there.
    Install,
    /// Install the present build anew.
    Reinstall,
    /// Install a newer build.
    Upgrade,
    /// Install an older build.
    Downgrade,
    /// Remove a template.
    Remove,
    /// Go back to the volumes before the last change.
    Rollback,
    /// Repeat what follows an installation: first start, features, shutdown.
    Finalize,
    /// How a job goes.
    Status,
    /// End a job, back to the state before it.
    Cancel,
}

impl Verb {
    /// Every verb, in the order of the documentation.
    pub const ALL: [Self; 13] = [
        Self::List,
        Self::Info,
        Self::Search,
        Self::Plan,
        Self::Install,
        Self::Reinstall,
        Self::Upgrade,
        Self::Downgrade,
        Self::Remove,
        Self::Rollback,
        Self::Finalize,
        Self::Status,
        Self::Cancel,
    ];

    /// The verb of a service name such as `template.Install`.
    #[must_use]
    pub fn from_service(service: &str) -> Option<Self> {
        let name = service.strip_prefix("template.")?;
        Self::ALL.into_iter().find(|verb| verb.service_suffix() == name)
    }

    /// The name of the qrexec service.
    #[must_use]
    pub fn service(self) -> String {
        format!("template.{}", self.service_suffix())
    }

    /// Whether the verb changes a template.
    #[must_use]
    pub fn changes(self) -> bool {
        matches!(
            self,
            Self::Install
                | Self::Reinstall
                | Self::Upgrade
                | Self::Downgrade
                | Self::Remove
                | Self::Rollback
                | Self::Finalize
        )
    }

    /// Whether the verb can be about all templates, so that the service needs no argument.
    #[must_use]
    pub fn is_without_name(self) -> bool {
        matches!(self, Self::List | Self::Search | Self::Status)
    }

    fn service_suffix(self) -> &'static str {
        match self {
            Self::List => "List",
            Self::Info => "Info",
            Self::Search => "Search",
            Self::Plan => "Plan",
            Self::Install => "Install",
            Self::Reinstall => "Reinstall",
            Self::Upgrade => "Upgrade",
            Self::Downgrade => "Downgrade",
            Self::Remove => "Remove",
            Self::Rollback => "Rollback",
            Self::Finalize => "Finalize",
            Self::Status => "Status",
            Self::Cancel => "Cancel",
        }
    }
}

/// The name as the grants file writes it.
impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.service_suffix().to_ascii_lowercase())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_and_verbs_go_there_and_back() {
        for verb in Verb::ALL {
            assert_eq!(Verb::from_service(&verb.service()), Some(verb));
        }
        for other in ["template.install", "template.", "template.Install+x", "qubes.PostInstall", ""] {
            assert_eq!(Verb::from_service(other), None, "{other}");
        }
    }
}
