//! What is remembered from one run to the next: small files in one directory of ours.
//!
//! As root that is `/var/lib/qvm-template`; for anybody else `$XDG_STATE_HOME/qvm-template`, and without that variable
//! `~/.local/state/qvm-template`, since an app qube keeps nothing but `/home`, `/rw` and `/usr/local`. The key
//! `state-dir` of the configuration names another one.
//!
//! A file is there as a whole or not at all, also when the power fails: it is written beside its place, brought to the
//! disk, and renamed. What a file says is for its reader to judge: it may be damaged, and it may be gone.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, ensure};

/// Where root's is.
const SYSTEM: &str = "/var/lib/qvm-template";
/// A user's, in the directory for such things.
const NAME: &str = "qvm-template";
/// Largest file that is read, in bytes.
pub const MAX_FILE: u64 = 4 << 20;

/// The directory. It need not exist before something is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    /// The one that was configured, or else the one of whoever runs this. Touches nothing.
    ///
    /// # Errors
    /// When this user has no home.
    pub fn open(configured: Option<&Path>) -> anyhow::Result<Self> {
        if let Some(path) = configured {
            return Ok(Self::at(path));
        }
        if nix::unistd::geteuid().is_root() {
            return Ok(Self::at(SYSTEM));
        }
        let absolute =
            |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        if let Some(base) = absolute("XDG_STATE_HOME") {
            return Ok(Self::at(base.join(NAME)));
        }
        let home = absolute("HOME").or_else(|| {
            let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
            user.map(|user| user.dir)
        });
        let home = home.context("finding a directory for what is to be remembered: this user has no home")?;
        Ok(Self::at(home.join(".local/state").join(NAME)))
    }

    /// The one at `path`.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the file `name`, which may lie in a folder (`folder/name`), as a whole and for good.
    ///
    /// # Errors
    /// When that is not possible. Then the file is what it was.
    pub fn write(&self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let path = self.file(name)?;
        let work = || -> io::Result<()> {
            let folder = path.parent().unwrap_or(&self.path);
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            // Mode 0600, and gone again unless it was renamed.
            let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(folder)?;
            file.write_all(bytes)?;
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|error| error.error)?;
            File::open(folder)?.sync_all()
        };
        work().with_context(|| format!("writing {}", path.display()))
    }

    /// Reads the file `name`; `None` when there is none.
    ///
    /// # Errors
    /// When it is there and cannot be read, or is longer than [`MAX_FILE`].
    pub fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let path = self.file(name).map_err(io::Error::other)?;
        let file = match File::open(&path) {
            Err(error) if is_missing(&error) => return Ok(None),
            other => other?,
        };
        let mut bytes = Vec::new();
        file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
        if u64::try_from(bytes.len()).is_ok_and(|length| length <= MAX_FILE) {
            return Ok(Some(bytes));
        }
        Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("{} is too long", path.display())))
    }

    /// Removes the file `name`, for good; one that is not there is no error.
    ///
    /// # Errors
    /// When it stays.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        let path = self.file(name).map_err(io::Error::other)?;
        match fs::remove_file(&path) {
            Err(error) if is_missing(&error) => Ok(()),
            Ok(()) => File::open(path.parent().unwrap_or(&self.path))?.sync_all(),
            Err(error) => Err(error),
        }
    }

    /// Names of the files in `folder`, sorted; none where it does not exist.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn names(&self, folder: &str) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.file(folder).map_err(io::Error::other)?) {
            Err(error) if is_missing(&error) => return Ok(Vec::new()),
            other => other?,
        };
        let names: io::Result<Vec<Option<String>>> =
            entries.map(|entry| Ok(entry?.file_name().into_string().ok())).collect();
        let mut names: Vec<String> =
            names?.into_iter().flatten().filter(|name| !name.starts_with('.')).collect();
        names.sort();
        Ok(names)
    }

    fn file(&self, name: &str) -> anyhow::Result<PathBuf> {
        let plain = |component| matches!(component, Component::Normal(_));
        ensure!(!name.is_empty() && Path::new(name).components().all(plain), "'{name}' is no name of a file");
        Ok(self.path.join(name))
    }
}

/// Seconds since 1970, now.
#[must_use]
pub fn seconds() -> i64 {
    let since =
        std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_written_is_read_and_is_ours_alone() {
        let place = tempfile::tempdir().unwrap();
        let state = Directory::open(Some(&place.path().join("a/b"))).unwrap();
        assert_eq!(state.read("seen.json").unwrap(), None);
        assert_eq!(state.names("journal").unwrap(), [""; 0]);
        state.remove("journal/t.json").unwrap();
        assert!(!state.path().exists(), "nothing is made before something is written");
        state.write("seen.json", b"1").unwrap();
        state.write("journal/t.json", b"2").unwrap();
        state.write("journal/t.json", b"3").unwrap();
        assert_eq!(state.read("seen.json").unwrap().unwrap(), b"1");
        assert_eq!(state.read("journal/t.json").unwrap().unwrap(), b"3");
        assert_eq!(state.names("journal").unwrap(), ["t.json"]);
        let mode = |path: &str| state.path().join(path).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("journal"), mode("journal/t.json")), (0o700, 0o600));
        state.remove("journal/t.json").unwrap();
        assert_eq!(state.names("journal").unwrap(), [""; 0]);
    }

    #[test]
    fn names_stay_inside_and_files_stay_small() {
        let place = tempfile::tempdir().unwrap();
        let state = Directory::at(place.path());
        for name in ["", "../x", "/etc/passwd", "a/../../x", "."] {
            assert!(state.write(name, b"").is_err() && state.read(name).is_err(), "{name}");
        }
        File::create(place.path().join("long")).unwrap().set_len(MAX_FILE + 1).unwrap();
        assert_eq!(state.read("long").unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn a_file_that_cannot_be_written_stays_as_it_was() {
        let place = tempfile::tempdir().unwrap();
        let state = Directory::at(place.path());
        state.write("a", b"1").unwrap();
        assert!(state.write("a/b", b"2").is_err());
        assert_eq!(state.read("a").unwrap().unwrap(), b"1");
        assert_eq!(state.read("a/b").unwrap(), None);
    }
}
