//! Where files of a repository are: a folder of this machine, or an address on the web.

use std::path::{Component, Path, PathBuf};

use anyhow::{Result, bail};

use crate::untrusted::displayable;

/// A place below which, or at which, a file is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// On this machine.
    File(PathBuf),
    /// `http://` or `https://`.
    Web(String),
}

impl Address {
    /// Reads `http://...`, `https://...`, `file:///...` or a plain path.
    ///
    /// # Errors
    /// Any other kind of address, or characters that no address has.
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() > 4096 || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            bail!("'{}' is not an address", displayable(&text.chars().take(100).collect::<String>(), false));
        }
        let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme).to_ascii_lowercase();
        match scheme.as_str() {
            "http" | "https" => Ok(Self::Web(encoded(text))),
            "file" => Ok(Self::File(decoded(&text["file://".len()..]).into())),
            "" if text.starts_with('/') => Ok(Self::File(text.into())),
            _ => bail!("'{}' is an address of an unknown kind", displayable(text, false)),
        }
    }

    /// The file `relative` below this place.
    ///
    /// # Errors
    /// `relative` leads out of it.
    pub fn join(&self, relative: &str) -> Result<Self> {
        let inside = !relative.is_empty()
            && !relative.chars().any(char::is_control)
            && Path::new(relative)
                .components()
                .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !inside {
            bail!("the metadata names a file outside of the repository: '{}'", displayable(relative, false));
        }
        Ok(match self {
            Self::File(folder) => Self::File(folder.join(relative)),
            Self::Web(base) => {
                Self::Web(format!("{}/{}", base.trim_end_matches('/'), encoded(relative).replace('?', "%3F")))
            }
        })
    }

    /// For messages: the path, or the address without user name and password.
    #[must_use]
    pub fn shown(&self) -> String {
        let text = match self {
            Self::File(path) => path.display().to_string(),
            Self::Web(url) => match url.split_once("://") {
                Some((scheme, rest)) => {
                    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
                    format!("{scheme}://{}/{path}", host.rsplit('@').next().unwrap_or(host))
                }
                None => url.clone(),
            },
        };
        displayable(&text, false)
    }
}

/// Percent signs for what cannot stand in an address. A `%` stays: it is taken for an escape that is already there.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:/?[]@!$&'()*+,;=%".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escape = (first == b'%').then(|| after.get(..2)).flatten();
        match escape
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok())
        {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_joined() {
        let web = Address::parse("https://user:secret@host/r4.3/").unwrap();
        assert_eq!(
            web.join("rpm/a-1^git~x#y.rpm").unwrap(),
            Address::Web("https://user:secret@host/r4.3/rpm/a-1%5Egit~x%23y.rpm".into())
        );
        assert_eq!(web.shown(), "https://host/r4.3/");
        let file = Address::parse("file:///a%20b").unwrap();
        assert_eq!(file.join("./x/y").unwrap(), Address::File("/a b/./x/y".into()));
        assert_eq!(Address::parse("/a%20b").unwrap(), Address::File("/a%20b".into()));
        for bad in ["ftp://x/", "x", "http://a b/", "", "http://a\u{7}/"] {
            assert!(Address::parse(bad).is_err(), "{bad:?}");
        }
        for bad in ["../x", "/etc/passwd", "a/../../b", "", "a\nb"] {
            assert!(file.join(bad).is_err() && web.join(bad).is_err(), "{bad:?}");
        }
    }
}
