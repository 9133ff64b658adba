//! The agents of the qubes: sockets at which their programs call others.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::super::qrexec::wire::{Opening, receive};
use super::{Server, Waiting, roots, sockets};

/// All agents.
#[derive(Debug, Default)]
pub(super) struct Agents {
    /// Qubes whose agents listen.
    listening: Mutex<BTreeMap<String, ()>>,
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

/// Both connections of a call that carry data.
#[derive(Debug)]
pub(super) struct Streams {
    pub(super) data: UnixStream,
    pub(super) errors: UnixStream,
}

/// How long the second and third connection of a call may take.
const PATIENCE: Duration = Duration::from_secs(30);

impl Agents {
    /// Lets the agent of a qube listen.
    pub(super) fn open(&self, server: &Arc<Server>, qube: &str) -> Result<()> {
        let mut listening = self.listening.lock().unwrap_or_else(PoisonError::into_inner);
        let run = roots::files(&server.dir, qube).join("run");
        let name = if qube == "dom0" { "qubes/sandbox.sock" } else { "qubes/qrexec-agent" };
        // A qube that was removed and made again has lost its socket.
        if listening.contains_key(qube) && run.join(name).exists() {
            return Ok(());
        }
        let (directory, name) = name.split_once('/').unwrap_or(("", name));
        accept(server, qube, sockets::listen(&run.join(directory), name)?, Server::program_called);
        if qube == "dom0" {
            accept(server, qube, sockets::listen(&run, "qubesd.sock")?, Server::socket_called);
        }
        listening.insert(qube.to_owned(), ());
        Ok(())
    }

    fn deliver(&self, token: String, stream: UnixStream, is_data: bool) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = waiting.entry(token).or_default();
        if is_data {
            entry.0 = Some(stream);
        } else {
            entry.1 = Some(stream);
        }
        self.arrived.notify_all();
    }

    /// Waits for both connections of a call. None when its program has gone.
    pub(super) fn streams(&self, token: &str) -> Option<Streams> {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let incomplete = |waiting: &mut Waiting| {
            !waiting.get(token).is_some_and(|(data, errors)| data.is_some() && errors.is_some())
        };
        let (mut waiting, _) = self
            .arrived
            .wait_timeout_while(waiting, PATIENCE, incomplete)
            .unwrap_or_else(PoisonError::into_inner);
        match waiting.remove(token)? {
            (Some(data), Some(errors)) => Some(Streams { data, errors }),
            _ => None,
        }
    }
}

fn accept(
    server: &Arc<Server>,
    qube: &str,
    listener: UnixListener,
    serve: fn(&Arc<Server>, &str, UnixStream),
) {
    let (server, qube) = (Arc::clone(server), qube.to_owned());
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (server, qube) = (Arc::clone(&server), qube.clone());
            thread::spawn(move || serve(&server, &qube, stream));
        }
    });
}

impl Server {
    /// A program in a qube connected to its agent.
    fn program_called(self: &Arc<Self>, qube: &str, mut stream: UnixStream) {
        let Ok(opening) = receive(&mut stream) else { return };
        match opening {
            Opening::Data { token } => self.agents.deliver(token, stream, true),
            Opening::Errors { token } => self.agents.deliver(token, stream, false),
            Opening::Call { token, target, service, source } => {
                self.call(qube, stream, &token, (&target, &service, source.as_deref()));
            }
            opening if qube == "dom0" => self.called_by_dom0(stream, opening),
            _ => {}
        }
    }

    /// A program in dom0 connected to the Admin API's socket.
    fn socket_called(self: &Arc<Self>, _qube: &str, mut stream: UnixStream) {
        let mut request = Vec::new();
        let limit = super::super::qubesd::MAX_REQUEST as u64 + 1;
        if (&mut stream).take(limit).read_to_end(&mut request).is_err() {
            return;
        }
        self.answer_socket(&request, &mut stream);
        // The caller may have gone.
        let _ = stream.flush();
        let _ = stream.shutdown(Shutdown::Both);
    }
}
