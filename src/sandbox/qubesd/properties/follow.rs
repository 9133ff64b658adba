//! What follows from a changed property elsewhere: tags that name servers of windows and sound, features that name
//! services, and news of properties that are worked out from the changed one.

use super::super::state::State;
use super::super::{qubes, tags};
use super::{Failure, Holder, Property, value_of_qube};
use crate::sandbox::state::{Class, Qube};

/// Properties that a qube takes from its template while they are not set.
const FROM_TEMPLATE: [&str; 9] = [
    "default_user",
    "kernel",
    "kernelopts",
    "vcpus",
    "memory",
    "maxmem",
    "qrexec_timeout",
    "shutdown_timeout",
    "management_dispvm",
];
const CLOCK: &str = "service.clocksync";

/// After a property was set.
pub(super) fn changed(
    state: &mut State,
    holder: Holder<'_>,
    property: &Property,
    old: Option<&str>,
) -> Result<(), Failure> {
    let new = holder.value(&state.system, property);
    let differs = new.as_deref() != old;
    match (holder, property.name) {
        (Holder::Qube(name), "label" | "template_for_dispvms") => tell_reset(state, name, "icon", None),
        (Holder::Qube(name), "template") if differs => {
            let made_in_advance = |qube: &Qube| {
                qube.class == Class::DispVM
                    && qube.flag("is_preload")
                    && qube.property("template") == Some(name)
            };
            let all = state.system.qubes.iter();
            let gone: Vec<String> =
                all.filter(|(_, qube)| made_in_advance(qube)).map(|(name, _)| name.clone()).collect();
            gone.iter().for_each(|gone| qubes::forget(state, gone));
        }
        (Holder::Qube(name), "netvm") => {
            let runs = |qube: &str| state.system.qubes.get(qube).is_some_and(|qube| !qube.state.is_halted());
            if let Some(netvm) = new.filter(|_| runs(name)) {
                state.tell(&netvm, "net-domain-connect", &[("vm", name)]);
            }
        }
        (Holder::Qube(name), property) if FROM_TEMPLATE.contains(&property) && differs => {
            for child in with_default(state, property, |state, qube| {
                state.system.qubes[qube].property("template") == Some(name)
            }) {
                tell_reset(state, &child, property, None);
            }
        }
        (Holder::Qube(name), "keyboard_layout") if differs => {
            for client in with_default(state, "keyboard_layout", |state, qube| {
                value_of_qube(&state.system, qube, "guivm").as_deref() == Some(name)
            }) {
                tell_reset(state, &client, "keyboard_layout", Some(old));
            }
        }
        (Holder::Qube(name), "provides_network") if differs => {
            tell_reset(state, name, "gateway", None);
            tell_reset(state, name, "gateway6", None);
        }
        (Holder::System, "default_netvm") => {
            for qube in with_default(state, "netvm", has_netvm) {
                let now = value_of_qube(&state.system, &qube, "netvm");
                tell_set(state, &qube, "pre-set", "netvm", new.as_deref(), old);
                tell_reset(state, &qube, "netvm", Some(old));
                if now.as_deref() != old {
                    tell_set(state, &qube, "set", "netvm", now.as_deref(), old);
                }
            }
        }
        (Holder::System, "default_guivm" | "default_audiovm") => {
            let property = property.name.trim_start_matches("default_");
            for qube in with_default(state, property, has_netvm) {
                tell_set(state, &qube, "set", property, new.as_deref(), old);
                name_server(state, &qube, property, new.as_deref())?;
            }
        }
        _ => {}
    }
    either_way(state, holder, property, old)
}

/// After a property went back to its default.
pub(super) fn was_reset(
    state: &mut State,
    holder: Holder<'_>,
    property: &Property,
    old: Option<&str>,
) -> Result<(), Failure> {
    either_way(state, holder, property, old)
}

fn either_way(
    state: &mut State,
    holder: Holder<'_>,
    property: &Property,
    old: Option<&str>,
) -> Result<(), Failure> {
    let new = holder.value(&state.system, property);
    match (holder, property.name) {
        (Holder::Qube(name), "guivm" | "audiovm") => name_server(state, name, property.name, new.as_deref()),
        (Holder::Qube(name), "provides_network") => {
            if new.as_deref() == Some("True") {
                state.set_feature(name, "servicevm", "1")?;
            } else if state.qube(name)?.features.get("servicevm").is_some() {
                state.remove_feature(name, "servicevm")?;
            } else {
                return Ok(());
            }
            tell_reset(state, name, "icon", None);
            Ok(())
        }
        (Holder::System, "default_dispvm") => {
            for qube in with_default(state, "default_dispvm", |_, _| true) {
                tell_reset(state, &qube, "default_dispvm", Some(old));
            }
            Ok(())
        }
        (Holder::System, "clockvm") if new.as_deref() != old => {
            if let Some(new) = new.filter(|new| state.system.qubes[new].features.get(CLOCK).is_none()) {
                state.set_feature(&new, CLOCK, "1")?;
            }
            let had = |old: &&str| {
                state.system.qubes.get(*old).is_some_and(|old| old.features.get(CLOCK).is_some())
            };
            if let Some(old) = old.filter(had) {
                state.remove_feature(old, CLOCK)?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The qubes of which something is true and that have a property at its default.
fn with_default(state: &State, property: &str, fits: impl Fn(&State, &str) -> bool) -> Vec<String> {
    let at_default = |name: &&String| {
        let found = Holder::Qube(name).property(&state.system, property);
        found.is_ok_and(|property| Holder::Qube(name).is_default(&state.system, property))
    };
    state.system.qubes.keys().filter(at_default).filter(|name| fits(state, name)).cloned().collect()
}

fn has_netvm(state: &State, qube: &str) -> bool {
    state.system.qubes[qube].class.has_volumes()
}

/// Gives a qube the one tag that names its server of windows or sound.
fn name_server(state: &mut State, qube: &str, kind: &str, server: Option<&str>) -> Result<(), Failure> {
    let prefix = format!("{kind}-");
    let wanted = server.map(|server| format!("{prefix}{server}"));
    let tags = &state.qube(qube)?.tags;
    let gone: Vec<String> = tags
        .iter()
        .filter(|tag| tag.starts_with(&prefix) && Some(*tag) != wanted.as_ref())
        .cloned()
        .collect();
    for tag in gone {
        state.qube_mut(qube)?.tags.remove(&tag);
        state.tell(qube, &format!("domain-tag-delete:{tag}"), &[("tag", &tag)]);
    }
    wanted.map_or(Ok(()), |tag| tags::add(state, qube, &tag))
}

/// News of a property that has a new default; the inner none is a value of none.
fn tell_reset(state: &mut State, qube: &str, property: &'static str, old: Option<Option<&str>>) {
    let mut values = vec![("name", property)];
    if let Some(old) = old {
        values.push(("oldvalue", old.unwrap_or("None")));
    }
    state.tell(qube, &format!("property-reset:{property}"), &values);
}

fn tell_set(state: &mut State, qube: &str, what: &str, property: &str, new: Option<&str>, old: Option<&str>) {
    let values =
        [("name", property), ("newvalue", new.unwrap_or("None")), ("oldvalue", old.unwrap_or("None"))];
    state.tell(qube, &format!("property-{what}:{property}"), &values);
}
