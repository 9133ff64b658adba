//! The files of the configuration: TOML, of which every key is known.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow, bail};

use super::super::args::size;
use super::{attempts, limits};
use crate::spelling::similar;

const KEYS: [&str; 18] = [
    "repo-files",
    "keyring",
    "updatevm",
    "releasever",
    "cachedir",
    "keep-cache",
    "state-dir",
    "pool",
    "retries",
    "allow-older",
    "allow-repository-change",
    "allow-signer-change",
    "require-max-age",
    "max-image-size",
    "color",
    "progress",
    "query-cache",
    "limits",
];

/// A configuration file that was read.
pub(super) struct File {
    path: PathBuf,
    table: toml::Table,
}

impl File {
    /// Reads one; `None` when it is not there.
    pub(super) fn read(path: PathBuf) -> anyhow::Result<Option<Self>> {
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.with_context(|| format!("reading {}", path.display()))?,
        };
        let table = parse(&text).with_context(|| format!("reading {}", path.display()))?;
        Ok(Some(Self { path, table }))
    }
}

/// The table that a file holds, if every key in it is known.
pub(crate) fn parse(text: &str) -> anyhow::Result<toml::Table> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| anyhow!("{}", error.message()))?;
    known(&table, &KEYS, "")?;
    match table.get("limits") {
        Some(toml::Value::Table(table)) => known(table, &limits::KEYS, "limits.")?,
        Some(_) => bail!("`limits` is a table: [limits]"),
        None => {}
    }
    Ok(table)
}

fn known(table: &toml::Table, keys: &[&str], place: &str) -> anyhow::Result<()> {
    let Some(key) = table.keys().find(|key| !keys.contains(&key.as_str())) else { return Ok(()) };
    match similar(key, keys.iter().copied()) {
        Some(meant) => bail!("unknown key `{place}{key}`; did you mean `{place}{meant}`?"),
        None => bail!("unknown key `{place}{key}`; there are: {}", keys.join(", ")),
    }
}

/// The value of a key, `limits.KEY` for one of the limits, in the strongest file that has it.
pub(super) fn latest<T>(
    files: &[File],
    key: &str,
    read: impl Fn(&toml::Value) -> Option<T>,
) -> anyhow::Result<Option<(T, PathBuf)>> {
    let get = |file: &File| match key.split_once('.') {
        Some((table, key)) => file.table.get(table)?.get(key).cloned(),
        None => file.table.get(key).cloned(),
    };
    let Some((value, file)) = files.iter().rev().find_map(|file| Some((get(file)?, file))) else {
        return Ok(None);
    };
    let wrong = || anyhow!("reading {}: `{key}` has a value of another kind", file.path.display());
    Ok(Some((read(&value).ok_or_else(wrong)?, file.path.clone())))
}

pub(super) fn toml_text(value: &toml::Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

pub(super) fn toml_list(value: &toml::Value) -> Option<Vec<String>> {
    match value {
        toml::Value::String(one) => Some(vec![one.clone()]),
        toml::Value::Array(many) => many.iter().map(toml_text).collect(),
        _ => None,
    }
}

pub(super) fn toml_bool(value: &toml::Value) -> Option<bool> {
    value.as_bool()
}

pub(super) fn toml_number(value: &toml::Value) -> Option<u32> {
    value.as_integer().filter(|number| *number >= 0).map(attempts)
}

pub(super) fn toml_size(value: &toml::Value) -> Option<u64> {
    match value {
        toml::Value::String(text) => size(text),
        other => other.as_integer().and_then(|number| u64::try_from(number).ok()),
    }
}
