//! Waiting for a command, with signals passed on to it.

use std::process::Child;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Signals that are passed on.
const PASSED_ON: [Signal; 7] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGCONT,
];

/// Set by the kernel for a signal that came from a terminal, which every process in front of it gets by itself.
const FROM_KERNEL: i32 = 0x80;

/// Signals of this process, held back for [`Supervisor::wait`]. To be made before the child.
#[derive(Debug)]
pub(super) struct Supervisor(SignalFd);

impl Supervisor {
    pub(super) fn new() -> Result<Self> {
        let mut signals: SigSet = PASSED_ON.into_iter().collect();
        signals.add(Signal::SIGCHLD);
        signals.thread_block().context("holding signals back")?;
        Ok(Self(SignalFd::new(&signals).context("holding signals back")?))
    }

    /// Waits until the child ends, and for every other child on the way. A child that a signal ended counts as 128 and
    /// the signal's number.
    pub(super) fn wait(&self, child: &Child) -> Result<u8> {
        let child = Pid::from_raw(i32::try_from(child.id()).context("reading the number of a process")?);
        loop {
            loop {
                match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                    Ok(WaitStatus::Exited(pid, status)) if pid == child => return Ok(status.to_le_bytes()[0]),
                    Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => {
                        return Ok(128 + (signal as i32).to_le_bytes()[0]);
                    }
                    Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => break,
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(errno) => return Err(errno).context("waiting for a command"),
                }
            }
            let Ok(Some(signal)) = self.0.read_signal() else { continue };
            let number = i32::try_from(signal.ssi_signo).unwrap_or(0);
            if let Ok(number) = Signal::try_from(number)
                && number != Signal::SIGCHLD
                && signal.ssi_code != FROM_KERNEL
            {
                // It may have ended by itself in between.
                let _ = kill(child, number);
            }
        }
    }
}
