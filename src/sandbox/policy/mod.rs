//! The policy of qrexec: which qube may call which service where.
//!
//! A policy is all rules of the `*.policy` files of one or more directories, ordered by file name; the first rule that
//! fits a call decides it, and a call that no rule fits is denied.
//!
//! ```text
//! SERVICE ARGUMENT SOURCE TARGET ACTION [KEY=VALUE]...
//! !include FILE | !include-dir DIR | !include-service SERVICE ARGUMENT FILE | !compat-4.0
//! ```
//!
//! One file with a fault makes the whole policy unusable, and every call is refused ([`LoadError`]). Messages are
//! those of the original, word for word: they are what an administrator searches for.

mod ask;
mod evaluate;
mod facts;
mod load;
mod python;
mod rule;
mod token;

pub use evaluate::{Call, Denial, RequestError, Verdict};
pub use facts::{Domain, Facts};
pub use load::{Directories, LoadError, Policy};
pub use rule::{Action, Rule};
pub use token::{Place, Token};

/// Splits `SERVICE+ARGUMENT`; the argument keeps its `+`, and a call without one counts as `+`.
#[must_use]
pub fn split_service(service_and_argument: &str) -> (&str, &str) {
    match service_and_argument.find('+') {
        Some(at) => service_and_argument.split_at(at),
        None => (service_and_argument, "+"),
    }
}
