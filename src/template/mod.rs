//! Values: what a template is called, which build it is, what a repository offers, what is installed.
//!
//! Nothing in this room does I/O, reads a clock or looks at the environment, and it depends on no other room but `untrusted`.

pub mod conf;
pub mod fnmatch;
pub mod installed;
mod name;
mod offer;
pub mod provenance;
pub mod select;
mod spec;
mod version;

pub use installed::Installed;
pub use name::{NameError, PACKAGE_PREFIX, TemplateName};
pub use offer::{Offer, RepoId, Timestamp};
pub use select::{Presence, SelectError, Selection, Selector};
pub use spec::{SpecError, TemplateSpec};
pub use version::{Evr, EvrError, Nevra};
