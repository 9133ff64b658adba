//! Figures of a row, for people and for programs.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

/// Figures of one row.
#[derive(Debug, Serialize)]
pub struct RowResult {
    /// Name of the row.
    pub name: &'static str,
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
}

/// Minimum, median and maximum.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Spread {
    min: f64,
    median: f64,
    max: f64,
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
        Self { min: sorted[0], median, max: sorted[sorted.len() - 1] }
    }
}

impl RowResult {
    /// Compares two sets of figures.
    pub fn new(
        name: &'static str,
        what: &'static str,
        unit: &'static str,
        (ours, peer): (&[f64], &[f64]),
        goal: f64,
    ) -> Self {
        let (ours, peer) = (Spread::of(ours), Spread::of(peer));
        Self { name, what, unit, ours, peer, ratio: ours.median / peer.median, goal }
    }

    /// Whether the ratio is as small as it should be.
    pub fn meets_goal(&self) -> bool {
        self.ratio <= self.goal
    }
}

/// One line for a row.
pub fn print(row: &RowResult) {
    let spread = |s: &Spread| format!("{:.3}/{:.3}/{:.3}", s.min, s.median, s.max);
    println!(
        "{:<26} ours {:>26}  peer {:>26} {:<4} ratio {:>7.4}  goal {:>6.4}  {}  ({})",
        row.name,
        spread(&row.ours),
        spread(&row.peer),
        row.unit,
        row.ratio,
        row.goal,
        if row.meets_goal() { "met" } else { "MISSED" },
        row.what,
    );
}

/// All rows as JSON at `path`.
pub fn write_json(rows: &[RowResult], path: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(rows)?;
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}
