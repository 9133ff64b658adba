//! Every call of a sandbox, one JSON object a line in `DIR/log.jsonl`, written when the call has ended.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// How a call came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Through qrexec from a qube.
    Qrexec,
    /// At dom0's socket.
    Socket,
    /// A service file of dom0 that dom0 ran itself.
    Script,
    /// dom0's `qrexec-client`, without the policy.
    Dom0,
}

/// One call.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// When it began, in UTC.
    pub time: String,
    /// How it came.
    pub transport: Transport,
    /// The qube that called.
    pub source: String,
    /// The target that was asked for, after cleaning.
    pub target: String,
    /// The service, or the method.
    pub service: String,
    /// Its argument; none when there was no `+`.
    pub arg: Option<String>,
    /// What the policy's log says.
    pub decision: Vec<String>,
    /// Whether the call was let through.
    pub allowed: bool,
    /// Where it went; none when it was not let through.
    pub to: Option<String>,
    /// Bytes from the caller to the service.
    pub bytes_in: u64,
    /// Bytes from the service to the caller.
    pub bytes_out: u64,
    /// Exit status as the caller saw it; none when the caller went before.
    pub exit: Option<i32>,
    /// The beginning of what the caller sent, one character a byte.
    pub payload: String,
    /// Class and message of the exception that was answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<(String, String)>,
    /// What a fault on order did to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

impl Entry {
    /// A call that begins now.
    #[must_use]
    pub fn new(transport: Transport, source: &str, target: &str, service: &str) -> Self {
        let (service, arg) = match service.split_once('+') {
            Some((service, arg)) => (service, Some(arg.to_owned())),
            None => (service, None),
        };
        Self {
            time: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(),
            transport,
            source: source.to_owned(),
            target: target.to_owned(),
            service: service.to_owned(),
            arg,
            decision: Vec::new(),
            allowed: false,
            to: None,
            bytes_in: 0,
            bytes_out: 0,
            exit: None,
            payload: String::new(),
            error: None,
            fault: None,
        }
    }

    /// Notes what a reply of the Admin API begins with.
    pub fn note_reply(&mut self, beginning: &[u8]) {
        let Some(rest) = beginning.strip_prefix(b"2\0") else { return };
        let mut fields =
            rest.split(|byte| *byte == 0).map(|field| String::from_utf8_lossy(field).into_owned());
        let class = fields.next().unwrap_or_default();
        self.error = Some((class, fields.nth(1).unwrap_or_default()));
    }
}

/// The log of a sandbox.
#[derive(Debug)]
pub struct Log(Mutex<PathBuf>);

impl Log {
    /// The log of the sandbox in a directory.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self(Mutex::new(dir.join("log.jsonl")))
    }

    /// Adds a call.
    pub fn add(&self, entry: &Entry) {
        let Ok(mut line) = serde_json::to_vec(entry) else { return };
        line.push(b'\n');
        // Opened each time: somebody may have cleared it.
        let path = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let file = OpenOptions::new().create(true).append(true).open(&*path);
        if let Err(error) = file.and_then(|mut file| file.write_all(&line)) {
            eprintln!("log: {error}");
        }
    }
}

/// Forgets everything.
pub fn clear(dir: &Path) -> Result<()> {
    match std::fs::remove_file(dir.join("log.jsonl")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context("removing the log"),
        _ => Ok(()),
    }
}

/// Reads the log of a sandbox; one that was never used has none.
pub fn read(dir: &Path) -> Result<Vec<Entry>> {
    let path = dir.join("log.jsonl");
    let Ok(text) = std::fs::read_to_string(&path) else { return Ok(Vec::new()) };
    // A last line without its end is still being written.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let entry = |line: &str| -> Result<Entry> {
        serde_json::from_str(line).with_context(|| format!("understanding {}", path.display()))
    };
    whole.lines().map(entry).collect()
}
