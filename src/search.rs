//! `search`: templates whose texts hold words.
//!
//! Looked at are all offers and all managed templates, of each name the newest build. A word is a shell pattern for a part of a text.
//! Every place where a word is found counts by its weight; hits sort by weight, heaviest first.

use crate::admin::AdminApi;
use crate::catalogue::Catalogue;
use crate::census::{self, Fields};
use crate::list::Entry;
use crate::report::Failure;
use crate::template::Evr;
use crate::template::fnmatch;

/// Where words are looked for and how many of them must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Names and summaries; every word must be found.
    Main,
    /// Descriptions and addresses too; one word is enough.
    Everything,
}

/// Hits that were found in the same fields by the same words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HitGroup {
    /// Names of the fields.
    pub fields: Vec<&'static str>,
    /// Whether the words are the whole of the fields.
    pub exact: bool,
    /// The words, sorted.
    pub words: Vec<String>,
    /// Name and summary of each template.
    pub templates: Vec<(String, String)>,
}

/// What a search found.
#[derive(Clone, Debug, Default)]
pub struct Hits {
    /// In the order of their weight.
    pub groups: Vec<HitGroup>,
    /// What a person should know, fit to be shown.
    pub warnings: Vec<String>,
}

const NAME_EXACT: u8 = 16;
const NAME: u8 = 8;
const SUMMARY: u8 = 4;
const DESCRIPTION: u8 = 2;
const URL: u8 = 1;

/// A word found: weight of the place, the word, whether it is all there is.
type Needle = (u8, String, bool);

/// Searches.
///
/// # Errors
/// When the qubes cannot be listed or the repositories cannot be asked.
pub async fn run(
    api: &dyn AdminApi,
    catalogue: &Catalogue<'_>,
    words: &[String],
    scope: Scope,
) -> Result<Hits, Failure> {
    let census = async { Ok::<_, Failure>(census::take(api, Fields::Texts).await?) };
    let (found, census) = tokio::try_join!(catalogue.look(None), census)?;
    let mut pool: Vec<Entry> = found.reply.offers.iter().map(Entry::from).collect();
    pool.extend(census.templates.into_iter().map(|template| Entry { template, ..Entry::default() }));
    Ok(Hits { groups: matches(newest(pool), words, scope), warnings: census.warnings })
}

/// Searches among these, of each name the newest build.
#[must_use]
pub fn among(pool: Vec<Entry>, words: &[String], scope: Scope) -> Vec<HitGroup> {
    matches(newest(pool), words, scope)
}

fn newest(mut pool: Vec<Entry>) -> Vec<Entry> {
    let build = |entry: &Entry| {
        Evr::new(&entry.template.epoch, &entry.template.version, &entry.template.release).ok()
    };
    pool.sort_by(|a, b| {
        let order = a.template.name.cmp(&b.template.name);
        order.then_with(|| build(a).cmp(&build(b))).then_with(|| a.template.repo.cmp(&b.template.repo))
    });
    let mut kept: Vec<Entry> = Vec::new();
    for entry in pool {
        match kept.last_mut() {
            Some(last) if last.template.name == entry.template.name => *last = entry,
            _ => kept.push(entry),
        }
    }
    kept
}

fn matches(pool: Vec<Entry>, words: &[String], scope: Scope) -> Vec<HitGroup> {
    let mut hits: Vec<(Vec<Needle>, Entry)> = Vec::new();
    for entry in pool {
        let needles: Vec<Needle> = words.iter().flat_map(|word| needles(&entry, word, scope)).collect();
        let all = words.iter().all(|word| needles.iter().any(|(_, found, _)| found == word));
        if !needles.is_empty() && (all || scope == Scope::Everything) {
            hits.push((needles, entry));
        }
    }
    let weight = |needles: &[Needle]| needles.iter().map(|needle| u32::from(needle.0)).sum::<u32>();
    hits.sort_by(|(a, first), (b, second)| {
        weight(b)
            .cmp(&weight(a))
            .then_with(|| a.cmp(b))
            .then_with(|| first.template.name.cmp(&second.template.name))
    });
    let mut groups: Vec<HitGroup> = Vec::new();
    for (needles, entry) in hits {
        let line = (entry.template.name, entry.template.summary);
        let mut group = header(&needles);
        match groups.last_mut() {
            Some(last)
                if (&last.fields, last.exact, &last.words) == (&group.fields, group.exact, &group.words) =>
            {
                last.templates.push(line);
            }
            _ => {
                group.templates.push(line);
                groups.push(group);
            }
        }
    }
    groups
}

fn needles(entry: &Entry, word: &str, scope: Scope) -> Vec<Needle> {
    let template = &entry.template;
    let places = [
        (&template.name, NAME),
        (&template.summary, SUMMARY),
        (&template.description, DESCRIPTION),
        (&template.url, URL),
    ];
    let looked_at = if scope == Scope::Main { 2 } else { places.len() };
    let pattern = format!("*{word}*");
    let found = places.iter().take(looked_at).filter(|(text, _)| fnmatch::matches(&pattern, text));
    found
        .map(|(text, weight)| {
            let exact = *text == word;
            (if exact && *weight == NAME { NAME_EXACT } else { *weight }, word.to_owned(), exact)
        })
        .collect()
}

fn header(needles: &[Needle]) -> HitGroup {
    let has = |weight: u8| needles.iter().any(|needle| needle.0 == weight);
    let fields = [
        ("Name", has(NAME) || has(NAME_EXACT)),
        ("Summary", has(SUMMARY)),
        ("Description", has(DESCRIPTION)),
        ("URL", has(URL)),
    ];
    let fields = fields.iter().filter(|(_, there)| *there).map(|(field, _)| *field).collect();
    let mut words: Vec<String> = needles.iter().map(|needle| needle.1.clone()).collect();
    words.sort();
    words.dedup();
    HitGroup { fields, exact: needles.iter().all(|needle| needle.2), words, templates: Vec::new() }
}

impl HitGroup {
    /// All that [`HitGroup::fields`] can hold.
    pub const FIELDS: [&str; 4] = ["Name", "Summary", "Description", "URL"];

    /// The line above the group.
    #[must_use]
    pub fn title(&self) -> String {
        let how = if self.exact { "Exactly Matched" } else { "Matched" };
        format!("=== {} {how}: {} ===", self.fields.join(" & "), self.words.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::Installed;

    fn entry(name: &str, version: &str, summary: &str, description: &str) -> Entry {
        let text = str::to_owned;
        let template = Installed {
            name: text(name),
            epoch: text("0"),
            version: text(version),
            release: text("1"),
            summary: text(summary),
            description: text(description),
            ..Installed::default()
        };
        Entry { template, ..Entry::default() }
    }

    fn search(words: &[&str], scope: Scope) -> Vec<String> {
        let pool = newest(vec![
            entry("b", "2", "new word", ""),
            entry("b", "1", "old", ""),
            entry("a", "1", "word", "b here"),
            entry("word", "1", "x", "word"),
        ]);
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let lines = |group: HitGroup| {
            std::iter::once(group.title())
                .chain(group.templates.into_iter().map(|(n, s)| format!("{n} : {s}")))
        };
        matches(pool, &words, scope).into_iter().flat_map(lines).collect()
    }

    #[test]
    fn weights_decide_about_the_order() {
        assert_eq!(
            search(&["word"], Scope::Main),
            [
                "=== Name Exactly Matched: word ===",
                "word : x",
                "=== Summary Matched: word ===",
                "b : new word",
                "=== Summary Exactly Matched: word ===",
                "a : word"
            ]
        );
        assert_eq!(search(&["old"], Scope::Main), Vec::<String>::new());
    }

    /// What a word counts for in each place, as the original counts: a change would put other templates first.
    #[test]
    fn places_have_the_originals_weights() {
        let mut one = entry("word", "1", "word", "word");
        one.template.url = "word".to_owned();
        let weights = |word: &str| {
            let all = needles(&one, word, Scope::Everything);
            all.into_iter().map(|(weight, _, exact)| (weight, exact)).collect::<Vec<_>>()
        };
        assert_eq!(weights("wor"), [(8, false), (4, false), (2, false), (1, false)]);
        assert_eq!(weights("word"), [(16, true), (4, true), (2, true), (1, true)]);
        assert_eq!(needles(&one, "wor", Scope::Main).len(), 2);
        // Part of a name outweighs summary, description and address together.
        let mut texts = entry("a", "1", "xword", "xword");
        texts.template.url = "xword".to_owned();
        let found =
            matches(vec![texts, entry("xword", "1", "", "")], &["word".to_owned()], Scope::Everything);
        let names: Vec<&str> =
            found.iter().flat_map(|group| &group.templates).map(|t| t.0.as_str()).collect();
        assert_eq!(names, ["xword", "a"]);
    }

    #[test]
    fn every_word_or_any() {
        assert_eq!(
            search(&["word", "b"], Scope::Main),
            ["=== Name & Summary Matched: b, word ===", "b : new word"]
        );
        let any = search(&["b", "nothing"], Scope::Everything);
        assert_eq!(
            any,
            ["=== Name Exactly Matched: b ===", "b : new word", "=== Description Matched: b ===", "a : word"]
        );
    }

    #[test]
    fn the_name_stands_in_a_title_once() {
        let pool = vec![entry("word", "1", "", "")];
        let groups = matches(pool, &["word".to_owned(), "wor".to_owned()], Scope::Main);
        assert_eq!(groups[0].title(), "=== Name Matched: wor, word ===");
    }
}
