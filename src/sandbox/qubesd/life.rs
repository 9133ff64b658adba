//! Starting and stopping qubes.
//!
//! A start waits, without keeping others out, until the guest's agent answers where the feature `qrexec` says that
//! there is one; a shutdown with `wait` until the qube is off. What the guest does comes from its volume, see
//! [`crate::sandbox::guest`].
//!
//! The real server has a fault that is kept here: after one wait for a shutdown timed out, every later wait for that
//! qube fails at once without a reply, although what was asked for happens.

use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::call::{Answer, Call, python_bool};
use super::exception::python_repr;
use super::state::State;
use super::{Failure, Qubesd, properties, qubes, storage, volumes};
use crate::sandbox::state::{Class, Power};

/// `admin.vm.Start`.
pub(super) fn start_call(server: &Qubesd, call: &Call) -> Answer {
    server.start(&call.dest)?;
    Ok(Vec::new())
}

/// `admin.vm.Shutdown`.
pub(super) fn shutdown_call(server: &Qubesd, call: &Call) -> Answer {
    let words: Vec<&str> = if call.arg.is_empty() { Vec::new() } else { call.arg.split('+').collect() };
    if !words.iter().all(|word| matches!(*word, "force" | "wait")) {
        return Err(Failure::protocol("Argument must match: force, wait"));
    }
    server.shutdown(&call.dest, words.contains(&"force"), words.contains(&"wait"))?;
    Ok(Vec::new())
}

/// `admin.vm.Kill`.
pub(super) fn kill_call(server: &Qubesd, call: &Call) -> Answer {
    let mut state = server.lock();
    let qube = state.qube(&call.dest)?;
    if qube.class == Class::AdminVM {
        return Err(Failure::new("QubesVMError", "Cannot kill Dom0 fake domain!"));
    }
    if qube.state.is_halted() {
        return Err(Failure::not_started(&call.dest));
    }
    let broken = state.broken_waiters.contains(&qube.uuid);
    server.stop(&mut state, &call.dest)?;
    if broken { Err(Failure::Untold) } else { Ok(Vec::new()) }
}

/// `admin.vm.Pause`.
pub(super) fn pause(state: &mut State, call: &Call) -> Answer {
    let qube = state.qube(&call.dest)?;
    if qube.class == Class::AdminVM {
        return Err(Failure::Untold);
    }
    if !matches!(qube.state, Power::Running | Power::Transient) {
        return Err(Failure::not_running(&call.dest));
    }
    state.tell(&call.dest, "domain-pre-paused", &[]);
    state.qube_mut(&call.dest)?.state = Power::Paused;
    state.tell(&call.dest, "domain-paused", &[]);
    Ok(Vec::new())
}

/// `admin.vm.Unpause`.
pub(super) fn unpause(state: &mut State, call: &Call) -> Answer {
    let qube = state.qube(&call.dest)?;
    if qube.class == Class::AdminVM {
        return Err(Failure::Untold);
    }
    if qube.state != Power::Paused {
        let text = format_args!("Domain is not paused: {}", python_repr(&call.dest));
        return Err(Failure::new("QubesVMNotPausedError", text));
    }
    state.tell(&call.dest, "domain-pre-unpaused", &[]);
    state.qube_mut(&call.dest)?.state = Power::Running;
    state.tell(&call.dest, "domain-unpaused", &[]);
    Ok(Vec::new())
}

/// `admin.vm.Suspend`.
pub(super) fn suspend(state: &mut State, call: &Call) -> Answer {
    let qube = state.qube(&call.dest)?;
    if qube.class == Class::AdminVM {
        return Err(Failure::new("QubesVMError", "Cannot suspend Dom0 fake domain!"));
    }
    if qube.state.is_halted() {
        return Err(Failure::not_running(&call.dest));
    }
    state.qube_mut(&call.dest)?.state = Power::Suspended;
    Ok(Vec::new())
}

/// `admin.vm.Resume`.
pub(super) fn resume(state: &mut State, call: &Call) -> Answer {
    let qube = state.qube(&call.dest)?;
    if qube.class == Class::AdminVM {
        return Err(Failure::Untold);
    }
    if qube.state != Power::Suspended {
        return unpause(state, call);
    }
    state.qube_mut(&call.dest)?.state = Power::Running;
    state.tell(&call.dest, "domain-resumed", &[]);
    Ok(Vec::new())
}

impl Qubesd {
    /// Starts a qube and waits until it is up, its network first. Does nothing for one that is not off.
    ///
    /// # Errors
    /// As `admin.vm.Start` tells them.
    pub fn start(&self, name: &str) -> Result<(), Failure> {
        let mut state = self.lock();
        while state.starting.contains(name) {
            state = self.wait(state, None);
        }
        let qube = state.qube(name)?;
        if qube.class == Class::AdminVM {
            return Err(Failure::new("QubesVMNotHaltedError", "Cannot start Dom0 fake domain!"));
        }
        if qube.state != Power::Halted {
            return Ok(());
        }
        if let Some(reason) = qube.features.get("prohibit-start").filter(|reason| !reason.is_empty()) {
            let text = format!("Qube start is prohibited. Rationale: {reason}");
            state.tell(name, "domain-start-failed", &[("reason", &text)]);
            return Err(Failure::new("QubesException", text));
        }
        state.starting.insert(name.to_owned());
        state.tell(name, "domain-pre-start", &[("start_guid", "True"), ("mem_required", "None")]);
        drop(state);
        let outcome = self.boot(name);
        let mut state = self.lock();
        state.starting.remove(name);
        if let Err(failure) = &outcome {
            state.tell(name, "domain-start-failed", &[("reason", failure.message())]);
            if state.system.qubes.get(name).is_some_and(|qube| !qube.state.is_halted()) {
                self.stop(&mut state, name)?;
            }
        }
        let saved = self.save(&mut state).map_err(|_| Failure::Untold);
        self.shared.changed.notify_all();
        outcome.and(saved)
    }

    fn boot(&self, name: &str) -> Result<(), Failure> {
        let netvm = {
            let mut state = self.lock();
            state.tell(name, "domain-verify-files", &[]);
            properties::value_of_qube(&state.system, name, "netvm")
        };
        if let Some(netvm) = netvm.filter(|netvm| netvm != "dom0") {
            self.start(&netvm)?;
        }
        let mut state = self.lock();
        request_memory(&state, name)?;
        for volume in state.qube(name)?.volumes.clone() {
            let commits = volume.snap_on_start.then(|| source_commits(&state, name, &volume.name));
            volumes::changed(&mut state, name, &volume.name, |dir, pool, volume| {
                volume.commits = commits.flatten().unwrap_or(volume.commits);
                storage::start(dir, pool, volume)
            })?;
        }
        state.tell(name, "domain-pre-spawn", &[("start_guid", "True")]);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or(0);
        let system = state.system_mut();
        let xid = system.next_xid.max(1);
        system.next_xid = xid + 1;
        let qube = state.qube_mut(name)?;
        qube.state = Power::Transient;
        (qube.xid, qube.started) = (Some(xid), Some(now));
        tell_numbers_changed(&mut state, name);
        state.tell(name, "domain-spawn", &[("start_guid", "True")]);
        for event in ["domain-qdb-create", "domain-pre-unpaused", "domain-unpaused"] {
            state.tell(name, event, &[]);
        }
        self.wait_for_agent(state, name, xid)?;
        let mut state = self.lock();
        if state.qube(name)?.xid == Some(xid) {
            state.qube_mut(name)?.state = Power::Running;
        }
        state.tell(name, "domain-start", &[("start_guid", "True")]);
        Ok(())
    }

    /// Waits for a new domain's agent where it is said to have one.
    fn wait_for_agent<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        name: &str,
        xid: u32,
    ) -> Result<(), Failure> {
        let guest = state.guest(name).unwrap_or_default();
        let booted = Instant::now();
        let promised = state.feature_with_template(name, "qrexec").is_some_and(|value| !value.is_empty());
        let answers = guest.agent.map(|delay| booted + if promised { delay } else { delay.max(UNPROMISED) });
        if let Some(answers) = answers {
            state.agents.insert(name.to_owned(), answers);
        }
        if let Some(after) = guest.crash {
            self.crash_later(name, xid, after);
        }
        if !promised {
            return Ok(());
        }
        let patience: u64 = number(&state, name, "qrexec_timeout");
        let deadline = booted + Duration::from_secs(patience);
        loop {
            if state.qube(name)?.xid != Some(xid) {
                return Err(Failure::new("QubesVMError", "Domain was killed while it started"));
            }
            let now = Instant::now();
            if answers.is_some_and(|answers| answers <= now && answers <= deadline) {
                return Ok(());
            }
            if now >= deadline {
                return Err(Failure::new(
                    "QubesVMError",
                    format_args!(
                        "Cannot connect to qrexec agent for {patience} seconds, \
                         see /var/log/xen/console/guest-{name}.log for details"
                    ),
                ));
            }
            let until = answers.map_or(deadline, |answers| answers.min(deadline));
            state = self.wait(state, Some(until - now));
        }
    }

    /// Makes a qube ready for a service call: starts it. Nobody waits for an agent that the feature `qrexec` does not
    /// promise: until it answers, calls are refused.
    ///
    /// # Errors
    /// When it cannot be started, or its agent does not answer.
    pub fn start_for_call(&self, name: &str) -> Result<(), Failure> {
        self.start(name)?;
        let state = self.lock();
        let qube = state.qube(name)?;
        let answers = match state.agents.get(name) {
            Some(since) => *since <= Instant::now(),
            // Not started by this server: its agent has had all the time that it wanted.
            None => {
                qube.class == Class::AdminVM || state.guest(name).is_none_or(|guest| guest.agent.is_some())
            }
        };
        if answers { Ok(()) } else { Err(Failure::Untold) }
    }

    /// Asks a qube to shut down, and waits for it where that is wanted.
    fn shutdown(&self, name: &str, force: bool, wait: bool) -> Result<(), Failure> {
        let mut state = self.lock();
        let qube = state.qube(name)?;
        if qube.class == Class::AdminVM {
            return Err(Failure::Untold);
        }
        if qube.state.is_halted() {
            return Err(Failure::not_started(name));
        }
        let (paused, uuid) = (qube.state == Power::Paused, qube.uuid.clone());
        state.tell(name, "domain-pre-shutdown", &[("force", &python_bool(force))]);
        if paused && !force {
            let failure = Failure::not_running(name);
            state.tell(name, "domain-shutdown-failed", &[("reason", failure.message())]);
            return Err(failure);
        }
        if paused || !state.guest(name).is_some_and(|guest| guest.ignores_shutdown) {
            self.stop(&mut state, name)?;
        }
        if !wait {
            return Ok(());
        }
        if state.broken_waiters.contains(&uuid) {
            return Err(Failure::Untold);
        }
        let deadline = Instant::now() + Duration::from_secs(number(&state, name, "shutdown_timeout"));
        while state.system.qubes.get(name).is_some_and(|qube| !qube.state.is_halted()) {
            let now = Instant::now();
            if now >= deadline {
                let text = format!("Domain shutdown timed out: {}", python_repr(name));
                state.tell(name, "domain-shutdown-failed", &[("reason", &text)]);
                state.broken_waiters.insert(uuid);
                return Err(Failure::new("QubesVMShutdownTimeoutError", text));
            }
            state = self.wait(state, Some(deadline - now));
        }
        Ok(())
    }

    /// Takes a qube down at once.
    fn stop(&self, state: &mut State, name: &str) -> Result<(), Failure> {
        let qube = state.qube_mut(name)?;
        (qube.state, qube.xid, qube.started) = (Power::Halted, None, None);
        let volumes = qube.volumes.clone();
        let gone = qube.class == Class::DispVM && qube.flag("auto_cleanup");
        state.agents.remove(name);
        state.tell(name, "domain-stopped", &[]);
        for volume in volumes {
            volumes::changed(state, name, &volume.name, |dir, pool, volume| {
                storage::stop(dir, pool, volume);
                Ok(())
            })?;
        }
        tell_numbers_changed(state, name);
        state.tell(name, "domain-shutdown", &[]);
        if gone {
            qubes::forget(state, name);
        }
        self.shared.changed.notify_all();
        self.save(state).map_err(|_| Failure::Untold)
    }

    /// Lets a domain end by itself after a while, if it is still the same one then and the server still there.
    fn crash_later(&self, name: &str, xid: u32, after: Duration) {
        let (server, name) = (self.weak(), name.to_owned());
        std::thread::spawn(move || {
            std::thread::sleep(after);
            if let Some(shared) = server.upgrade() {
                let server = Self { shared };
                let mut state = server.lock();
                if state.system.qubes.get(&name).is_some_and(|qube| qube.xid == Some(xid)) {
                    // Nobody waits for an answer.
                    let _ = server.stop(&mut state, &name);
                }
            }
        });
    }

    /// Lets others in until something changes, or for this long.
    fn wait<'a>(&'a self, state: MutexGuard<'a, State>, patience: Option<Duration>) -> MutexGuard<'a, State> {
        match patience {
            Some(patience) => {
                let woken = self.shared.changed.wait_timeout(state, patience);
                woken.unwrap_or_else(PoisonError::into_inner).0
            }
            None => self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
        }
    }
}

/// How long the fastest guest takes to bring its agent up. Nobody sees it where the start waits for that.
const UNPROMISED: Duration = Duration::from_secs(1);

fn tell_numbers_changed(state: &mut State, name: &str) {
    for property in ["xid", "stubdom_xid", "start_time"] {
        state.tell(name, &format!("property-reset:{property}"), &[("name", property)]);
    }
}

fn number(state: &State, name: &str, property: &str) -> u64 {
    let value = properties::value_of_qube(&state.system, name, property);
    value.and_then(|value| value.parse().ok()).unwrap_or(60)
}

fn source_commits(state: &State, name: &str, volume: &str) -> Option<u64> {
    let template = state.system.qubes.get(name)?.property("template")?;
    Some(state.system.qubes.get(template)?.volume(volume)?.commits)
}

/// Whether there is memory left for one more qube.
fn request_memory(state: &State, name: &str) -> Result<(), Failure> {
    let Some(most) = state.system.memory else { return Ok(()) };
    let needs = |qube: &str| number(state, qube, "memory");
    let running =
        state.system.qubes.iter().filter(|(_, qube)| qube.class.has_volumes() && !qube.state.is_halted());
    let taken: u64 = running.map(|(qube, _)| needs(qube)).sum();
    if taken + needs(name) > most {
        let text = format_args!("Not enough memory to start domain {}", python_repr(name));
        return Err(Failure::new("QubesMemoryError", text));
    }
    Ok(())
}
