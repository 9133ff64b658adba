//! Namespaces without privileges.

use std::fs;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

/// Gives this process namespaces of its own, in which it is user 0.
pub(super) fn enter() -> Result<()> {
    let flags = CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWUTS;
    as_user(0, flags)
}

/// Gives this process a user namespace of its own, in which it is this user.
pub(super) fn as_user(id: u32, flags: CloneFlags) -> Result<()> {
    let (uid, gid) = (geteuid(), getegid());
    unshare(flags | CloneFlags::CLONE_NEWUSER).map_err(forbidden)?;
    // Without this an ordinary user may not map groups.
    fs::write("/proc/self/setgroups", "deny").context("giving up the right to change groups")?;
    fs::write("/proc/self/uid_map", format!("{id} {uid} 1\n")).context("mapping the user")?;
    fs::write("/proc/self/gid_map", format!("{id} {gid} 1\n")).context("mapping the group")
}

/// What is missing where the kernel lets nobody do this.
pub(super) fn forbidden(errno: Errno) -> anyhow::Error {
    let setting = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let mut reasons = Vec::new();
    if setting("/proc/sys/user/max_user_namespaces").as_deref() == Some("0") {
        reasons.push("user.max_user_namespaces is 0");
    }
    if setting("/proc/sys/kernel/unprivileged_userns_clone").as_deref() == Some("0") {
        reasons.push("kernel.unprivileged_userns_clone is 0");
    }
    if setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").as_deref() == Some("1") {
        reasons.push("kernel.apparmor_restrict_unprivileged_userns is 1");
    }
    if reasons.is_empty() {
        reasons.push("a container runtime or a security module may forbid it");
    }
    let reasons = reasons.join(", ");
    anyhow::Error::new(errno).context(format!(
        "qubes need user namespaces and mounts in them, and this system does not let user {} make them ({reasons}); \
         an administrator can allow it, for example with `sysctl user.max_user_namespaces=10000`",
        geteuid()
    ))
}
