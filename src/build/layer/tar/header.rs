//! The 512 bytes before each member, and the numbers in them.

use anyhow::{Context, Result, bail, ensure};

/// Bytes in a record.
pub(super) const RECORD: usize = 512;

/// The header of a member, its checksum tested.
#[derive(Debug)]
pub(super) struct Header(pub [u8; RECORD]);

impl Header {
    /// Checks the checksum; both ways to add up bytes are in use.
    pub fn new(bytes: [u8; RECORD]) -> Result<Self> {
        let header = Self(bytes);
        let expected = header.number(148..156).context("reading the checksum of a tar header")?;
        let all =
            header.0.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { b' ' } else { *byte });
        let unsigned: i64 = all.clone().map(i64::from).sum();
        let signed: i64 = all.map(|byte| i64::from(byte.cast_signed())).sum();
        ensure!(expected == unsigned || expected == signed, "a tar header has a wrong checksum");
        Ok(header)
    }

    pub fn kind(&self) -> u8 {
        self.0[156]
    }

    /// The name, with the prefix that POSIX archives have.
    pub fn path(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        let prefix = if &self.0[257..263] == b"ustar\0" { text(&self.0[345..500]) } else { &[] };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    pub fn link(&self) -> Vec<u8> {
        text(&self.0[157..257]).to_vec()
    }

    pub fn mode(&self) -> Result<u16> {
        let mode = self.number(100..108).context("reading the mode")?;
        Ok(u16::try_from(mode & 0o7777)?)
    }

    pub fn uid(&self) -> Result<u32> {
        u32::try_from(self.number(108..116)?).context("reading the owner")
    }

    pub fn gid(&self) -> Result<u32> {
        u32::try_from(self.number(116..124)?).context("reading the group")
    }

    pub fn size(&self) -> Result<u64> {
        u64::try_from(self.number(124..136)?).context("reading the size")
    }

    pub fn mtime(&self) -> Result<i64> {
        self.number(136..148).context("reading the time")
    }

    pub fn device(&self) -> Result<(u32, u32)> {
        let major = u32::try_from(self.number(329..337)?).context("reading the device number")?;
        let minor = u32::try_from(self.number(337..345)?).context("reading the device number")?;
        Ok((major, minor))
    }

    /// A number: octal digits, or the bytes themselves after a first byte with the highest bit set.
    pub fn number(&self, field: std::ops::Range<usize>) -> Result<i64> {
        number(&self.0[field])
    }
}

/// See [`Header::number`].
pub(super) fn number(field: &[u8]) -> Result<i64> {
    if field[0] & 0x80 != 0 {
        let negative = field[0] & 0x40 != 0;
        let mut value = if negative { -1_i128 } else { 0 };
        for (index, byte) in field.iter().enumerate() {
            let byte = if index == 0 && !negative { byte & 0x7f } else { *byte };
            value = (value << 8) | i128::from(byte);
            ensure!((value >> 100) == if negative { -1 } else { 0 }, "a number in a tar header is too large");
        }
        return i64::try_from(value).context("a number in a tar header is too large");
    }
    let digits = text(field).trim_ascii();
    let mut value = 0_i64;
    for digit in digits {
        let digit = match digit {
            b'0'..=b'7' => i64::from(digit - b'0'),
            _ => bail!("a number in a tar header is not octal"),
        };
        value = value
            .checked_mul(8)
            .and_then(|value| value.checked_add(digit))
            .context("a number is too large")?;
    }
    Ok(value)
}

/// The bytes before the first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_binary() {
        assert_eq!(number(b"0000644\0").unwrap(), 0o644);
        assert_eq!(number(b"   644 \0").unwrap(), 0o644);
        assert_eq!(number(b"\0\0\0").unwrap(), 0);
        assert_eq!(number(&[0x80, 0, 1, 0]).unwrap(), 256);
        assert_eq!(number(&[0xff; 12]).unwrap(), -1);
        assert!(number(b"12x").is_err());
        assert!(number(b"777777777777777777777777").is_err());
        assert!(number(&[0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).is_err());
    }
}
