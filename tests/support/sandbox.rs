//! A sandbox for a test, used through its own program.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use qvm_template::sandbox::server::log::{self, Entry};
use serde_json::Value;

use super::programs::{self, SANDBOX};

/// A system of its own, gone with the value.
#[derive(Debug)]
pub struct Sandbox {
    dir: PathBuf,
    _place: tempfile::TempDir,
}

/// What a command said and how it ended.
#[derive(Debug)]
pub struct Said {
    /// Exit status, 128 and more for a signal.
    pub status: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Sandbox {
    /// dom0, mgmt and sys-net, with the policy and the services of this repository.
    pub fn new() -> Result<Self> {
        let place = programs::folder()?;
        let dir = place.path().join("system");
        let sandbox = Self { dir, _place: place };
        sandbox.tool(["new"], &[])?;
        Ok(sandbox)
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the files of a qube are.
    pub fn files(&self, qube: &str) -> PathBuf {
        self.dir.join("qubes").join(qube).join("root")
    }

    /// Runs `qubes-sandbox COMMAND... DIR ARGUMENT...`, which must succeed: its output.
    pub fn tool<const N: usize>(&self, command: [&str; N], arguments: &[&str]) -> Result<String> {
        let words = command.iter().map(OsStr::new).chain([self.dir.as_os_str()]);
        programs::success(Path::new("/"), SANDBOX, words.chain(arguments.iter().map(OsStr::new)))
    }

    /// A command in a qube, not started yet.
    pub fn command(&self, options: &[&str], command: &[&str]) -> Command {
        let mut exec = Command::new(SANDBOX);
        exec.arg("exec").arg(&self.dir).args(options).arg("--").args(command);
        exec.stdin(Stdio::null()).current_dir("/").env("LC_ALL", "C.UTF-8");
        exec
    }

    /// Runs a command in a qube with nothing to read.
    pub fn exec(&self, options: &[&str], command: &[&str]) -> Result<Said> {
        Said::of(&self.command(options, command).output().context("running a command in a qube")?)
    }

    /// Runs a shell script in mgmt.
    pub fn shell(&self, script: &str) -> Result<Said> {
        self.exec(&[], &["sh", "-c", script])
    }

    /// Runs a command in a qube with this input.
    pub fn feed(&self, options: &[&str], command: &[&str], input: &[u8]) -> Result<Said> {
        let mut child = self
            .command(options, command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("running a command in a qube")?;
        let mut to = child.stdin.take().context("its input")?;
        let output = thread::scope(|scope| {
            // A command that does not read all of it is no fault of ours.
            scope.spawn(move || drop(to.write_all(input)));
            child.wait_with_output()
        });
        Said::of(&output.context("waiting for a command in a qube")?)
    }

    /// Sends a request to the Admin API's socket as dom0: the reply.
    pub fn ask(&self, method: &str, dest: &str, payload: &str) -> Result<String> {
        let script = "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.connect('/run/qubesd.sock')\n\
                      s.sendall(sys.stdin.buffer.read())\ns.shutdown(socket.SHUT_WR)\n\
                      sys.stdout.buffer.write(s.makefile('rb').read())\n";
        let request = format!("{method} dom0 name {dest}\0{payload}");
        let said = self.feed(&["--qube", "dom0"], &["python3", "-c", script], request.as_bytes())?;
        ensure!(said.status == 0, "asking dom0: {}", said.err);
        Ok(said.out)
    }

    /// Puts a service into a qube.
    pub fn service(&self, qube: &str, name: &str, script: &str) -> Result<()> {
        let path = self.files(qube).join("etc/qubes-rpc").join(name);
        fs::create_dir_all(path.parent().context("a folder")?)?;
        fs::write(&path, format!("#!/bin/sh\n{script}\n"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).context("making a service")
    }

    /// Puts a file of rules into the policy, before those of this repository.
    pub fn allow(&self, rules: &str) -> Result<()> {
        let path = self.files("dom0").join("etc/qubes/policy.d/10-test.policy");
        fs::write(&path, format!("{rules}\n")).with_context(|| format!("writing {}", path.display()))
    }

    /// Every call so far.
    pub fn log(&self) -> Result<Vec<Entry>> {
        log::read(&self.dir)
    }

    /// The system as `show --json` tells it.
    pub fn show(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.tool(["show", "--json"], &[])?)?)
    }
}

impl Said {
    /// What a process said.
    pub fn of(output: &Output) -> Result<Self> {
        use std::os::unix::process::ExitStatusExt as _;
        let status = output.status.code().or_else(|| output.status.signal().map(|signal| 128 + signal));
        Ok(Self {
            status: status.context("an exit status")?,
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}
