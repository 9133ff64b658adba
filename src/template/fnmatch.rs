//! Shell patterns exactly as Python's `fnmatch.fnmatchcase` takes them: `*`, `?`, `[seq]`, `[!seq]`, no braces, no
//! escapes, `*` and `?` match every character (line feeds too), an unclosed `[` is a plain character.
//!
//! Never slower than pattern length times text length.

/// One step of a pattern.
enum Step {
    Any,
    One,
    Char(char),
    Set { negated: bool, ranges: Vec<(char, char)> },
}

/// Whether the whole of `text` matches `pattern`.
#[must_use]
pub fn matches(pattern: &str, text: &str) -> bool {
    let steps = compile(pattern);
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    // Where to go on after a mismatch: the latest `*`, and how much of the text it has eaten so far.
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match steps.get(p) {
            Some(Step::Any) => {
                retry = Some((p, t));
                p += 1;
                continue;
            }
            Some(step) if accepts(step, text[t]) => {
                p += 1;
                t += 1;
                continue;
            }
            _ => {}
        }
        let Some((star, eaten)) = retry else { return false };
        retry = Some((star, eaten + 1));
        p = star + 1;
        t = eaten + 1;
    }
    steps[p..].iter().all(|step| matches!(step, Step::Any))
}

/// Whether `pattern` has one of the characters that make dnf treat a word as a pattern.
#[must_use]
pub fn is_pattern(pattern: &str) -> bool {
    pattern.contains(['*', '?', '['])
}

fn accepts(step: &Step, c: char) -> bool {
    match step {
        Step::Any => false,
        Step::One => true,
        Step::Char(wanted) => *wanted == c,
        Step::Set { negated, ranges } => {
            ranges.iter().any(|&(low, high)| (low..=high).contains(&c)) != *negated
        }
    }
}

fn compile(pattern: &str) -> Vec<Step> {
    let chars: Vec<char> = pattern.chars().collect();
    let mut steps = Vec::with_capacity(chars.len());
    let mut i = 0;
    while i < chars.len() {
        match chars[i] {
            '*' => {
                if !matches!(steps.last(), Some(Step::Any)) {
                    steps.push(Step::Any);
                }
            }
            '?' => steps.push(Step::One),
            '[' => {
                if let Some((set, end)) = set(&chars, i) {
                    steps.push(set);
                    i = end;
                } else {
                    steps.push(Step::Char('['));
                }
            }
            plain => steps.push(Step::Char(plain)),
        }
        i += 1;
    }
    steps
}

/// The set that starts at `open`, and the index of its closing bracket.
fn set(chars: &[char], open: usize) -> Option<(Step, usize)> {
    let mut first = open + 1;
    let negated = chars.get(first) == Some(&'!');
    if negated {
        first += 1;
    }
    // A `]` in the first place is a member, not the end.
    let end = (first + 1..chars.len()).find(|&i| chars[i] == ']')?;
    let body = &chars[first..end];
    let mut ranges = Vec::new();
    let mut i = 0;
    while i < body.len() {
        if i + 2 < body.len() && body[i + 1] == '-' {
            // An empty range such as `z-a` has no member.
            if body[i] <= body[i + 2] {
                ranges.push((body[i], body[i + 2]));
            }
            i += 3;
        } else {
            ranges.push((body[i], body[i]));
            i += 1;
        }
    }
    Some((Step::Set { negated, ranges }, end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn answers_as_python() {
        for (pattern, text) in [
            ("*", ""),
            ("*", "a\nb"),
            ("a*", "a"),
            ("*a*b*", "xxaxxbxx"),
            ("a?c", "abc"),
            ("[!a]", "b"),
            ("[^a]", "^"),
            ("[^a]", "a"),
            ("[]]", "]"),
            ("[!]]", "x"),
            ("[a-c]x", "bx"),
            ("[", "["),
            ("a[b", "a[b"),
            ("[-a]", "-"),
            ("[a-]", "-"),
            ("fedora-4[23]-xfce", "fedora-42-xfce"),
            ("\\*", "\\x"),
            ("{a,b}", "{a,b}"),
            ("?", "ö"),
            ("**a", "a"),
        ] {
            assert!(matches(pattern, text), "{pattern:?} {text:?}");
        }
        for (pattern, text) in [
            ("", "a"),
            ("a", ""),
            ("?", ""),
            ("A", "a"),
            ("[!a]", "a"),
            ("[^a]", "b"),
            ("[c-a]", "b"),
            ("[]", "]"),
            ("a*b", "a"),
            ("{a,b}", "a"),
            ("[a", "a"),
            ("*.rpm", "x.rp"),
        ] {
            assert!(!matches(pattern, text), "{pattern:?} {text:?}");
        }
    }

    #[test]
    fn many_stars_stay_quick() {
        assert!(!matches(&"*a".repeat(200), &"a".repeat(199).repeat(20).replace("aa", "ab")));
    }

    proptest! {
        #[test]
        fn every_plain_text_matches_itself(text in "[a-zA-Z0-9._+~^:-]{0,40}") {
            prop_assert!(matches(&text, &text));
            let around = format!("*{text}*");
            prop_assert!(matches(&around, &text));
        }

        #[test]
        fn takes_anything(pattern in "\\PC{0,20}", text in "\\PC{0,20}") {
            let _ = matches(&pattern, &text);
        }
    }
}
