//! One request, from its size to its reply.

use super::{Destination, Failure, MAX_REQUEST, Qubesd, Reply, Request, dispatch};

impl Qubesd {
    /// Answers one request.
    pub fn call(&self, request: &Request) -> Reply {
        if request.size() > MAX_REQUEST
            || matches!(&request.dest, Destination::Keyword(word) if word != "adminvm")
        {
            return Failure::Untold.reply();
        }
        dispatch::answer(self, request).unwrap_or_else(|failure| failure.reply())
    }
}
