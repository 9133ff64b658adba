// SPDX-License-Identifier: GPL-2.0-or-later
//! Replays the recordings of the real servers and of the original tool. See `README.md` beside this file.

#[path = "../support/mod.rs"]
mod support;

mod admin_api;
mod cli;
mod differences;
mod policy;
mod qrexec_client;
mod recording;
mod report;
mod update_vm;

fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
