//! Keeps a [`System`] in its directory.
//!
//! ```text
//! DIR/system.json        the state
//! DIR/system.json.new    the state being written, never read
//! DIR/pools/POOL/VID...  see [`crate::sandbox::qubesd::storage`]
//! ```
//!
//! One process owns a directory at a time; the server does. The state is replaced by a rename, so that a reader finds
//! the old or the new one, whole.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use nix::fcntl::{Flock, FlockArg};

use super::state::System;

/// The directory of a sandbox, held by this process.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    /// Held open for the lock on it.
    _lock: Flock<File>,
}

impl Store {
    /// Makes the directory and puts a system in it. Refuses a directory that holds one already.
    pub fn create(dir: &Path, system: &System) -> anyhow::Result<Self> {
        fs::create_dir_all(dir.join("pools")).with_context(|| format!("making {}", dir.display()))?;
        anyhow::ensure!(!dir.join(STATE).exists(), "{} holds a sandbox already", dir.display());
        let store = Self { dir: dir.to_owned(), _lock: lock(dir)? };
        store.save(system)?;
        Ok(store)
    }

    /// Takes the directory and reads the system in it. Fails when another process holds it.
    pub fn open(dir: &Path) -> anyhow::Result<(Self, System)> {
        let lock = lock(dir)?;
        let store = Self { dir: dir.to_owned(), _lock: lock };
        Ok((store, Self::read(dir)?))
    }

    /// Reads the system of a directory that another process may hold.
    pub fn read(dir: &Path) -> anyhow::Result<System> {
        let path = dir.join(STATE);
        let text = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("understanding {}", path.display()))
    }

    /// Replaces the state.
    pub fn save(&self, system: &System) -> anyhow::Result<()> {
        let path = self.dir.join(STATE);
        let new = self.dir.join(STATE_NEW);
        let mut file = File::create(&new).with_context(|| format!("writing {}", new.display()))?;
        let mut text = serde_json::to_vec(system).context("writing the state of the system")?;
        text.push(b'\n');
        file.write_all(&text).with_context(|| format!("writing {}", new.display()))?;
        fs::rename(&new, &path).with_context(|| format!("replacing {}", path.display()))
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

fn lock(dir: &Path) -> anyhow::Result<Flock<File>> {
    let file = File::open(dir).with_context(|| format!("opening {}", dir.display()))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, errno)| errno)
        .with_context(|| format!("taking {} for this process", dir.display()))
}

const STATE: &str = "system.json";
const STATE_NEW: &str = "system.json.new";
