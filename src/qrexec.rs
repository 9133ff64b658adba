//! Programs that this tool starts: the qrexec clients, a local service, dom0's import script, small helpers.
//!
//! This is the only room that starts a process. Every program runs in a process group of its own, so that a
//! Ctrl-C at the terminal reaches us and not it, and so that ending it ends what it started too. Its standard
//! streams are always pipes: input is written while output and errors are drained together, so that no side can
//! wait for the other; output is bounded, of the errors the first part is kept and the rest is drained. A program
//! that is no longer waited for (time-out, too much output, cancelled) is killed with its group and reaped.
//!
//! | where we are | a service in another qube | a service here |
//! |---|---|---|
//! | a qube | `/usr/bin/qrexec-client-vm TARGET SERVICE[+ARG]` | `/etc/qubes-rpc/SERVICE` |
//! | dom0 | `/usr/lib/qubes/qrexec-client -d TARGET "DEFAULT:QUBESRPC SERVICE+[ARG] dom0"` | `/etc/qubes-rpc/SERVICE` |

use std::ffi::OsString;
use std::future::Future;
use std::io::{self, PipeWriter};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::timeout;

/// A future that is polled on the thread that made it.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// The output and the end of a program that somebody feeds.
pub type Rest = Pending<'static, Result<(Vec<u8>, Ended), RunError>>;

/// The qrexec client of a qube.
const CLIENT_VM: &str = "/usr/bin/qrexec-client-vm";
/// The qrexec client of dom0.
const CLIENT_DOM0: &str = "/usr/lib/qubes/qrexec-client";
/// Where services of this qube lie.
const SERVICES: &str = "/etc/qubes-rpc";
/// Present in dom0 only.
const DOM0_MARK: &str = "/etc/qubes-release";
/// How much is read from a program at once.
const CHUNK: usize = 256 * 1024;

/// Status of `qrexec-client-vm` when policy refused the call, or the target does not exist.
pub const REFUSED: i32 = 126;
/// Status of the qrexec clients when the target has no such service.
pub const NO_SERVICE: i32 = 127;
/// Status of the qrexec clients when the connection itself failed.
pub const QREXEC_FAILED: i32 = 125;

/// On which side of the Admin API this process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// In dom0: policy does not apply, qubesd is reached through its socket.
    Dom0,
    /// In a qube: everything goes through qrexec and policy.
    Qube,
}

impl Side {
    /// The side of this machine, told apart as Qubes' own tools do.
    #[must_use]
    pub fn here() -> Self {
        if Path::new(DOM0_MARK).exists() { Self::Dom0 } else { Self::Qube }
    }
}

/// Whether the qrexec client replaces bytes that could act on a terminal by `_`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escapes {
    /// Output and errors are filtered.
    Filtered,
    /// Output arrives as it was sent.
    Raw,
}

/// A program with its arguments, not yet started.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    args: Vec<OsString>,
    env: Vec<(&'static str, OsString)>,
}

/// How much a program may say, and how long it may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most bytes of standard output; one more ends the program.
    pub output: u64,
    /// Bytes of standard error that are kept.
    pub errors: usize,
    /// Longest time in all.
    pub total: Option<Duration>,
    /// Longest time until the first byte of output.
    pub first: Option<Duration>,
    /// Longest time without a byte of output after that, and from the end of output to that of the program.
    pub idle: Option<Duration>,
    /// Fewest bytes of output, after the first one, in each such span of time: who sends a byte now and then is not idle,
    /// and never ends.
    pub pace: Option<(u64, Duration)>,
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Exit status; 128 and the signal's number for a program that a signal ended, as shells count.
    pub status: i32,
    /// The first part of what it wrote to standard error.
    pub errors: Vec<u8>,
}

/// Why a program gave no usable end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The program does not exist.
    #[error("{} is not installed", .0.display())]
    Missing(PathBuf),
    /// The program could not be started.
    #[error("starting {}", .0.display())]
    Start(PathBuf, #[source] io::Error),
    /// More output than allowed.
    #[error("more than {0} bytes were sent")]
    TooMuch(u64),
    /// The total time ran out.
    #[error("no end after {} s", .0.as_secs())]
    Late(Duration),
    /// No byte came for too long.
    #[error("nothing was sent for {} s", .0.as_secs())]
    Stalled(Duration),
    /// Bytes came, but too few.
    #[error("only {got} bytes were sent in {} s", .time.as_secs())]
    Slow {
        /// What came.
        got: u64,
        /// In this time.
        time: Duration,
    },
    /// Reading, or handing on what was read, failed.
    #[error("taking what was sent")]
    Taking(#[source] io::Error),
}

impl Program {
    /// The client that calls `service` in `target` from where we are.
    #[must_use]
    pub fn service(side: Side, target: &str, service: &str, arg: Option<&str>, escapes: Escapes) -> Self {
        let filter: &[&str] = match escapes {
            Escapes::Filtered => &["-t", "-T"],
            Escapes::Raw => &[],
        };
        let (path, mut args) = match side {
            Side::Qube => (CLIENT_VM, Vec::new()),
            Side::Dom0 => (CLIENT_DOM0, vec![OsString::from("-d"), OsString::from(target)]),
        };
        args.extend(filter.iter().map(OsString::from));
        match side {
            Side::Qube => {
                let name = arg.map_or_else(|| service.to_owned(), |arg| format!("{service}+{arg}"));
                args.extend([OsString::from(target), OsString::from(name)]);
            }
            Side::Dom0 => {
                args.push(OsString::from(format!("DEFAULT:QUBESRPC {service}+{} dom0", arg.unwrap_or(""))));
            }
        }
        Self { path: PathBuf::from(path), args, env: Vec::new() }
    }

    /// A service of this very qube, run without qrexec.
    #[must_use]
    pub fn local_service(service: &str) -> Self {
        Self { path: Path::new(SERVICES).join(service), args: Vec::new(), env: Vec::new() }
    }

    /// dom0's script that imports into `volume` of `qube`; through `sudo` for anybody but root.
    #[must_use]
    pub fn import_script(qube: &str, volume: &str) -> Self {
        let script = Path::new(SERVICES).join("admin.vm.volume.ImportWithSize");
        let env = [("QREXEC_REMOTE_DOMAIN", "dom0"), ("QREXEC_REQUESTED_TARGET", qube)];
        if nix::unistd::geteuid().is_root() {
            let env = env.map(|(key, value)| (key, OsString::from(value))).to_vec();
            return Self { path: script, args: vec![OsString::from(volume)], env };
        }
        let mut args = vec![OsString::from("env")];
        args.extend(env.map(|(key, value)| OsString::from(format!("{key}={value}"))));
        args.extend([script.into_os_string(), OsString::from(volume)]);
        Self { path: PathBuf::from("/usr/bin/sudo"), args, env: Vec::new() }
    }

    /// Another program, found through `PATH` unless `name` is a path.
    #[must_use]
    pub fn helper(name: &str, args: &[&str]) -> Self {
        Self { path: PathBuf::from(name), args: args.iter().map(OsString::from).collect(), env: Vec::new() }
    }

    /// Path of the program.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs the program with `input`, and returns all that it wrote.
    ///
    /// # Errors
    /// When it could not be started, wrote too much, or took too long. Its own failure is no error here.
    pub async fn output(&self, input: &[u8], limits: Limits) -> Result<(Vec<u8>, Ended), RunError> {
        let mut output = Vec::new();
        let ended = self
            .stream(input, limits, &mut |bytes| {
                output.extend_from_slice(bytes);
                Ok(())
            })
            .await?;
        Ok((output, ended))
    }

    /// Runs the program with `input`, and gives what it writes to `sink` as it comes.
    ///
    /// # Errors
    /// As [`Program::output`], and whatever `sink` refuses.
    pub async fn stream(
        &self,
        input: &[u8],
        limits: Limits,
        sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<Ended, RunError> {
        let mut running = self.start(Stdio::piped())?;
        let stdin = running.0.stdin.take();
        running.finish(async { feed(stdin, input).await }, limits, sink).await
    }

    /// Starts the program with a pipe as its input, for somebody who writes on another thread. The program goes on
    /// while the returned future is polled, and is killed when the future is dropped.
    ///
    /// # Errors
    /// When there is no pipe, or the program could not be started.
    pub fn fed(&self, limits: Limits) -> Result<(PipeWriter, Rest), RunError> {
        let (read, write) = io::pipe().map_err(|e| RunError::Start(self.path.clone(), e))?;
        enlarge(&write);
        let mut running = self.start(Stdio::from(read))?;
        let rest = async move {
            let mut output = Vec::new();
            let ended = running
                .finish(std::future::ready(()), limits, &mut |bytes| {
                    output.extend_from_slice(bytes);
                    Ok(())
                })
                .await?;
            Ok((output, ended))
        };
        Ok((write, Box::pin(rest)))
    }

    fn start(&self, stdin: Stdio) -> Result<Running, RunError> {
        let mut command = Command::new(&self.path);
        command.args(&self.args).envs(self.env.iter().map(|(key, value)| (key, value)));
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        command.spawn().map(Running).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => RunError::Missing(self.path.clone()),
            _ => RunError::Start(self.path.clone(), e),
        })
    }
}

/// A started program. Dropping it kills its whole group.
#[derive(Debug)]
struct Running(Child);

impl Running {
    async fn finish(
        &mut self,
        feeding: impl Future<Output = ()>,
        limits: Limits,
        sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<Ended, RunError> {
        let mut stdout = self.0.stdout.take();
        let stderr = self.0.stderr.take();
        let pid = self.0.id();
        let draining = std::pin::pin!(async {
            let taking = take(stdout.as_mut(), limits, sink);
            let keeping = keep(stderr, limits.errors);
            let together = async { tokio::join!(feeding, keeping).1 };
            tokio::pin!(taking, together);
            let mut errors = None;
            loop {
                tokio::select! {
                    taken = &mut taking => {
                        if let Err(error) = taken {
                            drop(Group(pid));
                            return Err(error);
                        }
                        break;
                    }
                    kept = &mut together, if errors.is_none() => errors = Some(kept),
                }
            }
            let ending = async {
                let errors = match errors {
                    Some(errors) => errors,
                    None => together.await,
                };
                let status = self.0.wait().await.map_err(RunError::Taking)?;
                Ok(Ended { status: shell_status(status), errors })
            };
            // Who closes its output and goes on is silent, whatever it writes to its errors.
            match limits.idle {
                None => ending.await,
                Some(idle) => timeout(idle, ending).await.map_err(|_| RunError::Stalled(idle))?,
            }
        });
        // Declared after what holds the pipes, so that it acts before they are closed: closing a pipe can wait for a
        // program that moves data through it inside the kernel.
        let mut group = Group(pid);
        let ended = match limits.total {
            None => draining.await,
            Some(total) => timeout(total, draining).await.unwrap_or(Err(RunError::Late(total))),
        };
        if ended.is_ok() {
            group.0 = None;
        }
        ended
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // No id means that it was waited for: the number may belong to somebody else by now.
        drop(Group(self.0.id()));
    }
}

/// A process group that is killed when this is dropped; none once it was waited for.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0.and_then(|id| i32::try_from(id).ok()) {
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// Writes all input and closes. A program that stopped reading has its reasons, which its output tells.
async fn feed(stdin: Option<ChildStdin>, input: &[u8]) {
    if let Some(mut stdin) = stdin {
        let _ = stdin.write_all(input).await;
        let _ = stdin.shutdown().await;
    }
}

async fn take(
    from: Option<impl AsyncRead + Unpin>,
    limits: Limits,
    sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), RunError> {
    let Some(mut from) = from else { return Ok(()) };
    let mut buffer = vec![0; CHUNK];
    let mut total: u64 = 0;
    // When the span of the pace began, and what had come by then.
    let mut span = (Instant::now(), 0_u64);
    loop {
        let read = from.read(&mut buffer);
        let idle = if total == 0 { limits.first } else { limits.idle };
        let read = match idle {
            None => read.await,
            Some(idle) => timeout(idle, read).await.map_err(|_| RunError::Stalled(idle))?,
        };
        let length = read.map_err(RunError::Taking)?;
        if length == 0 {
            return Ok(());
        }
        if total == 0 {
            span = (Instant::now(), 0);
        }
        total += u64::try_from(length).unwrap_or(u64::MAX);
        if total > limits.output {
            return Err(RunError::TooMuch(limits.output));
        }
        sink(&buffer[..length]).map_err(RunError::Taking)?;
        if let Some((fewest, time)) = limits.pace
            && span.0.elapsed() >= time
        {
            let got = total - span.1;
            if got < fewest {
                return Err(RunError::Slow { got, time: span.0.elapsed() });
            }
            span = (Instant::now(), total);
        }
    }
}

async fn keep(from: Option<impl AsyncRead + Unpin>, most: usize) -> Vec<u8> {
    let mut kept = Vec::new();
    let Some(mut from) = from else { return kept };
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let room = most.saturating_sub(kept.len()).min(length);
        kept.extend_from_slice(&buffer[..room]);
    }
    kept
}

/// A megabyte of pipe instead of 64 KiB: fewer changes between the writer and the client. Not allowed? Then not.
fn enlarge(pipe: &PipeWriter) {
    let _ = nix::fcntl::fcntl(pipe, nix::fcntl::FcntlArg::F_SETPIPE_SZ(1 << 20));
}

fn shell_status(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const LIMITS: Limits = Limits {
        output: 1 << 20,
        errors: 100,
        total: Some(Duration::from_secs(20)),
        first: None,
        idle: None,
        pace: None,
    };

    fn shell(script: &str) -> Program {
        Program::helper("/bin/sh", &["-c", script])
    }

    fn wait<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn both_outputs_are_drained_while_input_is_fed() {
        let script = "head -c 300000 /dev/zero >&2; cat; head -c 300000 /dev/zero >&2; exit 7";
        let input = vec![b'x'; 500_000];
        let (output, ended) = wait(shell(script).output(&input, LIMITS)).unwrap();
        assert_eq!(output, input);
        assert_eq!((ended.status, ended.errors.len()), (7, 100));
    }

    #[test]
    fn a_program_that_does_not_read_is_no_error() {
        let (output, ended) = wait(shell("echo no").output(&vec![b'x'; 500_000], LIMITS)).unwrap();
        assert_eq!((output.as_slice(), ended.status), (b"no\n".as_slice(), 0));
    }

    #[test]
    fn limits_end_the_program_and_all_it_started() {
        let idle = Limits { idle: Some(Duration::from_millis(200)), ..LIMITS };
        assert!(matches!(wait(shell("echo a; sleep 60").output(b"", idle)), Err(RunError::Stalled(_))));
        let pace = Some((1000, Duration::from_millis(300)));
        let slow = Limits { idle: idle.idle, pace, ..LIMITS };
        let dripping = shell("while echo a; do sleep 0.05; done");
        assert!(matches!(wait(dripping.output(b"", slow)), Err(RunError::Slow { .. })));
        assert!(wait(shell("head -c 900 /dev/zero; sleep 0.1; echo").output(b"", slow)).is_ok());
        let late = Limits { total: Some(Duration::from_millis(200)), ..LIMITS };
        assert!(matches!(wait(shell("sleep 60 & wait").output(b"", late)), Err(RunError::Late(_))));
        // Errors without an end are drained and count as nothing.
        let noisy = shell("printf a; exec cat /dev/zero >&2");
        assert!(matches!(wait(noisy.output(b"", idle)), Err(RunError::Stalled(_))));
        assert!(matches!(wait(shell("cat /dev/zero >&2").output(b"", late)), Err(RunError::Late(_))));
        let small = Limits { output: 10, ..LIMITS };
        assert!(matches!(wait(shell("yes").output(b"", small)), Err(RunError::TooMuch(10))));
        assert!(matches!(
            wait(Program::helper("/nowhere", &[]).output(b"", LIMITS)),
            Err(RunError::Missing(_))
        ));
    }

    #[test]
    fn dropping_the_future_kills_the_group() {
        let directory = tempfile::tempdir().unwrap();
        let mark = directory.path().join("pid");
        let script = format!("sleep 60 & echo $! > {}; wait", mark.display());
        wait(async {
            let program = shell(&script);
            let _ = timeout(Duration::from_millis(500), program.output(b"", LIMITS)).await;
        });
        let pid = std::fs::read_to_string(mark).unwrap();
        let process = PathBuf::from(format!("/proc/{}/stat", pid.trim()));
        for _ in 0..100 {
            match std::fs::read_to_string(&process) {
                Ok(text) if !text.contains(") Z ") => std::thread::sleep(Duration::from_millis(20)),
                _ => return,
            }
        }
        panic!("the grandchild lives on");
    }

    #[test]
    fn a_fed_program_gets_what_is_written_and_sees_the_end() {
        let (output, ended) = wait(async {
            let (mut pipe, rest) = shell("wc -c").fed(LIMITS).unwrap();
            let writer = tokio::task::spawn_blocking(move || pipe.write_all(&vec![0; 3_000_000]));
            let ended = rest.await.unwrap();
            writer.await.unwrap().unwrap();
            ended
        });
        assert_eq!(String::from_utf8(output).unwrap().trim(), "3000000");
        assert_eq!(ended.status, 0);
    }

    #[test]
    fn command_lines_are_those_of_the_original() {
        let words = |program: &Program| {
            let mut words = vec![program.path.display().to_string()];
            words.extend(program.args.iter().map(|a| a.to_string_lossy().into_owned()));
            words
        };
        let vm = Program::service(Side::Qube, "sys-net", "qubes.TemplateSearch", None, Escapes::Filtered);
        assert_eq!(words(&vm), [CLIENT_VM, "-t", "-T", "sys-net", "qubes.TemplateSearch"]);
        let vm = Program::service(Side::Qube, "x", "admin.vm.feature.Get", Some("a+b"), Escapes::Raw);
        assert_eq!(words(&vm), [CLIENT_VM, "x", "admin.vm.feature.Get+a+b"]);
        let dom0 = Program::service(Side::Dom0, "sys-net", "qubes.TemplateSearch", None, Escapes::Raw);
        assert_eq!(
            words(&dom0),
            [CLIENT_DOM0, "-d", "sys-net", "DEFAULT:QUBESRPC qubes.TemplateSearch+ dom0"]
        );
    }
}
