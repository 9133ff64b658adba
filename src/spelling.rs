//! What may have been meant by a name that does not exist.

use crate::template::fnmatch;

/// How many names are proposed.
const MOST: usize = 3;

/// The candidate that is most like `typed`, when one is close enough to have been meant.
pub fn similar<'c>(typed: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    let typed = typed.to_lowercase();
    candidates
        .map(|candidate| (distance(&typed, candidate), candidate))
        .filter(|(far, candidate)| *far <= slips(&typed, candidate))
        .min()
        .map(|(_, candidate)| candidate)
}

/// Templates that may have been meant by `typed`, the likeliest first: names that are spelled nearly so, names of which a build
/// was asked for, and names that hold what was typed.
#[must_use]
pub fn templates<'c>(typed: &str, candidates: impl IntoIterator<Item = &'c str>) -> Vec<&'c str> {
    if typed.is_empty() || fnmatch::is_pattern(typed) {
        return Vec::new();
    }
    let small = typed.to_lowercase();
    let rank = |name: &str| {
        // What differs much in length is not even compared.
        let near = small.len().abs_diff(name.len()) <= slips(&small, name);
        let far = if near { distance(&small, name) } else { usize::MAX };
        let is_build = small.strip_prefix(name).is_some_and(|rest| rest.starts_with('-'));
        match () {
            () if is_build => Some(0),
            () if far <= slips(&small, name) => Some(far),
            () if small.len() > 2 && name.contains(&small) => Some(usize::MAX),
            () => None,
        }
    };
    let mut ranked: Vec<(usize, &str)> =
        candidates.into_iter().filter_map(|name| Some((rank(name)?, name))).collect();
    // Of names that are equally near the last one: it tends to be the newest release.
    ranked.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| b.1.cmp(a.1)));
    ranked.dedup();
    ranked.into_iter().map(|(_, name)| name).take(MOST).collect()
}

/// The line of help that proposes these names; empty when there are none.
#[must_use]
pub fn question(names: &[impl AsRef<str>]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("'{}'", name.as_ref())).collect();
    match quoted.split_last() {
        None => String::new(),
        Some((last, [])) => format!("\nhelp: did you mean {last}?"),
        Some((last, others)) => format!("\nhelp: did you mean {} or {last}?", others.join(", ")),
    }
}

/// How many slips are forgiven in a word of this length.
fn slips(typed: &str, candidate: &str) -> usize {
    (typed.len().max(candidate.len()) / 4).max(1)
}

/// Number of insertions, deletions, replacements and swaps of neighbours between two texts.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let mut best = (rows[i - 1][j] + 1)
                .min(row[j - 1] + 1)
                .min(rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]));
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 6] = [
        "debian-13",
        "fedora-41-xfce",
        "fedora-42-xfce",
        "whonix-gateway-17",
        "whonix-workstation-17",
        "acme",
    ];

    #[test]
    fn near_names_come_before_names_that_hold_the_word() {
        for (typed, names) in [
            ("fedora-42-xcfe", &["fedora-42-xfce", "fedora-41-xfce"][..]),
            ("Debian-13", &["debian-13"]),
            ("debian13", &["debian-13"]),
            ("fedora-42-xfce-4.2.0-1", &["fedora-42-xfce"]),
            ("whonix", &["whonix-workstation-17", "whonix-gateway-17"]),
            ("acme", &["acme"]),
            ("zzz", &[]),
            ("fe*", &[]),
            ("", &[]),
        ] {
            assert_eq!(templates(typed, NAMES), names, "{typed}");
        }
    }

    #[test]
    fn a_question_names_them_all() {
        assert_eq!(question(&[""; 0]), "");
        assert_eq!(question(&["a"]), "\nhelp: did you mean 'a'?");
        assert_eq!(question(&["a", "b", "c"]), "\nhelp: did you mean 'a', 'b' or 'c'?");
    }

    #[test]
    fn words_that_are_too_far_are_not_meant() {
        assert_eq!(similar("reties", ["retries", "rates"].into_iter()), Some("retries"));
        assert_eq!(similar("zzz", ["retries"].into_iter()), None);
    }
}
