//! A Qubes system as data: what `qubes.xml`, the pools and Xen together know.
//!
//! Values only: no file is read or written here, and no rule of the Admin API is enforced.

mod class;
mod features;
mod pool;
mod power;
mod qube;
mod system;
mod volume;

pub use class::Class;
pub use features::Features;
pub use pool::{Driver, Pool};
pub use power::Power;
pub use qube::Qube;
pub use system::{Label, Rule, System};
pub use volume::{Revision, VOLUME_NAMES, Volume};
