//! Values: what a template is called, which build it is, what a repository offers, what is installed.
//!
//! Nothing in this room does I/O, reads a clock or looks at the environment, and it depends on no other room.

mod name;
mod offer;
mod version;

pub use name::{NameError, PACKAGE_PREFIX, TemplateName};
pub use offer::{Offer, RepoId, Timestamp};
pub use version::{Evr, EvrError, Nevra};
