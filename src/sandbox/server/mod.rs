//! The process behind a sandbox: dom0's Admin API server, the qrexec daemon and the agents of all qubes.
//!
//! It lives as long as some [`lease`] on the sandbox does, so that nothing is left running after the last command.
//!
//! ```text
//! DIR/run/control.sock                         leases
//! DIR/run/lock                                 held while a server is started or ends
//! DIR/run/stage                                where views are built
//! DIR/run/server.log                           what the server says about itself
//! DIR/qubes/NAME/root/run/qubes/qrexec-agent   the agent of a qube
//! DIR/qubes/dom0/root/run/qubesd.sock          the Admin API in dom0
//! DIR/qubes/dom0/root/run/qubes/sandbox.sock   dom0's qrexec programs
//! DIR/log.jsonl                                every call, see [`log`]
//! DIR/faults.json                              faults on order, see [`faults`]
//! DIR/settings.json                            answers to questions, see [`settings`]
//! ```

mod agent;
mod call;
mod children;
pub mod decision;
mod dom0;
mod eyes;
pub mod faults;
pub mod lease;
pub mod log;
mod open_calls;
mod roots;
mod service;
pub mod settings;
mod sockets;
mod stream;

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::qubesd::Qubesd;
use super::state::Rule;
use super::view::View;
use agent::Agents;
use children::{Children, Ending, Spawner};
use eyes::Eyes;
use faults::Faults;
use log::Log;
use open_calls::OpenCalls;

/// The hidden command that runs the server.
pub const SERVE: &str = "step-serve";

/// Everything that the threads of the server share.
#[derive(Debug)]
pub struct Server {
    dir: PathBuf,
    qubesd: Qubesd,
    eyes: Arc<Eyes>,
    log: Log,
    faults: Faults,
    agents: Agents,
    children: Children,
    /// Calls of the population that policy refuses or the transport fails.
    refused: Vec<Rule>,
    failed: Vec<Rule>,
    leases: Mutex<usize>,
    open_calls: OpenCalls,
}

/// What a lease is for.
#[derive(Debug, Serialize, Deserialize)]
struct Wish {
    qube: String,
    uid: u32,
}

/// What the server grants: the view, or why not.
#[derive(Debug, Serialize, Deserialize)]
enum Grant {
    View(Box<View>),
    Refused(String),
}

/// Serves the sandbox in a directory until the last lease has ended.
pub fn serve(dir: &Path) -> Result<()> {
    let dir = dir.canonicalize().with_context(|| format!("finding {}", dir.display()))?;
    nix::sys::prctl::set_child_subreaper(true).context("adopting orphans")?;
    let (spawner, spawns) = Spawner::new();
    let qubesd = open(&dir)?;
    let system = qubesd.system();
    let eyes = Arc::new(Eyes::new(&dir, system.deny.clone()));
    qubesd.set_visibility(Arc::<Eyes>::clone(&eyes));
    let server = Arc::new(Server {
        log: Log::new(&dir),
        faults: Faults::new(&dir),
        agents: Agents::default(),
        children: Children::new(spawner.clone()),
        refused: system.deny,
        failed: system.fail,
        leases: Mutex::new(0),
        open_calls: OpenCalls::default(),
        dir: dir.clone(),
        qubesd,
        eyes,
    });
    let control = sockets::listen(&dir.join("run"), "control.sock")?;
    let mut out = std::io::stdout();
    writeln!(out, "ready").context("saying that the server is ready")?;
    let host = Arc::clone(&server);
    thread::spawn(move || {
        for stream in control.incoming().flatten() {
            let (host, spawner) = (Arc::clone(&host), spawner.clone());
            thread::spawn(move || {
                if let Some(ending) = host.lease(stream) {
                    spawner.stop(ending);
                }
            });
        }
    });
    // Children die with the thread that started them: this one, which lives as long as the process.
    let lock = spawns.run().and_then(|ending| ending.0);
    server.children.kill_all();
    server.open_calls.wait();
    server.children.end();
    std::fs::remove_file(dir.join("run/control.sock")).context("removing the server's socket")?;
    // Whoever waits for it goes on when this process has ended, and not before.
    std::mem::forget(lock);
    Ok(())
}

/// Takes the directory of a sandbox for this process. A server that is just ending may still hold it for a moment.
pub fn open(dir: &Path) -> Result<Qubesd> {
    let patience = Instant::now() + Duration::from_secs(2);
    loop {
        match Qubesd::open(dir) {
            Err(_) if Instant::now() < patience => thread::sleep(Duration::from_millis(5)),
            opened => return opened,
        }
    }
}

impl Server {
    /// Serves one lease to its end. The last one is the server's; its connection stays open until then.
    fn lease(self: &Arc<Self>, stream: UnixStream) -> Option<Ending> {
        *self.leases.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        if let Err(error) =
            (&stream).write_all(b"+").context("counting a lease").and_then(|()| self.grant(&stream))
        {
            eprintln!("lease: {error:#}");
        }
        let lock = lease::lock(&self.dir);
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        *leases -= 1;
        if *leases > 0 {
            return None;
        }
        // The kernel closes it when the process has ended.
        std::mem::forget(stream);
        Some(Ending(lock.map_err(|error| eprintln!("ending: {error:#}")).ok()))
    }

    fn grant(self: &Arc<Self>, stream: &UnixStream) -> Result<()> {
        let mut lines = BufReader::new(stream);
        let mut line = String::new();
        lines.read_line(&mut line).context("reading a wish")?;
        let wish: Wish = serde_json::from_str(&line).context("understanding a wish")?;
        let grant = match self.view(&wish) {
            Ok(view) => Grant::View(Box::new(view)),
            Err(error) => Grant::Refused(format!("{error:#}")),
        };
        let mut text = serde_json::to_vec(&grant).context("writing a grant")?;
        text.push(b'\n');
        let mut to = stream;
        to.write_all(&text).context("granting a lease")?;
        // The other side keeps it open as long as its command runs.
        std::io::copy(&mut lines, &mut std::io::sink()).context("waiting for the end of a lease")?;
        Ok(())
    }

    fn view(self: &Arc<Self>, wish: &Wish) -> Result<View> {
        self.start(&wish.qube)?;
        self.agents.open(self, &wish.qube)?;
        roots::view(&self.dir, &wish.qube, wish.uid)
    }
}

/// Streams that wait for the call they belong to, by its token.
type Waiting = HashMap<String, (Option<UnixStream>, Option<UnixStream>)>;
