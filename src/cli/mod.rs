//! What was typed, what it means, what is printed.
//!
//! A command line goes through here once: [`args`] takes it apart by the [`table`] of commands and options, [`config`] gathers the
//! settings from it and from two files, [`run`] hands plain values to a use case, and [`output`] and [`reporter`] show what
//! came of it. Nothing below this room knows arguments, terminals or exit statuses.

pub mod args;
mod command;
pub mod config;
pub mod docs;
pub mod exit;
pub mod format;
pub mod help;
pub mod marks;
pub mod output;
pub mod postprocess;
pub mod release;
pub mod reporter;
pub mod run;
pub mod table;
pub mod width;
