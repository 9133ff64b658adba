//! Which templates of this system are managed, read from their features.
//!
//! Only TemplateVMs are asked. The reads go out together, a bounded number at a time. A qube whose features we may not read counts
//! as not managed, and all of them are named in one warning; a feature that is missing is empty.

use std::collections::{BTreeMap, HashMap};

use crate::admin::{AdminApi, CallError, Pending, QubeApi, bounded, system};
use crate::template::Installed;
use crate::template::installed::{FEATURES, MARKER, NOT_FINALIZED};
use crate::template::provenance::{self, Provenance, RECORD};

/// The feature that tells until when a template's system is maintained.
const END_OF_LIFE: &str = "os-eol";
/// What tells which build was installed, and when.
const EVIDENCE: [&str; 4] =
    ["template-epoch", "template-version", "template-release", "template-installtime"];
/// How many reads are under way at a time.
const AT_A_TIME: usize = 8;

/// How much of each template is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fields {
    /// Name, build and repository.
    Build,
    /// Name, build, repository, summary: what the words of a search are compared with, with description and address.
    Texts,
    /// Everything.
    All,
}

/// What a census found.
#[derive(Clone, Debug, Default)]
pub struct Census {
    /// The managed templates, sorted by name.
    pub templates: Vec<Installed>,
    /// What a person should know, fit to be shown.
    pub warnings: Vec<String>,
}

impl Fields {
    fn features(self) -> impl Iterator<Item = &'static str> {
        FEATURES.into_iter().filter(move |feature| {
            *feature != MARKER
                && match self {
                    Self::Build => !is_text(feature) && !feature.ends_with("time"),
                    Self::Texts => !feature.ends_with("time") && *feature != "template-license",
                    Self::All => true,
                }
        })
    }
}

fn is_text(feature: &str) -> bool {
    ["license", "url", "summary", "description"].iter().any(|end| feature.ends_with(end))
}

/// Reads which templates are managed.
///
/// # Errors
/// When the qubes cannot be listed, or reading fails for another reason than a refusal.
pub async fn take(api: &dyn AdminApi, fields: Fields) -> Result<Census, CallError> {
    let qubes: Vec<String> = system::list(api)
        .await?
        .into_iter()
        .filter(system::Qube::is_template)
        .map(|qube| qube.name)
        .collect();
    let mut census = Census::default();
    let mut denied = Vec::new();
    let mut managed = Vec::new();
    let markers = read(api, qubes.iter().map(|qube| (qube.as_str(), MARKER)).collect()).await;
    for (qube, marker) in qubes.iter().zip(markers) {
        match marker {
            Ok(Some(name)) if name == *qube => managed.push(qube.as_str()),
            Ok(_) => {}
            Err(e) if e.is_denied() => denied.push(qube.as_str()),
            // Gone since the list was made, or dom0 stumbled over this one: no reason to fail for the others.
            Err(e @ (CallError::Empty(_) | CallError::Malformed(_) | CallError::Api { .. })) => {
                census.warnings.push(format!("Warning: '{qube}' is left out: {e}"));
            }
            Err(e) => return Err(e),
        }
    }
    if !denied.is_empty() {
        let names = denied.join(", ");
        census
            .warnings
            .push(format!("Warning: no right to read the features of: {names}; counted as not managed"));
    }
    let wanted: Vec<(&str, &str)> = managed
        .iter()
        .flat_map(|qube| fields.features().chain([RECORD]).map(move |feature| (*qube, feature)))
        .collect();
    let values = read(api, wanted.clone()).await;
    let values: Vec<((&str, &str), Option<String>)> =
        wanted.into_iter().zip(values.into_iter().map(|value| value.ok().flatten())).collect();
    for qube in managed {
        let value = |feature: &str| {
            if feature == MARKER {
                return Some(qube.to_owned());
            }
            values.iter().find(|(place, _)| *place == (qube, feature)).and_then(|(_, value)| value.clone())
        };
        census.templates.extend(Installed::from_features(qube, value));
    }
    Ok(census)
}

/// What the features of one qube tell about its build; `None` when it is no managed template, or nobody may know.
///
/// # Errors
/// When dom0 cannot be asked.
pub async fn one(api: &dyn AdminApi, qube: &str) -> Result<Option<Installed>, CallError> {
    let wanted: Vec<&str> = FEATURES[..7].iter().copied().chain([RECORD]).collect();
    let mut values = HashMap::new();
    let answers = read(api, wanted.iter().map(|feature| (qube, *feature)).collect()).await;
    for (feature, answer) in wanted.into_iter().zip(answers) {
        match answer {
            Ok(Some(value)) => drop(values.insert(feature, value)),
            Ok(None) => {}
            Err(e) if e.is_denied() => return Ok(None),
            Err(e) => return Err(e),
        }
    }
    Ok(Installed::from_features(qube, |feature| values.get(feature).cloned()))
}

/// Those of these features of one qube that are set, by name.
///
/// # Errors
/// When one of them cannot be read.
pub async fn features(
    api: &dyn AdminApi,
    qube: &str,
    wanted: &[&str],
) -> Result<BTreeMap<String, String>, CallError> {
    let answers = read(api, wanted.iter().map(|feature| (qube, *feature)).collect()).await;
    let mut found = BTreeMap::new();
    for (feature, answer) in wanted.iter().zip(answers) {
        if let Some(value) = answer? {
            found.insert((*feature).to_owned(), value);
        }
    }
    Ok(found)
}

/// How all templates of this system that we may see came to be what they are, by name. Those whose features cannot be read are
/// left out.
///
/// # Errors
/// When the qubes cannot be listed.
pub async fn provenance(api: &dyn AdminApi) -> Result<BTreeMap<String, Provenance>, CallError> {
    let evidence: Vec<&str> =
        EVIDENCE.into_iter().chain([MARKER, RECORD]).chain(provenance::SYSTEM).collect();
    let mut judged = BTreeMap::new();
    for qube in system::list(api).await?.iter().filter(|qube| qube.is_template()) {
        let Ok(found) = features(api, &qube.name, &evidence).await else { continue };
        // Only dom0 has templates of rpm, and only there it costs nothing to ask.
        let by_rpm = !found.contains_key(MARKER)
            && api.may_probe()
            && QubeApi::new(api, &qube.name)
                .property("installed_by_rpm")
                .await
                .is_ok_and(|property| property.value == "True");
        let get = |feature: &str| found.get(feature).cloned();
        judged.insert(qube.name.clone(), Provenance::judge(&qube.name, qube.uuid.as_deref(), by_rpm, get));
    }
    Ok(judged)
}

/// Bytes that all volumes of each of these qubes take. What cannot be read counts as nothing.
pub async fn disk_usage(api: &dyn AdminApi, qubes: &[&str]) -> Vec<u64> {
    let one = |qube| -> Pending<'_, u64> {
        Box::pin(async move {
            let qube = QubeApi::new(api, qube);
            let mut sum = 0u64;
            for volume in qube.volumes().await.unwrap_or_default() {
                sum = sum.saturating_add(qube.volume(&volume).await.map_or(0, |info| info.usage));
            }
            sum
        })
    };
    bounded(AT_A_TIME, qubes.iter().map(|qube| one(*qube)).collect()).await
}

/// The last day on which each of these templates is maintained; empty where that is not known.
pub async fn end_of_life(api: &dyn AdminApi, qubes: &[&str]) -> Vec<String> {
    let days = read(api, qubes.iter().map(|qube| (*qube, END_OF_LIFE)).collect()).await;
    let is_day = |day: &String| day.len() == 10 && day.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    days.into_iter().map(|day| day.ok().flatten().filter(is_day).unwrap_or_default()).collect()
}

/// Why each of these templates is not finalized, one word; empty where it is, or nobody may know.
pub async fn not_finalized(api: &dyn AdminApi, qubes: &[&str]) -> Vec<String> {
    let marks = read(api, qubes.iter().map(|qube| (*qube, NOT_FINALIZED)).collect()).await;
    let is_word = |mark: &String| mark.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
    marks.into_iter().map(|mark| mark.ok().flatten().filter(is_word).unwrap_or_default()).collect()
}

async fn read(api: &dyn AdminApi, wanted: Vec<(&str, &str)>) -> Vec<Result<Option<String>, CallError>> {
    let one = |(qube, feature)| -> Pending<'_, _> {
        Box::pin(async move { QubeApi::new(api, qube).feature(feature).await })
    };
    bounded(AT_A_TIME, wanted.into_iter().map(one).collect()).await
}
