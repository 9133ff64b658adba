//! Figures of a row, for people and for programs.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

/// Figures of one row.
#[derive(Debug, Serialize)]
pub struct RowResult {
    /// Name of the row.
    pub name: String,
    /// What is compared.
    pub what: &'static str,
    /// Unit of the figures.
    pub unit: &'static str,
    /// Ours.
    pub ours: Spread,
    /// The peer's; the same figure in every field where the goal is absolute.
    pub peer: Spread,
    /// Ours by the peer's, of the medians.
    pub ratio: f64,
    /// Largest ratio that meets the goal.
    pub goal: f64,
    /// Whether it does.
    pub met: bool,
}

/// Minimum, median and maximum.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Spread {
    min: f64,
    median: f64,
    max: f64,
    /// How many figures there are.
    rounds: usize,
}

impl Spread {
    /// Of `figures`, which must not be empty.
    pub fn of(figures: &[f64]) -> Self {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Self { min: sorted[0], median, max: sorted[sorted.len() - 1], rounds: sorted.len() }
    }
}

impl RowResult {
    /// Compares two sets of figures.
    pub fn new(
        name: impl Into<String>,
        what: &'static str,
        unit: &'static str,
        (ours, peer): (&[f64], &[f64]),
        goal: f64,
    ) -> Self {
        let (ours, peer) = (Spread::of(ours), Spread::of(peer));
        let ratio = ours.median / peer.median;
        Self { name: name.into(), what, unit, ours, peer, ratio, goal, met: ratio <= goal }
    }

    /// A row that could not be measured.
    pub fn failed(name: &str) -> Self {
        Self::new(name, "could not be measured", "", (&[f64::NAN], &[f64::NAN]), 0.0)
    }

    /// Whether the ratio is as small as it should be.
    pub fn meets_goal(&self) -> bool {
        self.met
    }
}

/// One line for a row.
pub fn print(row: &RowResult) {
    let spread = |s: &Spread| format!("{:.3}/{:.3}/{:.3} x{}", s.min, s.median, s.max, s.rounds);
    println!(
        "{:<22} ours {:>28}  peer {:>28} {:<3} ratio {:>7.4}  goal {:>6.4}  {:<6}  {}",
        row.name,
        spread(&row.ours),
        spread(&row.peer),
        row.unit,
        row.ratio,
        row.goal,
        if row.met { "met" } else { "MISSED" },
        row.what,
    );
}

/// All rows as JSON at `path`.
pub fn write_json(rows: &[RowResult], quick: bool, path: &Path) -> Result<()> {
    let text =
        serde_json::to_string_pretty(&serde_json::json!({ "schema": 1, "quick": quick, "rows": rows }))?;
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}
