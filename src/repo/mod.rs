//! Repositories: `.repo` files, their keys, which of them take part, and the wire format of search and download.
//!
//! Shared by the client (management qube) and the service (UpdateVM). [`file::load`] and [`keys`] read files;
//! everything else works on text that somebody else has read.
//!
//! The `.repo` text is trusted by the client, which owns it, and untrusted by the service, which receives it. The
//! search reply is the other way round.

pub mod choice;
pub mod file;
pub mod keys;
pub mod variables;
pub mod wire;
