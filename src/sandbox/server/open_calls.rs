//! Calls that have not ended, so that the server can write the last ones down before it ends.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// How many there are.
#[derive(Debug, Default)]
pub(super) struct OpenCalls {
    count: Mutex<usize>,
    ended: Condvar,
}

/// One of them, as long as it lives.
#[derive(Debug)]
pub(super) struct OpenCall<'a>(&'a OpenCalls);

/// How long the last ones may take to end when their callers and their services have gone.
const PATIENCE: Duration = Duration::from_secs(2);

impl OpenCalls {
    /// A call that begins. One that waits for events has no end of its own, and is not waited for.
    pub(super) fn one(&self, service: &str) -> Option<OpenCall<'_>> {
        if service == "admin.Events" {
            return None;
        }
        *self.count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Some(OpenCall(self))
    }

    /// Waits until all have ended.
    pub(super) fn wait(&self) {
        let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        // What takes longer is not written down.
        let _ = self.ended.wait_timeout_while(count, PATIENCE, |count| *count > 0);
    }
}

impl Drop for OpenCall<'_> {
    fn drop(&mut self) {
        *self.0.count.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.ended.notify_all();
    }
}
