//! One line of a policy.

use std::sync::Arc;

use super::python::{list, quoted, tuple, words};
use super::token::{Place, Token};

/// What a rule says to a call that it fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The call goes through.
    Allow {
        /// Where it goes instead of the target that was asked for.
        target: Option<Token>,
        /// The user that the service runs as.
        user: Option<String>,
        /// Whether the user is told.
        notify: bool,
        /// Whether the target may be started for it.
        autostart: bool,
    },
    /// The user decides.
    Ask {
        /// The only target that is offered.
        target: Option<Token>,
        /// The target that is chosen beforehand.
        default_target: Option<Token>,
        /// The user that the service runs as.
        user: Option<String>,
        /// Whether the user is told.
        notify: bool,
        /// Whether the target may be started for it.
        autostart: bool,
    },
    /// The call is refused.
    Deny {
        /// Whether the user is told.
        notify: bool,
    },
}

/// One rule, and where it stands.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The service, none for every service.
    pub service: Option<String>,
    /// The argument with its `+`, none for every argument.
    pub argument: Option<String>,
    /// Who calls.
    pub source: Token,
    /// What is called.
    pub target: Token,
    /// What then happens.
    pub action: Action,
    /// The file that it stands in.
    pub file: Arc<str>,
    /// The line, none for a rule that is implied.
    pub line: Option<usize>,
}

impl Rule {
    /// Reads a line of five columns and more.
    pub(super) fn parse(line: &str, file: &Arc<str>, number: usize) -> Result<Self, String> {
        let words = words(line);
        let [service, argument, source, target, action, parameters @ ..] = words.as_slice() else {
            return Err("wrong number of fields".to_owned());
        };
        let (service, argument) = service_and_argument(service, argument)?;
        Self::build((service, argument), (source, target), action, parameters, (file, Some(number)))
    }

    /// Reads a line of a file that was included for one service: three columns and more.
    pub(super) fn parse_for_service(
        line: &str,
        (service, argument): (Option<String>, Option<String>),
        at: (&Arc<str>, Option<usize>),
    ) -> Result<Self, String> {
        let words = words(line);
        let [source, target, rest @ ..] = words.as_slice() else {
            return Err("wrong number of fields".to_owned());
        };
        let rest: Vec<&str> = rest.iter().flat_map(|word| word.split(',')).collect();
        let [action, parameters @ ..] = rest.as_slice() else {
            return Err("wrong number of fields".to_owned());
        };
        Self::build((service, argument), (source, target), action, parameters, at)
    }

    fn build(
        (service, argument): (Option<String>, Option<String>),
        (source, target): (&str, &str),
        action: &str,
        parameters: &[&str],
        (file, line): (&Arc<str>, Option<usize>),
    ) -> Result<Self, String> {
        let source = Token::parse(source, Place::Source)?;
        let target = Token::parse(target, Place::Target)?;
        let action = parse_action(action, parameters)?;
        if target == Token::Default && matches!(action, Action::Allow { target: None, .. }) {
            return Err("allow action for @default rule must specify target= option".to_owned());
        }
        Ok(Self { service, argument, source, target, action, file: Arc::clone(file), line })
    }

    /// Where the rule stands, as messages name it.
    #[must_use]
    pub fn place(&self) -> String {
        match self.line {
            Some(line) => format!("{}:{line}", self.file),
            None => format!("{}:None", self.file),
        }
    }

    pub(super) fn notify(&self) -> bool {
        match self.action {
            Action::Allow { notify, .. } | Action::Ask { notify, .. } | Action::Deny { notify } => notify,
        }
    }
}

/// Checks the first two columns of a rule.
pub(super) fn service_and_argument(
    service: &str,
    argument: &str,
) -> Result<(Option<String>, Option<String>), String> {
    let service = Some(service).filter(|service| *service != "*");
    let argument = Some(argument).filter(|argument| *argument != "*");
    if let Some(service) = service {
        let odd = odd_characters(service, "-._");
        if !odd.is_empty() {
            return Err(format!("service {} contains invalid characters: {}", quoted(service), tuple(&odd)));
        }
    }
    if let Some(argument) = argument {
        let odd = odd_characters(argument, "+-._");
        if !odd.is_empty() {
            return Err(format!(
                "argument {} contains invalid characters: {}",
                quoted(argument),
                tuple(&odd)
            ));
        }
        if !argument.starts_with('+') {
            return Err(format!("argument {} does not start with +", quoted(argument)));
        }
        if service.is_none() {
            return Err("only * argument allowed for * service".to_owned());
        }
    }
    Ok((service.map(str::to_owned), argument.map(str::to_owned)))
}

/// Characters that a service name with these additional ones cannot have, sorted, each once.
pub(super) fn odd_characters(text: &str, allowed: &str) -> Vec<char> {
    let mut odd: Vec<char> =
        text.chars().filter(|c| !c.is_ascii_alphanumeric() && !allowed.contains(*c)).collect();
    odd.sort_unstable();
    odd.dedup();
    odd
}

fn parse_action(action: &str, parameters: &[&str]) -> Result<Action, String> {
    let (name, known): (&str, &[&str]) = match action {
        "allow" => ("Allow", &["target", "user", "notify", "autostart"]),
        "ask" => ("Ask", &["target", "default_target", "user", "notify", "autostart"]),
        "deny" => ("Deny", &["notify"]),
        _ => return Err(format!("invalid action: {action}")),
    };
    let mut given: Vec<(&str, &str)> = Vec::new();
    for parameter in parameters {
        let (key, value) = parameter
            .split_once('=')
            .ok_or_else(|| format!("invalid action parameter syntax: {}", quoted(parameter)))?;
        if given.iter().any(|(k, _)| *k == key) {
            return Err(format!("parameter given twice: {}", quoted(key)));
        }
        given.push((key, value));
    }
    let value = |key: &str| given.iter().find(|(k, _)| *k == key).map(|(_, value)| *value);
    for key in ["notify", "autostart"] {
        if let Some(value) = value(key).filter(|value| !matches!(*value, "yes" | "no")) {
            return Err(format!("{} is {}, but can be only 'yes' or 'no'", quoted(key), quoted(value)));
        }
    }
    if given.iter().any(|(key, _)| !known.contains(key)) {
        return Err(format!("invalid parameters for action {name}: {}", list(parameters)));
    }
    let redirect = |key| value(key).map(|word| Token::parse(word, Place::Redirect)).transpose();
    let user = value("user").map(str::to_owned);
    let notify = value("notify").map(|value| value == "yes");
    let autostart = value("autostart") != Some("no");
    Ok(match action {
        "allow" => {
            Action::Allow { target: redirect("target")?, user, notify: notify.unwrap_or(false), autostart }
        }
        "ask" => Action::Ask {
            target: redirect("target")?,
            default_target: redirect("default_target")?,
            user,
            notify: notify.unwrap_or(false),
            autostart,
        },
        _ => Action::Deny { notify: notify.unwrap_or(true) },
    })
}
