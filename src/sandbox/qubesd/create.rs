//! `admin.vm.Create.CLASS` and `admin.vm.CreateInPool.CLASS`.

use std::collections::BTreeMap;

use super::call::{Answer, Call};
use super::name::validate_name;
use super::pools::validate_label;
use super::state::State;
use super::{Failure, properties, tags};
use crate::sandbox::fresh;
use crate::sandbox::state::{Class, Driver, Pool, VOLUME_NAMES, Volume};

/// `admin.vm.Create.CLASS`.
pub(super) fn create(state: &mut State, call: &Call) -> Answer {
    create_qube(state, call, false)
}

/// `admin.vm.CreateInPool.CLASS`.
pub(super) fn create_in_pool(state: &mut State, call: &Call) -> Answer {
    create_qube(state, call, true)
}

/// What the payload asks for.
#[derive(Default)]
struct Wanted {
    name: Option<String>,
    /// A label that is there.
    label: Option<String>,
    pool: Option<String>,
    pools: BTreeMap<String, String>,
    /// A pool that is not there; it is told of last.
    unknown_pool: Option<Failure>,
}

fn create_qube(state: &mut State, call: &Call, allow_pool: bool) -> Answer {
    let class = call.method.rsplit('.').next().and_then(Class::parse).ok_or(Failure::Untold)?;
    if !call.arg.is_empty() && !class.is_template_based() {
        return Err(Failure::protocol(format_args!("{class} cannot be based on template")));
    }
    let wanted = Wanted::parse(state, &call.payload, allow_pool)?;
    let required = |key: &str| Failure::protocol(format_args!("Creation requested without key: {key}"));
    let name = wanted.name.ok_or_else(|| required("name"))?;
    let label = wanted.label.ok_or_else(|| required("label"))?;
    if wanted.pool.is_some() && !wanted.pools.is_empty() {
        return Err(Failure::protocol("Conflicting options specified: 'pool=', 'pool:volume='"));
    }
    if state.system.qubes.contains_key(&name) {
        return Err(Failure::new("QubesVMAlreadyExistsError", format_args!("Qube already exists: {name}")));
    }
    if !call.arg.is_empty() && !state.system.qubes.contains_key(&call.arg) {
        return Err(Failure::no_such_qube(&call.arg));
    }
    if let Some(unknown) = wanted.unknown_pool {
        return Err(unknown);
    }
    if matches!(class, Class::AdminVM | Class::RemoteVM) {
        return Err(Failure::Untold);
    }
    let template = template(state, class, &call.arg)?;
    let pools = VOLUME_NAMES
        .into_iter()
        .map(|volume| pool_for(state, volume, wanted.pool.as_deref(), &wanted.pools).cloned())
        .collect::<Result<Vec<Pool>, Failure>>()?;

    let mut qube = fresh::qube(class, state.system.next_qid(), &label);
    if let Some(template) = &template {
        qube.properties.insert("template".into(), template.clone());
    }
    for (property, kind) in [("default_audiovm", "audiovm"), ("default_guivm", "guivm")] {
        if let Some(server) = properties::value_of_system(&state.system, property) {
            qube.tags.insert(format!("{kind}-{server}"));
        }
    }
    state.system_mut().qubes.insert(name.clone(), qube);
    state.tell_all("domain-add", &[("vm", &name)]);
    tags::add(state, &name, &format!("created-by-{}", call.source))?;
    let volumes = volumes(state, class, &name, template.as_deref(), &pools);
    state.qube_mut(&name)?.volumes = volumes;
    state.tell(&name, "domain-create-on-disk", &[]);
    Ok(Vec::new())
}

impl Wanted {
    fn parse(state: &State, payload: &[u8], allow_pool: bool) -> Result<Self, Failure> {
        let text = std::str::from_utf8(payload).ok().filter(|text| text.is_ascii());
        let text = text.ok_or_else(|| Failure::protocol("Parameters contains non-ASCII characters"))?;
        let mut wanted = Self::default();
        for option in text.split(' ') {
            // Without a sign of equality the server stumbles.
            let (key, value) = option.split_once('=').ok_or(Failure::Untold)?;
            wanted.take(state, key, value, allow_pool)?;
        }
        Ok(wanted)
    }

    fn take(&mut self, state: &State, key: &str, value: &str, allow_pool: bool) -> Result<(), Failure> {
        let unique = |free: bool, what: &str| match free {
            true => Ok(()),
            false => Err(Failure::protocol(what)),
        };
        match (key, key.strip_prefix("pool:")) {
            ("name", _) => {
                unique(self.name.is_none(), "Options must be unique")?;
                validate_name(value)?;
                self.name = Some(value.to_owned());
            }
            ("label", _) => {
                unique(self.label.is_none(), "Options must be unique")?;
                validate_label(value, true)?;
                self.label = state
                    .system
                    .labels
                    .iter()
                    .find(|label| label.name == value)
                    .map(|label| label.name.clone());
            }
            ("pool", _) if allow_pool => {
                unique(self.pool.is_none(), "Option 'pool' must be unique")?;
                self.pool = self.known_pool(state, value);
            }
            (_, Some(volume)) if allow_pool => {
                if !VOLUME_NAMES.contains(&volume) {
                    let names = VOLUME_NAMES.join(", ");
                    return Err(Failure::protocol(format_args!("Volume must be one of: {names}")));
                }
                let what = format!("Option 'pool:{volume}' must be unique");
                unique(!self.pools.contains_key(volume), &what)?;
                if let Some(pool) = self.known_pool(state, value) {
                    self.pools.insert(volume.to_owned(), pool);
                }
            }
            ("pool", _) | (_, Some(_)) => {
                return Err(Failure::protocol("Pool option specified but 'allow_pool' is False"));
            }
            _ => return Err(Failure::protocol("Options does not match: name, label, pool, pool:")),
        }
        Ok(())
    }

    fn known_pool(&mut self, state: &State, name: &str) -> Option<String> {
        if state.system.pool(name).is_none() {
            let text = format_args!("Unknown storage pool {name}");
            self.unknown_pool = Some(Failure::new("QubesException", text));
            return None;
        }
        Some(name.to_owned())
    }
}

/// The template of a new qube: the one asked for, else the default one.
fn template(state: &State, class: Class, asked: &str) -> Result<Option<String>, Failure> {
    if !class.is_template_based() {
        return Ok(None);
    }
    let default = if class == Class::DispVM { "default_dispvm" } else { "default_template" };
    let name = match asked {
        "" => properties::value_of_system(&state.system, default).ok_or(Failure::Untold)?,
        asked => asked.to_owned(),
    };
    let found = state.qube(&name)?;
    let wanted = if class == Class::DispVM { Class::AppVM } else { Class::TemplateVM };
    if found.class != wanted {
        return Err(Failure::property_value(format_args!(
            "wrong VM class: domains['{name}'] is of type {} and not {wanted}",
            found.class
        )));
    }
    Ok(Some(name))
}

fn pool_for<'a>(
    state: &'a State,
    volume: &str,
    all: Option<&str>,
    each: &BTreeMap<String, String>,
) -> Result<&'a Pool, Failure> {
    let asked = each.get(volume).map(String::as_str).or_else(|| all.filter(|_| volume != "kernel"));
    let name = match asked {
        Some(name) => name.to_owned(),
        None => properties::value_of_system(&state.system, &format!("default_pool_{volume}"))
            .ok_or(Failure::Untold)?,
    };
    let pool = state.system.pool(&name).ok_or(Failure::Untold)?;
    // Kernels lie in their own kind of pool, and nothing else does.
    if (volume == "kernel") != (pool.driver == Driver::LinuxKernel) {
        return Err(Failure::Untold);
    }
    Ok(pool)
}

fn volumes(state: &State, class: Class, name: &str, template: Option<&str>, pools: &[Pool]) -> Vec<Volume> {
    let template = template.and_then(|template| state.system.qubes.get(template));
    VOLUME_NAMES
        .into_iter()
        .zip(pools)
        .map(|(volume, pool)| {
            let mut made = fresh::volume(class, name, volume, pool);
            if made.snap_on_start
                && let Some(source) = template.and_then(|template| template.volume(volume))
            {
                made.size = source.size;
            }
            made
        })
        .collect()
}
