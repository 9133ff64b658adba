//! Versions and relations of Debian packages, as deb-version(7) and the Policy Manual (chapter 7) have them.

use std::cmp::Ordering;

use anyhow::{Context, Result, bail};

/// Compares two versions: epoch, upstream version, revision.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let split = |text: &str| -> (u64, String, String) {
        let (epoch, rest) = match text.split_once(':') {
            Some((epoch, rest)) => (epoch.parse().unwrap_or(0), rest),
            None => (0, text),
        };
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        (epoch, upstream.to_owned(), revision.to_owned())
    };
    let (a, b) = (split(a), split(b));
    a.0.cmp(&b.0).then_with(|| part(&a.1, &b.1)).then_with(|| part(&a.2, &b.2))
}

/// Letters come before everything else, `~` before the end; then digits as numbers; and again.
fn part(a: &str, b: &str) -> Ordering {
    let order = |letter: Option<&u8>| match letter {
        Some(b'~') => -1,
        None => 0,
        Some(digit) if digit.is_ascii_digit() => 0,
        Some(letter) if letter.is_ascii_alphabetic() => i32::from(*letter),
        Some(other) => i32::from(*other) + 256,
    };
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    while !a.is_empty() || !b.is_empty() {
        loop {
            let digit = |text: &[u8]| text.first().is_none_or(u8::is_ascii_digit);
            if digit(a) && digit(b) {
                break;
            }
            match order(a.first()).cmp(&order(b.first())) {
                Ordering::Equal => (a, b) = (a.get(1..).unwrap_or_default(), b.get(1..).unwrap_or_default()),
                unequal => return unequal,
            }
        }
        let number = |text: &mut &[u8]| {
            let end = text.iter().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
            let (digits, rest) = text.split_at(end);
            *text = rest;
            let zeros = digits.iter().take_while(|b| **b == b'0').count();
            digits[zeros..].to_vec()
        };
        let (x, y) = (number(&mut a), number(&mut b));
        match x.len().cmp(&y.len()).then_with(|| x.cmp(&y)) {
            Ordering::Equal => {}
            unequal => return unequal,
        }
    }
    Ordering::Equal
}

/// `NAME[:ARCH] [(OPERATOR VERSION)]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Relation {
    pub(super) name: String,
    pub(super) arch: Option<String>,
    pub(super) version: Option<(String, String)>,
}

impl Relation {
    fn parse(text: &str) -> Result<Self> {
        let context = || format!("`{}` is no relation to a package", text.escape_debug());
        let (name, version) = match text.split_once('(') {
            None => (text.trim(), None),
            Some((name, rest)) => {
                let inside = rest.trim().strip_suffix(')').with_context(context)?.trim();
                let end = inside.find(|c| !matches!(c, '<' | '>' | '=')).unwrap_or(inside.len());
                (name.trim(), Some((inside[..end].to_owned(), inside[end..].trim().to_owned())))
            }
        };
        let (name, arch) = match name.split_once(':') {
            Some((name, arch)) => (name, Some(arch.to_owned()).filter(|arch| arch != "any")),
            None => (name, None),
        };
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"+-._".contains(&b);
        if name.is_empty() || !name.bytes().all(plain) {
            bail!(context());
        }
        Ok(Self { name: name.to_owned(), arch, version })
    }

    /// Whether a version fits; a name that is provided without a version fits only where none is asked for.
    pub(super) fn fits(&self, version: Option<&str>) -> Result<bool> {
        let Some((operator, wanted)) = &self.version else { return Ok(true) };
        let Some(version) = version else { return Ok(false) };
        let order = compare(version, wanted);
        Ok(match operator.as_str() {
            "=" => order.is_eq(),
            ">=" | ">" => order.is_ge(),
            "<=" | "<" => order.is_le(),
            ">>" => order.is_gt(),
            "<<" => order.is_lt(),
            other => bail!("`{}` does not compare versions", other.escape_debug()),
        })
    }
}

impl std::fmt::Display for Relation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)?;
        match &self.version {
            Some((operator, version)) => write!(f, " ({operator} {})", version.escape_debug()),
            None => Ok(()),
        }
    }
}

/// A list of relations, each with its alternatives.
pub(super) fn relations(text: &str) -> Result<Vec<Vec<Relation>>> {
    text.split(',')
        .map(str::trim)
        .filter(|group| !group.is_empty())
        .map(|group| group.split('|').map(Relation::parse).collect())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_debians_order() {
        let rising = [
            "0~~",
            "0~",
            "0",
            "0a",
            "0+",
            "1.0~rc1-1",
            "1.0-1",
            "1.0-1+b1",
            "1.0-2",
            "1.0-10",
            "1.10",
            "1:0.1",
        ];
        for (at, a) in rising.iter().enumerate() {
            for (other, b) in rising.iter().enumerate() {
                assert_eq!(compare(a, b), at.cmp(&other), "{a} {b}");
            }
        }
        assert_eq!(compare("1.00", "1.0"), Ordering::Equal);
        assert_eq!(compare("0:1-0", "1"), Ordering::Equal);
    }

    #[test]
    fn relations_are_read_as_the_policy_has_them() {
        let list = relations("libc6 (>= 2.14), a | b:any (<< 2), c:amd64,").unwrap();
        assert_eq!(list.len(), 3);
        assert!(list[0][0].fits(Some("2.36-9")).unwrap() && !list[0][0].fits(Some("2.13")).unwrap());
        assert!(!list[0][0].fits(None).unwrap() && list[2][0].fits(None).unwrap());
        assert_eq!((list[1][1].name.as_str(), &list[1][1].arch), ("b", &None));
        assert_eq!(list[0][0].to_string(), "libc6 (>= 2.14)");
        for bad in ["a b", "(x)", "a (>= 1", "\u{7}"] {
            assert!(relations(bad).is_err(), "{bad}");
        }
    }
}
