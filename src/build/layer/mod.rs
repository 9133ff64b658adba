//! Layers: what a tree is made of, in whatever form it comes.

mod apply;
mod entry;
pub mod input;
pub mod tar;

pub use apply::{Whiteouts, apply};
pub use entry::{Entry, Sink, What};
