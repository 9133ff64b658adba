//! How a comparison runs: rounds in turn, bounded in number and in time.

use std::time::Instant;

use anyhow::Result;

use crate::data::Data;
use crate::measure::Cost;

/// What all groups get.
#[derive(Debug)]
pub struct Bench {
    /// Where images, packages and sandboxes are.
    pub data: Data,
    /// Small images.
    pub quick: bool,
    /// Only makes the data.
    pub prepare: bool,
    /// Rounds of each side.
    pub rounds: usize,
    /// Seconds after which a side has no further round.
    pub budget: f64,
}

/// Fewest rounds of ours, whatever they take.
const OURS: usize = 3;

/// The data of the group is there, and no more was wanted.
#[derive(Debug, thiserror::Error)]
#[error("the data is ready")]
pub struct Prepared;

/// One side of a comparison.
pub type Side<'a> = Box<dyn FnMut() -> Result<Cost> + 'a>;

impl Bench {
    /// The size for this mode.
    pub fn either<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }

    /// Ends the group here when only its data was wanted.
    pub fn ready(&self) -> Result<()> {
        if self.prepare { Err(Prepared.into()) } else { Ok(()) }
    }

    /// Runs the sides in turn; the first is ours. Gives the costs of each.
    pub fn alternate<const N: usize>(&self, sides: [Side<'_>; N]) -> Result<[Vec<Cost>; N]> {
        self.alternate_for(self.rounds, sides)
    }

    /// The same with another number of rounds.
    pub fn alternate_for<const N: usize>(
        &self,
        rounds: usize,
        mut sides: [Side<'_>; N],
    ) -> Result<[Vec<Cost>; N]> {
        let mut costs = std::array::from_fn(|_| Vec::new());
        let mut spent = [0.0; N];
        for round in 0..rounds.max(1) {
            for (at, side) in sides.iter_mut().enumerate() {
                let least = if at == 0 { OURS } else { 1 };
                if round >= least && spent[at] > self.budget {
                    continue;
                }
                let begin = Instant::now();
                let mut cost = side()?;
                let mut took = begin.elapsed().as_secs_f64();
                // What is read for the first time counts for nobody; where that makes no difference, it is not repeated.
                if round == 0 && took < 2.0 {
                    cost = side()?;
                    took = begin.elapsed().as_secs_f64();
                }
                spent[at] += took;
                costs[at].push(cost);
            }
        }
        Ok(costs)
    }
}

/// Seconds of CPU of each round.
pub fn cpu(costs: &[Cost]) -> Vec<f64> {
    costs.iter().map(|cost| cost.cpu).collect()
}

/// Seconds of each round.
pub fn wall(costs: &[Cost]) -> Vec<f64> {
    costs.iter().map(|cost| cost.wall).collect()
}

/// MiB in memory of each round.
pub fn memory(costs: &[Cost]) -> Vec<f64> {
    costs.iter().map(|cost| mebibytes(cost.memory)).collect()
}

/// MiB written in each round.
pub fn written(costs: &[Cost]) -> Vec<f64> {
    costs.iter().map(|cost| mebibytes(cost.written)).collect()
}

/// Bytes as MiB.
#[allow(clippy::cast_precision_loss, reason = "counts of bytes are far below 2^52 here")]
pub fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// The greater of two, round by round.
pub fn slower(one: &[f64], other: &[f64]) -> Vec<f64> {
    one.iter().zip(other).map(|(one, other)| one.max(*other)).collect()
}
