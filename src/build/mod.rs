//! Builder: from an image to a signed template package, and from packages to a repository.
//!
//! Nothing here asks the clock or the environment; what a package contains follows from what is given, so the same
//! input makes the same bytes anywhere.

pub mod command;
pub mod compare;
pub mod compose;
pub mod compress;
pub mod cpio;
pub mod disk;
pub mod ext4;
pub mod header;
pub mod image;
pub mod keys;
pub mod layer;
pub mod package;
mod package_header;
pub mod recipe;
pub mod repodata;
pub mod sparse;
pub mod tree;
