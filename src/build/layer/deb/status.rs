//! The state of dpkg in a tree: `/var/lib/dpkg/status`, a record of `Field: value` lines for each package.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

use super::version::{Relation, relations};
use crate::build::tree::content::{Content, Source};
use crate::build::tree::{Kind, NodeId, Tree};

pub(super) const PLACE: &str = "var/lib/dpkg/status";
const MAX: u64 = 64 << 20;

/// A record, its fields in their order; further lines of a value keep their line breaks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Record(Vec<(String, String)>);

impl Record {
    /// Reads one record.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut fields: Vec<(String, String)> = Vec::new();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            if line.starts_with([' ', '\t']) {
                let (_, value) = fields.last_mut().context("a record begins with a further line")?;
                value.push('\n');
                value.push_str(line);
            } else {
                let (name, value) = line.split_once(':').context("a line is no field")?;
                ensure!(!fields.iter().any(|(known, _)| known == name), "a field is there twice");
                fields.push((name.to_owned(), value.trim().to_owned()));
            }
        }
        Ok(Self(fields))
    }

    /// The value of a field, or nothing.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    }

    /// Sets a field; a new one comes after `Package`.
    pub(super) fn set(&mut self, name: &str, value: String) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => self.0.insert(1.min(self.0.len()), (name.to_owned(), value)),
        }
    }

    /// Adds a field at the end.
    pub(super) fn add(&mut self, name: &str, value: String) {
        self.0.push((name.to_owned(), value));
    }

    fn text(&self) -> String {
        let line = |(name, value): &(String, String)| {
            let space = if value.is_empty() || value.starts_with('\n') { "" } else { " " };
            format!("{name}:{space}{value}\n")
        };
        self.0.iter().map(line).collect()
    }

    /// Whether its files are there.
    pub(super) fn installed(&self) -> bool {
        let state = self.get("Status").rsplit(' ').next().unwrap_or_default();
        matches!(state, "installed" | "triggers-pending" | "triggers-awaited")
    }

    /// `NAME VERSION ARCH`
    pub(super) fn shown(&self) -> String {
        format!("{} {} {}", self.get("Package"), self.get("Version"), self.get("Architecture"))
    }
}

/// All records of a tree.
#[derive(Debug)]
pub(super) struct Status {
    node: NodeId,
    pub(super) records: Vec<Record>,
}

impl Status {
    /// Reads the state of a tree.
    pub(super) fn of(tree: &Tree) -> Result<Self> {
        let Some(node) = tree.find_following(PLACE.as_bytes()) else {
            bail!(
                "the tree has no /{PLACE} to register packages in, and packages that nothing knows of would never be updated"
            );
        };
        let Kind::File(content) = &tree.node(node).kind else { bail!("/{PLACE} is no file") };
        let bytes = tree.sources.read_all(content, MAX).with_context(|| format!("reading /{PLACE}"))?;
        let text = String::from_utf8(bytes).with_context(|| format!("/{PLACE} is no text"))?;
        let records = text.split("\n\n").filter(|record| !record.trim().is_empty()).map(Record::parse);
        let records = records.collect::<Result<_>>().with_context(|| format!("reading /{PLACE}"))?;
        Ok(Self { node, records })
    }

    /// Writes the state back.
    pub(super) fn put_back(&self, tree: &mut Tree, time: i64) -> Result<()> {
        let text: String = self.records.iter().map(|record| record.text() + "\n").collect();
        let len = text.len() as u64;
        let source = tree.sources.add(Source::Bytes(text.into_bytes()))?;
        tree.set_content(self.node, Content::whole(source, 0, len))?;
        tree.meta_mut(self.node).mtime = time;
        Ok(())
    }

    /// Puts a record where its name belongs.
    pub(super) fn insert(&mut self, record: Record) {
        let at = self.records.partition_point(|known| known.get("Package") <= record.get("Package"));
        self.records.insert(at, record);
    }

    /// The architecture of the tree's own packages.
    pub(super) fn arch(&self) -> Option<&str> {
        let installed = || self.records.iter().filter(|record| record.installed());
        let own = installed().find(|record| record.get("Package") == "dpkg");
        own.or_else(|| installed().find(|record| record.get("Architecture") != "all"))
            .map(|record| record.get("Architecture"))
            .filter(|arch| *arch != "all")
    }
}

/// What fulfils relations: names with versions, and names that are provided.
#[derive(Debug, Default)]
pub(super) struct Offers<'a>(BTreeMap<String, Vec<(Option<String>, &'a Record)>>);

impl<'a> Offers<'a> {
    /// All that the records offer.
    pub(super) fn of(records: impl Iterator<Item = &'a Record>) -> Result<Self> {
        let mut offers = Self::default();
        for record in records {
            let mut note = |name: &str, version: Option<&str>| {
                offers.0.entry(name.to_owned()).or_default().push((version.map(str::to_owned), record));
            };
            note(record.get("Package"), Some(record.get("Version")));
            for provided in relations(record.get("Provides"))?.iter().flatten() {
                note(&provided.name, provided.version.as_ref().map(|(_, version)| version.as_str()));
            }
        }
        Ok(offers)
    }

    /// A package that fulfils a relation, not counting `except`.
    pub(super) fn find(&self, relation: &Relation, except: Option<&Record>) -> Result<Option<&'a Record>> {
        for (version, record) in self.0.get(&relation.name).into_iter().flatten() {
            let arch = relation.arch.as_deref().is_none_or(|arch| record.get("Architecture") == arch);
            if arch && except != Some(*record) && relation.fits(version.as_deref())? {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_as_they_were() {
        let text = "Package: a\nStatus: install ok installed\nConffiles:\n /etc/a 00\n /etc/b 11\nDescription: x\n more\n .\n";
        let mut record = Record::parse(text).unwrap();
        assert_eq!(record.text(), text);
        assert!(record.installed());
        record.set("Status", "install ok triggers-pending".to_owned());
        record.set("New", "1".to_owned());
        assert!(record.text().starts_with("Package: a\nNew: 1\nStatus: install ok triggers-pending\n"));
        assert!(
            Record::parse(" x").is_err()
                && Record::parse("a: 1\na: 2").is_err()
                && Record::parse("x").is_err()
        );
    }
}
