//! `adopt`: templates taken under management, by evidence.
//!
//! What a template is has to be told by its features: a clone carries those of its original, and another tool, or one that was
//! cut off, leaves them without the mark or without some texts. Nothing is made up: where the build or its times are not
//! there, the template stays as it is, and the message says what can be done. Texts that are missing become empty, which the
//! original reads as well.
//!
//! The mark is written last, so that a template never looks managed before it is described.

use std::collections::BTreeMap;

use crate::admin::{AdminApi, QubeApi, system};
use crate::cancel::Cancel;
use crate::census;
use crate::ledger::{Action, Build, Ending, Ledger, Trouble};
use crate::lock::Lock;
use crate::report::{Failure, Message, Reporter};
use crate::template::installed::{FEATURES, Installed, MARKER};
use crate::template::provenance::{self, Provenance, RECORD, Record};
use crate::template::{Evr, TemplateName, Timestamp};

/// Features without which nothing tells which build it is.
const NEEDED: [&str; 5] =
    ["template-epoch", "template-version", "template-release", "template-buildtime", "template-installtime"];

/// How to go about it.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Ask before anything is changed.
    pub ask: bool,
    /// Work everything out and change nothing.
    pub dry_run: bool,
}

/// What is to be written.
struct Plan {
    name: String,
    /// Features with their new values, in order; the mark is the last one.
    writes: Vec<(&'static str, String)>,
    /// What they are now.
    before: BTreeMap<String, String>,
}

/// Takes the templates called `names` under management.
///
/// # Errors
/// When a name cannot be meant, the person says no, evidence is missing, or dom0 refuses. A template of which that is so is as
/// it was; those before it are done.
pub async fn run(
    api: &dyn AdminApi,
    reporter: &dyn Reporter,
    cancel: &Cancel,
    names: &[String],
    options: Options,
    ledger: &Ledger,
) -> Result<(), Failure> {
    if names.is_empty() {
        return Err(Failure::Usage("the following arguments are required: TEMPLATE".to_owned()));
    }
    let _lock = match options.dry_run {
        true => None,
        false => Some(lock(names)?),
    };
    let qubes = system::list(api).await?;
    let mut plans = Vec::new();
    for name in names {
        let Some(qube) = qubes.iter().find(|qube| qube.name == *name) else {
            return Err(Failure::Usage(format!("no such domain: '{name}'")));
        };
        if !qube.is_template() {
            return Err(Failure::Usage(format!("'{name}' is no template but of class {}", qube.class)));
        }
        if plans.iter().any(|plan: &Plan| plan.name == *name) {
            return Err(Failure::Usage(format!("'{name}' is named twice")));
        }
        plans.extend(plan(api, qube, ledger).await?);
    }
    if options.dry_run || plans.is_empty() {
        return Ok(());
    }
    if options.ask {
        let names: Vec<String> = plans.iter().map(|plan| plan.name.clone()).collect();
        let text = "This will take these templates under management, as what their features say they are:";
        let asked = async { reporter.confirm(text, &names).await.map_err(Failure::new) };
        if !cancel.or(asked).await? {
            return Err(Failure::Declined);
        }
    }
    for plan in plans {
        if let Err(failure) = carry_out(api, reporter, cancel, &plan).await {
            ledger.failed(&plan.name, Trouble::of(&failure));
            return Err(failure);
        }
        ledger.done(&plan.name, Ending::Done, None);
    }
    Ok(())
}

fn lock(names: &[String]) -> Result<Lock, Failure> {
    let lock = Lock::take("adopt").map_err(anyhow::Error::from)?;
    let names = names.iter().map(String::as_str).filter(|name| TemplateName::new(name).is_ok());
    lock.templates(names).map_err(anyhow::Error::from)?;
    Ok(lock)
}

/// What has to be written so that one template is managed; `None` where it is.
async fn plan(api: &dyn AdminApi, qube: &system::Qube, ledger: &Ledger) -> Result<Option<Plan>, Failure> {
    let name = &qube.name;
    let wanted: Vec<&str> = FEATURES.into_iter().chain([RECORD]).chain(provenance::SYSTEM).collect();
    let before = census::features(api, name, &wanted).await?;
    let get = |feature: &str| before.get(feature).cloned();
    let provenance = Provenance::judge(name, qube.uuid.as_deref(), false, get);
    if matches!(provenance, Provenance::Installed | Provenance::Adopted) {
        ledger.skip(name, "managed already");
        return Ok(None);
    }
    let as_text = |feature: &str| get(feature).unwrap_or_default();
    let evr = Evr::new(&as_text(NEEDED[0]), &as_text(NEEDED[1]), &as_text(NEEDED[2]));
    let times = [NEEDED[3], NEEDED[4]].map(|feature| Timestamp::parse(&as_text(feature)));
    let (Ok(evr), [Some(built), Some(time)]) = (evr, times) else {
        return Err(no_evidence(name, &provenance, &as_text));
    };
    let package = get(MARKER).filter(|marker| !marker.is_empty()).unwrap_or_else(|| name.clone());
    // Where a template was taken over before, what it came from is known better than by its mark.
    let known = get(RECORD).and_then(|text| Record::parse(&text)).map(|record| record.package);
    let package = if package == *name { known.unwrap_or(package) } else { package };
    let record = Record {
        adopted: true,
        package,
        evr: evr.to_string(),
        time,
        uuid: qube.uuid.clone(),
        os: provenance::system(get),
    };
    let mut writes: Vec<(&'static str, String)> = FEATURES
        .into_iter()
        .filter(|feature| *feature != MARKER && !before.contains_key(*feature))
        .map(|feature| (feature, String::new()))
        .collect();
    writes.push((RECORD, record.to_feature()));
    if get(MARKER).as_ref() != Some(name) {
        writes.push((MARKER, name.clone()));
    }
    let described = Installed::from_features(name, |f| if f == MARKER { Some(name.clone()) } else { get(f) });
    let repo = described.map(|installed| installed.repo).unwrap_or_default();
    let build = Build { evr: evr.to_string(), repo, build_time: built.to_string(), ..Build::default() };
    ledger.plan(name, Action::Adopt, None, Some(build));
    if let Some(mark) = provenance.mark() {
        ledger.remark(name, &mark);
    }
    Ok(Some(Plan { name: name.clone(), writes, before }))
}

/// Says what is missing, and what can be done instead.
fn no_evidence(name: &str, provenance: &Provenance, value: &dyn Fn(&str) -> String) -> Failure {
    let missing: Vec<&str> = NEEDED.into_iter().filter(|feature| value(feature).is_empty()).collect();
    let what = match missing.is_empty() {
        true => "its features make no sense".to_owned(),
        false => format!("it has no {}", missing.join(", ")),
    };
    let help = match provenance {
        Provenance::Half => format!("'qvm-template upgrade {name}' installs the newest build over it"),
        _ => format!(
            "'qvm-template retire {name} --to OTHER' lets what uses it use another one, and removes it"
        ),
    };
    Failure::new(format!("nothing tells which build '{name}' is: {what}\nhelp: {help}"))
}

/// Writes the features; on failure or a signal puts back what was there.
async fn carry_out(
    api: &dyn AdminApi,
    reporter: &dyn Reporter,
    cancel: &Cancel,
    plan: &Plan,
) -> Result<(), Failure> {
    let qube = QubeApi::new(api, &plan.name);
    let begun = std::cell::Cell::new(0);
    let writing = async {
        for (feature, value) in &plan.writes {
            begun.set(begun.get() + 1);
            qube.set_feature(feature, value).await?;
        }
        Ok(())
    };
    let result = cancel.or(writing).await;
    if result.is_err() {
        for (feature, _) in plan.writes.iter().take(begun.get()).rev() {
            let undone = match plan.before.get(*feature) {
                Some(value) => qube.set_feature(feature, value).await,
                None => qube.remove_feature(feature).await,
            };
            if let Err(error) = undone {
                let text = format!("'{feature}' of '{}' could not be put back: {error}", plan.name);
                reporter.say(&Message::Warning(&text));
            }
        }
    }
    result
}
