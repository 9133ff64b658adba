//! The steps from a process on the host to a command in a qube.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context as _, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::CloneFlags;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::sethostname;

use super::layout::{Host, build};
use super::supervise::Supervisor;
use super::{BECOME, Command, INSIDE, VIEW, View, namespaces};

/// Runs a command in a view and waits for it: its exit status. This process must have one thread, and stays in the
/// view.
pub fn run(view: &View, command: &Command) -> Result<u8> {
    let program = std::env::current_exe().context("finding this program")?;
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    // By the number that this very /proc knows us by, which may be that of another namespace.
    let own_number = fs::read_link("/proc/self").context("finding this process")?;
    let host = Host::new();
    let supervisor = Supervisor::new()?;
    namespaces::enter()?;
    build(view, &host).with_context(|| format!("showing the world as {} sees it", view.qube))?;
    let mut inside = process::Command::new(host.path(&program));
    inside.arg(INSIDE).arg(host.path(&Path::new("/proc").join(own_number))).arg(view.uid.to_string());
    inside.arg(program_path(&command.program, &here, &host)).args(&command.arguments);
    let (home, name) = if view.uid == 0 { ("/root", "root") } else { ("/home/user", "user") };
    if view.files.is_some() {
        sethostname(&view.qube).context("setting the host name")?;
        inside.envs([("HOME", home), ("USER", name), ("LOGNAME", name), ("SHELL", "/bin/sh")]);
    }
    if command.elsewhere {
        inside.env_remove("TMPDIR").env_remove("XDG_RUNTIME_DIR").env_remove("QREXEC_REMOTE_DOMAIN");
    }
    inside.envs(command.environment.iter().map(|(key, value)| (key, value)));
    inside.current_dir(working_directory(view, &here, home, &host));
    let child = inside.spawn().context("starting a process in the qube")?;
    supervisor.wait(&child)
}

/// Runs a command in a view for the server: `SERVER VIEW PROGRAM ARGUMENT...`. It dies with the server.
pub fn step(arguments: &[OsString]) -> Result<u8> {
    let [server, view, program, rest @ ..] = arguments else { bail!("{VIEW} is not for people") };
    prctl::set_pdeathsig(Signal::SIGKILL).context("binding this process to the server")?;
    if server.to_str() != Some(nix::unistd::getppid().to_string().as_str()) {
        bail!("the server has gone");
    }
    let view = serde_json::from_str(&view.to_string_lossy()).context("understanding a view")?;
    let (program, arguments) = (program.clone(), rest.to_vec());
    run(&view, &Command { program, arguments, elsewhere: false, environment: Vec::new() })
}

/// Process 1 of a qube: `PARENT UID PROGRAM ARGUMENT...`. Everything in the qube ends with it.
pub fn inside(arguments: &[OsString]) -> Result<u8> {
    let [parent, uid, program, rest @ ..] = arguments else { bail!("{INSIDE} is not for people") };
    prctl::set_pdeathsig(Signal::SIGKILL).context("binding this process to its parent")?;
    // The parent may have gone before the line above.
    if !Path::new(parent).exists() {
        bail!("the process that wanted this command has gone");
    }
    let none: Option<&str> = None;
    // Where the kernel refuses this (in a container that hides parts of its own), the host's is as good as any.
    let _ = mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), none);
    let supervisor = Supervisor::new()?;
    let mut command = if uid == OsStr::new("0") {
        process::Command::new(program)
    } else {
        let mut command = process::Command::new(std::env::current_exe().context("finding this program")?);
        command.arg(BECOME).arg(uid).arg(program);
        command
    };
    match command.args(rest).spawn() {
        Ok(child) => supervisor.wait(&child),
        Err(error) => Ok(not_started(program, &error)),
    }
}

/// Goes on as another user: `UID PROGRAM ARGUMENT...`.
pub fn become_user(arguments: &[OsString]) -> Result<u8> {
    let [uid, program, rest @ ..] = arguments else { bail!("{BECOME} is not for people") };
    let uid = uid.to_str().and_then(|uid| uid.parse().ok()).context("reading the number of a user")?;
    namespaces::as_user(uid, CloneFlags::empty())?;
    let error = process::Command::new(program).args(rest).exec();
    Ok(not_started(program, &error))
}

/// What a shell says and returns for a program that cannot be started.
fn not_started(program: &OsStr, error: &io::Error) -> u8 {
    eprintln!("qubes-sandbox: running {}: {error}", Path::new(program).display());
    if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 }
}

/// Where a program of the host is in the view: the same place, where that is the same file.
fn program_path(program: &OsStr, here: &Path, host: &Host) -> PathBuf {
    let path = Path::new(program);
    if !program.as_encoded_bytes().contains(&b'/') {
        return path.to_owned();
    }
    let path = here.join(path);
    let on_host = host.path(&path);
    if path.exists() || !on_host.exists() { path } else { on_host }
}

fn working_directory(view: &View, here: &Path, home: &str, host: &Host) -> PathBuf {
    let same = |one: &Path, other: &Path| match (fs::metadata(one), fs::metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    };
    let wanted = match &view.directory {
        Some(directory) => directory.clone(),
        None if same(here, &host.path(here)) => here.to_owned(),
        None => host.path(here),
    };
    if wanted.is_dir() { wanted } else { PathBuf::from(home) }
}
