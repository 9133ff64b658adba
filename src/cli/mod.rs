//! What was typed, what it means, what is printed.

pub mod args;
pub mod config;
pub mod format;
pub mod release;
pub mod table;
