//! Sockets at paths of any length: the kernel's limit is 108 bytes.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// Listens at a name in a directory, instead of whoever did before.
pub(super) fn listen(directory: &Path, name: &str) -> Result<UnixListener> {
    let path = directory.join(name);
    let bind = || -> io::Result<UnixListener> {
        fs::create_dir_all(directory)?;
        if path.symlink_metadata().is_ok() {
            fs::remove_file(&path)?;
        }
        let opened = File::open(directory)?;
        let listener = UnixListener::bind(short(&opened, name))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
        Ok(listener)
    };
    bind().with_context(|| format!("listening at {}", path.display()))
}

/// Connects to a name in a directory.
pub(super) fn connect(directory: &Path, name: &str) -> io::Result<UnixStream> {
    let opened = File::open(directory)?;
    UnixStream::connect(short(&opened, name))
}

fn short(directory: &File, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()))
}
