//! A call, and what the policy says to it.

use thiserror::Error;

use super::facts::Facts;
use super::load::Policy;
use super::python::quoted;
use super::rule::{Action, Rule};
use super::token::{Place, Token, is_dom0};

/// A call as the policy sees it.
#[derive(Clone, Debug)]
pub struct Call {
    /// The service.
    pub service: String,
    /// The argument with its `+`.
    pub argument: String,
    /// Who calls.
    pub source: String,
    /// What is called, as far as it is there; `@default` where it is not.
    pub target: Token,
}

/// Why a call is no call.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RequestError {
    /// The target is no word that a caller may use.
    #[error("<unknown>:0: {0}")]
    Target(String),
    /// The target is a template of disposables that is none.
    #[error("{0}")]
    Denied(String),
}

/// A refusal.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{message}")]
pub struct Denial {
    /// Why.
    pub message: String,
    /// Whether the user is told.
    pub notify: bool,
}

/// What the policy says to a call that it does not refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The call goes to this target.
    Allow {
        /// A name, `uuid:...` or `@dispvm:NAME`.
        target: String,
        /// The user that the service runs as.
        user: Option<String>,
        /// Whether the target may be started for it.
        autostart: bool,
        /// Whether the user is told.
        notify: bool,
    },
    /// The user chooses.
    Ask {
        /// The targets on offer, sorted.
        targets: Vec<String>,
        /// The one that is chosen beforehand.
        default_target: Option<String>,
        /// The user that the service runs as.
        user: Option<String>,
        /// Whether the target may be started for it.
        autostart: bool,
        /// Whether the user is told.
        notify: bool,
        /// Where the rule stands.
        rule: String,
    },
}

impl Call {
    /// A call of `service` with `argument` (with its `+`) from `source` to what the caller wrote as its target. Notes for
    /// the log are added to `notes`.
    pub fn new(
        (service, argument): (&str, &str),
        source: &str,
        target: &str,
        facts: &Facts,
        notes: &mut Vec<String>,
    ) -> Result<Self, RequestError> {
        let target = if target.is_empty() { "@default" } else { target };
        let target = Token::parse(target, Place::Intended).map_err(RequestError::Target)?;
        let target = verify(target, facts, notes).map_err(RequestError::Denied)?;
        Ok(Self {
            service: service.to_owned(),
            argument: argument.to_owned(),
            source: source.to_owned(),
            target,
        })
    }
}

impl Policy {
    /// What the first fitting rule says.
    pub fn evaluate(&self, call: &Call, facts: &Facts, notes: &mut Vec<String>) -> Result<Verdict, Denial> {
        let denied = |message: String, notify: bool| Denial { message, notify };
        let rule = self
            .rules()
            .iter()
            .find(|rule| {
                fits_but_target(rule, call, facts)
                    && rule.target.fits(&call.target, Some(&call.source), facts)
            })
            .ok_or_else(|| denied("no matching rule found".to_owned(), true))?;
        match &rule.action {
            Action::Deny { notify } => Err(denied(format!("denied by policy {}", rule.place()), *notify)),
            Action::Allow { target, user, notify, autostart } => {
                let wanted = target.as_ref().unwrap_or(&call.target);
                let target =
                    allowed_target(rule, wanted, call, facts, notes).map_err(|why| denied(why, true))?;
                if !autostart && !runs(&target, facts) {
                    let why = format!("target {target} is denied because it would require autostart");
                    return Err(denied(why, *notify));
                }
                Ok(Verdict::Allow { target, user: user.clone(), autostart: *autostart, notify: *notify })
            }
            Action::Ask { .. } => self.ask(rule, call, facts, notes),
        }
    }
}

/// Whether a rule speaks of this service, argument and source.
pub(super) fn fits_but_target(rule: &Rule, call: &Call, facts: &Facts) -> bool {
    rule.service.as_ref().is_none_or(|service| *service == call.service)
        && rule.argument.as_ref().is_none_or(|argument| *argument == call.argument)
        && rule.source.fits(&Token::Name(call.source.clone()), None, facts)
}

/// Whether a target runs, or always does.
pub(super) fn runs(target: &str, facts: &Facts) -> bool {
    is_dom0(target) || facts.find(target).is_some_and(|(_, domain)| domain.power_state == "Running")
}

/// What a target really is: a name that is not there becomes `@default`.
fn verify(target: Token, facts: &Facts, notes: &mut Vec<String>) -> Result<Token, String> {
    match &target {
        Token::Name(name) if facts.find(name).is_none() => {
            notes.push(format!("target {} does not exist, using @default instead", quoted(name)));
            Ok(Token::Default)
        }
        Token::DispVmTemplate(name)
            if !facts.find(name).is_some_and(|(_, domain)| domain.template_for_dispvms) =>
        {
            Err(format!("not a template for dispvm: {name}"))
        }
        _ => Ok(target),
    }
}

fn allowed_target(
    rule: &Rule,
    wanted: &Token,
    call: &Call,
    facts: &Facts,
    notes: &mut Vec<String>,
) -> Result<String, String> {
    match verify(wanted.clone(), facts, notes)? {
        Token::Default => Err(format!(
            "policy define 'allow' action at {} but no target is specified by caller or policy",
            rule.place()
        )),
        Token::DispVm => facts.dispvm_template(&call.source).ok_or_else(|| {
            format!(
                "policy define 'allow' action to @dispvm at {} but no DispVM base is set for this VM",
                rule.place()
            )
        }),
        Token::AdminVm => Ok("dom0".to_owned()),
        target => Ok(target.text()),
    }
}
