//! The emulated Admin API server.
//!
//! [`Qubesd`] holds a [`System`] and answers one request at a time from it, byte for byte as dom0's server does:
//!
//! * [`Qubesd::call`] is one request that came through qrexec or dom0's socket;
//! * [`Qubesd::service`] runs a service file of dom0, as the qrexec daemon does after policy allowed the call: most
//!   are symbolic links to the socket, the imports are programs with an exit status of their own;
//! * [`Qubesd::serve_socket`] is dom0's socket.
//!
//! Everything blocks; a caller that waits for several at a time gives each a thread. A call that waits for a guest
//! (start, shutdown) does not keep the others out.
//!
//! # Replies
//!
//! `0 NUL` and data; `2 NUL CLASS NUL NUL MESSAGE NUL` for exceptions that a client is told of; nothing at all for
//! those it is not, and for requests that cannot be understood or are longer than [`MAX_REQUEST`].

mod call;
mod dispatch;
mod dom0;
mod events;
mod exception;
mod facts;
mod request;
mod socket;

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::state::System;
use super::store::Store;

pub use dom0::{SERVICES, ServiceCall};
pub use events::{EventStream, Events};
pub use exception::{Exception, Failure};
pub use facts::{Facts, QubeFacts};
pub use request::{Destination, MAX_REQUEST, Reply, Request};

/// Says what the qrexec policy lets a caller see.
///
/// The server filters `admin.vm.List` and `admin.Events` by it. It is asked with a picture of the system, and must not
/// call the server.
pub trait Visibility: Send + Sync + std::fmt::Debug {
    /// Whether policy allows, without asking anybody, that `source` calls `service` with `arg` about `target`.
    fn allows(&self, facts: &Facts, source: &str, service: &str, arg: &str, target: &str) -> bool;
}

/// Lets everybody see everything, as dom0 does.
#[derive(Clone, Copy, Debug)]
pub struct SeeAll;

impl Visibility for SeeAll {
    fn allows(&self, _: &Facts, _: &str, _: &str, _: &str, _: &str) -> bool {
        true
    }
}

/// The server.
#[derive(Debug)]
pub struct Qubesd {
    store: Store,
    state: Mutex<State>,
    /// Told whenever a qube's state changes.
    changed: Condvar,
}

/// What one request at a time may read and change.
#[derive(Debug)]
struct State {
    system: System,
    visibility: Arc<dyn Visibility>,
    events: Events,
}

impl Qubesd {
    /// Serves the sandbox in a directory.
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        let (store, system) = Store::open(dir)?;
        Ok(Self::over(store, system))
    }

    /// Puts a system into a new directory and serves it.
    pub fn create(dir: &Path, system: System) -> anyhow::Result<Self> {
        let store = Store::create(dir, &system)?;
        let server = Self::over(store, system);
        Ok(server)
    }

    fn over(store: Store, system: System) -> Self {
        let state = State { system, visibility: Arc::new(SeeAll), events: Events::default() };
        Self { store, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// From now on callers see what this policy lets them see.
    pub fn set_visibility(&self, visibility: Arc<dyn Visibility>) {
        self.state().visibility = visibility;
    }

    /// A picture of the system for policy.
    #[must_use]
    pub fn facts(&self) -> Facts {
        Facts::of(&self.state().system)
    }

    /// The system as it is now.
    #[must_use]
    pub fn system(&self) -> System {
        self.state().system.clone()
    }

    /// The directory it serves.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.store.dir()
    }

    /// The state, for this thread alone. A thread that panicked left it as whole as any other: changes are made
    /// field by field and checked first.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
