//! Which release of Qubes OS this is.

use std::path::Path;

/// What is assumed where nothing tells.
const FALLBACK: &str = "4.1";

/// The release, read from the files below `root`: the marker of a qube, else dom0's `os-release`.
#[must_use]
pub fn detect(root: &Path) -> String {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_default();
    of_marker(&read("usr/share/qubes/marker-vm"))
        .or_else(|| of_os_release(&read("etc/os-release")))
        .unwrap_or_else(|| FALLBACK.to_owned())
}

/// The first line that is neither empty nor a comment, when it is a version.
fn of_marker(text: &str) -> Option<String> {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'))?;
    line.starts_with(|c: char| c.is_ascii_digit()).then(|| line.to_owned())
}

fn of_os_release(text: &str) -> Option<String> {
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
        Some(line.trim().trim_matches(['"', '\'']).to_owned())
    };
    value("ID").filter(|id| id.contains("qubes"))?;
    value("VERSION_ID").filter(|version| !version.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_and_os_release() {
        assert_eq!(of_marker("# note\n\n4.3\n").as_deref(), Some("4.3"));
        assert_eq!(of_marker("yes\n"), None);
        assert_eq!(
            of_os_release("NAME=\"Qubes OS\"\nID=qubes\nVERSION_ID=\"4.2.1\"\n").as_deref(),
            Some("4.2.1")
        );
        assert_eq!(of_os_release("ID=debian\nVERSION_ID=13\n"), None);
        assert_eq!(detect(Path::new("/nonexistent")), "4.1");
    }
}
