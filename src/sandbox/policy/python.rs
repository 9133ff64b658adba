//! How the original writes values into its messages, and how it cuts lines into words.

/// A text as it stands in a message.
pub(super) fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::from(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if (c as u32) < 0x20
                || c as u32 == 0x7f
                || (0x80..=0xa0).contains(&(c as u32))
                || c == '\u{ad}' =>
            {
                out.push_str(&format!("\\x{:02x}", c as u32));
            }
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}

/// Characters in brackets.
pub(super) fn tuple(characters: &[char]) -> String {
    let list = characters.iter().map(|c| quoted(&c.to_string())).collect::<Vec<_>>().join(", ");
    if characters.len() == 1 { format!("({list},)") } else { format!("({list})") }
}

/// Texts in square brackets.
pub(super) fn list(texts: &[&str]) -> String {
    format!("[{}]", texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", "))
}

/// The words of a line.
pub(super) fn words(line: &str) -> Vec<&str> {
    line.split(is_space).filter(|word| !word.is_empty()).collect()
}

/// A line without the space around it.
pub(super) fn stripped(line: &str) -> &str {
    line.trim_matches(is_space)
}

fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// The lines of a text, which may end in LF, CR LF or CR.
pub(super) fn lines(text: &str) -> Vec<String> {
    let unified = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut lines: Vec<String> = unified.split('\n').map(str::to_owned).collect();
    if lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

/// What is wrong with bytes that are not UTF-8.
pub(super) fn decode_error(bytes: &[u8], error: std::str::Utf8Error) -> String {
    let start = error.valid_up_to();
    let first = bytes[start];
    let length = error.error_len().unwrap_or(bytes.len() - start);
    let reason = match error.error_len() {
        None => "unexpected end of data",
        Some(_) if matches!(first, 0x80..=0xc1 | 0xf5..=0xff) => "invalid start byte",
        Some(_) => "invalid continuation byte",
    };
    if length == 1 {
        format!("'utf-8' codec can't decode byte 0x{first:02x} in position {start}: {reason}")
    } else {
        let last = start + length - 1;
        format!("'utf-8' codec can't decode bytes in position {start}-{last}: {reason}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_the_original_writes_them() {
        assert_eq!(quoted("a'b"), "\"a'b\"");
        assert_eq!(quoted("a'\"b"), "'a\\'\"b'");
        assert_eq!(quoted("a\\\n\u{7}\u{e9}"), "'a\\\\\\n\\x07\u{e9}'");
        assert_eq!(tuple(&['*']), "('*',)");
        assert_eq!(tuple(&['*', '/']), "('*', '/')");
        assert_eq!(list(&["a=b", "c"]), "['a=b', 'c']");
    }

    #[test]
    fn broken_text_is_described() {
        let describe = |bytes: &[u8]| decode_error(bytes, std::str::from_utf8(bytes).unwrap_err());
        assert_eq!(
            describe(b"a\xe9t"),
            "'utf-8' codec can't decode byte 0xe9 in position 1: invalid continuation byte"
        );
        assert_eq!(
            describe(b"\xff"),
            "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"
        );
        assert_eq!(
            describe(b"ab\xe2\x82"),
            "'utf-8' codec can't decode bytes in position 2-3: unexpected end of data"
        );
        assert_eq!(
            describe(b"\xe2\x82t"),
            "'utf-8' codec can't decode bytes in position 0-1: invalid continuation byte"
        );
    }

    #[test]
    fn lines_end_in_three_ways() {
        assert_eq!(lines("a\r\nb\rc\n\nd"), ["a", "b", "c", "", "d"]);
        assert_eq!(words(" a\t b\x1cc\u{a0}"), ["a", "b", "c"]);
    }
}
