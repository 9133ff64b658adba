// SPDX-License-Identifier: GPL-2.0-or-later
//! Behaviour through the real programs: one file a behaviour.

#[path = "support/mod.rs"]
mod support;

mod cli_contract;
mod compose;
mod crash;
mod delegate;
mod first_light;
mod hostile;
mod install;
mod pack;
mod salt;
mod sandbox;
mod service;
mod space;
mod trust;
mod verbs;
