// SPDX-License-Identifier: GPL-2.0-or-later
//! `qvm-template`: parse, run, exit code.

fn main() -> std::process::ExitCode {
    let args: Vec<String> =
        std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    qvm_template::cli::run::run(&args)
}
