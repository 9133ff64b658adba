// SPDX-License-Identifier: GPL-2.0-or-later
//! `qvm-template`: parse, run, exit code.

fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
