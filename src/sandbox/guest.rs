//! How the system inside a volume behaves.
//!
//! A volume whose content starts with a line `#!guest WORDS` stands for a guest that behaves so when its qube starts:
//!
//! | word | meaning |
//! |---|---|
//! | `no-agent` | the qrexec agent never starts |
//! | `slow-boot=N` | it starts after N seconds |
//! | `ignore-shutdown` | a request to shut down changes nothing |
//! | `crash=N` | the qube ends by itself after N seconds |
//! | `post-install=N` | `qubes.PostInstall` ends with status N and requests nothing |
//! | `request=NAME=VALUE` | `qubes.PostInstall` requests this feature, and only those named so |
//!
//! Every other content, and every word that is not in the table, stands for a guest that boots at once, obeys
//! shutdown, and whose `qubes.PostInstall` requests [`DEFAULT_FEATURES`].

use std::time::Duration;

/// What an ordinary guest requests after its installation.
pub const DEFAULT_FEATURES: [(&str, &str); 6] = [
    ("qrexec", "1"),
    ("gui", "1"),
    ("os", "Linux"),
    ("os-distribution", "fedora"),
    ("os-version", "42"),
    ("qubes-agent-version", "4.3"),
];

/// How a guest behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// How long until its agent answers; none: it never does.
    pub agent: Option<Duration>,
    /// Whether a request to shut down changes nothing.
    pub ignores_shutdown: bool,
    /// After how long it ends by itself.
    pub crash: Option<Duration>,
    /// Exit status of its `qubes.PostInstall`.
    pub post_install: i32,
    /// Features that its `qubes.PostInstall` requests.
    pub features: Vec<(String, String)>,
}

impl Default for Guest {
    fn default() -> Self {
        let features =
            DEFAULT_FEATURES.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Self { agent: Some(Duration::ZERO), ignores_shutdown: false, crash: None, post_install: 0, features }
    }
}

impl Guest {
    /// The guest that a volume with this beginning holds.
    #[must_use]
    pub fn of(beginning: &[u8]) -> Self {
        let mut guest = Self::default();
        let Some(rest) = beginning.strip_prefix(b"#!guest ") else { return guest };
        let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let mut own_features = Vec::new();
        for word in String::from_utf8_lossy(line).split_ascii_whitespace() {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            let seconds = value.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
            match (key, seconds) {
                ("no-agent", _) => guest.agent = None,
                ("slow-boot", Some(time)) => guest.agent = Some(time),
                ("ignore-shutdown", _) => guest.ignores_shutdown = true,
                ("crash", Some(time)) => guest.crash = Some(time),
                ("post-install", _) => guest.post_install = value.parse().unwrap_or(1),
                ("request", _) => {
                    let (name, value) = value.split_once('=').unwrap_or((value, ""));
                    own_features.push((name.to_owned(), value.to_owned()));
                }
                _ => {}
            }
        }
        if !own_features.is_empty() {
            guest.features = own_features;
        }
        guest
    }
}

/// How much of a volume tells what guest it holds.
pub const BEGINNING: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_make_a_guest() {
        let guest = Guest::of(b"#!guest slow-boot=2 ignore-shutdown crash=0.5\n\0\0\0");
        assert_eq!(guest.agent, Some(Duration::from_secs(2)));
        assert!(guest.ignores_shutdown);
        assert_eq!(guest.crash, Some(Duration::from_millis(500)));
        assert_eq!(Guest::of(b"#!guest no-agent").agent, None);
    }

    #[test]
    fn anything_else_is_an_ordinary_guest() {
        assert_eq!(Guest::of(b""), Guest::default());
        assert_eq!(Guest::of(b"#!guest no-such-word slow-boot=x\n"), Guest::default());
        assert_eq!(Guest::of(&[0; 64]), Guest::default());
    }

    #[test]
    fn named_features_replace_the_ordinary_ones() {
        let guest = Guest::of(b"#!guest request=os=Linux request=x= post-install=3\n");
        assert_eq!(guest.features, [("os".into(), "Linux".into()), ("x".into(), String::new())]);
        assert_eq!(guest.post_install, 3);
    }
}
