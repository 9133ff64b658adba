//! `Plan`, and the choice of a build that it shares with the changes.
//!
//! A plan holds on to everything that the caller was shown: the offer, the build that is there, and the grant that
//! allowed it. Carrying it out looks at all of them again; where one is another, the plan is void.

use serde_json::{Value, json};

use super::Verb;
use super::answer::{Lines, Refused};
use super::grants::{Grant, Owner};
use super::records::{self, Offered, PLAN_AGE};
use super::request::Id;
use super::serve::{Desk, No, build};
use crate::catalogue::{Catalogue, Sources};
use crate::download::keyring_of;
use crate::template::select::{Presence, SelectError, Selector};
use crate::template::{Installed, Offer, RepoId, TemplateName, TemplateSpec};

/// What is to be installed, and where it comes from.
#[derive(Debug)]
pub struct Chosen {
    /// The offer.
    pub offer: Offer,
    /// The specification that means it and nothing else, among what `sources` have.
    pub spec: String,
    /// Only the repository that has it.
    pub sources: Sources,
}

impl From<&Offer> for Offered {
    fn from(offer: &Offer) -> Self {
        Self {
            repository: offer.repo.to_string(),
            build: offer.evr.to_string(),
            download_size: offer.download_size,
            build_time: offer.build_time.to_string(),
        }
    }
}

/// Chooses among the offers of the repositories that `grant` has; exactly the one of a plan where there is one. `None`
/// when what is installed is what was asked for.
///
/// # Errors
/// When there is no such offer, or the repositories cannot be asked.
pub async fn choose(
    desk: &Desk<'_>,
    lines: &Lines<'_>,
    (verb, name): (Verb, &TemplateName),
    grant: &Grant,
    before: Option<&Installed>,
    planned: Option<&Offered>,
) -> Result<Option<Chosen>, No> {
    let asked = desk.request.repository.clone().or_else(|| planned.and_then(|p| RepoId::new(&p.repository)));
    let repositories = match asked {
        Some(repo) if grant.repositories().contains(&repo) => vec![repo],
        Some(_) => return Err(No::because(Refused::Grants, "the repository is not granted")),
        None => grant.repositories().to_vec(),
    };
    if repositories.is_empty() {
        return Err(No::because(Refused::NotAvailable, "the grant has no repository"));
    }
    let sources = desk.sources(&repositories);
    let catalogue = Catalogue::new(desk.api, lines, &sources);
    let spec = specification(name.as_str())?;
    let found = desk.cancel.or(catalogue.search(Some(&spec))).await?;
    let version = desk.request.version.as_ref().map(|v| specification(&format!("{name}-{v}"))).transpose()?;
    let fits = |offer: &&Offer| {
        // `debian-13` may also be version 13 of `debian`, and the reply is the UpdateVM's to write.
        offer.name == name.as_str()
            && repositories.contains(&offer.repo)
            && version.as_ref().is_none_or(|spec| spec.matches(&offer.name, &offer.evr))
            && planned.is_none_or(|planned| *planned == Offered::from(*offer))
    };
    let offers: Vec<Offer> = found.reply.offers.iter().filter(fits).cloned().collect();
    let selector = match verb {
        Verb::Reinstall => Selector::Same,
        Verb::Upgrade => Selector::Higher,
        Verb::Downgrade => Selector::Lower,
        _ => Selector::Latest,
    };
    let presence = before.map_or(Presence::Unmanaged, |installed| Presence::Managed(installed.evr()));
    let selection = selector.select(&offers, &[spec], |_| presence.clone());
    let chosen = match selection {
        Ok(selection) => selection.chosen.into_iter().next(),
        Err(SelectError::NotManaged(_)) => {
            return Err(No::because(Refused::NoTemplate, "not a template of this tool"));
        }
        Err(error) if planned.is_some() => {
            return Err(No::because(Refused::PlanVoid, format!("the offer has changed: {error}")));
        }
        Err(error) => return Err(No::because(Refused::NotAvailable, error.to_string())),
    };
    let Some(offer) = chosen else {
        let gone = || No::because(Refused::PlanVoid, "the offer has changed");
        return if planned.is_some() { Err(gone()) } else { Ok(None) };
    };
    let spec = format!("{name}-{}", offer.evr);
    // An epoch stands in this form, and no name of a template has a colon: it means this one only.
    Ok(Some(Chosen { spec, sources: desk.sources(std::slice::from_ref(&offer.repo)), offer }))
}

fn specification(text: &str) -> Result<TemplateSpec, No> {
    TemplateSpec::new(text)
        .map_err(|error| No::because(Refused::Malformed("no possible version"), error.to_string()))
}

/// `Plan`.
///
/// # Errors
/// When it is not granted, or nothing can be planned.
pub async fn make(desk: &Desk<'_>) -> Result<Value, No> {
    let name = desk.named()?;
    let missing =
        || No::because(Refused::Malformed("the request's key \"verb\" is missing"), "no verb to plan");
    let verb = desk.request.verb.ok_or_else(missing)?;
    let (owner, _) = desk.standing(name).await?;
    // Both: to plan, and what is planned.
    desk.decide(Verb::Plan, Some(name), Owner::Nobody)?;
    let (number, grant) = desk.decide(verb, Some(name), owner)?;
    if verb != Verb::Install && owner == Owner::Nobody {
        return Err(No::because(Refused::NoTemplate, "there is no such template"));
    }
    desk.granted((number, &grant), None, None)?;
    let before = if owner == Owner::Nobody { None } else { desk.installed(name).await? };
    let lines = Lines::new(desk.outbox, &desk.records, "", name.as_str());
    let unchanged = json!({"name": name.as_str(), "action": "none", "outcome": "planned",
        "before": build(before.as_ref()), "after": build(before.as_ref())});
    let chosen = match verb {
        Verb::Install if owner != Owner::Nobody => None,
        Verb::Install | Verb::Reinstall | Verb::Upgrade | Verb::Downgrade => {
            choose(desk, &lines, (verb, name), &grant, before.as_ref(), None).await?
        }
        _ => None,
    };
    let needs_offer = !matches!(verb, Verb::Remove | Verb::Rollback | Verb::Finalize);
    if needs_offer && chosen.is_none() {
        desk.answered(None)?;
        return Ok(line("unchanged", &unchanged));
    }
    let plan = records::Plan {
        id: Id::random().as_str().to_owned(),
        caller: desk.caller.clone(),
        verb,
        template: name.to_string(),
        made: records::now(),
        grant: grant.text().to_owned(),
        before: before.as_ref().map(Installed::evr_text),
        offer: chosen.as_ref().map(|chosen| Offered::from(&chosen.offer)),
        pool: desk.request.pool.clone(),
    };
    let mut entry = json!({
        "name": name.as_str(), "action": verb.to_string(), "outcome": "planned", "before": build(before.as_ref()),
        "after": null, "pool": plan.pool,
        "overwrites": if matches!(verb, Verb::Reinstall | Verb::Upgrade | Verb::Downgrade) {
            json!(["root", "private"])
        } else { json!([]) },
    });
    if let Some(chosen) = &chosen {
        let offer = &chosen.offer;
        let catalogue = Catalogue::new(desk.api, &lines, &chosen.sources);
        let keyring = keyring_of(&catalogue.keys_for(offer)?)?;
        let signers: Vec<String> =
            keyring.certificates().iter().map(|certificate| certificate.fingerprint().to_string()).collect();
        entry["after"] = json!({
            "evr": offer.evr.to_string(), "reponame": offer.repo.as_str(),
            "buildtime": offer.build_time.to_string(), "download_size": offer.download_size,
            "may_sign": signers,
        });
    }
    desk.records.keep_plan(&plan)?;
    desk.answered(Some(&plan.id))?;
    let mut line = line("planned", &entry);
    line["plan"] = json!(plan.id);
    line["expires"] = json!(plan.made.saturating_add(PLAN_AGE));
    Ok(line)
}

fn line(result: &str, entry: &Value) -> Value {
    json!({
        "schema": 1, "command": "plan", "result": result, "exit": 0, "error": null, "warnings": [],
        "templates": [entry],
    })
}
