//! Instructions of each piece of work, against what is recorded.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::fixture;

/// Millions of instructions of each work in a build for tests (`cargo test`). They include the start of the program and
/// the judgement of the signatures; half and more is SHA-256, whose instructions valgrind's processor does not have.
const BUDGETS: [(&str, f64); 4] = [("verify", 1005.0), ("zstd", 1423.0), ("xz", 1713.0), ("holes", 620.0)];
/// How much more than recorded is still no regression: compilers and C libraries differ that much.
const TOLERANCE: f64 = 1.1;

/// Counts every work; whether all are within their budgets.
pub fn check(folder: &Path) -> Result<bool> {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("SKIPPED: counting instructions needs valgrind (Debian package valgrind)");
        return Ok(true);
    }
    let mut met = true;
    for (name, budget) in BUDGETS {
        let count = instructions(name, folder)?;
        if !cfg!(debug_assertions) {
            println!("{name:<8} {count:>9.1} million instructions");
            continue;
        }
        let verdict = match count / budget {
            ..1.0 => "met",
            ..TOLERANCE => "met, within what compilers differ",
            _ => "MISSED",
        };
        met &= verdict != "MISSED";
        println!("{name:<8} {count:>9.1} million instructions, budget {budget:>9.1}  {verdict}");
        if count < budget / TOLERANCE {
            println!("{name:<8} is far below its budget: lower it in benches/core/budget.rs");
        }
    }
    Ok(met)
}

fn instructions(name: &str, folder: &Path) -> Result<f64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args([fixture::WORK, name])
        .arg(folder)
        .output()
        .context("running valgrind")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} under valgrind ended with {}:\n{said}", output.status);
    let count = said.lines().find_map(|line| line.split_once("Collected :"));
    let (_, count) = count.with_context(|| format!("valgrind counted nothing:\n{said}"))?;
    Ok(count.trim().parse::<f64>().context("reading what valgrind counted")? / 1e6)
}
