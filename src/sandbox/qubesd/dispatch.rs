//! From a method's name to what it does.

use super::{Failure, Qubesd, Reply, Request};

/// Runs the method that a request names.
pub(super) fn answer(_server: &Qubesd, request: &Request) -> Result<Reply, Failure> {
    Err(Failure::protocol(format_args!("no such method: '{}'", request.method)))
}
