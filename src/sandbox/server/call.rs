//! One call from a qube, from its first frame to its exit status.

use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::Pid;

use super::Server;
use super::agent::Streams;
use super::decision::{Allowed, cleaned};
use super::faults::{Action, Direction, Victim};
use super::log::{Entry, Transport};
use super::stream::{Inlet, Outlet, Tap};
use crate::sandbox::qrexec::wire::{Answer, send, to_bytes, to_text};
use crate::sandbox::qrexec::{MAX_SERVICE, status};
use crate::sandbox::qubesd::{Destination, ServiceCall};

/// How much of what a caller sends is kept for the log: the longest request of the Admin API.
const KEPT: usize = 65536;
/// Of an import, the size line.
const KEPT_OF_IMPORT: usize = 21;
/// Of a reply, enough for an exception.
const KEPT_OF_REPLY: usize = 4096;

impl Server {
    /// Serves a call of `qrexec-client-vm` in `source`.
    pub(super) fn call(
        self: &Arc<Self>,
        source: &str,
        mut control: UnixStream,
        token: &str,
        (target, service, relayed_for): (&str, &str, Option<&str>),
    ) {
        // A caller that has gone cannot be told.
        if service.len() + 1 > MAX_SERVICE {
            let _ = send(&mut control, &Answer::Reset);
            return;
        }
        let Some((target, service)) = cleaned(&to_bytes(target), &to_bytes(service)) else {
            let mut entry = Entry::new(Transport::Qrexec, source, target, service);
            entry.exit = Some(status::REFUSED);
            self.log.add(&entry);
            let _ = send(&mut control, &Answer::Refused);
            return;
        };
        let mut entry = Entry::new(Transport::Qrexec, source, &target, &service);
        let arg = entry.arg.clone().unwrap_or_default();
        let faults = self.faults.meet(source, &target, &entry.service, &arg);
        note_faults(&mut entry, &faults);
        let refused = faults.contains(&Action::Refuse);
        let allowed = if refused {
            entry.decision.push(format!("{service}: {source} -> {target}: denied: fault on order"));
            None
        } else {
            self.decide(source, &target, &service, relayed_for, &mut entry.decision)
        };
        let allowed = allowed.filter(|allowed| {
            let reached = allowed.to == "dom0" || self.reach(allowed);
            if !reached {
                entry
                    .decision
                    .push(format!("{service}: {source} -> {target}: {} does not start", allowed.to));
            }
            reached
        });
        let Some(allowed) = allowed else {
            entry.exit = Some(status::REFUSED);
            self.log.add(&entry);
            let _ = send(&mut control, &Answer::Refused);
            return;
        };
        entry.allowed = true;
        entry.to = Some(allowed.to.clone());
        let streams = match send(&mut control, &Answer::Go) {
            Ok(()) => self.agents.streams(token),
            Err(_) => None,
        };
        match streams {
            Some(streams) => self.run_call(entry, &control, streams, &allowed, &faults),
            None => self.log.add(&entry),
        }
    }

    fn run_call(
        self: &Arc<Self>,
        entry: Entry,
        control: &UnixStream,
        streams: Streams,
        allowed: &Allowed,
        faults: &[Action],
    ) {
        let _open = self.open_calls.one(&allowed.service);
        let source = entry.source.clone();
        let line = Line::new(control, streams, &allowed.service, faults);
        if line.kill(faults, |action| matches!(action, Action::KillBefore(_))) {
            return self.finish(entry, &line, None, faults);
        }
        let done = match self.instead(&line, faults, &allowed.service, &allowed.arg, &allowed.requested) {
            Some(status) => Some(status),
            None if allowed.to == "dom0" => {
                let call = ServiceCall {
                    source,
                    service: allowed.service.clone(),
                    arg: allowed.arg.clone(),
                    target: Destination::of_target(&allowed.requested),
                };
                // What a service of dom0 says on its standard error stays in dom0.
                Some(self.dom0_service(&call, &line, &mut std::io::sink()))
            }
            None => self.service_in_qube(&source, allowed, &line),
        };
        line.kill(faults, |action| matches!(action, Action::KillAfter(_)));
        self.finish(entry, &line, done, faults);
    }

    /// Writes a call down, and only then tells its caller the status, the service's own or a fault's: a caller that has
    /// its status finds the call in the log.
    pub(super) fn finish(&self, mut entry: Entry, line: &Line, status: Option<i32>, faults: &[Action]) {
        let told = faults.iter().find_map(|action| match action {
            Action::Cut { status: Some(status), .. } => Some(*status),
            _ => None,
        });
        let _ = line.streams.data.shutdown(Shutdown::Both);
        let _ = line.streams.errors.shutdown(Shutdown::Both);
        let killed = |action: &Action| match action {
            Action::KillBefore(victim) | Action::KillAfter(victim) | Action::KillAt { victim, .. } => {
                *victim == Victim::Client
            }
            _ => false,
        };
        // The kernel takes its time to end what was killed.
        let patience =
            if faults.iter().any(killed) { PollTimeout::from(2000_u16) } else { PollTimeout::ZERO };
        entry.exit = told.or(status).filter(|_| !line.caller_has_gone(patience));
        line.note(&mut entry);
        self.log.add(&entry);
        if let Some(status) = told.or(status) {
            let _ = send(&mut &line.control, &Answer::Exit(status));
        }
    }

    /// What a call comes to that a fault, or the population, answers.
    pub(super) fn instead(
        &self,
        line: &Line,
        faults: &[Action],
        service: &str,
        arg: &str,
        target: &str,
    ) -> Option<i32> {
        let by_fault = faults.iter().find_map(|action| match action {
            Action::Exception { class, message } => {
                let mut out = line.outlet();
                let body = format!("2\0{class}\0\0{message}\0");
                // The caller may have gone.
                let _ = std::io::Write::write_all(&mut out, body.as_bytes());
                Some(0)
            }
            Action::Exit { status, stderr } => {
                let _ = std::io::Write::write_all(&mut &line.streams.errors, stderr.as_bytes());
                Some(*status)
            }
            _ => None,
        });
        by_fault.or_else(|| {
            let rule =
                self.failed.iter().find(|rule| rule.status.is_some() && rule.fits(service, arg, target))?;
            let text = rule.stderr.as_deref().unwrap_or_default();
            let _ = std::io::Write::write_all(&mut &line.streams.errors, text.as_bytes());
            rule.status
        })
    }

    /// Runs a service file of dom0.
    pub(super) fn dom0_service(
        &self,
        call: &ServiceCall,
        line: &Line,
        errors: &mut dyn std::io::Write,
    ) -> i32 {
        match self.qubesd.service(call, &mut line.inlet(), &mut line.outlet(), errors) {
            Ok(status) => status,
            Err(error) => {
                eprintln!("{} from {}: {error}", call.service, call.source);
                status::PROBLEM
            }
        }
    }
}

/// The connections of a call, and what is known of them.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) control: UnixStream,
    pub(super) streams: Streams,
    pub(super) inward: Tap,
    pub(super) outward: Tap,
    /// The program that made the call, and the process that started it, as long as it had not been killed.
    victims: [Option<Pid>; 2],
}

impl Line {
    /// The line of a call whose connections have come together.
    pub(super) fn new(control: &UnixStream, streams: Streams, service: &str, faults: &[Action]) -> Self {
        let client = getsockopt(control, PeerCredentials).ok().map(|peer| Pid::from_raw(peer.pid()));
        let kept = if service.starts_with("admin.vm.volume.Import") { KEPT_OF_IMPORT } else { KEPT };
        let victims =
            [Victim::Client, Victim::Caller].map(|victim| client.and_then(|client| process(client, victim)));
        let victim = |victim| victims[usize::from(victim == Victim::Caller)];
        Self {
            inward: Tap::new(kept, (Direction::In, false), faults, victim),
            outward: Tap::new(KEPT_OF_REPLY, (Direction::Out, service.starts_with("admin.")), faults, victim),
            control: control.try_clone().unwrap_or_else(|_| dead_stream()),
            streams,
            victims,
        }
    }

    /// What the caller sends.
    pub(super) fn inlet(&self) -> Inlet {
        let stream = self.streams.data.try_clone().unwrap_or_else(|_| dead_stream());
        Inlet { stream, tap: self.inward.clone() }
    }

    /// What the caller gets.
    pub(super) fn outlet(&self) -> Outlet {
        let stream = self.streams.data.try_clone().unwrap_or_else(|_| dead_stream());
        Outlet { stream, tap: self.outward.clone() }
    }

    /// Kills the processes that faults of one kind mean. Says whether there were any.
    pub(super) fn kill(&self, faults: &[Action], kind: impl Fn(&Action) -> bool) -> bool {
        let mut killed = false;
        for action in faults.iter().filter(|action| kind(action)) {
            if let Action::KillBefore(victim) | Action::KillAfter(victim) = action
                && let Some(pid) = self.victims[usize::from(*victim == Victim::Caller)]
            {
                // It may have ended by itself.
                let _ = kill(pid, Signal::SIGKILL);
                killed = true;
            }
        }
        killed
    }

    /// Whether the program that made the call has gone: it says nothing after its first frame until it closes.
    fn caller_has_gone(&self, patience: PollTimeout) -> bool {
        let mut polled = [PollFd::new(self.control.as_fd(), PollFlags::POLLIN)];
        poll(&mut polled, patience).is_ok_and(|ready| ready > 0)
    }

    /// Notes in the log what went over the line.
    fn note(&self, entry: &mut Entry) {
        entry.bytes_in = self.inward.count();
        entry.bytes_out = self.outward.count();
        entry.payload = to_text(&self.inward.beginning());
        if entry.to.as_deref() == Some("dom0") {
            entry.note_reply(&self.outward.beginning());
        }
    }
}

/// A connection whose other side has gone, for the case that the system has no more descriptors.
fn dead_stream() -> UnixStream {
    UnixStream::pair().map(|(one, _)| one).expect("a process that cannot open sockets cannot serve")
}

/// The process that a fault means.
pub(super) fn process(client: Pid, victim: Victim) -> Option<Pid> {
    if victim == Victim::Client {
        return Some(client);
    }
    let status = std::fs::read_to_string(format!("/proc/{client}/status")).ok()?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()?;
    (parent > 1).then(|| Pid::from_raw(parent))
}

/// Notes what faults do to a call.
pub(super) fn note_faults(entry: &mut Entry, faults: &[Action]) {
    if !faults.is_empty() {
        let words: Vec<String> =
            faults.iter().filter_map(|action| serde_json::to_string(action).ok()).collect();
        entry.fault = Some(words.join(" "));
    }
}
