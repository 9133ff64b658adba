//! Text that fits into a terminal. What goes elsewhere is never touched.

use std::os::fd::AsFd;

use rustix::termios::tcgetwinsize;

/// The narrowest terminal that text is made fit for; a question with its blank behind it fits.
const LEAST: usize = 20;
/// How much further the rest of a broken line stands in.
const HANG: usize = 2;

/// Columns of the terminal on a stream; `None` where there is none, or it does not say.
#[must_use]
pub fn columns(stream: impl AsFd) -> Option<usize> {
    let size = tcgetwinsize(stream).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0).map(|columns| columns.max(LEAST))
}

/// Breaks lines that are longer than `width` between words; the rest stands a little further in. A word that is longer
/// stays whole, so that it can be copied. Escape sequences for colour take no room.
#[must_use]
pub fn fold(text: &str, width: usize) -> String {
    let mut folded = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        fold_line(&mut folded, line, width);
        folded.push_str(end);
    }
    folded
}

fn fold_line(out: &mut String, line: &str, width: usize) {
    if room(line) <= width {
        out.push_str(line);
        return;
    }
    let indent = line.len() - line.trim_start_matches(' ').len();
    out.push_str(&line[..indent]);
    let (mut at, mut begun) = (indent, false);
    let mut gap = String::new();
    for word in line[indent..].split(' ') {
        let length = room(word);
        if word.is_empty() {
            gap.push(' ');
            continue;
        }
        if begun && at + gap.len() + length > width {
            let hang = indent + HANG;
            out.push('\n');
            out.push_str(&" ".repeat(hang));
            at = hang;
        } else {
            out.push_str(&gap);
            at += gap.len();
        }
        out.push_str(word);
        at += length;
        begun = true;
        " ".clone_into(&mut gap);
    }
}

/// Columns that a text takes.
fn room(text: &str) -> usize {
    let (mut escaped, mut count) = (false, 0);
    for c in text.chars() {
        match (escaped, c) {
            (false, '\u{1b}') => escaped = true,
            (true, c) => escaped = !c.is_ascii_alphabetic(),
            (false, _) => count += 1,
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words() {
        for (text, folded) in [
            ("short\n", "short\n"),
            ("one two three\n", "one two\n  three\n"),
            ("  one two three", "  one two\n    three"),
            ("aaaa  bbbb  cc  dd\n", "aaaa  bbbb\n  cc  dd\n"),
            ("averylongwordindeed x\n", "averylongwordindeed\n  x\n"),
            ("one two three\nfour\n", "one two\n  three\nfour\n"),
            ("\u{1b}[32mone two\u{1b}[0m", "\u{1b}[32mone two\u{1b}[0m"),
            ("", ""),
        ] {
            assert_eq!(fold(text, 10), folded, "{text:?}");
        }
    }

    #[test]
    fn nothing_is_lost_and_nothing_is_too_wide() {
        let text = "Template 'x' already installed, skipping... (You may want to use the {reinstall,upgrade} operations.)";
        for width in LEAST..120 {
            let folded = fold(text, width);
            assert!(folded.lines().all(|line| room(line) <= width.max(21)), "{width}: {folded}");
            assert_eq!(
                folded.split_whitespace().collect::<Vec<_>>(),
                text.split_whitespace().collect::<Vec<_>>()
            );
        }
    }
}
