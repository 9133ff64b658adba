//! Which blocks are taken: they are given out in ascending order, around the fixed ones, and never given back.

use std::ops::Range;

use super::geometry::Geometry;

/// A run of blocks.
pub(super) type Run = Range<u64>;

/// Gives out blocks.
///
/// When none are left it goes on counting with blocks that do not exist, so that a file system that is too small can
/// say how large it would have to be; [`Space::missing`] is then not zero and nothing may be written to what it gave.
#[derive(Debug)]
pub(super) struct Space {
    fixed: Vec<Run>,
    next_fixed: usize,
    next: u64,
    blocks: u64,
    given: u64,
    missing: u64,
}

impl Space {
    pub fn new(geometry: &Geometry) -> Self {
        Self {
            fixed: geometry.fixed.clone(),
            next_fixed: 0,
            next: 0,
            blocks: geometry.blocks,
            given: 0,
            missing: 0,
        }
    }

    /// Takes up to `count` blocks that lie together, at least one.
    pub fn take(&mut self, count: u64) -> Run {
        while let Some(fixed) = self.fixed.get(self.next_fixed).filter(|fixed| fixed.start <= self.next) {
            self.next = self.next.max(fixed.end);
            self.next_fixed += 1;
        }
        let free_until = self.fixed.get(self.next_fixed).map_or(self.blocks, |fixed| fixed.start);
        if self.next >= self.blocks {
            self.missing += count;
            return self.blocks..self.blocks + count;
        }
        let run = self.next..(self.next + count).min(free_until);
        self.next = run.end;
        self.given += run.end - run.start;
        run
    }

    /// Takes exactly `count` blocks, in as few runs as possible.
    pub fn take_all(&mut self, mut count: u64) -> Vec<Run> {
        let mut runs = Vec::new();
        while count > 0 {
            let run = self.take(count);
            count -= run.end - run.start;
            runs.push(run);
        }
        runs
    }

    /// Blocks given out.
    pub fn given(&self) -> u64 {
        self.given
    }

    /// Blocks asked for beyond the end.
    pub fn missing(&self) -> u64 {
        self.missing
    }

    /// Every block below this one is taken, none above except fixed ones.
    pub fn high_water(&self) -> u64 {
        self.next.min(self.blocks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_go_around_what_is_fixed_and_count_on_when_it_is_full() {
        let mut geometry = Geometry::new(512 << 20, 1000).unwrap();
        geometry.fixed = vec![0..10, 20..25, 30..31];
        geometry.blocks = 40;
        let mut space = Space::new(&geometry);
        assert_eq!(space.take(3), 10..13);
        assert_eq!(space.take_all(15), [13..20, 25..30, 31..34]);
        assert_eq!(space.take(100), 34..40);
        assert_eq!(space.missing(), 0);
        assert_eq!(space.take_all(7).len(), 1);
        assert_eq!((space.given(), space.missing(), space.high_water()), (24, 7, 40));
    }
}
