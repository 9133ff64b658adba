// SPDX-License-Identifier: GPL-2.0-or-later
//! The sandbox's command line, and the programs that it puts into its qubes, chosen by the name it is called with.

fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
