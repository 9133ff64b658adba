//! Compares what was printed with what the original printed, line by line.
//!
//! Text that machines read must be equal. What the recordings' README leaves free is matched so:
//!
//! | recorded | ours |
//! |---|---|
//! | `<USAGE>` | any lines, or none |
//! | `<HELP>` | any text, but some |
//! | `<PROGRESS>` | one line that shows a share or an amount |
//! | `<TRACEBACK>` and the exception after it | any lines, or none: there is no interpreter here |
//! | `Error canonicalizing file: ...` | any line, or none: these are the words of the program that checked the package |
//! | `Signature verification failed: ...` | the same beginning: after it rpm speaks |
//! | nothing | a line that begins `help: ` or `reason: `: advice and causes, of which the original has none |
//! | `<TMP>`, `<TIME>`, `<LINE>`, `<NOW>` | a name, a moment, a number |
//! | `choose from ...` | the same without quotes |

use super::super::support::packages::Packages;

/// A recorded text with the sizes of our packages: not each of them can be made as long as the recorded one.
pub fn with_our_sizes(recorded: &str, packages: &Packages) -> String {
    let mut text = recorded.to_owned();
    for package in packages.list.iter().filter(|package| package.size != package.described_size) {
        for (before, after) in [("|", "|"), ("\"size\": \"", "\"")] {
            let size = |number: u64| format!("{before}{number}{after}");
            text = text.replace(&size(package.described_size), &size(package.size));
        }
        // Tables have no more than a rounded size: the name that stands above it says whose it is.
        let name = package.claimed.trim_start_matches("qubes-template-");
        let mut lines: Vec<String> = text.split('\n').map(ToOwned::to_owned).collect();
        for at in 0..lines.len() {
            let value = |line: &str| line.split_once(" :  ").map(|(_, value)| value.to_owned());
            let of_package = lines[at].starts_with("Name  ")
                && value(&lines[at]).is_some_and(|own| name.starts_with(&format!("{own}-")));
            let size = lines.iter().skip(at).position(|line| line.starts_with("Size  ")).map(|far| at + far);
            if let Some(size) = size.filter(|_| of_package) {
                let wanted = kibibytes(package.described_size);
                lines[size] = lines[size].replace(&wanted, &kibibytes(package.size));
            }
        }
        text = lines.join("\n");
    }
    text
}

/// A size of less than a mebibyte as tables have it.
#[expect(clippy::cast_precision_loss, reason = "sizes of packages of the recordings are small")]
fn kibibytes(size: u64) -> String {
    format!("{:.1} KiB", size as f64 / 1024.0)
}

/// Whether our text is the recorded one.
pub fn equal(recorded: &str, ours: &str, any_order: bool) -> bool {
    let ends = |text: &str| text.is_empty() || text.ends_with('\n');
    if ends(recorded) != ends(ours) {
        return false;
    }
    let (mut recorded, mut ours) = (lines(recorded), lines(ours));
    if any_order {
        for list in [&mut recorded, &mut ours] {
            *list = list.iter().map(|line| in_order(line)).collect();
            list.sort();
        }
    }
    fits(&recorded, &ours)
}

/// The lines that differ, the recorded ones marked by `-`, ours by `+`.
pub fn difference(name: &str, recorded: &str, ours: &str) -> String {
    let (recorded, ours) = (lines(recorded), lines(ours));
    let begin = recorded.iter().zip(&ours).take_while(|(one, other)| line_fits(one, other)).count();
    let (recorded, ours) = (&recorded[begin..], &ours[begin..]);
    let end =
        recorded.iter().rev().zip(ours.iter().rev()).take_while(|(one, other)| line_fits(one, other)).count();
    let mut text = format!("{name}, line {}:", begin + 1);
    for (mark, list) in [('-', recorded), ('+', ours)] {
        for line in &list[..list.len() - end] {
            text.push_str(&format!("\n  {mark} {line}"));
        }
    }
    text
}

fn lines(text: &str) -> Vec<String> {
    let ours_alone = |line: &&str| line.starts_with("help: ") || line.starts_with("reason: ");
    text.split_terminator('\n').filter(|line| !ours_alone(line)).map(plain).collect()
}

/// A line without the quotes that differ between versions of the original's interpreter.
fn plain(line: &str) -> String {
    match line.find("(choose from ") {
        Some(at) => format!("{}{}", &line[..at], line[at..].replace('\'', "")),
        None => line.to_owned(),
    }
}

/// A line of JSON with the objects of its arrays in one order.
fn in_order(line: &str) -> String {
    let Ok(mut value) = serde_json::from_str::<serde_json::Value>(line) else { return line.to_owned() };
    let Some(object) = value.as_object_mut() else { return line.to_owned() };
    for (_, array) in object.iter_mut() {
        if let Some(array) = array.as_array_mut() {
            array.sort_by_key(ToString::to_string);
        }
    }
    value.to_string()
}

/// After these words rpm speaks, up to an empty line.
const SPOKEN_BY_RPM: &str = "Signature verification failed: ";

fn fits(recorded: &[String], ours: &[String]) -> bool {
    let Some((first, rest)) = recorded.split_first() else { return ours.is_empty() };
    let any_lines = |rest: &[String]| (0..=ours.len()).any(|taken| fits(rest, &ours[taken..]));
    match first.as_str() {
        "<USAGE>" => any_lines(rest),
        "<HELP>" => !ours.is_empty() && rest.is_empty(),
        "<TRACEBACK>" => any_lines(rest.get(1..).unwrap_or_default()),
        line if line.starts_with("Error canonicalizing file: ") => {
            fits(rest, ours) || (!ours.is_empty() && fits(rest, &ours[1..]))
        }
        line if line.contains(SPOKEN_BY_RPM) => {
            let more = rest.iter().position(|line| !line.is_empty()).unwrap_or(rest.len());
            ours.split_first()
                .is_some_and(|(line, after)| line_fits(first, line) && fits(&rest[more..], after))
        }
        _ => ours.split_first().is_some_and(|(line, more)| line_fits(first, line) && fits(rest, more)),
    }
}

/// Whether one line is the recorded one.
pub fn line_fits(recorded: &str, ours: &str) -> bool {
    if recorded == "<PROGRESS>" {
        return ours.contains('%') || ours.contains('B');
    }
    if let Some(at) = recorded.find(SPOKEN_BY_RPM) {
        return ours.starts_with(&recorded[..at + SPOKEN_BY_RPM.len()]);
    }
    placeholders_fit(recorded, ours)
}

/// What a placeholder may stand for: how long a beginning fits at most.
type Longest = fn(&str) -> usize;

const PLACEHOLDERS: [(&str, Longest); 4] = [
    ("<TMP>", |text| text.find('/').unwrap_or(text.len())),
    ("<TIME>", |text| text.find(|c: char| !"0123456789-:., ".contains(c)).unwrap_or(text.len())),
    ("<LINE>", |text| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len())),
    ("<NOW>", |text| text.find(|c: char| !"0123456789-: ".contains(c)).unwrap_or(text.len()).min(19)),
];

fn placeholders_fit(recorded: &str, ours: &str) -> bool {
    let first = PLACEHOLDERS
        .iter()
        .filter_map(|(mark, longest)| recorded.find(mark).map(|at| (at, mark.len(), longest)))
        .min_by_key(|(at, _, _)| *at);
    let Some((at, mark, longest)) = first else { return recorded == ours };
    let Some(rest) = ours.strip_prefix(&recorded[..at]) else { return false };
    let after = &recorded[at + mark..];
    (1..=longest(rest)).rev().any(|length| placeholders_fit(after, &rest[length..]))
}

/// Our text with its temporary names, progress, fingerprints of keys and rounded sizes taken out.
pub fn without_names(text: &str) -> String {
    let mut out = String::new();
    for line in text.split_inclusive('\n') {
        if line.contains('\r') {
            out.push_str("<PROGRESS>\n");
            continue;
        }
        if line.starts_with("Size  ") && line.contains(" :  ") {
            out.push_str("<SIZE>\n");
            continue;
        }
        let words = line.split_inclusive(|c: char| !c.is_ascii_hexdigit()).map(|word| {
            let digits = word.trim_end_matches(|c: char| !c.is_ascii_hexdigit());
            if digits.len() == 40 { format!("<KEY>{}", &word[40..]) } else { word.to_owned() }
        });
        let line: String = words.collect();
        match line.split_once("/var/tmp/") {
            Some((before, after)) => {
                let name = after.find(|c: char| "/ '\"\n".contains(c)).unwrap_or(after.len());
                out.push_str(&format!("{before}/var/tmp/<TMP>{}", &after[name..]));
            }
            None => out.push_str(&line),
        }
    }
    out
}
