//! What this program is inside a case's qube: the qrexec client, helpers, services; and the way into the qube.
//!
//! Each of them says on one line, in JSON, who called it with what, passes its input on, and does what it is told in
//! frames: a byte for the kind (1 standard output, 2 standard error, 3 exit status), the length in 4 bytes, the data.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use qvm_template::sandbox::view::{self, View};
use serde::{Deserialize, Serialize};

/// Where the desk listens, in the qube.
pub const SOCKET: &str = "/run/qubes/desk";
/// The word that makes this program go into a qube: then the view and the program with its arguments.
pub const ENTER: &str = "cli-view";
/// Names that this program has in the qube.
pub const CLIENT: &str = "qrexec-client-vm";
/// A helper.
pub const APPMENUS: &str = "qvm-appmenus";
/// What runs a program as another user, for root; here there is only one.
pub const RUNUSER: &str = "runuser";
/// Services of an UpdateVM that is this qube.
pub const SERVICES: [&str; 2] = ["qubes.TemplateSearch", "qubes.TemplateDownload"];

/// What the desk is told first.
#[derive(Debug, Serialize, Deserialize)]
pub enum Caller {
    /// A qrexec call.
    Call {
        /// The target.
        target: String,
        /// Service with argument.
        service: String,
    },
    /// A service that was run in this qube.
    Local {
        /// Its name.
        service: String,
    },
    /// A helper program.
    Helper {
        /// Name and arguments.
        command: Vec<String>,
    },
}

/// See the module above.
pub fn hidden() -> Option<ExitCode> {
    let mut words = std::env::args_os();
    let name = words.next()?;
    let name = Path::new(&name).file_name()?.to_str()?.to_owned();
    let words: Vec<OsString> = words.collect();
    let texts = || words.iter().map(|word| word.to_string_lossy().into_owned());
    let ended = if name == CLIENT {
        client(texts().collect())
    } else if name == APPMENUS {
        let command = std::iter::once(name).chain(texts()).collect();
        relay(&Caller::Helper { command }, false, false)
    } else if name == RUNUSER {
        runuser(&words)
    } else if SERVICES.contains(&name.as_str()) {
        relay(&Caller::Local { service: name }, false, false)
    } else {
        match words.split_first()? {
            (word, rest) if word == ENTER => enter(rest),
            (word, rest) if word == view::INSIDE => view::inside(rest),
            (word, rest) if word == view::BECOME => view::become_user(rest),
            _ => return None,
        }
    };
    Some(match ended {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("conformance: {error:#}");
            ExitCode::from(125)
        }
    })
}

fn enter(words: &[OsString]) -> Result<u8> {
    let [view, program, arguments @ ..] = words else { anyhow::bail!("{ENTER} is not for people") };
    let view: View = serde_json::from_slice(view.as_encoded_bytes()).context("understanding a view")?;
    let command = view::Command {
        program: program.clone(),
        arguments: arguments.to_vec(),
        elsewhere: true,
        environment: vec![("HOME".into(), "/home/user".into())],
    };
    view::run(&view, &command)
}

/// `-u USER -- PROGRAM ARGUMENT...`
fn runuser(words: &[OsString]) -> Result<u8> {
    let mut rest = words.iter().skip_while(|word| *word != "--").skip(1);
    let program = rest.next().context("a program to run")?;
    Err(std::process::Command::new(program).args(rest).exec().into())
}

fn client(words: Vec<String>) -> Result<u8> {
    let (mut out, mut err) = (false, false);
    let mut rest = Vec::new();
    for word in words {
        match word.as_str() {
            "-t" if rest.is_empty() => out = true,
            "-T" if rest.is_empty() => err = true,
            "--" if rest.is_empty() => {}
            _ => rest.push(word),
        }
    }
    let [target, service] = rest.as_slice() else {
        anyhow::bail!("{CLIENT}: a call has a target and a service")
    };
    relay(&Caller::Call { target: target.clone(), service: service.clone() }, out, err)
}

fn relay(caller: &Caller, filter_out: bool, filter_err: bool) -> Result<u8> {
    let mut desk = UnixStream::connect(SOCKET).context("reaching the desk")?;
    let mut line = serde_json::to_vec(caller)?;
    line.push(b'\n');
    desk.write_all(&line)?;
    let mut to_desk = desk.try_clone()?;
    std::thread::spawn(move || {
        // What is not wanted any more is no fault.
        let _ = io::copy(&mut io::stdin().lock(), &mut to_desk);
        let _ = to_desk.shutdown(Shutdown::Write);
    });
    loop {
        let mut head = [0; 5];
        desk.read_exact(&mut head).context("listening to the desk")?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let mut data = vec![0; usize::try_from(length)?];
        desk.read_exact(&mut data).context("listening to the desk")?;
        let (filtered, mut stream): (bool, Box<dyn io::Write>) = match head[0] {
            1 => (filter_out, Box::new(io::stdout())),
            2 => (filter_err, Box::new(io::stderr())),
            _ => return Ok(data.first().copied().unwrap_or(125)),
        };
        if filtered {
            data.iter_mut()
                .filter(|byte| !matches!(**byte, 0x20..=0x7e | 7..=10 | 13))
                .for_each(|byte| *byte = b'_');
        }
        // A caller that does not listen is no fault of ours.
        let _ = stream.write_all(&data).and_then(|()| stream.flush());
    }
}
