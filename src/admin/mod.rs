//! The Admin API: questions to dom0 and requests for changes.
//!
//! [`AdminApi`] is the seam. Two things stand behind it: [`OverQrexec`] in a qube, where every call is one run of
//! `qrexec-client-vm` and policy decides, and [`OverSocket`] in dom0, where a call is one connection to qubesd and
//! nothing is ever denied. What both have in common lies in [`wire`]; what calls mean lies in [`system`] (the whole
//! machine) and [`qube`] (one qube with its features, properties and volumes).
//!
//! Two rules for everybody who calls:
//!
//! * A denied call shows a notification to the user of dom0. Call what the task needs, and probe nothing where
//!   [`AdminApi::may_probe`] says no.
//! * The reply's body is looked at before the transport's status: dom0's executables report a refusal in the body
//!   *and* by a status of 1.

mod error;
mod over_qrexec;
mod over_socket;
pub mod qube;
pub mod system;
pub mod wire;

#[cfg(test)]
pub mod fake;

use std::fmt;
use std::io::PipeWriter;

pub use error::{CallError, CallName};
pub use over_qrexec::OverQrexec;
pub use over_socket::OverSocket;
pub use qube::QubeApi;

pub use crate::qrexec::Pending;
use crate::qrexec::Side;

/// How a call ended.
pub type CallResult = Result<Vec<u8>, CallError>;

/// Somebody who can reach dom0's Admin API.
pub trait AdminApi {
    /// Calls `method` about `dest` and returns what dom0 answered, without framing.
    fn call<'a>(
        &'a self,
        dest: &'a str,
        method: &'a str,
        arg: Option<&'a str>,
        payload: &'a [u8],
    ) -> Pending<'a, CallResult>;

    /// Opens an import into `volume` of `qube`: the size line and the data go into the pipe, then the pipe is closed,
    /// and the reply tells whether dom0 committed. Closing early leaves the volume as it was.
    ///
    /// # Errors
    /// When the transport could not be started.
    fn import(&self, qube: &str, volume: &str) -> Result<Import, CallError>;

    /// Whether a call that turns out to be denied harms nobody. In a qube it would raise a notification in dom0.
    fn may_probe(&self) -> bool;
}

/// An import that is under way.
pub struct Import {
    /// Where the size line and the data go. Writing fails with a broken pipe when dom0 refused early.
    pub input: PipeWriter,
    /// What dom0 says in the end. Must be polled while data is written; dropping it kills the transport.
    pub reply: Pending<'static, CallResult>,
}

impl fmt::Debug for Import {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Import").field("input", &self.input).finish_non_exhaustive()
    }
}

/// The way to dom0 from here: its socket in dom0, qrexec anywhere else.
#[must_use]
pub fn connect() -> Box<dyn AdminApi> {
    match Side::here() {
        Side::Dom0 => Box::new(OverSocket::new()),
        Side::Qube => Box::new(OverQrexec),
    }
}

/// Runs `futures` with at most `limit` of them under way, and returns the results in their order.
pub async fn bounded<T>(limit: usize, futures: Vec<Pending<'_, T>>) -> Vec<T> {
    let mut results: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    let mut waiting = futures.into_iter().enumerate();
    let mut active: Vec<(usize, Pending<'_, T>)> = waiting.by_ref().take(limit.max(1)).collect();
    std::future::poll_fn(|context| {
        let mut place = 0;
        while place < active.len() {
            let (index, future) = &mut active[place];
            match future.as_mut().poll(context) {
                std::task::Poll::Pending => place += 1,
                std::task::Poll::Ready(result) => {
                    results[*index] = Some(result);
                    match waiting.next() {
                        Some(next) => active[place] = next,
                        None => drop(active.swap_remove(place)),
                    }
                }
            }
        }
        if active.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    results.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn bounded_keeps_order_and_limit() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (now, most) = (Cell::new(0), Cell::new(0));
        let futures = (0..20u64)
            .map(|number| {
                let (now, most) = (&now, &most);
                Box::pin(async move {
                    now.set(now.get() + 1);
                    most.set(most.get().max(now.get()));
                    tokio::time::sleep(std::time::Duration::from_millis((number * 7) % 5)).await;
                    now.set(now.get() - 1);
                    number
                }) as Pending<'_, u64>
            })
            .collect();
        assert_eq!(runtime.block_on(bounded(4, futures)), (0..20).collect::<Vec<_>>());
        assert_eq!(most.get(), 4);
        assert!(runtime.block_on(bounded::<u8>(4, Vec::new())).is_empty());
    }
}
