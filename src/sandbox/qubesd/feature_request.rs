//! `qubes.FeaturesRequest`: what the agents in a qube say of themselves, as far as the server believes it.
//!
//! A guest puts names and values into its `/features-request`; the service hands them over. Qubes with a template are
//! not listened to. A feature `qrexec`, `gui` or `gui-emulated` that is there already stays as it is.

use std::collections::BTreeMap;

use super::state::State;
use super::{Failure, Qubesd};
use crate::sandbox::state::Class;

/// Lists of what a guest supports: what it no longer names goes.
const SUPPORTED: [&str; 3] = ["supported-feature.", "supported-rpc.", "supported-service."];

impl Qubesd {
    /// Puts a name and a value into a qube's `/features-request`.
    pub fn put_feature_request(&self, qube: &str, name: &str, value: &str) {
        let requests = &mut self.lock().feature_requests;
        requests.entry(qube.to_owned()).or_default().insert(name.to_owned(), value.to_owned());
    }

    /// The service: takes over what the qube requests.
    pub(super) fn request_features(&self, qube: &str) -> Result<(), Failure> {
        let mut state = self.lock();
        let requested = state.feature_requests.get(qube).cloned().unwrap_or_default();
        let taken = take_over(&mut state, qube, &requested);
        self.save(&mut state).map_err(|_| Failure::Untold)?;
        taken
    }
}

fn take_over(state: &mut State, qube: &str, requested: &BTreeMap<String, String>) -> Result<(), Failure> {
    let list: Vec<String> = requested.iter().map(|(name, value)| format!("'{name}': '{value}'")).collect();
    state.tell(qube, "features-request", &[("untrusted_features", &format!("{{{}}}", list.join(", ")))]);
    let asking = state.qube(qube)?;
    if asking.class == Class::AdminVM || asking.property("template").is_some() {
        return Ok(());
    }
    let plain = |name: &str| requested.get(name).map(String::as_str).filter(|value| !value.is_empty());
    for name in ["os", "os-distribution", "os-distribution-like"] {
        if let Some(value) = plain(name) {
            state.set_feature(qube, name, value)?;
        }
    }
    if let Some(version) = plain("os-version").filter(|version| is_version(version, ".-")) {
        state.set_feature(qube, "os-version", version)?;
    }
    if let Some(day) =
        plain("os-eol").filter(|day| day.parse::<jiff::civil::Date>().is_ok() && day.len() == 10)
    {
        state.set_feature(qube, "os-eol", day)?;
    }
    if let Some(version) = plain("qubes-agent-version").filter(|version| is_version(version, ".")) {
        state.set_feature(qube, "qubes-agent-version", version)?;
    }
    take_over_supported(state, qube, requested)?;
    let had_qrexec = state.qube(qube)?.features.get("qrexec").is_some_and(|value| !value.is_empty());
    let switch = |name: &str| match requested.get(name).map(String::as_str) {
        Some("1") => Some("1"),
        Some("0") => Some(""),
        _ => None,
    };
    for name in ["qrexec", "gui", "gui-emulated"] {
        if let Some(value) = switch(name).filter(|_| state.system.qubes[qube].features.get(name).is_none()) {
            state.set_feature(qube, name, value)?;
        }
    }
    for name in ["qubes-firewall", "vmexec"] {
        if let Some(value) = switch(name) {
            state.set_feature(qube, name, value)?;
        }
    }
    if !had_qrexec && state.qube(qube)?.features.get("qrexec").is_some_and(|value| !value.is_empty()) {
        state.tell(qube, "template-postinstall", &[]);
    }
    Ok(())
}

fn take_over_supported(
    state: &mut State,
    qube: &str,
    requested: &BTreeMap<String, String>,
) -> Result<(), Failure> {
    let listed = |name: &str| SUPPORTED.iter().any(|prefix| name.starts_with(prefix));
    let gone: Vec<String> = state
        .qube(qube)?
        .features
        .iter()
        .filter(|(name, _)| listed(name) && requested.get(*name).is_none_or(String::is_empty))
        .map(|(name, _)| name.to_owned())
        .collect();
    for name in gone {
        state.remove_feature(qube, &name)?;
    }
    for name in
        requested.iter().filter(|(name, value)| listed(name) && !value.is_empty()).map(|(name, _)| name)
    {
        state.set_feature(qube, name, "1")?;
    }
    Ok(())
}

fn is_version(text: &str, others: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_digit() || others.contains(c))
}
