//! Layers: what a tree is made of, in whatever form it comes.

mod apply;
pub mod archive;
pub mod deb;
pub mod directory;
pub mod disk;
mod entry;
pub mod export;
pub mod input;
pub mod layout;
pub mod live;
pub mod oci;
pub mod rpm;
mod source;
pub mod squashfs;
pub mod tar;
pub mod template;

pub use apply::{Whiteouts, apply};
pub use entry::{Entry, Sink, What};
pub use source::{Applied, Form, Layer, put, sha256, sha256_of};
