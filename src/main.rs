// SPDX-License-Identifier: GPL-2.0-or-later
//! `qvm-template`, and `qvm-template-postprocess` under that name: parse, run, exit code.

use qvm_template::cli::{postprocess, run};

fn main() -> std::process::ExitCode {
    let mut args = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned());
    let name = args.next().unwrap_or_default();
    let args: Vec<String> = args.collect();
    match name.rsplit('/').next() {
        Some(postprocess::NAME) => postprocess::run(&args),
        _ => run::run(&args),
    }
}
