//! The undo file: what a switch is about to change, written down before the first change.
//!
//! One JSON object: `schema` is 1, `from` and `to` are the templates, `changes` lists `holder` (a qube, or null for the system),
//! `property`, `old` and `new`. It says nothing about which changes were made: taking a switch back looks at what each property
//! is by then.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};

use super::plan::{self, Change};

/// Version of the form.
const SCHEMA: u32 = 1;
/// Largest file that is read, in bytes; a thousand qubes take a tenth of that.
const MAX: u64 = 1 << 20;

/// The content of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What was given up.
    pub from: String,
    /// What took its place.
    pub to: String,
    /// What was to be changed, in that order.
    pub changes: Vec<Change>,
}

#[derive(Deserialize, Serialize)]
struct Written {
    schema: u32,
    from: String,
    to: String,
    changes: Vec<WrittenChange>,
}

#[derive(Deserialize, Serialize)]
struct WrittenChange {
    holder: Option<String>,
    property: String,
    old: String,
    new: String,
}

impl Record {
    /// The file's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let change = |change: &Change| WrittenChange {
            holder: change.holder.clone(),
            property: change.property.to_owned(),
            old: change.old.clone(),
            new: change.new.clone(),
        };
        let written = Written {
            schema: SCHEMA,
            from: self.from.clone(),
            to: self.to.clone(),
            changes: self.changes.iter().map(change).collect(),
        };
        let mut bytes = serde_json::to_vec_pretty(&written).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// Reads the file's bytes.
    ///
    /// # Errors
    /// When they are not of the form above, or name a property that no switch changes.
    pub fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        let written: Written = serde_json::from_slice(bytes).context("it is no undo file")?;
        ensure!(written.schema == SCHEMA, "it is of another version ({})", written.schema);
        let change = |change: WrittenChange| {
            let Some(property) = plan::property(change.holder.as_deref(), &change.property) else {
                bail!("it names a property that no switch changes: '{}'", change.property.escape_default());
            };
            Ok(Change { holder: change.holder, property, old: change.old, new: change.new })
        };
        let changes = written.changes.into_iter().map(change).collect::<anyhow::Result<_>>()?;
        Ok(Self { from: written.from, to: written.to, changes })
    }

    /// Writes the file where somebody wants it, to the disk. One that is there is not overwritten.
    ///
    /// # Errors
    /// When it exists or cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            file.write_all(&self.to_bytes())?;
            file.sync_all()
        };
        write().with_context(|| format!("writing the undo file {}", path.display()))
    }

    /// Reads the file at `path`.
    ///
    /// # Errors
    /// When it cannot be read, is too long, or is no undo file.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let read = || {
            let mut bytes = Vec::new();
            File::open(path)?.take(MAX + 1).read_to_end(&mut bytes)?;
            Ok::<_, std::io::Error>(bytes)
        };
        let reading = || format!("reading the undo file {}", path.display());
        let bytes = read().with_context(reading)?;
        ensure!(
            u64::try_from(bytes.len()).is_ok_and(|length| length <= MAX),
            "{}: it is too long",
            reading()
        );
        Self::parse(&bytes).with_context(reading)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let change = |holder: Option<&str>, property| Change {
            holder: holder.map(str::to_owned),
            property,
            old: "a".to_owned(),
            new: "b".to_owned(),
        };
        let record = Record {
            from: "a".to_owned(),
            to: "b".to_owned(),
            changes: vec![change(None, "default_template"), change(Some("work"), "template")],
        };
        assert_eq!(Record::parse(&record.to_bytes()).unwrap(), record);
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("undo");
        record.write(&path).unwrap();
        assert_eq!(Record::read(&path).unwrap(), record);
        assert!(record.write(&path).is_err(), "not overwritten");
        assert!(Record::read(&place.path().join("none")).is_err());
    }

    #[test]
    fn other_things_are_refused() {
        let record = |schema: u32, holder: &str, property: &str| {
            format!(
                "{{\"schema\":{schema},\"from\":\"a\",\"to\":\"b\",\"changes\":[{{\"holder\":{holder},\
                 \"property\":\"{property}\",\"old\":\"a\",\"new\":\"b\"}}]}}"
            )
        };
        assert!(Record::parse(record(1, "\"w\"", "template").as_bytes()).is_ok());
        for bad in [
            record(2, "\"w\"", "template"),
            record(1, "\"w\"", "netvm"),
            record(1, "\"w\"", "default_template"),
            record(1, "null", "template"),
            record(1, "null", "updatevm"),
            "[]".to_owned(),
            String::new(),
        ] {
            assert!(Record::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
