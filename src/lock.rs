//! One change at a time.
//!
//! The lock is the original's: an exclusive `flock` on `/run/qubes/qvm-template.lock`, so that the Python tool and this
//! one exclude each other. The file is never removed by us: whoever removes it while another one has it open splits the
//! lock in two. The original does remove it, so after locking we look whether the file that we locked is still the one
//! of that name, and begin again if not. The file is writable for the group; where it belongs to somebody else and
//! is not writable for us, reading it is enough to lock it.
//!
//! dom0 does not keep two imports into one volume apart (the older one damages the newer one's content), so nothing but
//! this lock does.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

/// Where the original has its lock.
pub const PATH: &str = "/run/qubes/qvm-template.lock";

/// How often a lock that vanished under us is tried again.
const ATTEMPTS: usize = 20;

/// The lock, held until it is dropped or the process ends in whatever way.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

/// Why the lock could not be had.
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
    /// The file cannot be opened or locked.
    #[error("locking {}", .0.display())]
    Failed(PathBuf, #[source] io::Error),
}

impl Lock {
    /// Takes the lock of this machine for a command called `purpose`.
    ///
    /// # Errors
    /// When somebody else has it, or the file cannot be used.
    pub fn take(purpose: &str) -> Result<Self, LockError> {
        Self::at(Path::new(PATH), purpose)
    }

    fn at(path: &Path, purpose: &str) -> Result<Self, LockError> {
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
            let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) => file,
                Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
                    return Err(LockError::Busy { path: path.to_owned(), holder: holder(&mut file) });
                }
                Err((_, error)) => return Err(failed(error.into())),
            };
            if is_still(path, &file) {
                sign(&mut file, purpose);
                return Ok(Self { _file: file });
            }
        }
        Err(failed(io::Error::other("the file is removed again and again")))
    }
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
    fn one_holder_at_a_time_and_the_file_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let lock = Lock::at(&path, "upgrade a").unwrap();
        let busy = Lock::at(&path, "install b").unwrap_err().to_string();
        assert!(busy.contains("Perhaps another instance of qvm-template is running?\nhelp: "), "{busy}");
        assert!(busy.ends_with("for 'upgrade a'"), "{busy}");
        drop(lock);
        assert!(path.exists());
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o664);
        Lock::at(&path, "install b").unwrap();
    }

    #[test]
    fn a_file_that_only_may_be_read_can_be_locked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o444)).unwrap();
        let _lock = Lock::at(&path, "x").unwrap();
        assert!(matches!(Lock::at(&path, "y"), Err(LockError::Busy { holder, .. }) if holder.is_empty()
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

    /// The original removes its lock when it is done; two of ours and one of those never overlap.
    #[test]
    fn racing_with_a_holder_that_removes_the_file() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let inside = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for removes in [false, false, true] {
                let (path, inside) = (&path, &inside);
                scope.spawn(move || {
                    for _ in 0..200 {
                        let Ok(lock) = Lock::at(path, "x") else { continue };
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                        if removes {
                            let _ = std::fs::remove_file(path);
                        }
                        drop(lock);
                    }
                });
            }
        });
    }
}
