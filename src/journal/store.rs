//! Journals on disk.

use anyhow::Context as _;

use super::{Journal, VERSION};
use crate::lock;
use crate::state::Directory;
use crate::template::TemplateName;

/// The folder in the state directory.
const FOLDER: &str = "journal";

/// Where journals are kept.
#[derive(Clone, Copy, Debug)]
pub struct Store<'a> {
    state: &'a Directory,
}

/// A journal that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// One that tells everything.
    Told(Box<Journal>),
    /// One that cannot be read any more.
    Damaged,
}

impl<'a> Store<'a> {
    /// Those in a state directory.
    #[must_use]
    pub fn new(state: &'a Directory) -> Self {
        Self { state }
    }

    /// Writes a journal, for good.
    ///
    /// # Errors
    /// When that is not possible.
    pub fn write(&self, journal: &Journal) -> anyhow::Result<()> {
        let bytes = serde_json::to_vec(journal).context("writing a journal")?;
        self.state.write(&file(&journal.template), &bytes)
    }

    /// Removes the journal of a template.
    ///
    /// # Errors
    /// When it stays.
    pub fn remove(&self, template: &str) -> anyhow::Result<()> {
        self.state.remove(&file(template)).with_context(|| format!("removing the journal of '{template}'"))
    }

    /// The journal of a template, where there is one.
    #[must_use]
    pub fn read(&self, template: &str) -> Option<Entry> {
        let bytes = match self.state.read(&file(template)) {
            Ok(None) => return None,
            Ok(Some(bytes)) => bytes,
            Err(_) => return Some(Entry::Damaged),
        };
        Some(match serde_json::from_slice::<Journal>(&bytes) {
            Ok(journal) if journal.version == VERSION && journal.template == template => {
                Entry::Told(Box::new(journal))
            }
            _ => Entry::Damaged,
        })
    }

    /// The templates that have a journal, sorted.
    #[must_use]
    pub fn templates(&self) -> Vec<String> {
        let names = self.state.names(FOLDER).unwrap_or_default();
        let name = |file: String| {
            let name = file.strip_suffix(".json")?;
            TemplateName::new(name).is_ok().then(|| name.to_owned())
        };
        names.into_iter().filter_map(name).collect()
    }
}

fn file(template: &str) -> String {
    format!("{FOLDER}/{template}.json")
}

/// The templates whose work was cut short: they have a journal, and nobody is at work on them. Asks nobody.
#[must_use]
pub fn unfinished(state: &Directory) -> Vec<String> {
    let mut names = Store::new(state).templates();
    names.retain(|name| !lock::is_changing(name));
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Info, Kept, Known, Step};

    #[test]
    fn a_journal_comes_back_as_it_was_written() {
        let place = tempfile::tempdir().unwrap();
        let state = Directory::at(place.path());
        let store = Store::new(&state);
        assert_eq!((store.read("t"), store.templates()), (None, Vec::new()));
        let mut journal = Journal::new("t", "upgrade", false);
        journal.step = Step::Importing;
        journal.features.insert("a".into(), Some("1".into()));
        journal.features.insert("b".into(), None);
        journal.properties.push(("netvm".into(), Known::Value("x".into())));
        let info = Info { pool: "p".into(), driver: Some("zfs".into()), size: 1, usage: 2, keep: -1 };
        journal.root = Kept {
            revisions: Some(vec!["1".into()]),
            info: Some(info),
            raised: Some(3),
            touched: true,
            replaced: true,
            old: Some("2".into()),
            reverting: true,
        };
        store.write(&journal).unwrap();
        assert_eq!(store.read("t"), Some(Entry::Told(Box::new(journal))));
        assert_eq!(unfinished(&state), ["t"]);
        store.remove("t").unwrap();
        store.remove("t").unwrap();
        assert_eq!(store.read("t"), None);
    }

    #[test]
    fn what_cannot_be_read_is_seen_and_told_apart() {
        let place = tempfile::tempdir().unwrap();
        let state = Directory::at(place.path());
        let store = Store::new(&state);
        store.write(&Journal::new("other", "install", true)).unwrap();
        let whole = state.read("journal/other.json").unwrap().unwrap();
        let mut newer: serde_json::Value = serde_json::from_slice(&whole).unwrap();
        newer["version"] = 2.into();
        let newer = serde_json::to_vec(&newer).unwrap();
        for bytes in [&b""[..], b"{", &whole[..whole.len() / 2], &whole, &newer] {
            state.write("journal/t.json", bytes).unwrap();
            assert_eq!(store.read("t"), Some(Entry::Damaged));
        }
        state.write("journal/not a name.json", b"").unwrap();
        state.write("journal/readme", b"").unwrap();
        assert_eq!(store.templates(), ["other", "t"]);
    }
}
