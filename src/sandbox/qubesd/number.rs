//! Decimal numbers in requests.

use super::Failure;

/// A decimal number of at most 19 digits without leading zeros, as `name` calls it in messages.
pub(super) fn unsigned(text: &[u8], name: &str) -> Result<u64, Failure> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return Err(Failure::protocol(format_args!("{name} contains non ASCII digits")));
    }
    if text.len() > MAX_DIGITS {
        return Err(Failure::protocol(format_args!("{name} is bigger than 19 decimal digits")));
    }
    if text[0] == b'0' && text != b"0" {
        return Err(Failure::protocol(format_args!("{name} contains spurious leading zeros")));
    }
    // Nineteen digits fit into 64 bits.
    text.iter()
        .try_fold(0_u64, |sum, digit| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
        .ok_or(Failure::Untold)
}

/// The same with a sign allowed.
pub(super) fn signed(text: &[u8], name: &str) -> Result<i64, Failure> {
    match text.strip_prefix(b"-") {
        Some(rest) => Ok(-i64::try_from(unsigned(rest, name)?).map_err(|_| Failure::Untold)?),
        None => i64::try_from(unsigned(text, name)?).map_err(|_| Failure::Untold),
    }
}

/// Without the white space around it, as the server's language strips bytes.
pub(super) fn strip(text: &[u8]) -> &[u8] {
    let space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c);
    let start = text.iter().position(|byte| !space(byte)).unwrap_or(text.len());
    let end = text.iter().rposition(|byte| !space(byte)).map_or(start, |last| last + 1);
    &text[start..end]
}

const MAX_DIGITS: usize = 19;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_plain_decimal() {
        assert_eq!(unsigned(b"0", "Size"), Ok(0));
        assert_eq!(unsigned(b"9999999999999999999", "Size"), Ok(9_999_999_999_999_999_999));
        for (text, what) in [
            (&b""[..], "contains non ASCII digits"),
            (b"+1", "contains non ASCII digits"),
            (b"1e6", "contains non ASCII digits"),
            (b"007", "contains spurious leading zeros"),
            (b"00000000000000000000", "is bigger than 19 decimal digits"),
        ] {
            assert_eq!(unsigned(text, "Size"), Err(Failure::protocol(format!("Size {what}"))));
        }
        assert_eq!(signed(b"-1", "Size"), Ok(-1));
    }

    #[test]
    fn white_space_around_a_number_goes() {
        assert_eq!(strip(b" 12\n"), b"12");
        assert_eq!(strip(b" \n"), b"");
    }
}
