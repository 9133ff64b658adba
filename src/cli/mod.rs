//! What was typed, what it means, what is printed.

pub mod args;
pub mod format;
pub mod table;
