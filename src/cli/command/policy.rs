//! `check-policy`: what dom0's policy lets this tool do, or the rules that it would need.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::cli::format::table;
use crate::cli::run::{Done, Run, show};
use crate::cli::table::{COMMANDS, Command, Opt};
use crate::needs::{self, About, Names, Need};
use crate::report::Failure;
use crate::sandbox::policy::{Call, Directories, Domain, Facts, Policy, Verdict};
use crate::template::TemplateName;

/// Stands for any template that the management qube made.
const ANY: &str = "any-template";
/// Where dom0's policy is.
const POLICY: &str = "/etc/qubes/policy.d";

/// What policy says to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Allowed,
    Asks,
    Refused,
}

impl Said {
    fn word(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Asks => "asks",
            Self::Refused => "refused",
        }
    }
}

impl Run<'_> {
    pub(in crate::cli) fn check_policy(&self) -> Result<Done, Failure> {
        let own = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        let qube = match self.typed.positionals.as_slice() {
            [] => own.filter(|name| name != "dom0").ok_or_else(|| {
                Failure::Usage("check-policy needs the name of the management qube".to_owned())
            })?,
            [qube] => qube.clone(),
            _ => return Err(Failure::Usage("check-policy is about one qube".to_owned())),
        };
        TemplateName::new(&qube).map_err(|error| Failure::Usage(error.to_string()))?;
        let command = self.typed.last(Opt::For);
        if let Some(command) = command.filter(|command| Command::by_name(command).is_none()) {
            return Err(Failure::Usage(format!("'{command}' is no command")));
        }
        let updatevm = self.settings.updatevm.value.clone().unwrap_or_else(|| "sys-net".to_owned());
        let asks_itself = updatevm.is_empty();
        let names = Names { qube: &qube, updatevm: &updatevm };
        let needed =
            |need: &&Need| !asks_itself || !matches!(need.about, About::UpdateVm | About::InUpdateVm);
        // The files are dom0's; in a qube there are none, and nobody is asked for them.
        if std::fs::read_dir(POLICY).is_err() {
            let text = needs::policy(needs::of(command).filter(needed), names);
            let whole = if text.is_empty() {
                "# No rule is needed.\n".to_owned()
            } else {
                format!("# For {qube}; goes to {POLICY}/30-qvm-template.policy in dom0.\n{text}")
            };
            return Ok(Done {
                json: json!({"readable": false, "rules": whole}),
                text: whole,
                ..Done::default()
            });
        }
        let policy = Policy::load(&Directories::of_dom0(Path::new("/"))).map_err(|error| {
            Failure::new(format!("the policy cannot be used, so every call is refused: {error}"))
        })?;
        let facts = self.facts(names);
        let said = |need: &Need| verdict(&policy, &facts, need, names);
        match command {
            Some(command) => {
                one(command, needs::of(Some(command)).filter(needed), said, names, self.typed.has(Opt::Json))
            }
            None => Ok(all(needed, said)),
        }
    }

    /// The qubes as far as rules for this tool speak of them.
    fn facts(&self, names: Names<'_>) -> Facts {
        let tags = self.typed.values(Opt::Tag).map(str::to_owned).collect();
        let domain = |class: &str, tags: Vec<String>| Domain {
            tags,
            class: class.to_owned(),
            power_state: "Running".to_owned(),
            guivm: Some("dom0".to_owned()),
            ..Domain::default()
        };
        let mut domains = BTreeMap::new();
        domains.insert("dom0".to_owned(), domain("AdminVM", Vec::new()));
        domains.insert(names.updatevm.to_owned(), domain("AppVM", Vec::new()));
        domains.insert(names.qube.to_owned(), domain("AppVM", tags));
        domains.insert(ANY.to_owned(), domain("TemplateVM", vec![format!("created-by-{}", names.qube)]));
        Facts { domains }
    }
}

fn verdict(policy: &Policy, facts: &Facts, need: &Need, names: Names<'_>) -> Said {
    let target = match need.about {
        About::System => "dom0",
        About::Own | About::InOwn => ANY,
        About::UpdateVm | About::InUpdateVm => names.updatevm,
    };
    // An argument that no rule can name stands for any.
    let argument = if need.argument == "*" { "+any-argument" } else { need.argument };
    let Ok(call) = Call::new((need.service, argument), names.qube, target, facts, &mut Vec::new()) else {
        return Said::Refused;
    };
    // A call about a qube that goes to the qube itself, or the other way round, is not what is needed.
    let wanted = match need.about {
        About::InOwn | About::InUpdateVm => target,
        _ => "dom0",
    };
    match policy.evaluate(&call, facts, &mut Vec::new()) {
        Ok(Verdict::Allow { target, .. }) if target == wanted => Said::Allowed,
        Ok(Verdict::Ask { targets, .. }) if targets.iter().any(|target| target == wanted) => Said::Asks,
        _ => Said::Refused,
    }
}

/// One command: every rule it needs, and what is missing as text to paste.
fn one<'a>(
    command: &str,
    needs: impl Iterator<Item = &'a Need>,
    said: impl Fn(&Need) -> Said,
    names: Names<'_>,
    json: bool,
) -> Result<Done, Failure> {
    let judged: Vec<(&Need, Said)> = needs.map(|need| (need, said(need))).collect();
    let line = |(need, said): &(&Need, Said)| {
        let when = if need.is_required() { "always" } else { need.when };
        [said.word(), need.service, need.argument, &need.target(names), when].map(str::to_owned).to_vec()
    };
    let mut text = if judged.is_empty() {
        format!("{command} needs no rule\n")
    } else {
        table(&judged.iter().map(line).collect::<Vec<_>>())
    };
    let missing = || judged.iter().filter(|(_, said)| *said == Said::Refused).map(|(need, _)| *need);
    if missing().next().is_some() {
        text.push_str(&format!(
            "\n# Missing; goes to {POLICY} in dom0.\n{}",
            needs::policy(missing(), names)
        ));
    }
    let value = |(need, said): &(&Need, Said)| {
        json!({
            "service": need.service, "argument": need.argument, "target": need.target(names),
            "when": if need.is_required() { Value::Null } else { json!(need.when) }, "said": said.word(),
        })
    };
    let value = json!({
        "readable": true, "command": command, "needs": judged.iter().map(value).collect::<Vec<_>>(),
        "missing": needs::policy(missing(), names),
    });
    if missing().any(Need::is_required) {
        if !json {
            show(&text);
        }
        return Err(Failure::new(format!("the policy does not let {} {command} templates", names.qube)));
    }
    Ok(Done { text, json: value, ..Done::default() })
}

/// All commands, a line each.
fn all(needed: impl Fn(&&'static Need) -> bool, said: impl Fn(&Need) -> Said) -> Done {
    let mut rows = Vec::new();
    let mut values = Vec::new();
    for def in COMMANDS {
        let judged: Vec<(&Need, Said)> =
            needs::of(Some(def.name)).filter(|need| needed(need)).map(|need| (need, said(need))).collect();
        if judged.is_empty() {
            continue;
        }
        let lacks = |required: bool| {
            judged
                .iter()
                .filter(|(need, said)| need.is_required() == required && *said == Said::Refused)
                .count()
        };
        let asks = judged.iter().any(|(_, said)| *said == Said::Asks);
        let word = match (lacks(true), asks) {
            (0, false) => Said::Allowed,
            (0, true) => Said::Asks,
            _ => Said::Refused,
        };
        let left = match (lacks(true), lacks(false)) {
            (0, 0) => String::new(),
            (must, may) => format!("missing: {must} needed, {may} for special cases"),
        };
        rows.push(vec![def.name.to_owned(), word.word().to_owned(), left]);
        values.push(json!({
            "command": def.name, "said": word.word(), "missing": lacks(true), "missing_special": lacks(false),
        }));
    }
    let hint = "check-policy --for COMMAND shows the rules\n";
    let json = json!({"readable": true, "commands": values});
    Done { text: format!("{}{hint}", table(&rows)), json, ..Done::default() }
}
