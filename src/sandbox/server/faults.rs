//! Faults on order: what is to go wrong, with which call.
//!
//! They stand in `DIR/faults.json`, so that they can be ordered before, between and during commands; how often each
//! has been met stands there as well. A fault speaks of calls by service, argument, source and target, and of the
//! nth of those; it happens once, or as often as it says.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

/// Which bytes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the caller to the service.
    In,
    /// From the service to the caller.
    Out,
}

/// Which process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Victim {
    /// The program that made the call: `qrexec-client-vm`, or whoever connected to dom0's socket.
    Client,
    /// The process that started it; of a call at dom0's socket the same as `client`.
    Caller,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// The policy refuses the call.
    Refuse,
    /// The call is answered with this exception, without effect.
    Exception {
        /// Its class.
        class: String,
        /// Its message.
        message: String,
    },
    /// The call ends with this status and says nothing, without effect.
    Exit {
        /// The status.
        status: i32,
        /// What is said on standard error.
        stderr: String,
    },
    /// The stream ends after so many bytes.
    Cut {
        /// Which stream.
        direction: Direction,
        /// After how many bytes.
        at: u64,
        /// The status that is told; none: the service's own.
        status: Option<i32>,
    },
    /// The lowest bit of one byte is changed.
    Flip {
        /// Which stream.
        direction: Direction,
        /// Which byte, from 0.
        at: u64,
    },
    /// The stream stands still.
    Stall {
        /// Which stream.
        direction: Direction,
        /// Before which byte, from 0.
        at: u64,
        /// For how long.
        milliseconds: u64,
    },
    /// A process is killed before the call has any effect.
    KillBefore(Victim),
    /// A process is killed after the call took effect, before it is told.
    KillAfter(Victim),
    /// A process is killed within a stream.
    KillAt {
        /// Which process.
        victim: Victim,
        /// Which stream.
        direction: Direction,
        /// Before which byte, from 0.
        at: u64,
    },
}

/// A fault on order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The service or method; `*` for every one.
    pub service: String,
    /// Its argument; none for every one.
    #[serde(default)]
    pub arg: Option<String>,
    /// The calling qube; none for every one.
    #[serde(default)]
    pub source: Option<String>,
    /// The target that was asked for; none for every one.
    #[serde(default)]
    pub target: Option<String>,
    /// The first call that it happens to, from 1.
    pub call: u64,
    /// How many calls in a row it happens to.
    pub times: u64,
    /// What happens.
    pub action: Action,
    /// How many calls it has spoken of so far.
    #[serde(default)]
    pub seen: u64,
}

/// The faults of a sandbox.
#[derive(Debug)]
pub struct Faults {
    path: PathBuf,
    lock: PathBuf,
    /// One thread at a time counts.
    counting: Mutex<()>,
}

impl Faults {
    /// The faults of the sandbox in a directory.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { path: dir.join("faults.json"), lock: dir.join("faults.lock"), counting: Mutex::new(()) }
    }

    /// All of them.
    pub fn list(&self) -> Result<Vec<Fault>> {
        match fs::read(&self.path) {
            Ok(text) => serde_json::from_slice(&text)
                .with_context(|| format!("understanding {}", self.path.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error).with_context(|| format!("reading {}", self.path.display())),
        }
    }

    /// Orders one more.
    pub fn add(&self, fault: Fault) -> Result<()> {
        self.change(|faults| faults.push(fault))
    }

    /// Takes back all of them.
    pub fn clear(&self) -> Result<()> {
        self.change(Vec::clear)
    }

    /// Counts a call, and says what goes wrong with it.
    pub fn meet(&self, source: &str, target: &str, service: &str, arg: &str) -> Vec<Action> {
        if !self.path.exists() {
            return Vec::new();
        }
        let _one = self.counting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut met = Vec::new();
        let count = |faults: &mut Vec<Fault>| {
            for fault in faults.iter_mut().filter(|fault| fault.fits(source, target, service, arg)) {
                fault.seen += 1;
                if fault.seen >= fault.call && fault.seen - fault.call < fault.times {
                    met.push(fault.action.clone());
                }
            }
        };
        if let Err(error) = self.change(count) {
            eprintln!("faults: {error:#}");
        }
        met
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Fault>)) -> Result<()> {
        let file = File::create(&self.lock).with_context(|| format!("opening {}", self.lock.display()))?;
        let _lock = Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, errno)| errno)
            .with_context(|| format!("locking {}", self.lock.display()))?;
        let before = self.list()?;
        let mut faults = before.clone();
        change(&mut faults);
        if faults == before {
            return Ok(());
        }
        let new = self.path.with_extension("new");
        fs::write(&new, serde_json::to_vec_pretty(&faults)?)
            .with_context(|| format!("writing {}", new.display()))?;
        fs::rename(&new, &self.path).with_context(|| format!("replacing {}", self.path.display()))
    }
}

impl Fault {
    fn fits(&self, source: &str, target: &str, service: &str, arg: &str) -> bool {
        let fits =
            |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|wanted| wanted == value);
        (self.service == "*" || self.service == service)
            && fits(&self.arg, arg)
            && fits(&self.source, source)
            && fits(&self.target, target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nth_call_meets_its_fault() {
        let dir = tempfile::tempdir().unwrap();
        let faults = Faults::new(dir.path());
        assert!(faults.meet("mgmt", "t", "a.B", "").is_empty());
        let fault = |service: &str, arg: Option<&str>, call, times| Fault {
            service: service.to_owned(),
            arg: arg.map(str::to_owned),
            source: None,
            target: None,
            call,
            times,
            action: Action::Refuse,
            seen: 0,
        };
        faults.add(fault("a.B", None, 2, 2)).unwrap();
        faults.add(fault("*", Some("x"), 1, 1)).unwrap();
        let met: Vec<usize> =
            ["", "x", "", "x"].iter().map(|arg| faults.meet("mgmt", "t", "a.B", arg).len()).collect();
        assert_eq!(met, [0, 2, 1, 0]);
        assert!(faults.meet("mgmt", "t", "a.C", "").is_empty());
        // The counts survive.
        assert_eq!(Faults::new(dir.path()).list().unwrap()[0].seen, 4);
        faults.clear().unwrap();
        assert!(faults.list().unwrap().is_empty());
    }
}
