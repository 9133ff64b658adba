//! The builder's subcommands: what was typed, and what is printed.

pub mod build;
pub mod compose;
pub mod export;
pub mod inspect;
mod making;
mod twice;
pub mod verify;
