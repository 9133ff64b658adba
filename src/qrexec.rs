//! The only place that spawns a process.
