// SPDX-License-Identifier: GPL-2.0-or-later
//! Replays the recordings of the real servers and of the original tool.
//!
//! ```text
//! cargo test --test conformance                        everything
//! cargo test --test conformance -- admin-api           the files whose name holds this word
//! cargo test --test conformance -- cli:install        the cases of one file whose name begins so (cli alone)
//! cargo test --test conformance -- --all-details       with the whole text of each difference
//! cargo test --test conformance -- --renamed           the same recordings with other names, builds and sizes
//! RECORDINGS=DIR cargo test --test conformance         another folder of the same layout
//! ```
//!
//! Each module but the four of the harness (`recording`, `differences`, `report`, this one) replays one file: its `run`
//! gives one [`report::CaseResult`] a case. What differs on purpose is declared in `differences.toml`.

#![allow(clippy::print_stdout, reason = "the report is what this program is for")]

#[path = "../support/mod.rs"]
mod support;

mod admin_api;
mod cli;
mod differences;
mod feed;
mod line;
mod policy;
mod qrexec_client;
mod recording;
mod renamed;
mod report;
mod update_vm;

use std::process::ExitCode;

use differences::{Differences, Known};
use recording::Folder;
use report::{CaseResult, Report};

/// Replays one file.
type Run = fn(&Folder, &Differences) -> anyhow::Result<Vec<CaseResult>>;

/// Of the command lines one in so many is played with other names too.
const SAMPLE: usize = 11;

const SUITES: [(&str, Run); 5] = [
    ("admin-api", admin_api::run),
    ("policy", policy::run),
    ("qrexec-client", qrexec_client::run),
    ("updatevm", update_vm::run),
    ("cli", cli::run),
];

fn main() -> ExitCode {
    if let Some(code) = cli::hidden() {
        return code;
    }
    let (options, words): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|word| word.starts_with("--"));
    if options.iter().any(|option| option == "--list") {
        for (name, _) in SUITES {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    let details = options.iter().any(|option| option == "--all-details");
    let renamed = options.iter().any(|option| option == "--renamed");
    match replay(&words, details, renamed) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn replay(words: &[String], details: bool, renamed: bool) -> anyhow::Result<bool> {
    let declared = Differences::read()?;
    let mut folder = Folder::find()?;
    println!("recordings: {}", folder.path().display());
    let other = tempfile::tempdir()?;
    renamed::make(folder.path(), &folder.kept(), other.path())?;
    if renamed {
        folder = Folder::other(other.path().to_owned());
    }
    let known = Known::read()?;
    let mut sound = true;
    if words.is_empty() && folder.is_own() {
        sound = sample(&Folder::other(other.path().to_owned()), &declared, &known, details)?;
    }
    let mut report = Report::new(&declared, &known, details);
    for (name, run) in SUITES {
        if !words.is_empty()
            && !words.iter().any(|word| match word.split_once(':') {
                Some((exact, _)) => name == exact,
                None => name.contains(word.as_str()),
            })
        {
            continue;
        }
        report.file(name, run(&folder, &declared));
    }
    if words.is_empty() && folder.is_own() {
        report.leftovers();
    }
    Ok(report.end() && sound)
}

/// Replays what is quick, and some of the rest, with other names: nothing may be keyed on the recorded ones.
fn sample(folder: &Folder, declared: &Differences, known: &Known, details: bool) -> anyhow::Result<bool> {
    let mut report = Report::new(declared, known, details);
    report.file("policy", policy::run(folder, declared));
    report.file("cli", cli::replay(folder, declared, SAMPLE));
    let sound = report.is_sound();
    println!("with other names: {}", if sound { "the same" } else { "FAILED" });
    Ok(sound)
}
