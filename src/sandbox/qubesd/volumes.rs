//! Volumes of a qube.

use super::call::{Answer, Call, python_bool};
use super::state::State;
use super::{Failure, number, properties, storage};
use crate::sandbox::state::{Driver, Pool, Volume};

/// `admin.vm.volume.List`.
pub(super) fn list(state: &mut State, call: &Call) -> Answer {
    let volumes = &state.qube(&call.dest)?.volumes;
    Ok(volumes.iter().map(|volume| format!("{}\n", volume.name)).collect::<String>().into_bytes())
}

/// `admin.vm.volume.Info`.
pub(super) fn info(state: &mut State, call: &Call) -> Answer {
    let volume = volume(state, call)?;
    let pool = pool_of(state, volume)?;
    let vid = vid(state, &call.dest, volume, pool);
    let source = source(state, &call.dest, volume);
    let outdated = source.is_some_and(|source| {
        let started = state.system.qubes.get(&call.dest).is_some_and(|qube| !qube.state.is_halted());
        started && source.commits != volume.commits
    });
    let lines: [(&str, String); 12] = [
        ("pool", volume.pool.clone()),
        ("vid", vid.clone()),
        ("size", volume.size.to_string()),
        ("usage", storage::usage(&state.dir, volume).to_string()),
        ("rw", python_bool(volume.rw)),
        ("source", source.map(|source| source.vid.clone()).unwrap_or_default()),
        ("path", path(pool, volume, &vid)),
        ("save_on_stop", python_bool(volume.save_on_stop)),
        ("snap_on_start", python_bool(volume.snap_on_start)),
        ("revisions_to_keep", volume.revisions_to_keep.to_string()),
        ("ephemeral", python_bool(is_ephemeral(volume, pool))),
        ("is_outdated", python_bool(outdated)),
    ];
    Ok(lines.into_iter().map(|(key, value)| format!("{key}={value}\n")).collect::<String>().into_bytes())
}

/// `admin.vm.volume.ListSnapshots`: oldest first.
pub(super) fn list_snapshots(state: &mut State, call: &Call) -> Answer {
    let revisions = &volume(state, call)?.revisions;
    Ok(revisions.iter().map(|revision| format!("{}\n", revision.id)).collect::<String>().into_bytes())
}

/// `admin.vm.volume.Revert`.
pub(super) fn revert(state: &mut State, call: &Call) -> Answer {
    volume(state, call)?;
    let text =
        std::str::from_utf8(&call.payload).ok().filter(|text| text.is_ascii()).ok_or(Failure::Untold)?;
    let id = text.trim();
    if !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'-' | b'_' | b'.')) {
        let set = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:-_.";
        return Err(Failure::protocol(format_args!("Revision name must be in safe set: {set}")));
    }
    changed(state, &call.dest, &call.arg, |dir, pool, volume| storage::revert(dir, pool, volume, id))
}

/// `admin.vm.volume.Resize`.
pub(super) fn resize(state: &mut State, call: &Call) -> Answer {
    volume(state, call)?;
    let size = number::unsigned(number::strip(&call.payload), "Volume size")?;
    changed(state, &call.dest, &call.arg, |dir, _, volume| storage::resize(dir, volume, size))
}

/// `admin.vm.volume.Clear`: an import of nothing, of the same size.
pub(super) fn clear(state: &mut State, call: &Call) -> Answer {
    let size = volume(state, call)?.size;
    changed(state, &call.dest, &call.arg, |dir, pool, volume| {
        storage::begin_import(dir, pool, volume, size).map(drop)
    })?;
    tell_begin(state, &call.dest, &call.arg, size);
    let done = changed(state, &call.dest, &call.arg, |dir, pool, volume| {
        storage::commit_import(dir, pool, volume, size)
    });
    tell_end(state, &call.dest, &call.arg, done.is_ok());
    done
}

/// `admin.vm.volume.Set.revisions_to_keep`.
pub(super) fn set_revisions_to_keep(state: &mut State, call: &Call) -> Answer {
    let volume = volume(state, call)?;
    let keep = number::signed(&call.payload, "Revisions to keep")?;
    if keep < -1 {
        return Err(Failure::value("Invalid value for revisions_to_keep"));
    }
    let switches = keep != volume.revisions_to_keep && (keep == -1 || volume.revisions_to_keep == -1);
    if switches && !state.qube(&call.dest)?.state.is_halted() {
        return Err(Failure::not_halted(&call.dest));
    }
    if pool_of(state, volume)?.driver == Driver::LinuxKernel && keep != 0 {
        return Err(Failure::value("LinuxModules supports only revisions_to_keep=0"));
    }
    changed(state, &call.dest, &call.arg, |_, _, volume| {
        volume.revisions_to_keep = keep;
        Ok(())
    })
}

/// `admin.vm.volume.Set.rw`.
pub(super) fn set_rw(state: &mut State, call: &Call) -> Answer {
    let kernel = pool_of(state, volume(state, call)?)?.driver == Driver::LinuxKernel;
    let rw = call.switch()? == "True";
    if !state.qube(&call.dest)?.state.is_halted() {
        return Err(Failure::not_halted(&call.dest));
    }
    if kernel && rw {
        return Err(Failure::value("LinuxModules supports only read-only volumes"));
    }
    changed(state, &call.dest, &call.arg, |_, _, volume| {
        volume.rw = rw;
        Ok(())
    })
}

/// `admin.vm.volume.Set.ephemeral`.
pub(super) fn set_ephemeral(state: &mut State, call: &Call) -> Answer {
    let found = volume(state, call)?;
    let kernel = pool_of(state, found)?.driver == Driver::LinuxKernel;
    let kept = found.save_on_stop || found.snap_on_start || !found.rw;
    let ephemeral = call.switch()? == "True";
    if kernel {
        return Err(Failure::value("LinuxModules does not support setting ephemeral value"));
    }
    if kept && ephemeral {
        return Err(Failure::value(
            "Cannot enable ephemeral on snap_on_start or save_on_stop or non-dom0 or not writable volume",
        ));
    }
    changed(state, &call.dest, &call.arg, |_, _, volume| {
        volume.ephemeral = Some(ephemeral);
        Ok(())
    })
}

/// `admin.vm.volume.CloneFrom`: a token that lets the volume be copied once.
pub(super) fn clone_from(state: &mut State, call: &Call) -> Answer {
    volume(state, call)?;
    let token = crate::sandbox::fresh::new_uuid().replace('-', "");
    state.clones.insert(token.clone(), (call.dest.clone(), call.arg.clone()));
    Ok(token.into_bytes())
}

/// `admin.vm.volume.CloneTo`: copies the volume that a token stands for.
pub(super) fn clone_to(state: &mut State, call: &Call) -> Answer {
    volume(state, call)?;
    let text = std::str::from_utf8(&call.payload).ok().filter(|text| text.is_ascii());
    let token = text.ok_or_else(|| Failure::protocol("Token contains non-ASCII characters"))?.trim();
    let unknown =
        || Failure::new("QubesVolumeCopyTokenNotFoundError", "Token to clone volume of qube was not found");
    let (qube, name) = state.clones.remove(token).ok_or_else(unknown)?;
    let source =
        state.system.qubes.get(&qube).and_then(|qube| qube.volume(&name)).ok_or(Failure::Untold)?.clone();
    let dir = state.dir.clone();
    changed(state, &call.dest, &call.arg, |_, pool, volume| storage::copy(&dir, pool, &source, volume))
}

fn is_ephemeral(volume: &Volume, pool: &Pool) -> bool {
    let by_pool = volume.name == "volatile" && pool.get("ephemeral_volatile") == Some("True");
    volume.ephemeral.unwrap_or(by_pool)
}

/// Tells listeners that an import begins.
pub(super) fn tell_begin(state: &mut State, qube: &str, volume: &str, size: u64) {
    let size = size.to_string();
    state.tell(qube, "domain-volume-import-begin", &[("volume", volume), ("size", &size)]);
}

/// Tells listeners that an import has ended.
pub(super) fn tell_end(state: &mut State, qube: &str, volume: &str, success: bool) {
    let success = python_bool(success);
    state.tell(qube, "domain-volume-import-end", &[("volume", volume), ("success", &success)]);
}

/// Changes a volume that is there.
pub(super) fn changed(
    state: &mut State,
    qube: &str,
    volume: &str,
    change: impl FnOnce(&std::path::Path, &Pool, &mut Volume) -> Result<(), Failure>,
) -> Answer {
    let found = state.qube(qube)?.volume(volume).ok_or(Failure::Untold)?;
    let pool = pool_of(state, found)?.clone();
    let dir = state.dir.clone();
    let volume = state.qube_mut(qube)?.volume_mut(volume).ok_or(Failure::Untold)?;
    change(&dir, &pool, volume)?;
    Ok(Vec::new())
}

fn volume<'a>(state: &'a State, call: &Call) -> Result<&'a Volume, Failure> {
    let found = state.qube(&call.dest)?.volume(&call.arg);
    found.ok_or_else(|| Failure::not_in(format_args!("{} volumes", call.dest)))
}

pub(super) fn pool_of<'a>(state: &'a State, volume: &Volume) -> Result<&'a Pool, Failure> {
    state.system.pool(&volume.pool).ok_or(Failure::Untold)
}

/// The template's volume that a volume starts as a copy of.
fn source<'a>(state: &'a State, qube: &str, volume: &Volume) -> Option<&'a Volume> {
    if !volume.snap_on_start {
        return None;
    }
    let template = state.system.qubes.get(qube)?.property("template")?;
    state.system.qubes.get(template)?.volume(&volume.name)
}

/// A kernel's volume is named after the kernel that the qube would boot.
fn vid(state: &State, qube: &str, volume: &Volume, pool: &Pool) -> String {
    if pool.driver == Driver::LinuxKernel {
        return properties::value_of_qube(&state.system, qube, "kernel").unwrap_or_default();
    }
    volume.vid.clone()
}

fn path(pool: &Pool, volume: &Volume, vid: &str) -> String {
    let folder = pool.get("dir_path").unwrap_or_default();
    match pool.driver {
        Driver::LinuxKernel => format!("{folder}/{vid}/modules.img"),
        Driver::FileReflink => format!("{folder}/{vid}-dirty.img"),
        Driver::File => format!("{folder}/{vid}.img"),
        Driver::LvmThin if volume.save_on_stop || volume.snap_on_start => format!("/dev/{vid}-snap"),
        Driver::LvmThin => format!("/dev/{vid}"),
        Driver::Zfs => format!("/dev/zvol/{vid}"),
    }
}
