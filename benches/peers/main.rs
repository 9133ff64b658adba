// SPDX-License-Identifier: GPL-2.0-or-later
//! The tool beside the peers that people use today, in the same run on the same machine.
//!
//! ```sh
//! cargo bench --bench peers                    # every row: the table on stdout, JSON in target/bench/peers.json
//! cargo bench --bench peers -- --quick         # the same with small images
//! cargo bench --bench peers -- --prepare       # only makes what the rows work on
//! cargo bench --bench peers -- zstd start      # rows whose group's name contains one of the words
//! ```
//!
//! | option | |
//! |---|---|
//! | `--rounds N` | rounds of each side (usual: 5) |
//! | `--budget S` | a side that has taken so many seconds has no further round (usual: 45; with `--quick` 12) |
//! | `--data DIR` | where packages and images are made and kept (usual: `target/bench`) |
//!
//! Each row alternates ours and the peer's, so that a machine that slows down slows both, and prints minimum, median and
//! maximum of each, how many rounds there were, and the ratio of the medians beside the goal. The original needs minutes for
//! what takes us seconds: its side runs once at least, ours three times. Images and packages are made once: with levels as
//! high as Qubes ships them that takes half an hour, with `--quick` two minutes. The program ends with failure when a
//! goal is missed.

#![allow(clippy::print_stdout, reason = "the table is what this program is for")]

mod data;
mod groups;
mod measure;
mod rows;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result};

use rows::Bench;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let number = || arguments.get(1).and_then(|number| number.parse().ok()).unwrap_or(0);
    let done = match arguments.first().map(String::as_str) {
        Some(measure::CHILD) => return measure::child(&arguments[1..]),
        Some(measure::THROTTLE) => measure::throttle(number()).map(|()| true),
        Some(measure::ZEROS) => measure::zeros(number()).map(|()| true),
        _ => run(arguments),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("peers: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the rows that `arguments` name; whether all of them met their goal.
fn run(mut arguments: Vec<String>) -> Result<bool> {
    let mut flag = |name: &str| {
        let before = arguments.len();
        arguments.retain(|argument| argument != name);
        arguments.len() < before
    };
    let (quick, prepare) = (flag("--quick"), flag("--prepare"));
    let mut value = |name: &str| -> Result<Option<String>> {
        let Some(at) = arguments.iter().position(|argument| argument == name) else { return Ok(None) };
        let value = arguments.get(at + 1).with_context(|| format!("{name} needs a value"))?.clone();
        arguments.drain(at..at + 2);
        Ok(Some(value))
    };
    let rounds = value("--rounds")?.map_or(Ok(5), |text| text.parse()).context("reading --rounds")?;
    let usual = if quick { 12.0 } else { 45.0 };
    let budget = value("--budget")?.map_or(Ok(usual), |text| text.parse()).context("reading --budget")?;
    let bench =
        Bench { data: data::Data::new(value("--data")?.map(PathBuf::from))?, quick, prepare, rounds, budget };
    let mut results = Vec::new();
    let begin = Instant::now();
    for (name, group) in groups::ALL {
        if !arguments.is_empty() && !arguments.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        eprintln!("[{:5.0} s] {name} ...", begin.elapsed().as_secs_f64());
        let rows = match group(&bench) {
            Ok(rows) => rows,
            Err(error) if error.is::<rows::Prepared>() => continue,
            Err(error) => {
                // One peer that is missing does not keep the others from being measured.
                eprintln!("peers: measuring {name}: {error:#}");
                vec![table::RowResult::failed(name)]
            }
        };
        rows.iter().for_each(table::print);
        results.extend(rows);
        table::write_json(&results, quick, &bench.data.place("peers.json"))?;
    }
    eprintln!("[{:5.0} s] done", begin.elapsed().as_secs_f64());
    Ok(results.iter().all(table::RowResult::meets_goal))
}
