//! A whole Qubes system in one directory, for trying the tool and for its tests.
//!
//! Xen cannot run everywhere; the protocols can. A sandbox is a directory with the state of a system (qubes, pools,
//! volumes, properties) and a server that answers the Admin API from it exactly as dom0 does.
//!
//! ```text
//! DIR/system.json          the state, replaced atomically after each change
//! DIR/pools/POOL/...       one sparse file a volume, one a revision, one an open import
//! DIR/qubes/NAME/root/...  files of a qube, laid over the host's when a command runs as that qube
//! ```
//!
//! [`state`] is the system as data, [`store`] keeps it in the directory, [`fixture`] and [`population`] read systems
//! from files, [`qubesd`] is the Admin API. [`policy`] says who may call what, [`qrexec`] holds the programs that call,
//! [`view`] runs a command as a qube sees the world, [`server`] is the process in which all of this meets, and
//! [`command`] is the command line. Nothing here knows what asks.

pub mod command;
pub mod demo;
pub mod fixture;
pub mod fresh;
pub mod guest;
pub mod policy;
pub mod population;
pub mod qrexec;
pub mod qubesd;
pub mod server;
pub mod state;
pub mod store;
pub mod view;
