//! Tags of a qube.

use super::Failure;
use super::call::{Answer, Call};
use super::state::State;

/// `admin.vm.tag.List`.
pub(super) fn list(state: &mut State, call: &Call) -> Answer {
    Ok(state.qube(&call.dest)?.tags.iter().map(|tag| format!("{tag}\n")).collect::<String>().into_bytes())
}

/// `admin.vm.tag.Get`.
pub(super) fn get(state: &mut State, call: &Call) -> Answer {
    validate(&call.arg)?;
    let set = state.qube(&call.dest)?.tags.contains(&call.arg);
    Ok(if set { b"1".to_vec() } else { b"0".to_vec() })
}

/// `admin.vm.tag.Set`.
pub(super) fn set(state: &mut State, call: &Call) -> Answer {
    validate(&call.arg)?;
    refuse_protected(state, call)?;
    add(state, &call.dest, &call.arg)?;
    Ok(Vec::new())
}

/// `admin.vm.tag.Remove`.
pub(super) fn remove(state: &mut State, call: &Call) -> Answer {
    validate(&call.arg)?;
    refuse_protected(state, call)?;
    if !state.qube_mut(&call.dest)?.tags.remove(&call.arg) {
        let text = format_args!("Tag not set for domain {}: {}", call.dest, call.arg);
        return Err(Failure::new("QubesTagNotFoundError", text));
    }
    state.tell(&call.dest, &format!("domain-tag-delete:{}", call.arg), &[("tag", &call.arg)]);
    Ok(Vec::new())
}

/// Adds a tag and tells listeners. A tag that says who made the qube brings with it those that its maker wants on its
/// qubes.
pub(super) fn add(state: &mut State, qube: &str, tag: &str) -> Result<(), Failure> {
    if !tag.bytes().all(is_tag_byte) {
        return Err(Failure::Untold);
    }
    if !state.qube_mut(qube)?.tags.insert(tag.to_owned()) {
        return Ok(());
    }
    state.tell(qube, &format!("domain-tag-add:{tag}"), &[("tag", tag)]);
    if let Some(maker) = tag.strip_prefix("created-by-") {
        // A maker that is not there is an error that no client is told of.
        let maker = state.system.qubes.get(maker).ok_or(Failure::Untold)?;
        let more = maker.features.get("tag-created-vm-with").unwrap_or_default().to_owned();
        for tag in more.split_ascii_whitespace() {
            add(state, qube, tag)?;
        }
    }
    Ok(())
}

fn validate(tag: &str) -> Result<(), Failure> {
    if tag.bytes().all(is_tag_byte) {
        return Ok(());
    }
    Err(Failure::new("QubesInvalidTagError", "disallowed characters"))
}

fn refuse_protected(state: &State, call: &Call) -> Result<(), Failure> {
    let from_dom0 = state.qube(&call.source)?.class == crate::sandbox::state::Class::AdminVM;
    if call.arg.starts_with("created-by-") && !from_dom0 {
        let text = "changing this tag is prohibited by qubes.ext.admin.AdminExtension";
        return Err(Failure::new("PermissionDenied", text));
    }
    Ok(())
}

const fn is_tag_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}
