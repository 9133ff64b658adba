//! The question to the user: what it offers.

use std::collections::BTreeSet;

use super::evaluate::{Call, Denial, Verdict, fits_but_target, runs};
use super::facts::Facts;
use super::load::Policy;
use super::rule::{Action, Rule};
use super::token::Token;

impl Policy {
    pub(super) fn ask(
        &self,
        rule: &Rule,
        call: &Call,
        facts: &Facts,
        notes: &mut Vec<String>,
    ) -> Result<Verdict, Denial> {
        let Action::Ask { target, default_target, user, autostart, .. } = &rule.action else {
            return Err(Denial { message: "programmer error".to_owned(), notify: true });
        };
        let mut targets: Vec<String> = match target {
            Some(target) if target.is_dom0() => vec!["dom0".to_owned()],
            Some(target) => vec![target.text()],
            None => self.offers(call, facts).into_iter().collect(),
        };
        if !autostart {
            targets.retain(|target| runs(target, facts));
        }
        if targets.is_empty() {
            let place = rule.place();
            let message =
                format!("policy define 'ask' action at {place} but no target is available to choose from");
            return Err(Denial { message, notify: true });
        }
        let mut default_target = match default_target {
            Some(Token::DispVm) => facts.dispvm_template(&call.source),
            Some(target) if target.is_dom0() => Some("dom0".to_owned()),
            Some(target) => Some(target.text()),
            None => None,
        };
        if let Some(missing) = default_target.take_if(|target| !targets.contains(target)) {
            notes.push(format!(
                "warning: policy define default_target={missing} at {} but it is not among allowed targets ({})",
                rule.place(),
                targets.join(", ")
            ));
        }
        Ok(Verdict::Ask {
            targets,
            default_target,
            user: user.clone(),
            autostart: *autostart,
            notify: rule.notify(),
            rule: rule.place(),
        })
    }

    /// Every target that some rule would let this call have. Later rules count less, so they are taken first, and what
    /// an earlier one denies goes again.
    fn offers(&self, call: &Call, facts: &Facts) -> BTreeSet<String> {
        let mut offers = BTreeSet::new();
        for rule in self.rules().iter().rev().filter(|rule| fits_but_target(rule, call, facts)) {
            let target = match &rule.action {
                Action::Allow { target: Some(target), .. } | Action::Ask { target: Some(target), .. } => {
                    target
                }
                _ => &rule.target,
            };
            for offer in target.expand(facts) {
                match rule.action {
                    Action::Deny { .. } => offers.remove(&offer),
                    _ => offers.insert(offer),
                };
            }
        }
        if offers.remove("@dispvm") {
            offers.extend(facts.dispvm_template(&call.source));
        }
        if offers.remove("@adminvm") {
            offers.insert("dom0".to_owned());
        }
        if let Some((source, _)) = facts.find(&call.source) {
            offers.remove(source);
        }
        offers.retain(|offer| {
            let name = offer.trim_start_matches("@dispvm:");
            facts.find(name).is_none_or(|(_, domain)| domain.internal.as_deref().is_none_or(str::is_empty))
        });
        offers
    }
}
