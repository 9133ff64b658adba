//! Capabilities of files: from the text in a package's header to the attribute that the kernel reads.
//!
//! The text is that of `cap_to_text(3)`: clauses apart by spaces, each with a list of names and then operators with
//! flags (`cap_net_raw,cap_net_admin=ep`, `cap_chown+i`). The attribute is `struct vfs_cap_data`, revision 2, of
//! linux/capability.h: a number with the effective bit, then permitted and inheritable, lower halves first.

use anyhow::{Context, Result, bail, ensure};

/// Names in the order of their numbers, as linux/capability.h has them.
const NAMES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

const REVISION_2: u32 = 0x0200_0000;
const EFFECTIVE: u32 = 1;

/// The value of `security.capability` for a text, or `None` where it gives nothing.
pub(super) fn attribute(text: &str) -> Result<Option<Vec<u8>>> {
    let context = || format!("reading the capabilities `{}`", text.escape_debug());
    // effective, inheritable, permitted
    let mut sets = [0_u64; 3];
    for clause in text.split_ascii_whitespace() {
        apply(clause, &mut sets).with_context(context)?;
    }
    let [effective, inheritable, permitted] = sets;
    if permitted == 0 && inheritable == 0 {
        return Ok(None);
    }
    ensure!(
        effective == 0 || effective == permitted | inheritable,
        "the capabilities `{}` are effective for a part only, which files cannot say",
        text.escape_debug()
    );
    let head = REVISION_2 | if effective == 0 { 0 } else { EFFECTIVE };
    let (p, i) = (permitted.to_le_bytes(), inheritable.to_le_bytes());
    Ok(Some([&head.to_le_bytes(), &p[..4], &i[..4], &p[4..], &i[4..]].concat()))
}

fn apply(clause: &str, sets: &mut [u64; 3]) -> Result<()> {
    let at = clause.find(['=', '+', '-']).context("a clause has no operator")?;
    let (names, mut rest) = clause.split_at(at);
    let all = (1_u64 << NAMES.len()) - 1;
    let mut mask = if names.is_empty() || names == "all" { all } else { 0 };
    if mask == 0 {
        for name in names.split(',') {
            let plain = name.to_ascii_lowercase();
            let plain = plain.strip_prefix("cap_").unwrap_or(&plain);
            let number = NAMES.iter().position(|known| *known == plain);
            mask |= 1 << number.with_context(|| format!("`{}` is no capability", name.escape_debug()))?;
        }
    }
    while let Some(operator) = rest.chars().next() {
        let end = rest[1..].find(['=', '+', '-']).map_or(rest.len(), |at| at + 1);
        let flags = &rest[1..end];
        if operator == '=' {
            sets.iter_mut().for_each(|set| *set &= !mask);
        }
        for flag in flags.chars() {
            let Some(which) = "eip".find(flag) else { bail!("`{flag}` is no flag of a capability") };
            if operator == '-' { sets[which] &= !mask } else { sets[which] |= mask }
        }
        rest = &rest[end..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_attribute_is_the_kernels() {
        let ping = attribute("cap_net_raw=ep").unwrap().unwrap();
        assert_eq!(ping, [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let same = attribute("= cap_net_raw+p cap_net_raw+e").unwrap().unwrap();
        assert_eq!(same, ping);
        let two = attribute("cap_chown,cap_checkpoint_restore=p").unwrap().unwrap();
        assert_eq!(two, [0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        let inherited = attribute("cap_sys_admin+i").unwrap().unwrap();
        assert_eq!(inherited[8..12], [0, 0, 32, 0]);
        assert_eq!(attribute("cap_net_raw=ep cap_net_raw-ep").unwrap(), None);
        assert_eq!(attribute("").unwrap(), None);
        for bad in ["cap_what=ep", "cap_net_raw", "cap_net_raw=x", "cap_net_raw=ep cap_chown=p"] {
            assert!(attribute(bad).is_err(), "{bad}");
        }
    }
}
