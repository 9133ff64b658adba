//! What the qrexec daemon decides about a call, and what it writes to its log.

use super::super::policy::{Call, Facts, LoadError, Policy, RequestError, Verdict, split_service};
use super::super::qrexec::{sanitized_service, sanitized_target};
use super::super::state::Rule;
use super::Server;
use super::settings::{Answer, Settings};

pub use super::eyes::facts_for_policy;

/// A call that may go through.
#[derive(Debug, PartialEq, Eq)]
pub struct Allowed {
    /// A qube's name, `dom0`, or `@dispvm:NAME`.
    pub to: String,
    /// The target as the policy understood it.
    pub requested: String,
    /// The service.
    pub service: String,
    /// Its argument without the `+`.
    pub arg: String,
    /// The user that it runs as, where the policy says so.
    pub user: Option<String>,
    /// Whether the target may be started for it.
    pub autostart: bool,
}

/// What a decision is made from.
#[expect(missing_debug_implementations, reason = "an answer is code")]
pub struct Grounds<'a> {
    /// The policy, or why there is none.
    pub policy: &'a Result<Policy, LoadError>,
    /// The qubes.
    pub facts: &'a Facts,
    /// Calls that the population refuses.
    pub refused: &'a [Rule],
    /// What the user says to a question: one of the targets on offer, another, or no.
    pub answer: &'a User<'a>,
}

/// Answers a question that offers these targets, one of them perhaps chosen beforehand.
pub type User<'a> = dyn Fn(&[String], Option<String>) -> Option<String> + 'a;

impl Grounds<'_> {
    /// Decides about a call with a cleaned name. Lines for the log are added to `lines`; none: refused.
    #[must_use]
    pub fn decide(
        &self,
        source: &str,
        target: &str,
        service_and_arg: &str,
        relayed_for: Option<&str>,
        lines: &mut Vec<String>,
    ) -> Option<Allowed> {
        let prefix = format!("{service_and_arg}: {source} -> {target}:");
        let (service, argument) = split_service(service_and_arg);
        let policy = match self.policy {
            Ok(policy) => policy,
            Err(error @ LoadError::Syntax { .. }) => {
                lines.push(format!("{prefix} error loading policy: {error}"));
                return None;
            }
            Err(error) => {
                lines.push(format!("{prefix} denied: {error}"));
                return None;
            }
        };
        let facts = self.facts;
        let call = match Call::new((service, argument), source, target, facts, lines) {
            Ok(call) => call,
            Err(error @ RequestError::Target(_)) => {
                lines.push(format!("{prefix} error loading policy: {error}"));
                return None;
            }
            Err(error) => {
                lines.push(format!("{prefix} denied: {error}"));
                return None;
            }
        };
        if let Some(relayed) = relayed_for.filter(|relayed| !relayed.is_empty()) {
            let why = match facts.find(relayed) {
                None => format!("unknown requested source qube '{relayed}'"),
                Some((_, qube)) if qube.class != "RemoteVM" => {
                    format!("{relayed}: requested source is only authorized for RemoteVM")
                }
                Some(_) => format!("{source} is not a relay for {relayed}"),
            };
            lines.push(format!("{prefix} denied: {why}"));
            return None;
        }
        let requested = call.target.text();
        if self.refused.iter().any(|rule| rule.fits(service, argument.trim_start_matches('+'), target)) {
            lines.push(format!("{prefix} denied: denied by policy of the population"));
            return None;
        }
        let (to, user, autostart) = match policy.evaluate(&call, facts, lines) {
            Ok(Verdict::Allow { target, user, autostart, .. }) => (target, user, autostart),
            Ok(Verdict::Ask { targets, default_target, user, autostart, rule, .. }) => {
                match (self.answer)(&targets, default_target) {
                    None => {
                        lines.push(format!("{prefix} denied: denied by the user {rule}"));
                        return None;
                    }
                    Some(target) if !targets.contains(&target) => {
                        lines.push(format!("{prefix} denied: target {target} is not a valid choice"));
                        return None;
                    }
                    Some(target) => (target, user, autostart),
                }
            }
            Err(denial) => {
                lines.push(format!("{prefix} denied: {denial}"));
                return None;
            }
        };
        lines.push(format!("{service}{argument}: {source} -> {requested}: allowed to {to}"));
        if to == source {
            lines.push(format!("{prefix} denied: loopback qrexec connection not supported"));
            return None;
        }
        let to = match facts.find(&to) {
            Some((name, _)) => name.to_owned(),
            None => to,
        };
        let arg = argument.strip_prefix('+').unwrap_or(argument).to_owned();
        Some(Allowed { to, requested, service: service.to_owned(), arg, user, autostart })
    }
}

impl Server {
    /// Decides about a call with a cleaned name as things are now.
    pub(super) fn decide(
        &self,
        source: &str,
        target: &str,
        service_and_arg: &str,
        relayed_for: Option<&str>,
        lines: &mut Vec<String>,
    ) -> Option<Allowed> {
        let grounds = Grounds {
            policy: &self.eyes.policy(),
            facts: &facts_for_policy(&self.qubesd.facts()),
            refused: &self.refused,
            answer: &|targets, default_target| self.answer(targets, default_target),
        };
        grounds.decide(source, target, service_and_arg, relayed_for, lines)
    }

    /// What the user says to a question.
    fn answer(&self, targets: &[String], default_target: Option<String>) -> Option<String> {
        let settings = Settings::read(&self.dir).unwrap_or_else(|error| {
            eprintln!("settings: {error:#}");
            Settings::default()
        });
        match settings.answer {
            Answer::Deny => None,
            Answer::Allow => default_target.or_else(|| targets.first().cloned()),
            Answer::Target(target) => Some(target),
        }
    }
}

/// Target and service as the daemon cleans them; none where the service has no name.
#[must_use]
pub fn cleaned(target: &[u8], service: &[u8]) -> Option<(String, String)> {
    sanitized_service(service).map(|service| (sanitized_target(target), service))
}
