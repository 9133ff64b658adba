//! qrexec: calls from one qube to another, as programs in a qube meet them.
//!
//! | program | in | module |
//! |---|---|---|
//! | `/usr/bin/qrexec-client-vm` | every qube but dom0 | [`client`] |
//! | `/usr/lib/qubes/qrexec-client` | dom0 | [`dom0_client`] |
//! | `/etc/qubes-rpc/admin.vm.volume.Import...` | dom0 | [`script`] |
//!
//! They talk to the sandbox's server over a socket, see [`wire`]; the server's side is
//! [`crate::sandbox::server`]. Xen's channels are replaced by sockets: one for both directions of data, one for the
//! standard error of the service, one that ends with the exit status.

pub mod client;
pub mod dom0_client;
mod filter;
mod names;
mod options;
pub mod pump;
pub mod recorder;
pub mod script;
mod streams;
pub mod wire;

pub use names::{sanitized_service, sanitized_target};

/// What an exit status of qrexec means, when it is not the service's own.
pub mod status {
    /// Something is wrong with qrexec.
    pub const PROBLEM: i32 = 125;
    /// The policy, or the user, said no; or there is no such target.
    pub const REFUSED: i32 = 126;
    /// The target has no such service.
    pub const NOT_FOUND: i32 = 127;
}

/// Service name and argument together, with a NUL, may be this long.
pub const MAX_SERVICE: usize = 65000;

/// A target may be this long; what is more is cut off.
pub const MAX_TARGET: usize = 63;
