//! Places where a test may end the process.
//!
//! The code says where it is with [`reach`]. In the programs that are shipped nobody listens: there is no switch,
//! variable or option for it. The tests start the same code from their own program, [`arm`]ed with a hook that kills
//! the process at the place they name (`tests/crash.rs`).

use std::sync::OnceLock;

static HOOK: OnceLock<fn(&str)> = OnceLock::new();

/// Every place, in the order in which an upgrade comes by.
pub const ALL: [&str; 18] = [
    "journal-begun",
    "creating",
    "created",
    "keeping-more",
    "importing",
    "image-checked",
    "imported",
    "clearing-private",
    "private-cleared",
    "settings",
    "settings-done",
    "starting",
    "started",
    "post-install-done",
    "off",
    "describing",
    "described",
    "committed",
];

/// Says that the work has come to the place called `name`, one of [`ALL`].
pub fn reach(name: &str) {
    debug_assert!(ALL.contains(&name), "checkpoint '{name}' is not in the list");
    if let Some(hook) = HOOK.get() {
        hook(name);
    }
}

/// Makes `hook` hear of every place from now on. Only the first hook counts.
pub fn arm(hook: fn(&str)) {
    let _ = HOOK.set(hook);
}
