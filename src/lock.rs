//! One change of a template at a time.
//!
//! Two kinds of locks, both by `flock` in `/run/qubes`, where dom0 and a management qube let root and the members of
//! group qubes make files:
//!
//! * `qvm-template.lock` is the original's. The Python tool locks it alone; we share it among ourselves, so that the
//!   Python tool and this one exclude each other.
//! * `qvm-template-NAME.lock` is ours, for one template, held alone. Two templates proceed in parallel; a second change
//!   of one template is refused, naming the holder.
//!
//! The files are never removed by us: whoever removes a lock while another one has it open splits it in two. The original
//! does remove its own, so after locking we look whether the file that we locked is still the one of that name, and
//! begin again if not. The files are writable for the group; where one belongs to somebody else and is not writable for
//! us, reading it is enough to lock it.
//!
//! dom0 does not keep two imports into one volume apart (the older one damages the newer one's content), so nothing but
//! these locks does.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

/// Where the locks are.
const DIRECTORY: &str = "/run/qubes";
/// The original's lock.
const COMMON: &str = "qvm-template.lock";

/// How often a lock that vanished under us is tried again.
const ATTEMPTS: usize = 20;

/// The right to change templates, one by one, until it is dropped or the process ends in whatever way.
#[derive(Debug)]
pub struct Lock {
    directory: PathBuf,
    purpose: String,
    _common: Flock<File>,
    templates: RefCell<BTreeMap<String, Flock<File>>>,
}

/// Why a lock could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else has it; who, where that is known.
    #[error("Cannot get lock on {}. Perhaps another instance of qvm-template is running?{holder}", path.display())]
    Busy {
        /// The lock's file.
        path: PathBuf,
        /// A line about the holder, or nothing.
        holder: String,
    },
    /// Somebody else changes this template; who, where that is known.
    #[error("another instance of qvm-template changes template '{name}'{holder}")]
    Changing {
        /// The template.
        name: String,
        /// A line about the holder, or nothing.
        holder: String,
    },
    /// The file cannot be opened or locked.
    #[error("locking {}", .0.display())]
    Failed(PathBuf, #[source] io::Error),
}

impl Lock {
    /// Keeps the original out, for a command called `purpose`. Templates are locked one by one: [`Self::template`].
    ///
    /// # Errors
    /// When the original is at work, or the file cannot be used.
    pub fn take(purpose: &str) -> Result<Self, LockError> {
        Self::at(Path::new(DIRECTORY), purpose)
    }

    /// The same with the locks in another directory.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn at(directory: &Path, purpose: &str) -> Result<Self, LockError> {
        let path = directory.join(COMMON);
        let Ok(common) = acquire(&path, FlockArg::LockSharedNonblock)? else {
            // What stands in this file is not the holder's: the original writes nothing.
            return Err(LockError::Busy { path, holder: String::new() });
        };
        let (directory, purpose) = (directory.to_owned(), purpose.to_owned());
        Ok(Self { directory, purpose, _common: common, templates: RefCell::default() })
    }

    /// Takes the lock of one template, for as long as this lives. One that is ours already stays so.
    ///
    /// # Errors
    /// When somebody else changes that template, or the file cannot be used.
    pub fn template(&self, name: &str) -> Result<(), LockError> {
        if self.templates.borrow().contains_key(name) {
            return Ok(());
        }
        let path = self.directory.join(file_name(name));
        match acquire(&path, FlockArg::LockExclusiveNonblock)? {
            Ok(mut file) => {
                sign(&mut file, &format!("{} {name}", self.purpose));
                self.templates.borrow_mut().insert(name.to_owned(), file);
                Ok(())
            }
            Err(mut file) => Err(LockError::Changing { name: name.to_owned(), holder: holder(&mut file) }),
        }
    }

    /// Takes the locks of several templates.
    ///
    /// # Errors
    /// As [`Self::template`], for the first in the order of their names that cannot be had.
    pub fn templates<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> Result<(), LockError> {
        let mut names: Vec<&str> = names.into_iter().collect();
        names.sort_unstable();
        names.into_iter().try_for_each(|name| self.template(name))
    }
}

/// Whether somebody changes the template called `name` at this moment. Makes no file.
#[must_use]
pub fn is_changing(name: &str) -> bool {
    let Ok(file) = File::open(Path::new(DIRECTORY).join(file_name(name))) else { return false };
    matches!(Flock::lock(file, FlockArg::LockSharedNonblock), Err((_, nix::errno::Errno::EWOULDBLOCK)))
}

fn file_name(template: &str) -> String {
    format!("qvm-template-{template}.lock")
}

/// Locks the file of that name, or gives it back open where somebody else has it.
fn acquire(path: &Path, how: FlockArg) -> Result<Result<Flock<File>, File>, LockError> {
    let failed = |error| LockError::Failed(path.to_owned(), error);
    for _ in 0..ATTEMPTS {
        let file = match open(path) {
            // Removed between two looks at it.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound && path.parent().is_some_and(Path::is_dir) =>
            {
                continue;
            }
            other => other.map_err(failed)?,
        };
        let file = match Flock::lock(file, how) {
            Ok(file) => file,
            Err((file, nix::errno::Errno::EWOULDBLOCK)) => return Ok(Err(file)),
            Err((_, error)) => return Err(failed(error.into())),
        };
        if is_still(path, &file) {
            return Ok(Ok(file));
        }
    }
    Err(failed(io::Error::other("the file is removed again and again")))
}

fn open(path: &Path) -> io::Result<File> {
    let created = OpenOptions::new().read(true).write(true).create_new(true).mode(0o664).open(path);
    match created {
        Ok(file) => {
            // Whatever the umask says: members of the group may write.
            let _ = file.set_permissions(Permissions::from_mode(0o664));
            let group = path.parent().and_then(|parent| parent.metadata().ok()).map(|parent| parent.gid());
            let _ = std::os::unix::fs::fchown(&file, None, group);
            Ok(file)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let writable = OpenOptions::new().read(true).write(true).open(path);
            match writable {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => File::open(path),
                other => other,
            }
        }
        Err(error) => Err(error),
    }
}

/// Whether `file` still has the name `path`.
fn is_still(path: &Path, file: &File) -> bool {
    match (path.symlink_metadata(), file.metadata()) {
        (Ok(named), Ok(open)) => (named.dev(), named.ino()) == (open.dev(), open.ino()),
        _ => false,
    }
}

/// Leaves a line about us for whoever finds the lock taken. Only a courtesy: nothing depends on it.
fn sign(file: &mut File, purpose: &str) {
    let line = format!("{} {purpose}\n", std::process::id());
    let _ = file.set_len(0);
    let _ = file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(line.as_bytes()));
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let _ = file.take(200).read_to_string(&mut text);
    let line = crate::untrusted::displayable(text.lines().next().unwrap_or(""), false);
    match line.split_once(' ') {
        Some((pid, purpose)) if pid.bytes().all(|b| b.is_ascii_digit()) && !purpose.is_empty() => {
            format!("\nhelp: process {pid} has it, for '{purpose}'")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_change_of_a_template_at_a_time_and_the_files_stay() {
        let directory = tempfile::tempdir().unwrap();
        let one = Lock::at(directory.path(), "upgrade").unwrap();
        let two = Lock::at(directory.path(), "install").unwrap();
        one.templates(["b", "a"]).unwrap();
        one.template("a").unwrap();
        two.template("c").unwrap();
        let busy = two.templates(["c", "b"]).unwrap_err().to_string();
        let pid = std::process::id();
        assert_eq!(
            busy,
            format!(
                "another instance of qvm-template changes template 'b'\nhelp: process {pid} has it, for 'upgrade b'"
            )
        );
        drop(one);
        two.template("b").unwrap();
        for name in [COMMON.to_owned(), file_name("a"), file_name("b")] {
            assert_eq!(directory.path().join(&name).metadata().unwrap().mode() & 0o777, 0o664, "{name}");
        }
    }

    #[test]
    fn the_original_keeps_us_out_and_we_keep_it_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(COMMON);
        let original = || Flock::lock(open(&path).unwrap(), FlockArg::LockExclusiveNonblock);
        let theirs = original().unwrap();
        let busy = Lock::at(directory.path(), "install").unwrap_err().to_string();
        assert!(busy.ends_with("Perhaps another instance of qvm-template is running?"), "{busy}");
        drop(theirs);
        let ours = [Lock::at(directory.path(), "a").unwrap(), Lock::at(directory.path(), "b").unwrap()];
        assert!(original().is_err());
        drop(ours);
        original().unwrap();
    }

    #[test]
    fn a_file_that_only_may_be_read_can_be_locked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(file_name("t"));
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o444)).unwrap();
        let one = Lock::at(directory.path(), "x").unwrap();
        one.template("t").unwrap();
        let other = Lock::at(directory.path(), "y").unwrap();
        assert!(matches!(other.template("t"), Err(LockError::Changing { holder, .. }) if holder.is_empty()
            || nix::unistd::geteuid().is_root()));
    }

    #[test]
    fn a_lock_on_a_removed_file_is_no_lock() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let file = open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(!is_still(&path, &file));
        std::fs::write(&path, "").unwrap();
        assert!(!is_still(&path, &file));
    }

    /// The original locks alone and removes its file when it is done: it never overlaps with one of ours, and ours never
    /// overlap on one template.
    #[test]
    fn racing_with_a_holder_that_removes_the_file() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let directory = tempfile::tempdir().unwrap();
        let (place, path) = (directory.path(), directory.path().join(COMMON));
        let (ours, theirs, inside) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let Ok(lock) = Lock::at(place, "x") else { continue };
                        ours.fetch_add(1, Ordering::SeqCst);
                        assert_eq!(theirs.load(Ordering::SeqCst), 0);
                        if lock.template("t").is_ok() {
                            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                            std::thread::yield_now();
                            inside.fetch_sub(1, Ordering::SeqCst);
                        }
                        ours.fetch_sub(1, Ordering::SeqCst);
                        drop(lock);
                    }
                });
            }
            scope.spawn(|| {
                for _ in 0..200 {
                    let Ok(Ok(lock)) = acquire(&path, FlockArg::LockExclusiveNonblock) else { continue };
                    theirs.fetch_add(1, Ordering::SeqCst);
                    assert_eq!(ours.load(Ordering::SeqCst), 0);
                    std::thread::yield_now();
                    theirs.fetch_sub(1, Ordering::SeqCst);
                    let _ = std::fs::remove_file(&path);
                    drop(lock);
                }
            });
        });
    }
}
