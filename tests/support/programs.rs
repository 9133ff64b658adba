//! The programs under test, and those of the system that judge them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};

/// The program `qvm-template`.
pub const QVM_TEMPLATE: &str = env!("CARGO_BIN_EXE_qvm-template");
/// The program `qubes-template-build`.
pub const BUILD: &str = env!("CARGO_BIN_EXE_qubes-template-build");
/// The program `qubes-template-service`.
pub const SERVICE: &str = env!("CARGO_BIN_EXE_qubes-template-service");
/// The program `qubes-sandbox`.
pub const SANDBOX: &str = env!("CARGO_BIN_EXE_qubes-sandbox");

/// A folder that lives as long as the value, on the file system of the build.
pub fn folder() -> Result<tempfile::TempDir> {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).context("making a folder for a test")
}

/// Runs a program in `folder` with a plain environment, and gives what it printed, both streams, with its status.
pub fn run<S: AsRef<OsStr>>(
    folder: &Path,
    program: &str,
    arguments: impl IntoIterator<Item = S>,
) -> Result<Output> {
    command(folder, program, arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("running {program}"))
}

/// The same, with success as the only possible end; gives standard output.
pub fn success<S: AsRef<OsStr>>(
    folder: &Path,
    program: &str,
    arguments: impl IntoIterator<Item = S>,
) -> Result<String> {
    let output = run(folder, program, arguments)?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{program} ended with {}: {out}{err}", output.status);
    Ok(out.into_owned())
}

/// A command with a plain environment.
pub fn command<S: AsRef<OsStr>>(
    folder: &Path,
    program: &str,
    arguments: impl IntoIterator<Item = S>,
) -> Command {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C.UTF-8")
        .env("TZ", "UTC")
        .env("HOME", folder);
    command
}

/// Whether a program is installed on this machine.
pub fn installed(program: &str) -> bool {
    let folders = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"];
    folders.iter().map(PathBuf::from).any(|folder| folder.join(program).is_file())
}
