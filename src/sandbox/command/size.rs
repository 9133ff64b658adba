//! Sizes as people write them.

use anyhow::{Context as _, Result};

/// `4096`, `64K`, `10M`, `2G`, with or without `iB`.
pub(super) fn parse(text: &str) -> Result<u64> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let factor: u64 = match &text[digits.len()..] {
        "" | "B" => 1,
        "K" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        "T" | "TiB" => 1 << 40,
        unit => anyhow::bail!("`{unit}` is no unit: K, M, G and T are"),
    };
    let number: u64 = digits.parse().with_context(|| format!("reading the size `{text}`"))?;
    number.checked_mul(factor).with_context(|| format!("`{text}` is too much"))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn units_are_powers_of_1024() {
        assert_eq!(parse("0").unwrap(), 0);
        assert_eq!(parse("3K").unwrap(), 3072);
        assert_eq!(parse("2GiB").unwrap(), 2 << 30);
        for bad in ["", "K", "1X", "-1", "99999999999T"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
