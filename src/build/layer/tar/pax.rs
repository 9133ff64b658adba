//! Extended headers: `LENGTH KEY=VALUE\n`, and the keys that mean something to us.
//!
//! `path linkpath size uid gid mtime`, `GNU.sparse.*`, `SCHILY.xattr.NAME` (GNU tar, Go, libarchive),
//! `LIBARCHIVE.xattr.NAME` (base64), `SCHILY.acl.access` and `.default` (text, numbers only: names would mean
//! something only together with a passwd that the archive does not name). Other keys are ignored, as POSIX wants it.

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;

use crate::build::tree::{Xattrs, shown};

/// The longest extended header: room for an attribute of 64 KiB of each kind, and long names.
pub(super) const MAX: u64 = 4 << 20;

/// What extended headers say about the next member.
#[derive(Debug, Default, Clone)]
pub(super) struct Pax {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub mtime: Option<i64>,
    pub xattrs: Xattrs,
    pub sparse: Sparse,
}

/// What is said about holes.
#[derive(Debug, Default, Clone)]
pub(super) struct Sparse {
    pub major: Option<u64>,
    pub name: Option<Vec<u8>>,
    pub real_size: Option<u64>,
    /// Offsets and lengths in turn (versions 0.0 and 0.1).
    pub map: Vec<u64>,
    pub present: bool,
}

impl Pax {
    /// Adds the records of one extended header.
    pub fn read(&mut self, mut rest: &[u8]) -> Result<()> {
        while !rest.is_empty() && rest[0] != 0 {
            let space =
                rest.iter().position(|byte| *byte == b' ').context("an extended header without a length")?;
            let len = usize::try_from(decimal(&rest[..space])?)?;
            ensure!(
                len > space + 2 && len <= rest.len(),
                "a record of an extended header with a wrong length"
            );
            let (record, after) = rest.split_at(len);
            let record =
                record[space + 1..].strip_suffix(b"\n").context("a record that does not end its line")?;
            let equals = record.iter().position(|byte| *byte == b'=').context("a record without `=`")?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            self.record(key, value)
                .with_context(|| format!("reading `{}` of an extended header", shown(key)))?;
            rest = after;
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(decimal(value)?),
            b"uid" => self.uid = Some(u32::try_from(decimal(value)?)?),
            b"gid" => self.gid = Some(u32::try_from(decimal(value)?)?),
            b"mtime" => self.mtime = Some(seconds(value)?),
            b"SCHILY.acl.access" => self.acl(b"system.posix_acl_access", value)?,
            b"SCHILY.acl.default" => self.acl(b"system.posix_acl_default", value)?,
            b"GNU.sparse.major" => self.sparse.major = Some(decimal(value)?),
            b"GNU.sparse.name" => self.sparse.name = Some(value.to_vec()),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.real_size = Some(decimal(value)?),
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => self.sparse.map.push(decimal(value)?),
            b"GNU.sparse.map" => {
                self.sparse.map = value.split(|byte| *byte == b',').map(decimal).collect::<Result<_>>()?;
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattr(name.to_vec(), value.to_vec())?;
                } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                    // some writers pad, some do not
                    let end = value.iter().rposition(|byte| *byte != b'=').map_or(0, |at| at + 1);
                    let value = base64::engine::general_purpose::STANDARD_NO_PAD.decode(&value[..end])?;
                    let name = unescaped(name)?;
                    if !self.xattrs.contains_key(&name) {
                        self.xattr(name, value)?;
                    }
                }
            }
        }
        self.sparse.present |= key.starts_with(b"GNU.sparse.");
        Ok(())
    }

    fn xattr(&mut self, name: Vec<u8>, value: Vec<u8>) -> Result<()> {
        ensure!(
            !name.is_empty() && name.len() <= 255 && !name.contains(&0),
            "an attribute with an impossible name"
        );
        self.xattrs.insert(name, value);
        Ok(())
    }

    fn acl(&mut self, name: &[u8], text: &[u8]) -> Result<()> {
        if !text.is_empty() && !self.xattrs.contains_key(name) {
            self.xattrs.insert(name.to_vec(), acl(text)?);
        }
        Ok(())
    }
}

/// An ACL as text becomes the value of its extended attribute.
fn acl(text: &[u8]) -> Result<Vec<u8>> {
    let text = std::str::from_utf8(text).context("an ACL that is no text")?;
    let mut entries = Vec::new();
    for entry in text.split([',', '\n']).map(|entry| entry.split('#').next().unwrap_or_default().trim()) {
        if entry.is_empty() {
            continue;
        }
        let fields: Vec<&str> = entry.split(':').collect();
        let &[kind, who, permissions, ref numbers @ ..] = fields.as_slice() else {
            bail!("the ACL entry `{}` has too few fields", entry.escape_debug());
        };
        let named = !who.is_empty();
        let tag: u16 = match (kind, named) {
            ("user" | "u", false) => 0x01,
            ("user" | "u", true) => 0x02,
            ("group" | "g", false) => 0x04,
            ("group" | "g", true) => 0x08,
            ("mask" | "m", false) => 0x10,
            ("other" | "o", false) => 0x20,
            _ => bail!("the ACL entry `{}` is of no known kind", entry.escape_debug()),
        };
        // star writes the number behind the permissions
        let number = numbers.first().copied().unwrap_or(who);
        let id = if named {
            number.parse::<u32>().with_context(|| {
                format!("the ACL names `{}`; make the archive with --numeric-owner", number.escape_debug())
            })?
        } else {
            u32::MAX
        };
        let mut bits = 0_u16;
        for letter in permissions.chars() {
            bits |= match letter {
                'r' => 4,
                'w' => 2,
                'x' => 1,
                '-' => 0,
                _ => bail!("the ACL entry `{}` has unknown permissions", entry.escape_debug()),
            };
        }
        entries.push((tag, id, bits));
    }
    entries.sort_unstable();
    let mut value = 2_u32.to_le_bytes().to_vec();
    for (tag, id, bits) in entries {
        value.extend(tag.to_le_bytes());
        value.extend(bits.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    Ok(value)
}

/// Digits and nothing else.
pub(super) fn decimal(digits: &[u8]) -> Result<u64> {
    let text = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    text.and_then(|text| text.parse().ok()).with_context(|| format!("`{}` is no number", shown(digits)))
}

/// Seconds, with a fraction that is rounded down.
fn seconds(value: &[u8]) -> Result<i64> {
    let text = std::str::from_utf8(value).context("a time that is no text")?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    ensure!(fraction.bytes().all(|byte| byte.is_ascii_digit()), "`{}` is no time", text.escape_debug());
    let seconds: i64 = whole.parse().with_context(|| format!("`{}` is no time", text.escape_debug()))?;
    Ok(if whole.starts_with('-') && fraction.bytes().any(|byte| byte != b'0') {
        seconds - 1
    } else {
        seconds
    })
}

/// `%41` becomes `A`.
fn unescaped(name: &[u8]) -> Result<Vec<u8>> {
    let mut plain = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            plain.push(*first);
            continue;
        }
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        plain.push(byte.context("an attribute name with a `%` that escapes nothing")?);
        rest = &after[2..];
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read() {
        let mut pax = Pax::default();
        pax.read(b"12 path=ab\xff\n20 mtime=-1.5000000\n6 uid=5\n\n").unwrap_err();
        let mut pax = Pax::default();
        pax.read(b"12 path=ab\xff\n20 mtime=-1.5000000\n9 uid=55\n24 SCHILY.xattr.user.a=\n26 LIBARCHIVE.xattr.b%63=\n")
            .unwrap();
        assert_eq!(pax.path.unwrap(), b"ab\xff");
        assert_eq!((pax.mtime, pax.uid), (Some(-2), Some(55)));
        assert_eq!(pax.xattrs.keys().collect::<Vec<_>>(), [b"bc".as_slice(), b"user.a"]);
    }

    #[test]
    fn acls_are_text_with_numbers() {
        let value = acl(b"user::rwx\nuser:7:rw-,group::r-x\nmask::rwx\nother::r--\n").unwrap();
        assert_eq!(value.len(), 4 + 5 * 8);
        assert_eq!(value[4..12], [1, 0, 7, 0, 255, 255, 255, 255]);
        assert_eq!(value[12..20], [2, 0, 6, 0, 7, 0, 0, 0]);
        assert!(acl(b"user:joe:rwx").unwrap_err().to_string().contains("--numeric-owner"));
        assert_eq!(acl(b"user:joe:rwx:7").unwrap()[4..], [2, 0, 7, 0, 7, 0, 0, 0]);
    }

    #[test]
    fn malformed_records_are_refused() {
        for bad in
            [&b"x"[..], b"99 path=a\n", b"5 path\n", b"10 path=ab\n1", b"11 uid=-1x\n", b"0 \n", b"8 uid=x\n"]
        {
            assert!(Pax::default().read(bad).is_err(), "{}", shown(bad));
        }
    }
}
