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
//! (start, shutdown) does not keep the others out, nor does an import.
//!
//! # Replies
//!
//! `0 NUL` and data; `2 NUL CLASS NUL NUL MESSAGE NUL` for exceptions that a client is told of; nothing at all for
//! those it is not, and for requests that cannot be understood or are longer than [`MAX_REQUEST`].

mod call;
mod create;
mod dispatch;
mod dom0;
mod events;
mod exception;
mod facts;
mod feature_request;
mod features;
mod import;
mod life;
mod name;
mod number;
mod pools;
mod properties;
mod qubes;
mod request;
mod socket;
mod state;
mod storage;
mod tags;
#[cfg(test)]
mod tests;
mod volumes;

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use super::guest::Guest;
use super::state::System;
use super::store::Store;

pub use dom0::{ServiceCall, has_service};
pub use events::{EventStream, Events, Gone};
pub use exception::{Exception, Failure};
pub use facts::{Facts, QubeFacts};
pub use request::{Destination, MAX_REQUEST, Reply, Request};
pub use storage::Content;

use state::State;

/// Says what the qrexec policy lets a caller see.
///
/// The server filters `admin.vm.List` and `admin.Events` by it. It is asked with a picture of the system, and must not
/// call the server.
pub trait Visibility: Send + Sync + std::fmt::Debug {
    /// Whether policy allows, without asking anybody, that `source` calls `service` with `arg` about `target`. The
    /// target may have gone from the picture already: then it is what qrexec calls `@default`.
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

/// The server. Clones serve the same system.
#[derive(Clone, Debug)]
pub struct Qubesd {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    state: Mutex<State>,
    /// Told whenever a qube's state changes.
    changed: Condvar,
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
        Ok(Self::over(store, system))
    }

    fn over(store: Store, system: System) -> Self {
        let state = Mutex::new(State::new(system, store.dir()));
        Self { shared: Arc::new(Shared { store, state, changed: Condvar::new() }) }
    }

    /// From now on callers see what this policy lets them see.
    pub fn set_visibility(&self, visibility: Arc<dyn Visibility>) {
        self.lock().visibility = visibility;
    }

    /// A picture of the system for policy.
    #[must_use]
    pub fn facts(&self) -> Facts {
        Facts::of(&self.lock().system)
    }

    /// The system as it is now.
    #[must_use]
    pub fn system(&self) -> System {
        self.lock().system.clone()
    }

    /// Changes the system from outside, as an administrator in dom0 does, and saves it.
    ///
    /// # Errors
    /// When it cannot be saved.
    pub fn change<T>(&self, change: impl FnOnce(&mut System) -> T) -> anyhow::Result<T> {
        let mut state = self.lock();
        let outcome = change(state.system_mut());
        self.save(&mut state)?;
        Ok(outcome)
    }

    /// The directory it serves.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.shared.store.dir()
    }

    /// How the system that a qube boots behaves. None for qubes that boot nothing.
    #[must_use]
    pub fn guest(&self, qube: &str) -> Option<Guest> {
        self.lock().guest(qube)
    }

    /// What a volume holds now.
    #[must_use]
    pub fn content(&self, qube: &str, volume: &str) -> Option<Content> {
        self.lock().content(qube, volume)
    }

    /// Answers one request.
    pub fn call(&self, request: &Request) -> Reply {
        if request.size() > MAX_REQUEST {
            return Failure::Untold.reply();
        }
        self.answer(request)
    }

    /// Answers a request of whatever size.
    fn answer(&self, request: &Request) -> Reply {
        if matches!(&request.dest, Destination::Keyword(word) if word != "adminvm") {
            return Failure::Untold.reply();
        }
        dispatch::answer(self, request).unwrap_or_else(|failure| failure.reply())
    }

    /// The state, for this thread alone. A thread that panicked left it as whole as any other: changes are made
    /// field by field and checked first.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Saves the state where something changed.
    fn save(&self, state: &mut State) -> anyhow::Result<()> {
        if std::mem::take(&mut state.modified) {
            self.shared.store.save(&state.system)?;
        }
        Ok(())
    }

    /// A way to the server that does not keep it.
    fn weak(&self) -> Weak<Shared> {
        Arc::downgrade(&self.shared)
    }
}

/// What a property of a system is while nobody has set it; none where it has no default, or none as its default.
#[must_use]
pub fn default_of_system(system: &System, property: &str) -> Option<String> {
    properties::default_of_system(system, property)
}
