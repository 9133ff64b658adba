//! The variables of `.repo` files: `$name` and `${name}`, as dnf replaces them.
//!
//! A name is the longest run of letters, digits and `_`; what is unknown stays as it was written.

use std::collections::BTreeMap;

/// Values for `$releasever`, `$basearch` and the like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variables(BTreeMap<String, String>);

impl Variables {
    /// `releasever` (with `releasever_major` and `releasever_minor`), `basearch` and `arch`.
    #[must_use]
    pub fn new(releasever: &str) -> Self {
        let mut values = Self::default();
        values.set("releasever", releasever);
        if let Some((major, minor)) = releasever.split_once('.') {
            values.set("releasever_major", major);
            values.set("releasever_minor", minor);
        }
        values.set("basearch", std::env::consts::ARCH);
        values.set("arch", std::env::consts::ARCH);
        values
    }

    /// Gives `name` a value.
    pub fn set(&mut self, name: &str, value: &str) {
        self.0.insert(name.to_owned(), value.to_owned());
    }

    /// `text` with every known variable replaced. Values are not looked at again.
    #[must_use]
    pub fn expand(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(dollar) = rest.find('$') {
            out.push_str(&rest[..dollar]);
            let after = &rest[dollar + 1..];
            let (braced, body) = match after.strip_prefix('{') {
                Some(body) => (true, body),
                None => (false, after),
            };
            let length = body.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
            let closed = !braced || body.as_bytes().get(length) == Some(&b'}');
            match self.0.get(&body[..length]).filter(|_| closed) {
                Some(value) => {
                    out.push_str(value);
                    rest = &body[length + usize::from(braced)..];
                }
                None => {
                    out.push('$');
                    rest = after;
                }
            }
        }
        out.push_str(rest);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_what_it_knows() {
        let v = Variables::new("4.3");
        for (text, want) in [
            ("$releasever", "4.3"),
            ("r${releasever}/x", "r4.3/x"),
            ("$releasever.1", "4.3.1"),
            ("$releasever_major-$releasever_minor", "4-3"),
            ("$releaseverx", "$releaseverx"),
            ("$$releasever", "$4.3"),
            ("${releasever", "${releasever"),
            ("${none}$none$", "${none}$none$"),
            ("$ {", "$ {"),
            ("ö$releaseverö", "ö4.3ö"),
        ] {
            assert_eq!(v.expand(text), want, "{text:?}");
        }
        assert_eq!(Variables::new("$releasever").expand("$releasever"), "$releasever");
    }
}
