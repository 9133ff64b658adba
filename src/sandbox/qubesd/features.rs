//! Features of a qube.

use super::Failure;
use super::call::{Answer, Call};
use super::properties;
use super::state::State;

/// Features that belong to the server.
const PROTECTED: [&str; 4] =
    ["deferred-netvm-original", "preload-dispvm", "preload-dispvm-completed", "preload-dispvm-in-progress"];

/// `admin.vm.feature.List`.
pub(super) fn list(state: &mut State, call: &Call) -> Answer {
    let names = state.qube(&call.dest)?.features.iter().map(|(name, _)| format!("{name}\n"));
    Ok(names.collect::<String>().into_bytes())
}

/// `admin.vm.feature.Get`.
pub(super) fn get(state: &mut State, call: &Call) -> Answer {
    let value = state.qube(&call.dest)?.features.get(&call.arg);
    value.map(|value| value.as_bytes().to_vec()).ok_or_else(|| not_set(call))
}

/// `admin.vm.feature.CheckWith...`: the qube's own value, or that of another qube that stands behind it.
pub(super) fn check(state: &mut State, call: &Call) -> Answer {
    let own = |qube: &str| state.system.qubes.get(qube).and_then(|qube| qube.features.get(&call.arg));
    let adminvm = || own("dom0");
    let value = match call.method.rsplit('.').next() {
        Some("CheckWithTemplate") => state.feature_with_template(&call.dest, &call.arg),
        Some("CheckWithNetvm") => {
            let mut next = Some(call.dest.clone());
            let mut found = None;
            while let Some(qube) = next.take().filter(|_| found.is_none()) {
                found = own(&qube);
                next = properties::value_of_qube(&state.system, &qube, "netvm");
            }
            found
        }
        Some("CheckWithAdminVM") => own(&call.dest).or_else(adminvm),
        _ => state.feature_with_template(&call.dest, &call.arg).or_else(adminvm),
    };
    value.map(|value| value.as_bytes().to_vec()).ok_or_else(|| not_set(call))
}

/// `admin.vm.feature.Set`.
pub(super) fn set(state: &mut State, call: &Call) -> Answer {
    let Some(value) = std::str::from_utf8(&call.payload).ok().filter(|value| value.is_ascii()) else {
        return Err(Failure::protocol("Feature value contains non-ASCII characters"));
    };
    let name_char = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    if !call.arg.bytes().all(name_char) {
        return Err(Failure::protocol("feature name contains illegal characters"));
    }
    if !value.bytes().all(|byte| (0x20..=0x7e).contains(&byte)) {
        return Err(Failure::protocol(format_args!("{} value contains illegal characters", call.arg)));
    }
    refuse_protected(call)?;
    state.set_feature(&call.dest, &call.arg, value)?;
    Ok(Vec::new())
}

/// `admin.vm.feature.Remove`.
pub(super) fn remove(state: &mut State, call: &Call) -> Answer {
    refuse_protected(call)?;
    state.remove_feature(&call.dest, &call.arg)?;
    Ok(Vec::new())
}

fn refuse_protected(call: &Call) -> Result<(), Failure> {
    if PROTECTED.contains(&call.arg.as_str()) {
        let text = "changing this feature is prohibited by qubes.ext.admin.AdminExtension";
        return Err(Failure::new("PermissionDenied", text));
    }
    Ok(())
}

fn not_set(call: &Call) -> Failure {
    let text = format_args!("Feature not set for domain {}: {}", call.dest, call.arg);
    Failure::new("QubesFeatureNotFoundError", text)
}
