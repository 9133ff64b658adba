//! What a property may become.

use super::super::call::parse_switch;
use super::super::exception::python_repr;
use super::super::name::validate_name;
use super::super::state::State;
use super::{Access, Failure, Holder, Kind, Property, defaults, value_of_qube};
use crate::sandbox::state::{Class, System};

/// A value as its type reads it.
pub(super) fn sanitize(property: &Property, payload: &[u8]) -> Result<String, Failure> {
    let text = std::str::from_utf8(payload).ok().filter(|text| text.is_ascii());
    if property.kind.is_qube() {
        // Not even this fault has a text.
        let name = text.ok_or_else(|| Failure::value(""))?;
        if !name.is_empty() {
            validate_name(name)?;
        }
        return Ok(name.to_owned());
    }
    let text = text.ok_or_else(|| Failure::value("Non-ASCII bytes in property value"))?;
    let parsed = |value: Option<String>, kind: &str| {
        value.ok_or_else(|| Failure::value(format_args!("Failed to parse property value as {kind}")))
    };
    match property.kind {
        Kind::Switch => parse_switch(text),
        Kind::Number => parsed(parse_number(text), "int"),
        Kind::Uuid => parsed(parse_uuid(text), "UUID"),
        Kind::Ipv4 => parsed(text.parse::<std::net::Ipv4Addr>().ok().map(|ip| ip.to_string()), "IPv4Address"),
        Kind::Ipv6 => parsed(text.parse::<std::net::Ipv6Addr>().ok().map(|ip| ip.to_string()), "IPv6Address"),
        _ => {
            let printable = |byte: u8| (0x20..=0x7e).contains(&byte) || (0x09..=0x0d).contains(&byte);
            if !text.bytes().all(printable) {
                return Err(Failure::value("Invalid characters in property value"));
            }
            Ok(text.to_owned())
        }
    }
}

/// A whole number as the server's language reads it: white space around it, a sign, underscores between digits.
fn parse_number(text: &str) -> Option<String> {
    let trimmed = text.trim();
    let (minus, digits) = match trimmed.as_bytes().first()? {
        b'-' => (true, &trimmed[1..]),
        b'+' => (false, &trimmed[1..]),
        _ => (false, trimmed),
    };
    let groups =
        digits.split('_').all(|group| !group.is_empty() && group.bytes().all(|byte| byte.is_ascii_digit()));
    if !groups {
        return None;
    }
    let number = digits.replace('_', "");
    let number = number.trim_start_matches('0');
    let number = if number.is_empty() { "0" } else { number };
    Some(if minus && number != "0" { format!("-{number}") } else { number.to_owned() })
}

fn parse_uuid(text: &str) -> Option<String> {
    let bare = text.replace("urn:", "").replace("uuid:", "");
    let hex = bare.trim_matches(|c| c == '{' || c == '}').replace('-', "").to_ascii_lowercase();
    if hex.len() != 32 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    Some([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-"))
}

/// Whether a property can become this, and what is kept then; none for none.
pub(super) fn check(
    state: &State,
    holder: Holder<'_>,
    property: &Property,
    value: &str,
) -> Result<Option<String>, Failure> {
    let system = &state.system;
    if let Kind::Qube { class, none } = property.kind {
        if value.is_empty() {
            if !none {
                return Err(no_none(system, holder, property));
            }
        } else {
            check_qube(system, property, value, class)?;
        }
    }
    check_access(system, holder, property)?;
    if property.kind.is_qube() && value.is_empty() {
        return Ok(None);
    }
    match holder {
        Holder::Qube(name) => check_of_qube(system, name, property, value),
        Holder::System => check_of_system(system, property, value),
    }
    .map(Some)
}

/// Whether a property can go back to its default.
pub(super) fn check_reset(state: &State, holder: Holder<'_>, property: &Property) -> Result<(), Failure> {
    let system = &state.system;
    if property.access == Access::Once {
        return Err(Failure::Untold);
    }
    match (holder, property.name) {
        (Holder::Qube(name), "template") => {
            let app = system.qubes.get(name).is_some_and(|qube| qube.class == Class::AppVM);
            let default = super::value_of_system(system, "default_template").filter(|_| app);
            Err(Failure::value(match default {
                Some(template) => {
                    format!(
                        "Cannot unset template. You can set it to the current default ({template}) instead"
                    )
                }
                None => "Cannot unset template".to_owned(),
            }))
        }
        (Holder::Qube(name), "template_for_dispvms") => check_no_disposables(system, name),
        (Holder::Qube(name), "netvm") => match defaults::default(system, holder, "netvm").flatten() {
            Some(netvm) => check_netvm(system, name, &netvm),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

fn check_access(system: &System, holder: Holder<'_>, property: &Property) -> Result<(), Failure> {
    let fixed_of_dom0 =
        holder == Holder::Qube("dom0") && matches!(property.name, "name" | "qid" | "uuid" | "maxmem");
    match property.access {
        Access::Once if !fixed_of_dom0 => Err(Failure::Untold),
        Access::Free if !fixed_of_dom0 => Ok(()),
        _ => Err(Failure::property_value(format_args!(
            "property '{}' on {} instance cannot be set",
            property.name,
            holder.class_name(system)
        ))),
    }
}

fn check_qube(
    system: &System,
    property: &Property,
    value: &str,
    class: Option<Class>,
) -> Result<(), Failure> {
    let Some(found) = system.qubes.get(value) else {
        return Err(Failure::property_value(format_args!(
            "Can't set {} to non-existing qube {value}",
            property.name
        )));
    };
    let (fits, wanted) = match class {
        Some(class) => (found.class == class, class.as_str()),
        None => (found.class != Class::RemoteVM, "LocalVM"),
    };
    if fits {
        return Ok(());
    }
    let text = format_args!("wrong VM class: domains['{value}'] is of type {} and not {wanted}", found.class);
    Err(Failure::property_value(text))
}

fn check_of_qube(system: &System, name: &str, property: &Property, value: &str) -> Result<String, Failure> {
    let fault = |text: &str| Err(Failure::property_value(text));
    let qube = &system.qubes[name];
    match property.name {
        "label" if !system.labels.iter().any(|label| label.name == value) => {
            return Err(Failure::no_such_label(value));
        }
        "kernel" => check_kernel(system, value)?,
        "kernelopts" if value.len() > 512 => return fault("Kernelopts value too long (512 chars max)"),
        "virt_mode" => {
            let mode = value.to_ascii_lowercase();
            if !matches!(mode.as_str(), "hvm" | "pv" | "pvh") {
                return fault("Invalid virtualization mode, supported values: hvm, pv, pvh");
            }
            return Ok(mode);
        }
        "memory" | "stubdom_mem" | "vcpus" | "qrexec_timeout" | "shutdown_timeout"
            if value == "0" || value.starts_with('-') =>
        {
            return fault(&format!("{} must be positive", property.name));
        }
        "maxmem" if value.starts_with('-') => return fault("maxmem must be positive or zero"),
        "default_user" if !value.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-+,.".contains(&b)) => {
            let set = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+,.";
            return fault(&format!("Username can contain only those characters: {set}"));
        }
        "keyboard_layout" => check_keyboard(value)?,
        "netvm" => check_netvm(system, name, value)?,
        "provides_network" if value == "False" && has_clients(system, name) => {
            return Err(Failure::value("The qube is still used by other qubes, change theirs 'netvm' first"));
        }
        "template_for_dispvms" if value == "False" => check_no_disposables(system, name)?,
        "default_dispvm" | "management_dispvm" => {
            check_disposable_template(system, &format!("qube {}", python_repr(name)), property, value)?;
        }
        "template" if !qube.state.is_halted() => {
            let text = "Cannot change template while qube is running";
            return Err(Failure::new("QubesVMNotHaltedError", text));
        }
        "template" if qube.property("template") != Some(value) && has_running_disposables(system, name) => {
            return Err(Failure::in_use(
                "Cannot change template while there are running disposables based on this disposable template",
            ));
        }
        _ => {}
    }
    Ok(value.to_owned())
}

fn check_of_system(system: &System, property: &Property, value: &str) -> Result<String, Failure> {
    match property.name {
        "default_kernel" => check_kernel(system, value)?,
        "default_dispvm" | "management_dispvm" => {
            check_disposable_template(system, "system", property, value)?
        }
        "default_netvm" => {
            let follows = |name: &&String| {
                let qube = &system.qubes[*name];
                qube.class.has_volumes()
                    && qube.class != Class::TemplateVM
                    && qube.property("netvm").is_none()
            };
            if let Some(name) =
                system.qubes.keys().filter(follows).find(|name| is_behind(system, value, name))
            {
                return Err(Failure::property_value(format_args!("Network loop on '{name}'")));
            }
        }
        name if name.starts_with("default_pool") && system.pool(value).is_none() => {
            return Err(Failure::property_value("No such storage pool"));
        }
        _ => {}
    }
    Ok(value.to_owned())
}

fn check_kernel(system: &System, kernel: &str) -> Result<(), Failure> {
    if kernel.contains('/') {
        return Err(Failure::property_value("Kernel name cannot contain '/'"));
    }
    if !kernel.is_empty() && !system.kernels.iter().any(|known| known == kernel) {
        return Err(Failure::property_value(format_args!("Kernel {} not installed", python_repr(kernel))));
    }
    Ok(())
}

fn check_keyboard(layout: &str) -> Result<(), Failure> {
    let parts: Vec<&str> = layout.split('+').collect();
    let [layout, variant, options] = parts.as_slice() else {
        return Err(Failure::property_value("invalid number of keyboard layout parameters"));
    };
    let only =
        |text: &str, others: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(c));
    let fault = if layout.is_empty() || !layout.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        "Invalid keyboard layout provided"
    } else if !only(variant, "-_") {
        "Invalid layout variant provided"
    } else if !only(options, "-_:,") {
        "Invalid layout options provided"
    } else {
        return Ok(());
    };
    Err(Failure::property_value(fault))
}

fn check_netvm(system: &System, name: &str, netvm: &str) -> Result<(), Failure> {
    if value_of_qube(system, netvm, "provides_network").as_deref() != Some("True") {
        return Err(Failure::value(format_args!("The {netvm} qube does not provide network")));
    }
    if is_behind(system, netvm, name) {
        return Err(Failure::value("Loops in network are unsupported"));
    }
    if !system.qubes[name].state.is_halted() && system.qubes[netvm].state.is_halted() {
        let text = format_args!("Cannot dynamically attach to stopped qube {netvm}");
        return Err(Failure::new("QubesVMNotStartedError", text));
    }
    Ok(())
}

/// Whether a qube is another one or gets its network through it.
fn is_behind(system: &System, qube: &str, other: &str) -> bool {
    let mut next = Some(qube.to_owned());
    for _ in 0..=system.qubes.len() {
        match next {
            Some(name) if name == other => return true,
            Some(name) => next = value_of_qube(system, &name, "netvm"),
            None => return false,
        }
    }
    false
}

fn has_clients(system: &System, name: &str) -> bool {
    system.qubes.keys().any(|client| value_of_qube(system, client, "netvm").as_deref() == Some(name))
}

fn check_disposable_template(
    system: &System,
    whose: &str,
    property: &Property,
    value: &str,
) -> Result<(), Failure> {
    if value_of_qube(system, value, "template_for_dispvms").as_deref() == Some("True") {
        return Ok(());
    }
    Err(Failure::property_value(format_args!(
        "Cannot set invalid property to {whose}, {} {} has template_for_dispvms set to False",
        property.name,
        python_repr(value)
    )))
}

/// Refuses that a qube stops being a template of disposables while somebody makes them from it.
fn check_no_disposables(system: &System, name: &str) -> Result<(), Failure> {
    if !system.qubes[name].flag("template_for_dispvms") {
        return Ok(());
    }
    let refuse = |by_whom: &str| {
        let text = format!("Cannot change template_for_dispvms to False while it is {by_whom}");
        Err(Failure::in_use(text))
    };
    let by_system = ["default_dispvm", "management_dispvm"];
    if by_system.iter().any(|property| super::value_of_system(system, property).as_deref() == Some(name)) {
        return refuse("in use by the system by any of these properties: default_dispvm, management_dispvm");
    }
    let by_qube = ["default_dispvm", "management_dispvm", "template"];
    let names_it = |(other, qube): (&String, &crate::sandbox::state::Qube)| {
        other != name && by_qube.iter().any(|property| qube.property(property) == Some(name))
    };
    if system.qubes.iter().any(names_it) {
        let list = "default_dispvm, management_dispvm, template";
        return refuse(&format!("the disposable template of a qube by any of these properties: {list}"));
    }
    Ok(())
}

/// Whether disposables of a qube run that were not made in advance: those go when their template changes.
fn has_running_disposables(system: &System, name: &str) -> bool {
    system.qubes.values().any(|qube| {
        qube.class == Class::DispVM
            && qube.property("template") == Some(name)
            && !qube.flag("is_preload")
            && !qube.state.is_halted()
    })
}

/// None where a qube has to be named; the text shows the whole qube as the server's language prints it.
fn no_none(system: &System, holder: Holder<'_>, property: &Property) -> Failure {
    let value = |property: &Property| {
        let value = holder.value(system, property);
        format!("{}={}", property.name, value.as_deref().unwrap_or("None"))
    };
    let first = |property: &&'static Property| !matches!(property.name, "name" | "qid");
    let others: Vec<String> = holder.properties(system).into_iter().filter(first).map(value).collect();
    let qid = match holder {
        Holder::Qube(name) => system.qubes.get(name).map_or(0, |qube| qube.qid),
        Holder::System => 0,
    };
    Failure::property_value(format_args!(
        "Invalid value None for property '{}' of <{} at {ADDRESS} name={} qid={qid} {}>",
        property.name,
        holder.class_name(system),
        python_repr(holder.name()),
        others.join(" ")
    ))
}

/// Where an object lies in the server's memory: it means nothing to anybody.
const ADDRESS: &str = "0x7f0000000000";

#[cfg(test)]
mod tests {
    use super::super::table;
    use super::*;

    #[test]
    fn numbers_are_read_as_python_reads_them() {
        for (text, number) in [("5", "5"), (" 05\n", "5"), ("+1_000", "1000"), ("-0", "0"), ("-7", "-7")] {
            assert_eq!(parse_number(text).as_deref(), Some(number), "{text}");
        }
        for text in ["", "-", "1_", "_1", "1__0", "0x1", "1.0"] {
            assert_eq!(parse_number(text), None, "{text}");
        }
    }

    #[test]
    fn every_property_is_listed_once_for_a_class() {
        for class in Class::ALL {
            let names: Vec<&str> = table::of_class(class).map(|property| property.name).collect();
            let once: std::collections::BTreeSet<&&str> = names.iter().collect();
            assert_eq!(once.len(), names.len(), "{class}");
        }
    }
}
