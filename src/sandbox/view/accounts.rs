//! The users that a qube knows: the host's, and `user` with its groups.

use std::fs;

/// `/etc/passwd` of a qube.
pub(super) fn passwd() -> Vec<u8> {
    let own = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n";
    merged("/etc/passwd", own, &["root", "user"]).into_bytes()
}

/// `/etc/group` of a qube.
pub(super) fn group() -> Vec<u8> {
    let own = "root:x:0:\nuser:x:1000:\nqubes:x:98:user\n";
    merged("/etc/group", own, &["root", "user", "qubes"]).into_bytes()
}

/// Our lines, and those of the host that say nothing about the same names and numbers.
fn merged(path: &str, own: &str, names: &[&str]) -> String {
    let host = fs::read(path).unwrap_or_default();
    let mut text = own.to_owned();
    for line in String::from_utf8_lossy(&host).lines() {
        let mut fields = line.split(':');
        let (name, number) = (fields.next().unwrap_or_default(), fields.nth(1).unwrap_or_default());
        if !names.contains(&name) && !matches!(number, "0" | "98" | "1000") {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}
