//! Calls that dom0 makes itself: at the Admin API's socket, by service files, and with `qrexec-client`.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::Pid;

use super::Server;
use super::call::{Line, note_faults, process};
use super::decision::Allowed;
use super::faults::Action;
use super::log::{Entry, Transport};
use crate::sandbox::qrexec::status;
use crate::sandbox::qrexec::wire::{Answer, Opening, send, to_text};
use crate::sandbox::qubesd::{Destination, Reply, Request, ServiceCall};
use crate::sandbox::state::Power;

impl Server {
    /// A request of dom0 to the Admin API that nobody else is to know of.
    pub(super) fn ask(&self, method: &str, dest: &str) -> Vec<u8> {
        let request = Request {
            source: "dom0".to_owned(),
            method: method.to_owned(),
            arg: String::new(),
            dest: Destination::Name(dest.to_owned()),
            payload: Vec::new(),
        };
        match self.qubesd.call(&request) {
            Reply::Body(body) => body,
            Reply::Events(_) => Vec::new(),
        }
    }

    /// Starts a qube that does not run.
    pub(super) fn start(&self, qube: &str) -> Result<()> {
        let facts = self.qubesd.facts();
        let known = facts.qubes.get(qube);
        ensure!(known.is_some(), "there is no qube {qube} in this sandbox");
        if qube == "dom0" || known.is_some_and(|qube| qube.state == Power::Running) {
            return Ok(());
        }
        let reply = self.ask("admin.vm.Start", qube);
        let why = String::from_utf8_lossy(&reply).replace('\0', " ");
        ensure!(reply.starts_with(b"0\0"), "starting {qube}: {}", why.trim());
        Ok(())
    }

    /// Makes sure that the target of a call runs.
    pub(super) fn reach(&self, allowed: &Allowed) -> bool {
        let running =
            self.qubesd.facts().qubes.get(&allowed.to).is_some_and(|qube| qube.state == Power::Running);
        if !running && !allowed.autostart {
            return false;
        }
        let reached = self.qubesd.start_for_call(&allowed.to);
        reached.map_err(|failure| eprintln!("{}: {}", allowed.to, failure.message())).is_ok()
    }

    /// Answers a request that came over dom0's socket.
    pub(super) fn answer_socket(&self, frame: &[u8], stream: &mut UnixStream) {
        let end = frame.iter().position(|byte| *byte == 0).unwrap_or(frame.len());
        let header = to_text(&frame[..end]);
        let words: Vec<&str> = header.split(' ').collect();
        let (method, source, target) = match words.as_slice() {
            [method, source, _, target] => (*method, *source, *target),
            _ => (header.as_str(), "dom0", ""),
        };
        let mut entry = Entry::new(Transport::Socket, source, target, method);
        let arg = entry.arg.clone().unwrap_or_default();
        let faults = self.faults.meet(source, target, &entry.service, &arg);
        note_faults(&mut entry, &faults);
        let client = getsockopt(stream, PeerCredentials).ok().map(|peer| Pid::from_raw(peer.pid()));
        let kill_for = |before: bool| {
            for action in &faults {
                if let (Action::KillBefore(victim), true) | (Action::KillAfter(victim), false) =
                    (action, before)
                    && let Some(pid) = client.and_then(|client| process(client, *victim))
                {
                    // It may have ended by itself.
                    let _ = kill(pid, Signal::SIGKILL);
                }
            }
        };
        kill_for(true);
        if faults.iter().any(|action| matches!(action, Action::KillBefore(_))) {
            return self.log.add(&entry);
        }
        entry.allowed = true;
        entry.to = Some("dom0".to_owned());
        entry.payload = to_text(frame.get(end + 1..).unwrap_or_default());
        entry.bytes_in = entry.payload.chars().count() as u64;
        let exception = faults.iter().find_map(|action| match action {
            Action::Exception { class, message } => Some(format!("2\0{class}\0\0{message}\0").into_bytes()),
            Action::Refuse | Action::Exit { .. } | Action::Cut { at: 0, .. } => Some(Vec::new()),
            _ => None,
        });
        let mut told = exception.map(Reply::Body).unwrap_or_else(|| self.qubesd.answer_bytes(frame));
        kill_for(false);
        if let Reply::Body(body) = &mut told {
            entry.note_reply(body);
            entry.bytes_out = body.len() as u64;
        }
        if let Reply::Body(body) = &told {
            // Whoever has the reply finds the call in the log.
            entry.exit = Some(0);
            self.log.add(&entry);
            // The caller may have gone.
            let _ = stream.write_all(body);
            return;
        }
        let Reply::Events(events) = told else { return };
        loop {
            match events.next(Duration::from_millis(200)) {
                Ok(Some(event)) => {
                    entry.bytes_out += event.len() as u64;
                    if stream.write_all(&event).is_err() {
                        break;
                    }
                }
                Ok(None) => {}
                Err(_) => break,
            }
        }
        self.log.add(&entry);
    }

    /// One of dom0's own programs connected.
    pub(super) fn called_by_dom0(self: &Arc<Self>, mut control: UnixStream, opening: Opening) {
        match opening {
            Opening::Script { token, service, arg, source, target, keyword } => {
                let target = if keyword { Destination::Keyword(target) } else { Destination::Name(target) };
                let call = ServiceCall { source, service, arg, target };
                self.dom0_line(&mut control, &token, Transport::Script, &call, &|line| {
                    let mut errors = &line.streams.errors;
                    Some(self.dom0_service(&call, line, &mut errors))
                });
            }
            Opening::Run { token, target, command, forget } => {
                self.run_for_dom0(&mut control, &token, &target, &command, forget);
            }
            _ => {}
        }
    }

    fn run_for_dom0(
        self: &Arc<Self>,
        control: &mut UnixStream,
        token: &str,
        target: &str,
        command: &str,
        forget: bool,
    ) {
        let (user, command) = command.split_once(':').unwrap_or(("DEFAULT", command));
        let words: Vec<&str> = command.split(' ').collect();
        let (service, arg, source) = match words.as_slice() {
            ["QUBESRPC", service, source, ..] => {
                let (service, arg) = service.split_once('+').unwrap_or((service, ""));
                (service, arg, *source)
            }
            _ => ("", "", "dom0"),
        };
        let call = ServiceCall {
            source: source.to_owned(),
            service: service.to_owned(),
            arg: arg.to_owned(),
            target: Destination::Name(target.to_owned()),
        };
        let user = Some(user.to_owned()).filter(|user| user != "DEFAULT");
        let running = self.qubesd.facts().qubes.get(target).is_some_and(|qube| qube.state == Power::Running);
        if target != "dom0" && !running {
            // The daemon of a qube that does not run has no socket.
            let _ = send(control, &Answer::Exit(1));
            return;
        }
        self.dom0_line(control, token, Transport::Dom0, &call, &|line| {
            if target == "dom0" {
                return Some(self.dom0_service(&call, line, &mut &line.streams.errors));
            }
            let allowed = Allowed {
                to: target.to_owned(),
                requested: target.to_owned(),
                service: service.to_owned(),
                arg: arg.to_owned(),
                user: user.clone(),
                autostart: false,
            };
            if forget {
                // Nobody waits; what it says is not wanted either.
                let _ = send(&mut &line.control, &Answer::Exit(0));
            }
            if service.is_empty() {
                self.command_in_qube(&allowed, command, line)
            } else {
                self.service_in_qube(source, &allowed, line)
            }
        });
    }

    /// Lets a program of dom0 have its streams, runs something on them, and writes it down.
    fn dom0_line(
        &self,
        control: &mut UnixStream,
        token: &str,
        transport: Transport,
        call: &ServiceCall,
        run: &dyn Fn(&Line) -> Option<i32>,
    ) {
        let target = match &call.target {
            Destination::Name(name) => name.clone(),
            Destination::Keyword(word) => format!("@{word}"),
        };
        let service = match call.service.as_str() {
            "" => "(command)".to_owned(),
            service => format!("{service}+{}", call.arg),
        };
        let mut entry = Entry::new(transport, &call.source, &target, &service);
        let faults = self.faults.meet(&call.source, &target, &call.service, &call.arg);
        note_faults(&mut entry, &faults);
        entry.allowed = true;
        entry.to = Some(if transport == Transport::Script { "dom0".to_owned() } else { target.clone() });
        if faults.contains(&Action::Refuse) {
            let _ = send(control, &Answer::Exit(status::REFUSED));
            self.log.add(&entry);
            return;
        }
        if send(control, &Answer::Go).is_err() {
            return;
        }
        let Some(streams) = self.agents.streams(token) else { return };
        let _open = self.open_calls.one(&call.service);
        let line = Line::new(control, streams, &call.service, &faults);
        if line.kill(&faults, |action| matches!(action, Action::KillBefore(_))) {
            return self.finish(entry, &line, None, &faults);
        }
        let done = self.instead(&line, &faults, &call.service, &call.arg, &target).or_else(|| run(&line));
        line.kill(&faults, |action| matches!(action, Action::KillAfter(_)));
        self.finish(entry, &line, done, &faults);
    }
}
