//! Text that came from outside, on its way to a terminal or into a feature.

/// Replaces every character that could act on a terminal or mislead a reader (controls, bidirectional marks,
/// zero-width and private characters) by `_`; line feeds stay when `multi_line` is set.
#[must_use]
pub fn displayable(text: &str, multi_line: bool) -> String {
    text.chars().map(|c| if (multi_line && c == '\n') || is_displayable(c) { c } else { '_' }).collect()
}

/// The characters of `text` that an Admin API feature can hold (0x20 to 0x7E); others become `_` each, and the result is
/// cut after `limit` bytes.
#[must_use]
pub fn feature_value(text: &str, limit: usize) -> String {
    text.chars().map(|c| if matches!(c, ' '..='~') { c } else { '_' }).take(limit).collect()
}

fn is_displayable(c: char) -> bool {
    !c.is_control()
        && !matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e000}'..='\u{f8ff}' | '\u{e0000}'..='\u{10ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_acts_on_a_terminal_survives() {
        assert_eq!(displayable("a\x1b]52;c;x\x07b\r\u{9b}2J\u{202e}\u{200b}ö", false), "a_]52;c;x_b__2J__ö");
        assert_eq!(displayable("a\nb", false), "a_b");
        assert_eq!(displayable("a\nb", true), "a\nb");
    }

    #[test]
    fn features_are_printable_ascii() {
        assert_eq!(feature_value("a\tb\nö|~", 100), "a_b__|~");
        assert_eq!(feature_value("abc", 2), "ab");
    }
}
