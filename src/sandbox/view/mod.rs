//! A command as a qube sees the world.
//!
//! The command runs in namespaces of its own (user, mount, process, host name), made without any privilege:
//!
//! * the host's file system, with the files of the qube laid over it ([`layout`]): its `/etc/qubes`,
//!   `/etc/qubes-rpc`, `/home/user`, `/tmp`, `/var/tmp`, `/run/qubes`, ... are its own and stay in the sandbox's
//!   directory; the programs of the sandbox are where Qubes has them;
//! * one user, 0 or 1000, who is whoever started it, and no more rights than that;
//! * nothing that it starts outlives it.
//!
//! What is not laid over is the host's own: devices, network, libraries. What a command writes anywhere else is
//! refused or forgotten, as on the volatile root of a qube. The host's root is at `/.host`.
//!
//! Steps, each a hidden command of the same program, because only a process with one thread can change its
//! namespaces: [`run`] (unshares, mounts, waits) starts `inside` as process 1 (mounts `/proc`, waits), which starts
//! the command, through `become` where it is to run as another user than 0.

mod accounts;
mod layout;
mod namespaces;
mod stage;
mod supervise;

use std::ffi::OsString;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use stage::{become_user, inside, run, step};

/// Where the host's root is in a view, as seen from outside all views.
pub const HOST: &str = "/.host";

/// Where the host's root will be in a view that this process makes: [`HOST`], and beside it where this is a view itself.
#[must_use]
pub fn host() -> PathBuf {
    let name = |number: usize| if number == 0 { HOST.to_owned() } else { format!("{HOST}{number}") };
    let mut number = 0;
    while PathBuf::from(name(number)).exists() {
        number += 1;
    }
    name(number).into()
}

/// Names of the hidden commands.
pub const INSIDE: &str = "step-inside";
/// See [`INSIDE`].
pub const BECOME: &str = "step-become";
/// The hidden command that runs a command in a view it is told of.
pub const VIEW: &str = "step-view";

/// What a qube sees, and what is to run there.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct View {
    /// The qube's name, which becomes the host name.
    pub qube: String,
    /// The files of the qube, laid over the host's root; none: only the programs are laid over it, and the user keeps
    /// his home.
    pub files: Option<PathBuf>,
    /// Programs of the sandbox: where they are in the qube, and on the host.
    pub programs: Vec<(PathBuf, PathBuf)>,
    /// Directories of the host that are shown in another place.
    #[serde(default)]
    pub binds: Vec<(PathBuf, PathBuf)>,
    /// The user inside.
    pub uid: u32,
    /// The size of the one file system that holds `/home/user`, `/root`, `/tmp` and `/var/tmp`; none: they stay in the sandbox.
    #[serde(default)]
    pub space: Option<u64>,
    /// The working directory; none: where the caller is.
    #[serde(default)]
    pub directory: Option<PathBuf>,
    /// An empty directory of the host to build the view in.
    pub stage: PathBuf,
}

/// A command to run in a view.
#[derive(Clone, Debug)]
pub struct Command {
    /// The program, looked up in `PATH` when it has no `/`.
    pub program: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Whether variables that speak of the caller's own place are left out of its environment.
    pub elsewhere: bool,
    /// Variables that are set for it.
    pub environment: Vec<(OsString, OsString)>,
}

/// Directories of every qube that are its own and stay in the sandbox.
pub const PRIVATE: [&str; 10] = [
    "/etc/qubes",
    "/etc/qubes-rpc",
    "/home/user",
    "/root",
    "/run/qubes",
    "/tmp",
    "/usr/share/qubes",
    "/var/lib/qubes",
    "/var/lib/qvm-template",
    "/var/tmp",
];

/// Those of them that a limited space holds instead.
const SPACE: [&str; 4] = ["/home/user", "/root", "/tmp", "/var/tmp"];
