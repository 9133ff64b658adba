// SPDX-License-Identifier: GPL-2.0-or-later
//! The byte core by itself, counted in instructions and timed.
//!
//! ```sh
//! cargo test --bench core      # counts instructions under callgrind and compares them with the budgets; seconds
//! cargo bench --bench core     # counts those of the optimised build, and times the adaptors
//! ```
//!
//! Instructions do not depend on what else the machine does, so a budget can be tight: what was counted when it was
//! written down, and a tenth. Who makes the core cheaper lowers the budget; who makes it dearer says in the commit why.

#![allow(clippy::print_stdout, reason = "the table is what this program is for")]

mod budget;
mod fixture;
mod speed;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [fixture::WORK, name, folder] => fixture::work(name, folder.as_ref()).map(|()| true),
        _ => all(&arguments),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("core: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn all(arguments: &[String]) -> anyhow::Result<bool> {
    // `cargo test FILTER` hands the filter to every program of tests; one that means other tests means none here.
    if arguments.iter().any(|word| !word.starts_with('-') && !"core".contains(word.as_str())) {
        return Ok(true);
    }
    let folder = tempfile::tempdir()?;
    fixture::make(folder.path())?;
    let met = budget::check(folder.path())?;
    if arguments.iter().any(|word| word == "--bench") {
        speed::measure(folder.path())?;
    }
    Ok(met)
}
