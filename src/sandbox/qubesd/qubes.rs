//! Qubes themselves: listing, state, removal.

use super::call::{Answer, Call};
use super::exception::python_repr;
use super::state::State;
use super::{Failure, properties};
use crate::sandbox::state::{Class, Power};

const DOM0_MEMORY_KIB: u64 = 4 * 1024 * 1024;

/// `admin.vmclass.List`.
pub(super) fn classes(_: &mut State, _: &Call) -> Answer {
    Ok(Class::ALL.iter().map(|class| format!("{class}\n")).collect::<String>().into_bytes())
}

/// `admin.vm.List`: dom0 first, the others by name; only those that the caller may see.
pub(super) fn list(state: &mut State, call: &Call) -> Answer {
    let mut names: Vec<&str> = if call.dest == "dom0" {
        state.system.qubes.keys().map(String::as_str).collect()
    } else {
        vec![call.dest.as_str()]
    };
    names.sort_by_key(|name| (*name != "dom0", *name));
    let seen = state.may_list(&call.source, &names);
    let mut lines = String::new();
    for (name, _) in names.into_iter().zip(seen).filter(|(_, seen)| *seen) {
        let qube = state.qube(name)?;
        let (class, power, uuid) = (qube.class, power(state, name)?, &qube.uuid);
        lines.push_str(&format!("{name} class={class} state={power} uuid={uuid}\n"));
    }
    Ok(lines.into_bytes())
}

/// The state of a qube; dom0 always runs.
pub(super) fn power(state: &State, name: &str) -> Result<Power, Failure> {
    let qube = state.qube(name)?;
    Ok(if qube.class == Class::AdminVM { Power::Running } else { qube.state })
}

/// `admin.vm.CurrentState`.
pub(super) fn current_state(state: &mut State, call: &Call) -> Answer {
    let power = power(state, &call.dest)?;
    let qube = state.qube(&call.dest)?;
    let number = |name: &str| -> u64 {
        properties::value_of_qube(&state.system, &call.dest, name)
            .and_then(|value| value.parse().ok())
            .unwrap_or(0)
    };
    let (memory, most) = if qube.class == Class::AdminVM {
        (DOM0_MEMORY_KIB, DOM0_MEMORY_KIB)
    } else if power.is_halted() {
        (0, 0)
    } else {
        let most = if number("maxmem") == 0 { number("memory") } else { number("maxmem") };
        (number("memory") * 1024, most * 1024)
    };
    Ok(format!("mem={memory} mem_static_max={most} cputime=0 power_state={power}").into_bytes())
}

/// `admin.vm.Remove`.
pub(super) fn remove(state: &mut State, call: &Call) -> Answer {
    let name = &call.dest;
    let qube = state.qube(name)?;
    if qube.class == Class::AdminVM {
        return Err(Failure::in_use("'dom0' cannot be removed"));
    }
    if qube.flag("installed_by_rpm") {
        return Err(Failure::in_use(format_args!("VM installed by package manager: {name}")));
    }
    if !qube.state.is_halted() {
        return Err(Failure::not_halted(name));
    }
    if properties::is_used(&state.system, name) {
        return Err(Failure::in_use(format_args!(
            "Domain is in use: {};  see 'journalctl -u qubesd -e' in dom0 for details",
            python_repr(name)
        )));
    }
    forget(state, name);
    Ok(Vec::new())
}

/// Takes a qube out of the system, its volumes with it.
pub(super) fn forget(state: &mut State, name: &str) {
    state.tell_all("domain-pre-delete", &[("vm", name)]);
    if let Some(qube) = state.system_mut().qubes.remove(name) {
        for volume in &qube.volumes {
            super::storage::remove(&state.dir, volume);
        }
    }
    state.agents.remove(name);
    state.feature_requests.remove(name);
    state.tell_all("domain-delete", &[("vm", name)]);
}
