//! The Admin API: requests to qubesd, over qrexec or over dom0's socket.
