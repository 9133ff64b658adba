//! What a qube may be called, and which qube a text names.

use super::Failure;
use super::exception::python_repr;
use super::state::State;

/// Whether a qube can be called so.
pub(super) fn validate_name(name: &str) -> Result<(), Failure> {
    let fault = if name.len() > 31 {
        "VM name must be shorter than 32 characters"
    } else if name.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '_' | '.' | '-'))
        && !name.contains('\n')
    {
        "VM name cannot start with hyphen, underscore, dot or numbers"
    } else if !name.starts_with(|c: char| c.is_ascii_alphabetic())
        || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
    {
        "VM name contains illegal characters"
    } else if name == "Domain-0" {
        "VM name cannot be 'Domain-0'"
    } else if matches!(name, "none" | "default") {
        "VM name cannot be 'none' nor 'default'"
    } else if name.ends_with("-dm") {
        "VM name cannot end with -dm"
    } else {
        return Ok(());
    };
    Err(Failure::value(fault))
}

/// The name of the qube that a name or `uuid:...` stands for.
pub(super) fn decode_qube(state: &State, text: &str) -> Result<String, Failure> {
    if !text.is_ascii() {
        return Err(Failure::Untold);
    }
    if let Some(uuid) = text.strip_prefix("uuid:") {
        let shape = |(at, byte): (usize, u8)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        };
        if uuid.len() != 36 || !uuid.bytes().enumerate().all(shape) {
            let text = format_args!("VM UUID is not valid: {}", python_repr(uuid));
            return Err(Failure::new("QubesVMInvalidUUIDError", text));
        }
        let found = state.system.qubes.iter().find(|(_, qube)| qube.uuid == uuid);
        return found.map(|(name, _)| name.clone()).ok_or_else(|| Failure::no_such_qube(text));
    }
    validate_name(text)?;
    state.qube(text)?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::validate_name;

    #[test]
    fn names_that_a_qube_can_have() {
        for good in ["a", "tpl-mine", "A_b.c-9", &"x".repeat(31)] {
            assert!(validate_name(good).is_ok(), "{good}");
        }
        for bad in ["", "1a", "-a", "a+b", "a\n", "none", "default", "Domain-0", "x-dm", &"x".repeat(32)] {
            assert!(validate_name(bad).is_err(), "{bad}");
        }
    }
}
