//! dom0's service files for imports, run in dom0 itself: `admin.vm.volume.ImportWithSize VOLUME`.
//!
//! They take the caller and the target from `QREXEC_REMOTE_DOMAIN` and `QREXEC_REQUESTED_TARGET`, as the daemon sets
//! them, the data from standard input, and reply on standard output.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::streams::Streams;
use super::wire::{Answer, Opening, receive, send, token};

/// Where the server listens for dom0's own programs.
pub const SOCKET: &str = "/run/qubes/sandbox.sock";

/// Runs the program; `arguments` starts with its name.
pub fn run(arguments: &[OsString]) -> Result<u8> {
    let path = arguments.first().map(Path::new).unwrap_or_else(|| Path::new(""));
    let word =
        |word: Option<&OsString>| word.map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
    let service = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let variable = |name: &str| env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    let keyword = variable("QREXEC_REQUESTED_TARGET_KEYWORD")
        .filter(|_| variable("QREXEC_REQUESTED_TARGET_TYPE").as_deref() == Some("keyword"));
    let token = token();
    let opening = Opening::Script {
        token: token.clone(),
        service,
        arg: word(arguments.get(1)),
        source: variable("QREXEC_REMOTE_DOMAIN").unwrap_or_default(),
        keyword: keyword.is_some(),
        target: keyword.or_else(|| variable("QREXEC_REQUESTED_TARGET")).unwrap_or_default(),
    };
    let status = exchange(&opening, &token, Path::new(SOCKET), (false, false))?;
    Ok(status.to_le_bytes()[0])
}

/// Sends an opening, lends it our streams, and waits for its status.
pub(super) fn exchange(opening: &Opening, token: &str, socket: &Path, filter: (bool, bool)) -> Result<i32> {
    let mut control = UnixStream::connect(socket).context("reaching the sandbox's server")?;
    send(&mut control, opening).context("speaking to the sandbox's server")?;
    match receive(&mut control).context("listening to the sandbox's server")? {
        Answer::Go => {}
        Answer::Exit(status) => return Ok(status),
        Answer::Refused | Answer::Reset => bail!("the sandbox's server refused it"),
    }
    let streams = Streams::open(socket, token).context("reaching the sandbox's server")?;
    let input = io::stdin().as_fd().try_clone_to_owned().context("taking standard input")?;
    let output = io::stdout().as_fd().try_clone_to_owned().context("taking standard output")?;
    streams.feed(Vec::new(), File::from(input)).context("sending standard input")?;
    let draining = streams.drain(File::from(output), filter.0, filter.1);
    draining.status(&mut control).context("waiting for the status")
}
