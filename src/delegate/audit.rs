//! The audit log: JSON lines, appended only, one for each decision and one for each outcome.
//!
//! ```json
//! {"time":"2025-11-21T09:00:00Z","caller":"help-desk","verb":"install","template":"debian-13-xfce",
//!  "event":"refused","reason":"grant 1: the verb is not granted"}
//! ```
//!
//! A line is written by a single `write` to a descriptor opened for appending, so that lines of jobs that run side
//! by side never mix. A log that has grown beyond [`MAX_LOG`] bytes becomes `NAME.1`, that one `NAME.2`, and so on up to
//! [`KEPT`]. A decision that cannot be written down is not carried out. Where there is a journal, it gets every line too.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::Serialize;

use super::Verb;

/// Size at which the log is rotated, in bytes.
pub const MAX_LOG: u64 = 8 << 20;

/// Rotated logs that are kept.
pub const KEPT: u32 = 9;

/// One line of the log.
#[derive(Clone, Debug, Serialize)]
pub struct Line<'a> {
    /// Moment, `YYYY-MM-DDTHH:MM:SSZ`.
    pub time: String,
    /// The qube that asked, as qrexec reports it.
    pub caller: &'a str,
    /// What it asked.
    pub verb: Verb,
    /// The template it asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<&'a str>,
    /// The job that it became, or that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<&'a str>,
    /// The plan that was made or is to be carried out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<&'a str>,
    /// What happened.
    #[serde(flatten)]
    pub event: Event<'a>,
}

/// What a line tells.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event<'a> {
    /// The request was granted.
    Granted {
        /// Number of the grant in the file, counted from 1.
        grant: usize,
        /// Line of that grant's caller.
        line: usize,
    },
    /// The request was refused.
    Refused {
        /// The full reason, which the caller is not told.
        reason: &'a str,
    },
    /// A granted request ended.
    Ended {
        /// `done` or the stable name of the cause.
        result: &'a str,
        /// The reason, where it did not end well; the caller is not told.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'a str>,
        /// Build that was chosen.
        #[serde(skip_serializing_if = "Option::is_none")]
        build: Option<&'a str>,
        /// Repository that offered it.
        #[serde(skip_serializing_if = "Option::is_none")]
        repository: Option<&'a str>,
        /// Fingerprint of the certificate that vouched for it.
        #[serde(skip_serializing_if = "Option::is_none")]
        signer: Option<&'a str>,
        /// Size of the package, in bytes.
        bytes: u64,
        /// From the decision to the end, in milliseconds.
        milliseconds: u64,
    },
}

/// The log's file.
#[derive(Clone, Debug)]
pub struct AuditLog {
    path: PathBuf,
}

impl AuditLog {
    /// A log at `path`; nothing is opened yet.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Appends `line`.
    ///
    /// # Errors
    /// Whatever keeps the line from being written completely.
    pub fn append(&self, line: &Line<'_>) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.make_folder()?;
        let mut log = self.open()?;
        if log.metadata()?.len() > MAX_LOG {
            self.rotate()?;
            log = self.open()?;
        }
        let written = log.write(&text)?;
        if written != text.len() {
            return Err(io::Error::from(io::ErrorKind::WriteZero));
        }
        tell_journal(Path::new(JOURNAL), &text);
        Ok(())
    }

    fn make_folder(&self) -> io::Result<()> {
        let folder = self.path.parent().unwrap_or_else(|| Path::new("."));
        if folder.as_os_str().is_empty() || folder.is_dir() {
            return Ok(());
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
    }

    fn open(&self) -> io::Result<File> {
        OpenOptions::new().create(true).append(true).mode(0o640).open(&self.path)
    }

    /// Moves the logs up by one. The lock keeps two jobs from doing it at a time; the second one finds a small log.
    fn rotate(&self) -> io::Result<()> {
        let directory =
            self.path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        let lock =
            Flock::lock(File::open(directory)?, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
        if fs::metadata(&self.path)?.len() > MAX_LOG {
            for number in (1..KEPT).rev() {
                match fs::rename(self.numbered(number), self.numbered(number + 1)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            fs::rename(&self.path, self.numbered(1))?;
        }
        drop(lock);
        Ok(())
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }
}

/// Where systemd's journal takes entries.
const JOURNAL: &str = "/run/systemd/journal/socket";

/// Hands a line to the journal, where there is one: a courtesy to who looks there, the log itself is the file. The
/// line is JSON, so it has no line feed but the last, which ends the field.
fn tell_journal(journal: &Path, line: &[u8]) {
    let mut entry = b"SYSLOG_IDENTIFIER=qvm-template-delegate\nPRIORITY=6\nMESSAGE=".to_vec();
    entry.extend_from_slice(line);
    let _ = UnixDatagram::unbound().and_then(|socket| {
        socket.set_nonblocking(true)?;
        socket.send_to(&entry, journal)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(reason: &str) -> Line<'_> {
        Line {
            time: "2025-11-21T09:00:00Z".to_owned(),
            caller: "help-desk",
            verb: Verb::Install,
            template: Some("debian-13-xfce"),
            job: None,
            plan: None,
            event: Event::Refused { reason },
        }
    }

    #[test]
    fn a_line_is_one_line_whatever_stands_in_it() {
        let place = tempfile::tempdir().unwrap();
        let log = AuditLog::at(place.path().join("audit"));
        log.append(&refused("a\nb\"\u{1b}")).unwrap();
        log.append(&refused("c")).unwrap();
        let text = fs::read_to_string(place.path().join("audit")).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["reason"], "a\nb\"\u{1b}");
        assert_eq!((&lines[1]["event"], &lines[1]["verb"]), (&"refused".into(), &"install".into()));
    }

    #[test]
    fn the_journal_gets_one_entry_with_one_message() {
        let place = tempfile::tempdir().unwrap();
        let socket = place.path().join("socket");
        // Where there is none, nothing happens.
        tell_journal(&socket, b"{}\n");
        let journal = UnixDatagram::bind(&socket).unwrap();
        let line = serde_json::to_vec(&refused("a\nMESSAGE=b")).unwrap();
        tell_journal(&socket, &[line.as_slice(), b"\n"].concat());
        let mut entry = vec![0; 4096];
        let length = journal.recv(&mut entry).unwrap();
        let entry = String::from_utf8(entry[..length].to_vec()).unwrap();
        let fields: Vec<&str> = entry.lines().map(|line| line.split_once('=').unwrap().0).collect();
        assert_eq!(fields, ["SYSLOG_IDENTIFIER", "PRIORITY", "MESSAGE"]);
        let message: serde_json::Value =
            serde_json::from_str(entry.lines().last().unwrap().split_once('=').unwrap().1).unwrap();
        assert_eq!(message["reason"], "a\nMESSAGE=b");
    }

    #[test]
    fn a_full_log_is_rotated_and_the_oldest_goes() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("audit");
        let log = AuditLog::at(&path);
        for round in 0..KEPT + 3 {
            File::create(&path).unwrap().set_len(MAX_LOG + 1 + u64::from(round)).unwrap();
            log.append(&refused("x")).unwrap();
            assert!(fs::metadata(&path).unwrap().len() < 1000);
        }
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), KEPT as usize + 1);
        assert_eq!(fs::metadata(log.numbered(1)).unwrap().len(), MAX_LOG + 1 + u64::from(KEPT + 2));
    }
}
