//! What travels between the client and the UpdateVM: one request, and the reply to a search. (The reply to a download
//! is the package itself.)
//!
//! A request is lines of options, the line that says what is wanted, a line `---`, the text of the repository files,
//! and a block of key files in comments. A reply is records of eleven fields, each field ended by `|`, each record by
//! a line feed. Neither can hold every text: [`Request::encode`] refuses what would break out, the writer of
//! [`SearchReply`] replaces it, and the parser of replies puts back together what other writers left in pieces.

mod reply;
mod request;

pub use reply::{Limits, ReplyError, SearchReply};
pub use request::{MAX_REQUEST, Request, RequestError};
