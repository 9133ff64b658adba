//! Services and commands in a qube, as its agent runs them.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use super::super::qrexec::pump::{copy, pump, widen};
use super::super::qrexec::status;
use super::super::qubesd::{Destination, ServiceCall};
use super::super::view::VIEW;
use super::Server;
use super::call::Line;
use super::decision::Allowed;
use super::roots;
use super::stream::Tap;

/// How long a service may go on after its caller has gone.
const GRACE: Duration = Duration::from_millis(500);

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
        let number = child.id();
        let (ended, end) = channel::<()>();
        let server = Arc::clone(self);
        let control = line.control.try_clone();
        let watcher = thread::spawn(move || {
            // The program says nothing more: this ends when it does, or when the call has.
            if let Ok(mut control) = control {
                let _ = io::copy(&mut control, &mut io::sink());
            }
            if end.recv_timeout(GRACE) == Err(RecvTimeoutError::Timeout) {
                server.children.kill(number);
            }
        });
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
        let to_errors = line.streams.errors.try_clone();
        let telling = thread::spawn(move || {
            let (mut errors, Ok(mut to)) = (errors, to_errors) else { return };
            let _ = pump(&mut errors, &mut to, &AtomicU64::new(0));
            let _ = to.shutdown(Shutdown::Write);
        });
        self.bring_back(output, line);
        let ended_with = self.children.wait(&mut child);
        // A thread that panicked told what it could.
        let _ = telling.join();
        drop(ended);
        // The caller sees its end of the control connection close after the status, and so does the watcher then.
        drop(watcher);
        let ended_with = ended_with.ok()?;
        Some(
            ended_with
                .code()
                .or_else(|| ended_with.signal().map(|signal| 128 + signal))
                .unwrap_or(status::PROBLEM),
        )
    }

    /// Brings what a service says to its caller, to the end.
    fn bring_back(&self, mut output: impl Read + AsFd, line: &Line) {
        widen(&output);
        let tap = &line.outward;
        let mut to = line.outlet();
        let done = if tap.is_plain() {
            begin(&mut output, &mut to, tap)
                .and_then(|()| pump(&mut output, &mut &line.streams.data, tap.counter()))
        } else {
            copy(&mut output, &mut to, &AtomicU64::new(0), |_| {})
        };
        let _ = line.streams.data.shutdown(Shutdown::Write);
        if done.is_err() {
            // Nobody listens any more; a cut is such a case. The service finds its output closed.
            drop(output);
        }
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
