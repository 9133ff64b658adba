//! Services and commands in a qube, as its agent runs them.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::super::qrexec::pump::{copy, pump, pump_while, widen};
use super::super::qrexec::status;
use super::super::qubesd::{Destination, ServiceCall};
use super::super::view::VIEW;
use super::Server;
use super::call::Line;
use super::decision::Allowed;
use super::roots;
use super::stream::Tap;

/// Where services are looked for, first found first.
const SERVICE_PATHS: [&str; 2] = ["usr/local/etc/qubes-rpc", "etc/qubes-rpc"];

impl Server {
    /// Runs a service in a qube to its end: its status, none when the caller went before.
    pub(super) fn service_in_qube(
        self: &Arc<Self>,
        source: &str,
        allowed: &Allowed,
        line: &Line,
    ) -> Option<i32> {
        let Some(program) = self.find_service(allowed) else {
            return Some(self.guest_service(allowed).unwrap_or(status::NOT_FOUND));
        };
        let full_name = format!("{}+{}", allowed.service, allowed.arg);
        let mut arguments = vec![program.into_os_string()];
        if !allowed.arg.is_empty() {
            arguments.push(allowed.arg.clone().into());
        }
        let mut environment = self.environment(&allowed.to);
        environment.extend([
            ("QREXEC_REQUESTED_TARGET_TYPE".into(), OsString::new()),
            ("QREXEC_SERVICE_FULL_NAME".into(), full_name.into()),
            ("QREXEC_REMOTE_DOMAIN".into(), source.into()),
            ("QREXEC_SERVICE_ARGUMENT".into(), allowed.arg.clone().into()),
        ]);
        self.run_in_qube(allowed, arguments, environment, line)
    }

    /// Runs a service that the system in the qube's volume stands for, where there is no file for it: its status.
    fn guest_service(&self, allowed: &Allowed) -> Option<i32> {
        if allowed.service != "qubes.PostInstall" {
            return None;
        }
        let guest = self.qubesd.guest(&allowed.to)?;
        if guest.post_install == 0 {
            for (name, value) in &guest.features {
                self.qubesd.put_feature_request(&allowed.to, name, value);
            }
            let call = ServiceCall {
                source: allowed.to.clone(),
                service: "qubes.FeaturesRequest".to_owned(),
                arg: String::new(),
                target: Destination::Name("dom0".to_owned()),
            };
            // The scripts in the guest do not look at what became of it.
            let _ = self.qubesd.service(&call, &mut io::empty(), &mut io::sink(), &mut io::sink());
        }
        Some(guest.post_install)
    }

    /// Runs a shell command in a qube, as dom0 does.
    pub(super) fn command_in_qube(
        self: &Arc<Self>,
        allowed: &Allowed,
        command: &str,
        line: &Line,
    ) -> Option<i32> {
        let arguments = vec!["/bin/sh".into(), "-c".into(), command.into()];
        let environment = self.environment(&allowed.to);
        self.run_in_qube(allowed, arguments, environment, line)
    }

    /// The file of a service, as the qube sees it: of its own, or else of its template.
    fn find_service(&self, allowed: &Allowed) -> Option<PathBuf> {
        let names = [format!("{}+{}", allowed.service, allowed.arg), allowed.service.clone()];
        let files = roots::files(&self.dir, &allowed.to);
        names.iter().find_map(|name| {
            let found = SERVICE_PATHS.iter().map(|path| Path::new(path).join(name)).find(|path| {
                // A link may lead to a place that only the qube has.
                files.join(path).symlink_metadata().is_ok_and(|file| !file.is_dir())
            });
            found.map(|path| Path::new("/").join(path))
        })
    }

    /// What every process in a qube has in its environment.
    fn environment(&self, qube: &str) -> Vec<(OsString, OsString)> {
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let mut environment = vec![("PATH".into(), path.into()), ("LANG".into(), "C.UTF-8".into())];
        let own =
            fs::read_to_string(roots::files(&self.dir, qube).join("etc/environment")).unwrap_or_default();
        for (key, value) in own.lines().filter_map(|line| line.split_once('=')) {
            environment.push((key.trim().into(), value.trim().trim_matches('"').into()));
        }
        environment
    }

    fn run_in_qube(
        self: &Arc<Self>,
        allowed: &Allowed,
        arguments: Vec<OsString>,
        environment: Vec<(OsString, OsString)>,
        line: &Line,
    ) -> Option<i32> {
        let started = self.spawn(allowed, arguments, environment);
        let mut child = match started {
            Ok(child) => child,
            Err(error) => {
                eprintln!("{} in {}: {error:#}", allowed.service, allowed.to);
                return Some(status::PROBLEM);
            }
        };
        let (Some(input), Some(output), Some(errors)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Some(status::PROBLEM);
        };
        let (from, inward) = (line.streams.data.try_clone(), line.inward.clone());
        let inlet = line.inlet();
        thread::spawn(move || {
            let mut input = input;
            if let Ok(from) = from {
                // A service that does not read its input is not at fault.
                let _ = forward(&mut &from, inlet, &mut input, &inward);
            }
        });
        let (to_errors, caller) = (line.streams.errors.try_clone(), line.control.try_clone());
        let telling = thread::spawn(move || {
            let (mut errors, Ok(mut to), Ok(caller)) = (errors, to_errors, caller) else { return };
            let _ = pump_while(&mut errors, &mut to, &AtomicU64::new(0), |errors| is_heard(errors, &caller));
            let _ = to.shutdown(Shutdown::Write);
        });
        self.bring_back(output, line);
        self.end_of(child, telling, line)
    }

    /// How a service ended: none when its caller goes before. The service is not told by more than its closed pipes,
    /// and goes on if it likes, as the real agent lets it; it ends with the server at the latest.
    fn end_of(self: &Arc<Self>, mut child: Child, telling: JoinHandle<()>, line: &Line) -> Option<i32> {
        let (ended, end) = channel::<Option<ExitStatus>>();
        let (server, gone) = (Arc::clone(self), ended.clone());
        thread::spawn(move || {
            let status = server.children.wait(&mut child);
            // A thread that panicked told what it could.
            let _ = telling.join();
            // Nobody asks any more when the caller has gone.
            let _ = ended.send(status.ok());
        });
        let control = line.control.try_clone();
        thread::spawn(move || {
            // The program says nothing more: this ends when it does, or when the call has.
            if let Ok(mut control) = control {
                let _ = io::copy(&mut control, &mut io::sink());
            }
            let _ = gone.send(None);
        });
        let ended_with = end.recv().ok()??;
        Some(
            ended_with
                .code()
                .or_else(|| ended_with.signal().map(|signal| 128 + signal))
                .unwrap_or(status::PROBLEM),
        )
    }

    /// Brings what a service says to its caller, until either of them ends it.
    fn bring_back(&self, mut output: impl Read + AsFd, line: &Line) {
        widen(&output);
        let tap = &line.outward;
        let (to, caller, mut outlet) = (&line.streams.data, &line.control, line.outlet());
        let mut heard = Heard { output: &mut output, caller };
        // Nobody listens any more when this fails; a cut is such a case. The service finds its output closed.
        let _ = if tap.is_plain() {
            begin(&mut heard, &mut outlet, tap)
                .and_then(|()| pump_while(&mut output, &mut &*to, tap.counter(), |out| is_heard(out, caller)))
        } else {
            copy(&mut heard, &mut outlet, &AtomicU64::new(0), |_| {})
        };
        let _ = to.shutdown(Shutdown::Write);
    }

    fn spawn(
        self: &Arc<Self>,
        allowed: &Allowed,
        arguments: Vec<OsString>,
        environment: Vec<(OsString, OsString)>,
    ) -> anyhow::Result<Child> {
        self.agents.open(self, &allowed.to)?;
        let uid = u32::from(allowed.user.as_deref() != Some("root")) * 1000;
        let view = roots::view(&self.dir, &allowed.to, uid)?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg(VIEW)
            .arg(std::process::id().to_string())
            .arg(serde_json::to_string(&view)?)
            .args(arguments);
        command.env_clear().envs(environment).current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(self.children.start(command)?)
    }
}

/// Waits until there is more of a service's output, or its end. Says whether the caller is there to hear it: its control
/// connection ends only when it goes.
fn is_heard(output: &impl AsFd, caller: &UnixStream) -> bool {
    let mut polled =
        [PollFd::new(output.as_fd(), PollFlags::POLLIN), PollFd::new(caller.as_fd(), PollFlags::empty())];
    while poll(&mut polled, PollTimeout::NONE) == Err(nix::errno::Errno::EINTR) {}
    !polled[1].any().unwrap_or(false)
}

/// A service's output, which ends when its caller does.
struct Heard<'a, R> {
    output: &'a mut R,
    caller: &'a UnixStream,
}

impl<R: Read + AsFd> Read for Heard<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if is_heard(&*self.output, self.caller) { self.output.read(buffer) } else { Ok(0) }
    }
}

/// Forwards what the caller sends: by hand as long as the log keeps it or faults may happen, then by the kernel.
fn forward(
    from: &mut (impl Read + AsFd),
    mut inlet: super::stream::Inlet,
    to: &mut (impl Write + AsFd),
    tap: &Tap,
) -> io::Result<()> {
    widen(&*to);
    if !tap.is_plain() {
        return copy(&mut inlet, to, &AtomicU64::new(0), |_| {});
    }
    let mut kept = (&mut inlet).take(tap.keep() as u64);
    copy(&mut kept, to, &AtomicU64::new(0), |_| {})?;
    if kept.limit() > 0 {
        return Ok(());
    }
    pump(from, to, tap.counter())
}

/// The part of a service's output that the log looks at.
fn begin(from: &mut impl Read, to: &mut impl Write, tap: &Tap) -> io::Result<()> {
    copy(&mut from.take(tap.keep() as u64), to, &AtomicU64::new(0), |_| {})
}
