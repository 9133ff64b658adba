//! `qrexec-client-vm`: calls a service in another qube.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command};

use nix::sys::socket::{getsockopt, sockopt::SockType};
use nix::unistd::dup;

use super::options::{Options, Parsed, parse};
use super::streams::Streams;
use super::wire::{Answer, Opening, receive, send, to_text, token};

/// Where the agent listens.
pub const AGENT_SOCKET: &str = "/var/run/qubes/qrexec-agent";

/// Runs the program; `arguments` starts with its name.
pub fn run(arguments: Vec<OsString>) -> u8 {
    let mut arguments = arguments.into_iter().map(OsString::into_vec);
    let name = String::from_utf8_lossy(&arguments.next().unwrap_or_default()).into_owned();
    let arguments: Vec<Vec<u8>> = arguments.collect();
    let stdin_is_socket = getsockopt(&io::stdin(), SockType).is_ok();
    match parse(&name, &arguments, stdin_is_socket) {
        Parsed::Run(options) => call(&options).unwrap_or_else(|Stop(line, status)| {
            eprintln!("{line}");
            status
        }),
        Parsed::Help => {
            let mut out = io::stdout().lock();
            // Nobody reads it: nothing is lost.
            let _ = out.write_all(usage(&name).as_bytes());
            eprintln!("{SOURCE_QUBE}");
            0
        }
        Parsed::Usage(line) => {
            if let Some(line) = line {
                eprintln!("{line}");
            }
            eprintln!("{}{SOURCE_QUBE}", usage(&name));
            2
        }
        Parsed::Fault(line, status) => {
            eprintln!("{line}");
            status
        }
        Parsed::Logged(text) => {
            eprintln!("{}", log_line("qrexec-client-vm", text));
            1
        }
    }
}

/// A last line on standard error, and a status.
struct Stop(String, u8);

fn stop(place: &str, error: &io::Error) -> Stop {
    Stop(log_line("qrexec-client-vm", &format!("{place}: {}", error_text(error))), 1)
}

fn call(options: &Options) -> Result<u8, Stop> {
    let socket = OsStr::from_bytes(options.agent_socket.as_deref().unwrap_or(AGENT_SOCKET.as_bytes()));
    let socket = Path::new(socket);
    let mut control = UnixStream::connect(socket)
        .map_err(|error| stop("qrexec-client-vm.c:67:connect_unix_socket: connect", &error))?;
    let token = token();
    let target: Vec<u8> =
        options.words[0].iter().map(|byte| if *byte == b'$' { b'@' } else { *byte }).collect();
    let opening = Opening::Call {
        token: token.clone(),
        target: to_text(&target),
        service: to_text(&options.words[1]),
        source: options.source.as_deref().map(to_text),
    };
    send(&mut control, &opening)
        .map_err(|error| stop("qrexec-client-vm.c:281:main: write(hdr) to agent", &error))?;
    let reset = || io::Error::from_raw_os_error(nix::errno::Errno::ECONNRESET as i32);
    match receive(&mut control) {
        Ok(Answer::Go) => {}
        Ok(Answer::Reset) => return Err(stop("qrexec-client-vm.c:292:main: read", &reset())),
        _ => return Err(Stop("Request refused".to_owned(), 126)),
    }
    let filter_errors = options.filter_stderr.unwrap_or_else(|| io::stderr().is_terminal());
    let lost = |error: io::Error| stop("process_io.c:200:qrexec_process_io: connection", &error);
    let prefix = options.prefix.clone().unwrap_or_default();
    let streams = Streams::open(socket, &token).map_err(lost)?;
    let filter_output = options.filter_stdout;
    if let [_, _, program, arguments @ ..] = options.words.as_slice() {
        let (mut child, to_child, from_child) = local_program(program, arguments)?;
        streams.feed(prefix, from_child).map_err(lost)?;
        let draining = streams.drain(to_child, filter_output == Some(true), filter_errors);
        let status = draining.status(&mut control).map_err(lost)?;
        let own = child.as_mut().map_or(Ok(255), wait).map_err(lost)?;
        return Ok(if status == 0 { own } else { status.to_le_bytes()[0] });
    }
    let own = |stream: &dyn AsFd| stream.as_fd().try_clone_to_owned().map(File::from).map_err(lost);
    streams.feed(prefix, own(&io::stdin())?).map_err(lost)?;
    let output = if options.stdin_socket { own(&io::stdin())? } else { own(&io::stdout())? };
    let filter_output = filter_output.unwrap_or_else(|| io::stdout().is_terminal());
    let status = streams.drain(output, filter_output, filter_errors).status(&mut control).map_err(lost)?;
    Ok(status.to_le_bytes()[0])
}

/// Starts the program that is connected to the service instead of our own streams. One that cannot be started counts as
/// one that ended with 255.
fn local_program(
    program: &[u8],
    arguments: &[Vec<u8>],
) -> Result<(Option<Child>, UnixStream, UnixStream), Stop> {
    let failed = |error: io::Error| stop("qrexec-client-vm.c:298:main: socketpair", &error);
    let (to_child, its_input) = UnixStream::pair().map_err(failed)?;
    let (from_child, its_output) = UnixStream::pair().map_err(failed)?;
    // The program finds our own streams by these numbers.
    let saved = |stream: &dyn AsFd| dup(stream.as_fd()).map_err(|errno| failed(errno.into()));
    let (input, output) = (saved(&io::stdin())?, saved(&io::stdout())?);
    let number = |fd: &OwnedFd| std::os::fd::AsRawFd::as_raw_fd(fd).to_string();
    let name = program.rsplit(|byte| *byte == b'/').next().unwrap_or(program);
    // Without a slash it is a file here, not one that is searched for.
    let path = Path::new("").join(OsStr::from_bytes(program));
    let path = if program.contains(&b'/') { path } else { Path::new("./").join(path) };
    let mut command = Command::new(path);
    command.arg0(OsStr::from_bytes(name)).args(arguments.iter().map(|word| OsStr::from_bytes(word)));
    command.stdin(OwnedFd::from(its_input)).stdout(OwnedFd::from(its_output));
    command.env("SAVED_FD_0", number(&input)).env("SAVED_FD_1", number(&output));
    let child = match command.spawn() {
        Ok(child) => Some(child),
        Err(error) => {
            let text = format!("qrexec-client-vm.c:331:main: execv: {}", error_text(&error));
            eprintln!("{}", log_line("qrexec-client-vm", &text));
            None
        }
    };
    Ok((child, to_child, from_child))
}

fn wait(child: &mut Child) -> io::Result<u8> {
    let status = child.wait()?;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(255);
    Ok(code.to_le_bytes()[0])
}

/// A line as qrexec's programs write to their log.
pub(super) fn log_line(program: &str, text: &str) -> String {
    let time = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%S%.3f");
    format!("{time} {program}[{}]: {text}", std::process::id())
}

/// An error as C words it.
pub(super) fn error_text(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

const SOURCE_QUBE: &str = "  -s SOURCE-QUBE, --source-qube=SOURCE-QUBE - Specify the source qube. This option provides \
                           extra information for relayed connection that may be used during policy evaluation.";

fn usage(name: &str) -> String {
    format!(
        "usage: {name} [options] target_vmname program_ident [local_program [local program arguments]]\n\
         Options:\n\
         \x20 -h, --help - print this message\n\
         \x20 --buffer-size=BUFFER_SIZE - accepted; sockets need none\n\
         \x20 -t, --filter-escape-chars-stdout - replace non-ASCII and control characters on stdout (default on a terminal)\n\
         \x20 -T, --filter-escape-chars-stderr - the same on stderr\n\
         \x20 --no-filter-escape-chars-stdout - opposite of --filter-escape-chars-stdout\n\
         \x20 --no-filter-escape-chars-stderr - opposite of --filter-escape-chars-stderr\n\
         \x20 --agent-socket=PATH - where the agent listens, default: {AGENT_SOCKET}\n\
         \x20 -p PREFIX-DATA, --prefix-data=PREFIX-DATA - send this before standard input (once only)\n\
         \x20 --use-stdin-socket - use file descriptor 0, which must be a socket, in both directions\n"
    )
}
