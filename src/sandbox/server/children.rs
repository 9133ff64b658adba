//! Processes that the server started: services in qubes.
//!
//! A process can ask the kernel to die with the thread that started it. So that this means the server and not some
//! thread of it, all are started by its main thread.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::fcntl::Flock;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

/// What the main thread is asked to do.
enum Task {
    Spawn(Box<Command>, Sender<io::Result<Child>>),
    Stop(Ending),
}

/// The end of the server, with the lock that it keeps until then; none where it could not be had, as when somebody removed
/// the sandbox's directory.
#[derive(Debug)]
pub(super) struct Ending(pub(super) Option<Flock<File>>);

/// Asks the main thread.
#[derive(Clone, Debug)]
pub(super) struct Spawner(Sender<Task>);

/// The main thread's side.
pub(super) struct Spawns(Receiver<Task>);

impl Spawner {
    pub(super) fn new() -> (Self, Spawns) {
        let (to, from) = channel();
        (Self(to), Spawns(from))
    }

    /// Ends the server.
    pub(super) fn stop(&self, ending: Ending) {
        // When nobody listens it is ending already.
        let _ = self.0.send(Task::Stop(ending));
    }

    fn spawn(&self, command: Command) -> io::Result<Child> {
        let (to, from) = channel();
        let gone = |_| io::Error::other("the server is ending");
        self.0.send(Task::Spawn(Box::new(command), to)).map_err(|_| gone(()))?;
        from.recv().map_err(|_| gone(()))?
    }
}

impl Spawns {
    /// Starts what is asked for until it is time to end.
    pub(super) fn run(self) -> Option<Ending> {
        for task in self.0 {
            match task {
                Task::Spawn(mut command, to) => {
                    // A caller that has gone leaves the child to die of its closed pipes.
                    let _ = to.send(command.spawn());
                }
                Task::Stop(ending) => return Some(ending),
            }
        }
        None
    }
}

/// All of them that run.
#[derive(Debug)]
pub(super) struct Children {
    spawner: Spawner,
    running: Mutex<HashSet<u32>>,
}

impl Children {
    pub(super) fn new(spawner: Spawner) -> Self {
        Self { spawner, running: Mutex::default() }
    }

    /// Starts one.
    pub(super) fn start(&self, command: Command) -> io::Result<Child> {
        let child = self.spawner.spawn(command)?;
        self.running().insert(child.id());
        Ok(child)
    }

    /// Waits for one.
    pub(super) fn wait(&self, child: &mut Child) -> io::Result<std::process::ExitStatus> {
        use nix::sys::wait::{Id, WaitPidFlag, waitid};
        // Not reaped yet, so that its number is still its own when it is taken off the list.
        while waitid(Id::Pid(pid(child.id())), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)
            == Err(nix::errno::Errno::EINTR)
        {}
        let mut running = self.running();
        running.remove(&child.id());
        child.wait()
    }

    /// Kills all.
    pub(super) fn kill_all(&self) {
        for number in self.running().iter() {
            // It may have ended by itself in between; its number is kept for it.
            let _ = kill(pid(*number), Signal::SIGKILL);
        }
    }

    /// Waits for all that were killed and for what they leave behind.
    pub(super) fn end(&self) {
        self.kill_all();
        while waitpid(None, None).is_ok() {}
    }

    fn running(&self) -> MutexGuard<'_, HashSet<u32>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(i32::try_from(number).unwrap_or(i32::MAX))
}
