//! Storage pools and labels.

use super::call::{Answer, Call};
use super::state::State;
use super::{Failure, storage};
use crate::sandbox::state::{Driver, Label, Pool};

/// `admin.pool.List`.
pub(super) fn list(state: &mut State, _: &Call) -> Answer {
    Ok(state.system.pools.iter().map(|pool| format!("{}\n", pool.name)).collect::<String>().into_bytes())
}

/// `admin.pool.ListDrivers`: each with the options that a pool of it takes.
pub(super) fn drivers(_: &mut State, _: &Call) -> Answer {
    let drivers = [
        "callback conf_id",
        "file revisions_to_keep dir_path ephemeral_volatile",
        "file-reflink revisions_to_keep dir_path setup_check ephemeral_volatile",
        "linux-kernel dir_path",
        "lvm_thin revisions_to_keep volume_group thin_pool ephemeral_volatile",
        "zfs container ephemeral_volatile revisions_to_keep snap_on_start_forensics",
    ];
    Ok(drivers.iter().map(|line| format!("{line}\n")).collect::<String>().into_bytes())
}

/// `admin.deviceclass.List`.
pub(super) fn device_classes(_: &mut State, _: &Call) -> Answer {
    Ok(b"block\npci\n".to_vec())
}

/// `admin.pool.Set.revisions_to_keep`: for volumes that are made from now on.
pub(super) fn set_revisions_to_keep(state: &mut State, call: &Call) -> Answer {
    let driver = pool(state, call)?.driver;
    let keep = super::number::signed(&call.payload, "Revisions to keep")?;
    if keep < -1 {
        return Err(Failure::protocol("Value can't be lower than -1"));
    }
    if driver == Driver::LinuxKernel && keep != 0 {
        return Err(Failure::value("LinuxKernel supports only revisions_to_keep=0"));
    }
    configure(state, &call.arg, "revisions_to_keep", &keep.to_string());
    Ok(Vec::new())
}

/// `admin.pool.Set.ephemeral_volatile`.
pub(super) fn set_ephemeral_volatile(state: &mut State, call: &Call) -> Answer {
    pool(state, call)?;
    let value = call.switch()?;
    configure(state, &call.arg, "ephemeral_volatile", &value);
    Ok(Vec::new())
}

fn configure(state: &mut State, pool: &str, key: &str, value: &str) {
    if let Some(pool) = state.system_mut().pools.iter_mut().find(|known| known.name == pool) {
        match pool.config.iter_mut().find(|(known, _)| known == key) {
            Some((_, old)) => value.clone_into(old),
            None => pool.config.push((key.to_owned(), value.to_owned())),
        }
    }
}

/// `admin.pool.Info`: configuration by name, then size and usage where the driver knows them, then the pool around it.
pub(super) fn info(state: &mut State, call: &Call) -> Answer {
    let pool = pool(state, call)?;
    let mut config: Vec<&(String, String)> = pool
        .config
        .iter()
        .filter(|(key, _)| key != "included_in" && key != "size" && key != "usage")
        .collect();
    config.sort();
    let mut lines: String = config.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
    if let Some((size, usage)) = storage::pool_usage(&state.dir, pool) {
        lines.push_str(&format!("size={size}\nusage={usage}\n"));
    }
    if let Some(around) = pool.get("included_in") {
        lines.push_str(&format!("included_in={around}\n"));
    }
    Ok(lines.into_bytes())
}

/// `admin.pool.UsageDetails`.
pub(super) fn usage_details(state: &mut State, call: &Call) -> Answer {
    let pool = pool(state, call)?;
    let Some((size, usage)) = storage::pool_usage(&state.dir, pool) else { return Ok(Vec::new()) };
    let mut lines = format!("data_size={size}\ndata_usage={usage}\n");
    if pool.driver == Driver::LvmThin {
        // One part in 512 for the map of blocks is what a thin pool of default chunks takes.
        lines.push_str(&format!("metadata_size={}\nmetadata_usage={}\n", size / 512, usage / 512));
    }
    Ok(lines.into_bytes())
}

/// `admin.pool.volume.List`.
pub(super) fn volumes(state: &mut State, call: &Call) -> Answer {
    let pool = pool(state, call)?;
    if pool.driver == Driver::LinuxKernel {
        return Ok(state
            .system
            .kernels
            .iter()
            .map(|kernel| format!("{kernel}\n"))
            .collect::<String>()
            .into_bytes());
    }
    let volumes = state.system.qubes.values().flat_map(|qube| &qube.volumes);
    let here = volumes.filter(|volume| volume.pool == pool.name);
    Ok(here.map(|volume| format!("{}\n", volume.vid)).collect::<String>().into_bytes())
}

fn pool<'a>(state: &'a State, call: &Call) -> Result<&'a Pool, Failure> {
    state.system.pool(&call.arg).ok_or_else(|| Failure::not_in("pools"))
}

/// `admin.label.List`.
pub(super) fn labels(state: &mut State, _: &Call) -> Answer {
    Ok(state.system.labels.iter().map(|label| format!("{}\n", label.name)).collect::<String>().into_bytes())
}

/// `admin.label.Get`.
pub(super) fn label_color(state: &mut State, call: &Call) -> Answer {
    let (_, label) = label(state, &call.arg)?;
    Ok(label.color.clone().into_bytes())
}

/// `admin.label.Index`.
pub(super) fn label_index(state: &mut State, call: &Call) -> Answer {
    let (index, _) = label(state, &call.arg)?;
    Ok(index.to_string().into_bytes())
}

/// `admin.label.Create`.
pub(super) fn label_create(state: &mut State, call: &Call) -> Answer {
    validate_label(&call.arg, true)?;
    let fault = |text: &str| Failure::new("QubesInvalidLabelValueError", text);
    let text = std::str::from_utf8(&call.payload).ok().filter(|text| text.is_ascii());
    let color = text.ok_or_else(|| fault("Label value must be encoded in ASCII"))?;
    let digits = color.trim();
    if digits.len() != 8 {
        return Err(fault("Label value must have length of 8"));
    }
    let digits = digits.strip_prefix("0x").ok_or_else(|| fault("Label value must start with: 0x"))?;
    if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let text = "Label value must only contain hexadecimal digits after prefix: 0123456789abcdefABCDEF";
        return Err(fault(text));
    }
    if state.system.labels.iter().any(|label| label.name == call.arg) {
        return Err(Failure::new(
            "QubesLabelInUseError",
            format_args!("Label is still in use: '{}'", call.arg),
        ));
    }
    let label = Label { name: call.arg.clone(), color: color.trim().to_owned() };
    state.system_mut().labels.push(label);
    Ok(Vec::new())
}

/// `admin.label.Remove`.
pub(super) fn label_remove(state: &mut State, call: &Call) -> Answer {
    let (index, label) = label(state, &call.arg)?;
    if index <= DEFAULT_LABELS {
        return Err(Failure::protocol("Can only remove custom labels"));
    }
    if state.system.qubes.values().any(|qube| qube.property("label") == Some(&call.arg)) {
        let text = format!("Label is still in use: Label({index}, '{}', '{}')", label.color, label.name);
        return Err(Failure::new("QubesLabelInUseError", text));
    }
    state.system_mut().labels.retain(|label| label.name != call.arg);
    Ok(Vec::new())
}

fn label<'a>(state: &'a State, name: &str) -> Result<(usize, &'a Label), Failure> {
    validate_label(name, false)?;
    let mut labels = state.system.labels.iter().zip(1..);
    let found = labels.find(|(label, _)| label.name == name).map(|(label, index)| (index, label));
    found.ok_or_else(|| Failure::no_such_label(name))
}

/// Whether a label can be called so; a new one not like a label's number.
pub(super) fn validate_label(name: &str, creation: bool) -> Result<(), Failure> {
    let fault = if name.is_empty() {
        "Label name must be set"
    } else if creation && name.bytes().all(|byte| byte.is_ascii_digit()) {
        "Label must not be a digit"
    } else if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')) {
        "Label must be in safe set: abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."
    } else {
        return Ok(());
    };
    Err(Failure::new("QubesInvalidLabelError", fault))
}

/// The labels that every system has.
const DEFAULT_LABELS: usize = 8;
