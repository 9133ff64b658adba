// SPDX-License-Identifier: GPL-2.0-or-later
//! The tool beside the peers that people use today, in the same run on the same machine.
//!
//! ```sh
//! cargo bench --bench peers                    # every row, table on stdout, JSON in target/bench/peers.json
//! cargo bench --bench peers -- --runs 3 zstd   # rows whose name contains "zstd", three rounds
//! ```
//!
//! Each row alternates ours and the peer's, so that a machine that slows down slows both, and prints minimum, median and
//! maximum of each, and the ratio of the medians beside the goal.

#![allow(clippy::print_stdout, reason = "the table is what this program is for")]

mod data;
mod measure;
mod rows;
mod table;

use std::process::ExitCode;

use anyhow::{Context, Result};

fn main() -> ExitCode {
    let mut arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if arguments.first().is_some_and(|first| first == measure::CHILD) {
        return measure::child(&arguments[1..]);
    }
    match run(&mut arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("peers: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the rows that `arguments` name; whether all of them met their goal.
fn run(arguments: &mut Vec<String>) -> Result<bool> {
    let mut runs = 5;
    if let Some(at) = arguments.iter().position(|argument| argument == "--runs") {
        runs = arguments.get(at + 1).context("--runs needs a number")?.parse().context("reading --runs")?;
        arguments.drain(at..at + 2);
    }
    let data = data::Data::new()?;
    let mut results = Vec::new();
    for row in rows::all() {
        if !arguments.is_empty() && !arguments.iter().any(|part| row.name.contains(part.as_str())) {
            continue;
        }
        eprintln!("{} ...", row.name);
        let result = row.run(&data, runs).with_context(|| format!("measuring {}", row.name))?;
        table::print(&result);
        results.push(result);
    }
    table::write_json(&results, &data.place("peers.json"))?;
    Ok(results.iter().all(|result| result.meets_goal()))
}
