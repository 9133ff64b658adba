//! Calls that make the work better and that it can do without.
//!
//! A denied call shows the user a notification, so none is made again and again: which ones this system denies is
//! remembered in the state directory and said once; they are tried again after [`AGAIN`], when the policy may have become
//! another one.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::admin::CallError;
use crate::report::{Message, Reporter};
use crate::state::{Directory, seconds};

/// Where it is remembered.
const FILE: &str = "denied.json";
/// How long a denied call is not made.
const AGAIN: Duration = Duration::from_secs(24 * 3600);

/// What is known about calls that the work can do without.
pub struct Extras<'a> {
    state: Option<&'a Directory>,
    /// Seconds since 1970 of each denial, by the call's name.
    denied: RefCell<BTreeMap<String, u64>>,
}

impl std::fmt::Debug for Extras<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Extras").field("denied", &self.denied).finish_non_exhaustive()
    }
}

impl<'a> Extras<'a> {
    /// Those that `state` remembers. What is damaged there counts for nothing.
    #[must_use]
    pub fn new(state: Option<&'a Directory>) -> Self {
        let read = state.and_then(|state| state.read(FILE).ok().flatten());
        let denied = read.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Self { state, denied: RefCell::new(denied) }
    }

    /// Makes a call unless it is known to be denied. `None` where it is, or is now; what is missing without it is said
    /// in the words of `without`.
    ///
    /// # Errors
    /// Those of the call, but not its being denied.
    pub async fn call<T>(
        &self,
        reporter: &dyn Reporter,
        without: &str,
        name: &str,
        call: impl Future<Output = Result<T, CallError>>,
    ) -> Result<Option<T>, CallError> {
        let now = now();
        if self.denied.borrow().get(name).is_some_and(|then| *then <= now && now - *then < AGAIN.as_secs()) {
            return Ok(None);
        }
        match call.await {
            Ok(value) => {
                if self.denied.borrow_mut().remove(name).is_some() {
                    self.remember();
                }
                Ok(Some(value))
            }
            Err(error) if error.is_denied() => {
                if self.denied.borrow_mut().insert(name.to_owned(), now).is_none() {
                    reporter.say(&Message::Note(&format!("{error}\nhelp: without it {without}")));
                }
                self.remember();
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn remember(&self) {
        let bytes = serde_json::to_vec(&*self.denied.borrow()).unwrap_or_default();
        // What cannot be remembered is asked again next time.
        let _ = self.state.map(|state| state.write(FILE, &bytes));
    }
}

fn now() -> u64 {
    u64::try_from(seconds()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::CallName;
    use crate::report::fake::Heard;

    #[test]
    fn a_denied_call_is_made_once() {
        let place = tempfile::tempdir().unwrap();
        let (state, heard) = (Directory::at(place.path()), Heard::default());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let calls = std::cell::Cell::new(0);
        let denied = || async {
            calls.set(calls.get() + 1);
            Err::<(), _>(CallError::Denied(CallName::new("t", "admin.x", None)))
        };
        for _ in 0..2 {
            let extras = Extras::new(Some(&state));
            for _ in 0..2 {
                let done = runtime.block_on(extras.call(&heard, "nothing is lost", "admin.x", denied()));
                assert_eq!(done.unwrap(), None);
            }
            let other = runtime.block_on(extras.call(&heard, "", "admin.y", async { Ok(1) }));
            assert_eq!(other.unwrap(), Some(1));
        }
        assert_eq!((calls.get(), heard.lines().len()), (1, 1), "{:?}", heard.lines());
        assert!(heard.lines()[0].ends_with("help: without it nothing is lost"));
        state.write(FILE, b"{\"admin.x\": 1}").unwrap();
        let extras = Extras::new(Some(&state));
        runtime.block_on(extras.call(&heard, "", "admin.x", denied())).unwrap();
        assert_eq!(
            (calls.get(), heard.lines().len()),
            (2, 1),
            "tried again after a while, and not said again"
        );
        state.write(FILE, b"{\"admin.y\": 1}").unwrap();
        let extras = Extras::new(Some(&state));
        runtime.block_on(extras.call(&heard, "", "admin.y", async { Ok(1) })).unwrap();
        assert_eq!(state.read(FILE).unwrap().unwrap(), b"{}", "what is granted is no longer denied");
    }
}
