//! A listing on a terminal: the original's table with a word more about each template, and colour.
//!
//! Colour says nothing that the words do not say.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;

use super::config::Color;
use super::format::table;
use crate::list::{Entry, Listing, Status};
use crate::template::Installed;
use crate::template::provenance::Provenance;

/// Whether standard output takes colour.
#[must_use]
pub fn colored(color: Color) -> bool {
    let said = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => std::io::stdout().is_terminal() && !said("NO_COLOR") && !dumb,
    }
}

/// A listing of names with marks; `today` is a day as `YYYY-MM-DD`.
#[must_use]
pub fn listing(listing: &Listing, today: &str, colored: bool) -> String {
    let installed = known(listing, &[Status::Installed, Status::Extra]);
    let offered = known(listing, &[Status::Available, Status::Upgradable]);
    let has_offers = listing.groups.iter().any(|(status, _)| *status == Status::Available);
    let mut text = String::new();
    for (status, entries) in &listing.groups {
        let marks: Vec<Vec<Mark>> = entries
            .iter()
            .map(|entry| match status {
                Status::Installed | Status::Extra => {
                    of_installed(entry, *status, &offered, has_offers, today)
                }
                Status::Available | Status::Upgradable => of_offer(entry, *status, &installed),
            })
            .collect();
        let rows: Vec<Vec<String>> = entries
            .iter()
            .zip(&marks)
            .map(|(entry, marks)| {
                let words: Vec<&str> = marks.iter().map(|mark| mark.text.as_str()).collect();
                let template = &entry.template;
                vec![template.name.clone(), template.evr_text(), template.repo.clone(), words.join(", ")]
            })
            .collect();
        text.push_str(&paint(status.title(), "1", colored));
        text.push('\n');
        for (line, marks) in table(&rows).lines().zip(&marks) {
            let color = marks.iter().find_map(|mark| mark.color);
            text.push_str(&paint(line.trim_end(), color.unwrap_or_default(), colored));
            text.push('\n');
        }
    }
    if !listing.unmanaged.is_empty() {
        text.push_str(&paint("Other Templates", "1", colored));
        text.push('\n');
        let row = |(name, provenance): &(String, Provenance)| {
            vec![name.clone(), provenance.mark().unwrap_or_default()]
        };
        text.push_str(&table(&listing.unmanaged.iter().map(row).collect::<Vec<_>>()));
    }
    text
}

struct Mark {
    text: String,
    color: Option<&'static str>,
}

const GREEN: &str = "32";
const YELLOW: &str = "33";
const RED: &str = "31";

/// The newest known build of each template.
fn known<'l>(listing: &'l Listing, groups: &[Status]) -> BTreeMap<&'l str, &'l Installed> {
    let mut known: BTreeMap<&str, &Installed> = BTreeMap::new();
    for (_, entries) in listing.groups.iter().filter(|(status, _)| groups.contains(status)) {
        for Entry { template, .. } in entries {
            let newer = |have: &&Installed| template.evr().is_some_and(|evr| have.cmp_to(&evr).is_gt());
            if known.get(template.name.as_str()).is_none_or(newer) {
                known.insert(&template.name, template);
            }
        }
    }
    known
}

fn of_installed(
    entry: &Entry,
    status: Status,
    offered: &BTreeMap<&str, &Installed>,
    has_offers: bool,
    today: &str,
) -> Vec<Mark> {
    let template = &entry.template;
    let mut marks = Vec::new();
    if !entry.not_finalized.is_empty() {
        marks.push(Mark { text: "not finalized".to_owned(), color: Some(RED) });
    }
    if !entry.end_of_life.is_empty() && entry.end_of_life.as_str() < today {
        marks.push(Mark { text: format!("end of life since {}", entry.end_of_life), color: Some(RED) });
    }
    match offered.get(template.name.as_str()).and_then(|offer| offer.evr()) {
        Some(evr) if template.cmp_to(&evr).is_gt() => {
            marks.push(Mark { text: "upgradable".to_owned(), color: Some(YELLOW) });
        }
        None if has_offers && status == Status::Installed => {
            marks.push(Mark { text: "extra".to_owned(), color: None })
        }
        _ => {}
    }
    if let Some(text) = entry.provenance.as_ref().and_then(Provenance::mark) {
        marks.push(Mark { text, color: None });
    }
    marks
}

fn of_offer(entry: &Entry, status: Status, installed: &BTreeMap<&str, &Installed>) -> Vec<Mark> {
    let offer = &entry.template;
    let Some((here, evr)) = installed.get(offer.name.as_str()).zip(offer.evr()) else { return Vec::new() };
    let (text, color) = match here.cmp_to(&evr) {
        std::cmp::Ordering::Equal => ("installed", Some(GREEN)),
        std::cmp::Ordering::Greater if status == Status::Available => ("upgrade", Some(YELLOW)),
        _ => return Vec::new(),
    };
    vec![Mark { text: text.to_owned(), color }]
}

fn paint(text: &str, code: &str, colored: bool) -> String {
    if colored && !code.is_empty() { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, version: &str, end_of_life: &str) -> Entry {
        let text = str::to_owned;
        let template = Installed {
            name: text(name),
            epoch: text("0"),
            version: text(version),
            release: text("1"),
            repo: text("r"),
            ..Installed::default()
        };
        Entry { template, end_of_life: text(end_of_life), ..Entry::default() }
    }

    fn shown(colored: bool) -> String {
        let groups = vec![
            (
                Status::Installed,
                vec![entry("a", "1", "2024-01-01"), entry("b", "1", "2030-01-01"), entry("c", "1", "")],
            ),
            (Status::Available, vec![entry("a", "1", ""), entry("b", "2", ""), entry("d", "1", "")]),
        ];
        let mut groups = groups;
        groups[0].1[2].not_finalized = "service-failed".to_owned();
        groups[0].1[1].provenance = Some(Provenance::OtherTool);
        let unmanaged = vec![("e".to_owned(), Provenance::Clone { of: "a".to_owned() })];
        listing(&Listing { groups, unmanaged, ..Listing::default() }, "2025-06-01", colored)
    }

    #[test]
    fn every_template_gets_its_word() {
        assert_eq!(
            shown(false),
            "Installed Templates\n\
             a  0:1-1  r  end of life since 2024-01-01\n\
             b  0:1-1  r  upgradable, by another tool\n\
             c  0:1-1  r  not finalized, extra\n\
             Available Templates\n\
             a  0:1-1  r  installed\n\
             b  0:2-1  r  upgrade\n\
             d  0:1-1  r\n\
             Other Templates\n\
             e  clone of a\n"
        );
    }

    #[test]
    fn colour_adds_nothing_to_the_text() {
        let mut bare = String::new();
        let colored = shown(true);
        let mut rest = colored.as_str();
        while let Some((before, after)) = rest.split_once('\u{1b}') {
            bare.push_str(before);
            rest = after.split_once('m').unwrap().1;
        }
        assert_eq!(bare + rest, shown(false));
    }
}
