//! Shell patterns as Python's `fnmatch.fnmatchcase` understands them.
//!
//! `*` any text (line feeds too), `?` one character, `[seq]` one of, `[!seq]` none of. A `]` right after `[` or
//! `[!` is a member; `[^x]` means `^` or `x`; an unclosed `[` stands for itself; a range whose ends are the wrong
//! way round is empty. There are no braces and no escapes.

/// Whether the whole of `text` matches `pattern`.
#[must_use]
pub fn fnmatch(pattern: &str, text: &str) -> bool {
    let tokens = tokens(pattern);
    let text: Vec<char> = text.chars().collect();
    let (mut token, mut at) = (0, 0);
    // Where to go on after a mismatch: the token after the last `*`, and how far that star has eaten.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        match tokens.get(token) {
            Some(Token::Star) => {
                token += 1;
                retry = Some((token, at));
                continue;
            }
            Some(one) if text.get(at).is_some_and(|c| one.accepts(*c)) => {
                token += 1;
                at += 1;
                continue;
            }
            None if at == text.len() => return true,
            _ => {}
        }
        match retry {
            Some((after_star, eaten)) if eaten < text.len() => {
                retry = Some((after_star, eaten + 1));
                (token, at) = (after_star, eaten + 1);
            }
            _ => return false,
        }
    }
}

/// Whether `text` has a character that makes it a pattern and not a plain name.
#[must_use]
pub fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

enum Token {
    Star,
    Any,
    Char(char),
    Set { negated: bool, ranges: Vec<(char, char)> },
}

impl Token {
    fn accepts(&self, c: char) -> bool {
        match self {
            Self::Star => false,
            Self::Any => true,
            Self::Char(own) => *own == c,
            Self::Set { negated, ranges } => {
                ranges.iter().any(|(lo, hi)| (*lo..=*hi).contains(&c)) != *negated
            }
        }
    }
}

fn tokens(pattern: &str) -> Vec<Token> {
    let pattern: Vec<char> = pattern.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(&c) = pattern.get(at) {
        at += 1;
        tokens.push(match c {
            // A second star adds nothing.
            '*' if matches!(tokens.last(), Some(Token::Star)) => continue,
            '*' => Token::Star,
            '?' => Token::Any,
            '[' => match set(&pattern[at..]) {
                Some((set, used)) => {
                    at += used;
                    set
                }
                None => Token::Char('['),
            },
            c => Token::Char(c),
        });
    }
    tokens
}

/// Reads a set after its `[`; returns it with the number of characters up to and including its `]`.
fn set(rest: &[char]) -> Option<(Token, usize)> {
    let negated = rest.first() == Some(&'!');
    let start = usize::from(negated);
    let end = rest.iter().skip(start + 1).position(|c| *c == ']')? + start + 1;
    let mut members = &rest[start..end];
    let mut ranges = Vec::new();
    while let Some((&first, others)) = members.split_first() {
        members = if let ['-', last, after @ ..] = others {
            ranges.push((first, *last));
            after
        } else {
            ranges.push((first, first));
            others
        };
    }
    Some((Token::Set { negated, ranges }, end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_as_python_does() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "a\nb", true),
            ("a*c", "abcbc", true),
            ("a*c", "abcb", false),
            ("**a", "ba", true),
            ("*a*b*", "xxayybzz", true),
            ("?", "", false),
            ("?b", "ab", true),
            ("[ab]c", "bc", true),
            ("[!ab]c", "bc", false),
            ("[!ab]c", "xc", true),
            ("[^b]c", "^c", true),
            ("[^b]c", "bc", true),
            ("[^b]c", "xc", false),
            ("[]]", "]", true),
            ("[!]]", "]", false),
            ("[!]]", "x", true),
            ("[", "[", true),
            ("a[b", "a[b", true),
            ("[]", "[]", true),
            ("[!]", "[!]", true),
            ("[a-c]", "b", true),
            ("[a-]", "-", true),
            ("[-a]", "-", true),
            ("[z-a]", "b", false),
            ("[!z-a]", "b", true),
            ("[a-c-e]", "-", true),
            ("[a-c-e]", "d", false),
            ("{a,b}", "a", false),
            ("\\*", "\\x", true),
            ("A", "a", false),
            ("f*4[01]-x*", "fedora-41-xfce", true),
        ] {
            assert_eq!(fnmatch(pattern, text), expected, "{pattern:?} against {text:?}");
        }
    }

    #[test]
    fn many_stars_end_in_time() {
        assert!(!fnmatch(&"*a".repeat(200), &"a".repeat(199)));
        assert!(fnmatch(&"*a".repeat(200), &"a".repeat(300)));
    }
}
