//! Reads recordings: `*.jsonl`, one JSON object a line, the first line a head.
//!
//! Text in them is latin-1: one character a byte. A long text is `{"parts": [...]}`, joined: a string,
//! `{"repeat": T, "bytes": N}` (T over and over, N bytes), `{"counter": N}` (the first N bytes of
//! `00000000 LF 00000001 LF ...`, eight hex digits each).
//!
//! A placeholder stands for what differs from run to run, and matches that and nothing more.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

/// A folder of recordings.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Whether it is the one that this suite was written with, whose cases it may know by name.
    own: bool,
}

impl Folder {
    /// The folder that `RECORDINGS` names, else the neighbouring one, else the copy in this tree. Where both of the
    /// last two are there, they must be equal.
    pub fn find() -> anyhow::Result<Self> {
        if let Some(path) = std::env::var_os("RECORDINGS") {
            let path = PathBuf::from(path);
            ensure!(path.is_dir(), "RECORDINGS={}: no such folder", path.display());
            return Ok(Self::other(path));
        }
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let copy = here.join("tests/recordings");
        let neighbour = here.join("../shared/recordings");
        if neighbour.is_dir() {
            let difference = first_difference(&files(&neighbour)?, &files(&copy)?);
            if let Some(name) = difference {
                bail!("tests/recordings is no longer a copy of {}: {name} differs", neighbour.display());
            }
            return Ok(Self { path: neighbour, own: true });
        }
        Ok(Self { path: copy, own: true })
    }

    /// The copy in this tree.
    pub fn copy() -> Self {
        Self { path: Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings"), own: true }
    }

    /// Another folder of the same layout.
    pub fn other(path: PathBuf) -> Self {
        Self { path, own: false }
    }

    /// Whether every case that `differences.toml` names must be in it.
    pub fn is_own(&self) -> bool {
        self.own
    }

    /// Where our own outcomes of differing cases are kept.
    pub fn kept(&self) -> PathBuf {
        let beside = self.path.join("instead.jsonl");
        if beside.is_file() { beside } else { kept_here() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads `NAME.jsonl`.
    pub fn recording(&self, name: &str) -> anyhow::Result<Recording> {
        Recording::read(&self.path.join(format!("{name}.jsonl")))
    }

    /// Reads a JSON file of the folder.
    pub fn json(&self, name: &str) -> anyhow::Result<Value> {
        let path = self.path.join(name);
        let text = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("understanding {}", path.display()))
    }
}

/// Our own outcomes where they differ from the recordings that come with this tree.
pub fn kept_here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/instead.jsonl")
}

/// One file.
#[derive(Debug)]
pub struct Recording {
    /// What the head line holds; null where there is none.
    pub head: Value,
    /// Every other line.
    pub cases: Vec<Value>,
}

impl Recording {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let mut recording = Self { head: Value::Null, cases: Vec::new() };
        for (number, line) in text.lines().enumerate() {
            let mut value: Value = serde_json::from_str(line)
                .with_context(|| format!("understanding line {} of {}", number + 1, path.display()))?;
            match value.get_mut("head") {
                Some(head) if number == 0 => recording.head = head.take(),
                _ => recording.cases.push(value),
            }
        }
        Ok(recording)
    }
}

/// A text of a case, empty where it has none.
pub fn word<'a>(case: &'a Value, key: &str) -> &'a str {
    case.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The bytes that a value stands for; none for null.
pub fn bytes(value: &Value) -> anyhow::Result<Option<Vec<u8>>> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(latin1(text)?)),
        Value::Object(object) => {
            let parts =
                object.get("parts").and_then(Value::as_array).context("reading a text without parts")?;
            let mut joined = Vec::new();
            for part in parts {
                append(&mut joined, part)?;
            }
            Ok(Some(joined))
        }
        other => bail!("{other} is no text"),
    }
}

fn append(joined: &mut Vec<u8>, part: &Value) -> anyhow::Result<()> {
    if let Value::String(text) = part {
        joined.extend(latin1(text)?);
        return Ok(());
    }
    let number = |key: &str| part.get(key).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
    if let (Some(text), Some(length)) = (part.get("repeat").and_then(Value::as_str), number("bytes")) {
        joined.extend(latin1(text)?.iter().copied().cycle().take(length));
    } else if let Some(length) = number("counter") {
        let end = joined.len() + length;
        let mut line = 0_u32;
        while joined.len() < end {
            joined.extend(format!("{line:08x}\n").into_bytes());
            line += 1;
        }
        joined.truncate(end);
    } else {
        bail!("{part} is no part of a text");
    }
    Ok(())
}

/// The bytes of a text with one character a byte.
pub fn latin1(text: &str) -> anyhow::Result<Vec<u8>> {
    text.chars().map(|c| u8::try_from(c).with_context(|| format!("reading {c:?} as one byte"))).collect()
}

/// The text of bytes, one character a byte.
pub fn to_latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// How long a beginning of the text a placeholder can stand for: every length that fits, longest first.
type Matcher = fn(&[u8]) -> Vec<usize>;

const PLACEHOLDERS: [(&[u8], Matcher); 5] =
    [(b"<UUID>", uuid), (b"<TIME>", time), (b"<PID>", digits), (b"<ADDR>", address), (b"<N>", number)];

/// Whether a text is the recorded one, placeholders taken for what they stand for.
pub fn matches(recorded: &[u8], ours: &[u8]) -> bool {
    let Some((at, mark, matcher)) = first_placeholder(recorded) else { return recorded == ours };
    let Some(rest) = ours.strip_prefix(&recorded[..at]) else { return false };
    let after = &recorded[at + mark..];
    matcher(rest).into_iter().any(|length| matches(after, &rest[length..]))
}

fn first_placeholder(text: &[u8]) -> Option<(usize, usize, Matcher)> {
    (0..text.len()).filter(|at| text[*at] == b'<').find_map(|at| {
        let found = PLACEHOLDERS.iter().find(|(mark, _)| text[at..].starts_with(mark));
        found.map(|(mark, matcher)| (at, mark.len(), *matcher))
    })
}

fn uuid(text: &[u8]) -> Vec<usize> {
    let fits = text.len() >= 36
        && text[..36].iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        });
    if fits { vec![36] } else { Vec::new() }
}

/// Seconds since 1970 with or without a fraction, or a date with or without its time of day.
fn time(text: &[u8]) -> Vec<usize> {
    let run =
        text.iter().take_while(|byte| matches!(byte, b'0'..=b'9' | b'.' | b':' | b'-' | b'T' | b' ' | b'Z'));
    let longest = run.count();
    (1..=longest).rev().filter(|length| is_time(&text[..*length])).collect()
}

fn is_time(text: &[u8]) -> bool {
    let shape: Vec<u8> = text.iter().map(|byte| if byte.is_ascii_digit() { b'0' } else { *byte }).collect();
    let seconds = shape.iter().all(|byte| *byte == b'0') && (9..=11).contains(&shape.len());
    let fraction = shape.split(|byte| *byte == b'.').collect::<Vec<_>>();
    let seconds_and_fraction = fraction.len() == 2
        && fraction[0].len() >= 9
        && fraction.iter().all(|part| !part.is_empty() && part.iter().all(|b| *b == b'0'));
    let shapes: [&[u8]; 7] = [
        b"0000-00-00",
        b"0000-00-00 00:00:00",
        b"0000-00-00T00:00:00",
        b"0000-00-00T00:00:00Z",
        b"0000-00-00 00:00:00.000",
        b"0000-00-00 00:00:00.000000",
        b"00:00:00",
    ];
    seconds || seconds_and_fraction || shapes.contains(&shape.as_slice())
}

fn digits(text: &[u8]) -> Vec<usize> {
    let longest = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (1..=longest).rev().collect()
}

/// A decimal number, with a sign or a fraction or without.
fn number(text: &[u8]) -> Vec<usize> {
    let sign = usize::from(text.first() == Some(&b'-'));
    let whole = text[sign..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    if whole == 0 {
        return Vec::new();
    }
    let point = sign + whole;
    let fraction = match text.get(point) {
        Some(b'.') => text[point + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count(),
        _ => 0,
    };
    let with_fraction = (fraction > 0).then_some(point + 1 + fraction);
    with_fraction.into_iter().chain((sign + 1..=point).rev()).collect()
}

fn address(text: &[u8]) -> Vec<usize> {
    let Some(rest) = text.strip_prefix(b"0x") else { return Vec::new() };
    let longest = rest.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    (1..=longest).rev().map(|length| length + 2).collect()
}

/// All files of a folder with their content, by name.
fn files(folder: &Path) -> anyhow::Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).with_context(|| format!("listing {}", next.display()))? {
            let path = entry.with_context(|| format!("listing {}", next.display()))?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let content = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
                found.insert(path.strip_prefix(folder).unwrap_or(&path).to_owned(), content);
            }
        }
    }
    Ok(found)
}

fn first_difference(one: &BTreeMap<PathBuf, Vec<u8>>, other: &BTreeMap<PathBuf, Vec<u8>>) -> Option<String> {
    let names = one.keys().chain(other.keys());
    names.into_iter().find(|name| one.get(*name) != other.get(*name)).map(|name| name.display().to_string())
}
