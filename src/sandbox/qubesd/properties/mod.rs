//! Properties of qubes and of the system.
//!
//! A property is at its default until it is set. Its value on the wire is text; an empty text of a property that names
//! a qube means none.

mod defaults;
mod follow;
mod set;
mod table;

use super::Failure;
use super::call::{Answer, Call, python_bool};
use super::state::State;
use crate::sandbox::state::{Class, System};

use table::{Access, Kind, Property};

/// Whose properties they are.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Holder<'a> {
    Qube(&'a str),
    System,
}

impl<'a> Holder<'a> {
    fn of(call: &'a Call) -> Self {
        if call.method.starts_with("admin.property.") { Self::System } else { Self::Qube(&call.dest) }
    }

    fn name(self) -> &'a str {
        match self {
            Self::Qube(name) => name,
            Self::System => "Qubes",
        }
    }

    /// What the server's language calls an object of this kind.
    fn class_name(self, system: &System) -> &'static str {
        match self {
            Self::Qube(name) => system.qubes.get(name).map_or("", |qube| qube.class.as_str()),
            Self::System => "Qubes",
        }
    }

    fn properties(self, system: &System) -> Vec<&'static Property> {
        match self {
            Self::Qube(name) => {
                system.qubes.get(name).map_or_else(Vec::new, |qube| table::of_class(qube.class).collect())
            }
            Self::System => table::SYSTEM.iter().collect(),
        }
    }

    fn property(self, system: &System, name: &str) -> Result<&'static Property, Failure> {
        let found = self.properties(system).into_iter().find(|property| property.name == name);
        found.ok_or_else(|| {
            let text = format_args!("Invalid property '{name}' of {}", self.name());
            Failure::new("QubesNoSuchPropertyError", text)
        })
    }

    /// The value that was set.
    fn explicit<'s>(self, system: &'s System, property: &Property) -> Option<&'s str> {
        match self {
            Self::Qube(name) => {
                let qube = system.qubes.get(name)?;
                match (property.name, qube.class) {
                    (_, Class::AdminVM) if matches!(property.name, "name" | "qid" | "uuid") => None,
                    ("uuid", _) => Some(&qube.uuid),
                    _ => qube.property(property.name),
                }
            }
            Self::System => system.globals.get(property.name).map(String::as_str),
        }
    }

    fn is_default(self, system: &System, property: &Property) -> bool {
        let own =
            matches!(self, Self::Qube(name) if name != "dom0") && matches!(property.name, "name" | "qid");
        !own && self.explicit(system, property).is_none()
    }

    /// The value; none where there is none.
    fn value(self, system: &System, property: &Property) -> Option<String> {
        match self.explicit(system, property) {
            Some("") if property.kind.is_qube() => None,
            Some(value) => Some(value.to_owned()),
            None => defaults::default(system, self, property.name).flatten(),
        }
    }
}

/// A property of a qube by name; none where it has none, or no such property.
pub(super) fn value_of_qube(system: &System, qube: &str, name: &str) -> Option<String> {
    let holder = Holder::Qube(qube);
    holder.property(system, name).ok().and_then(|property| holder.value(system, property))
}

/// A property of the system by name.
pub(super) fn value_of_system(system: &System, name: &str) -> Option<String> {
    Holder::System.property(system, name).ok().and_then(|property| Holder::System.value(system, property))
}

/// The default of a property of the system.
pub(super) fn default_of_system(system: &System, name: &str) -> Option<String> {
    defaults::default(system, Holder::System, name).flatten()
}

/// Whether another qube names this one in a property that was set, or the system in any.
pub(super) fn is_used(system: &System, name: &str) -> bool {
    let by_system = table::SYSTEM.iter().any(|property| {
        property.kind.is_qube() && Holder::System.value(system, property).as_deref() == Some(name)
    });
    by_system
        || system.qubes.iter().filter(|(other, _)| *other != name).any(|(other, qube)| {
            table::of_class(qube.class).any(|property| {
                let preloaded = qube.flag("is_preload") && property.name == "template";
                property.kind.is_qube()
                    && !preloaded
                    && Holder::Qube(other).explicit(system, property) == Some(name)
            })
        })
}

/// `admin.vm.property.List`, `admin.property.List`.
pub(super) fn list(state: &mut State, call: &Call) -> Answer {
    let properties = Holder::of(call).properties(&state.system);
    Ok(properties.iter().map(|property| format!("{}\n", property.name)).collect::<String>().into_bytes())
}

/// `...property.Get`.
pub(super) fn get(state: &mut State, call: &Call) -> Answer {
    let holder = Holder::of(call);
    let property = holder.property(&state.system, &call.arg)?;
    Ok(serialized(&state.system, holder, property).into_bytes())
}

/// `...property.GetAll`.
pub(super) fn get_all(state: &mut State, call: &Call) -> Answer {
    let holder = Holder::of(call);
    let lines = holder.properties(&state.system).into_iter().map(|property| {
        let value = serialized(&state.system, holder, property);
        format!("{} {}\n", property.name, value.replace('\\', "\\\\").replace('\n', "\\n"))
    });
    Ok(lines.collect::<String>().into_bytes())
}

/// `...property.GetDefault`: nothing at all where there is no default.
pub(super) fn get_default(state: &mut State, call: &Call) -> Answer {
    let holder = Holder::of(call);
    let property = holder.property(&state.system, &call.arg)?;
    let default = defaults::default(&state.system, holder, property.name);
    let text =
        default.map(|value| format!("type={} {}", property.kind.wire_name(), value.unwrap_or_default()));
    Ok(text.unwrap_or_default().into_bytes())
}

/// `...property.Set`.
pub(super) fn set(state: &mut State, call: &Call) -> Answer {
    let holder = Holder::of(call);
    let property = holder.property(&state.system, &call.arg)?;
    let wanted = set::sanitize(property, &call.payload)?;
    let value = set::check(state, holder, property, &wanted)?;
    let old = holder.value(&state.system, property);
    tell_change(state, holder, "pre-set", property, Some(value.as_deref()), old.as_deref());
    store(state, holder, property, Some(value.clone().unwrap_or_default()))?;
    tell_change(state, holder, "set", property, Some(value.as_deref()), old.as_deref());
    follow::changed(state, holder, property, old.as_deref())?;
    Ok(Vec::new())
}

/// `...property.Reset`.
pub(super) fn reset(state: &mut State, call: &Call) -> Answer {
    let holder = Holder::of(call);
    let property = holder.property(&state.system, &call.arg)?;
    set::check_reset(state, holder, property)?;
    let old = holder.value(&state.system, property);
    let old = old.as_deref();
    let default = defaults::default(&state.system, holder, property.name).flatten();
    tell_change(state, holder, "pre-reset", property, None, old);
    // Clients that know nothing of resets see a netvm change to its default.
    if property.name == "netvm" && default.as_deref() != old {
        tell_change(state, holder, "pre-set", property, Some(default.as_deref()), old);
    }
    tell_change(state, holder, "pre-del", property, None, old);
    store(state, holder, property, None)?;
    if property.name == "netvm" && default.as_deref() != old {
        tell_change(state, holder, "set", property, Some(default.as_deref()), old);
    }
    tell_change(state, holder, "reset", property, None, old);
    tell_change(state, holder, "del", property, None, old);
    follow::was_reset(state, holder, property, old)?;
    Ok(Vec::new())
}

fn serialized(system: &System, holder: Holder<'_>, property: &Property) -> String {
    let value = holder.value(system, property).unwrap_or_default();
    let default = python_bool(holder.is_default(system, property));
    format!("default={default} type={} {value}", property.kind.wire_name())
}

fn store(
    state: &mut State,
    holder: Holder<'_>,
    property: &Property,
    value: Option<String>,
) -> Result<(), Failure> {
    let properties = match holder {
        Holder::Qube(name) => &mut state.qube_mut(name)?.properties,
        Holder::System => &mut state.system_mut().globals,
    };
    match value {
        Some(value) => properties.insert(property.name.to_owned(), value),
        None => properties.remove(property.name),
    };
    Ok(())
}

/// Tells listeners of a change; the new value is left out where there is no such thing, and `None` for none.
fn tell_change(
    state: &mut State,
    holder: Holder<'_>,
    what: &str,
    property: &Property,
    new: Option<Option<&str>>,
    old: Option<&str>,
) {
    let mut values = vec![("name", property.name)];
    if let Some(new) = new {
        values.push(("newvalue", new.unwrap_or("None")));
    }
    values.push(("oldvalue", old.unwrap_or("None")));
    let event = format!("property-{what}:{}", property.name);
    match holder {
        Holder::Qube(name) => state.tell(name, &event, &values),
        Holder::System => state.tell_all(&event, &values),
    }
}
