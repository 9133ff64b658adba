// SPDX-License-Identifier: GPL-2.0-or-later
//! Runs every target on its seeds and on changed copies of them, for some seconds each.
//!
//! `smoke [SECONDS] [TARGET...]`: 10 seconds and all targets unless said otherwise. The changes are drawn from a
//! generator with a fixed start, so two runs of the same length of work see the same inputs.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, setrlimit};
use qvm_template_fuzz::{TARGETS, Target};

/// Memory of the whole process. No reader may need more than a fraction of it.
const MEMORY: u64 = 1 << 30;
/// An input that takes longer is a hang.
const SLOW: Duration = Duration::from_secs(5);
/// Longest input that is made.
const LONGEST: usize = 256 << 10;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1).peekable();
    let seconds = args.next_if(|a| a.parse::<u64>().is_ok()).and_then(|a| a.parse().ok()).unwrap_or(10);
    let chosen: Vec<String> = args.collect();
    setrlimit(Resource::RLIMIT_AS, MEMORY, MEMORY).expect("limiting memory");
    let mut failed = false;
    for target in TARGETS.iter().filter(|(name, _)| chosen.is_empty() || chosen.iter().any(|c| c == name)) {
        failed |= !smoke(target, Duration::from_secs(seconds));
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn smoke(&(name, target): &Target, time: Duration) -> bool {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seeds = read_all(&folder.join("corpus").join(name));
    seeds.extend(read_all(&folder.join("artifacts").join(name)));
    seeds.push(Vec::new());
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (begin, mut runs, mut slowest) = (Instant::now(), 0_u64, Duration::ZERO);
    loop {
        let at = usize::try_from(runs).unwrap_or(usize::MAX);
        let input = if at < seeds.len() {
            seeds[at].clone()
        } else if begin.elapsed() >= time {
            break;
        } else {
            mutate(&seeds, &mut random)
        };
        let start = Instant::now();
        let fine = catch_unwind(AssertUnwindSafe(|| target(&input))).is_ok();
        let took = start.elapsed();
        slowest = slowest.max(took);
        runs += 1;
        if !fine || took > SLOW {
            let place = folder.join("artifacts").join(name);
            fs::create_dir_all(&place).expect("making the folder for findings");
            let file = place.join(format!("found-{runs}"));
            fs::write(&file, &input).expect("writing the finding");
            eprintln!(
                "{name}: {} on input {runs}, kept as {}",
                if fine { "slow" } else { "panic" },
                file.display()
            );
            return false;
        }
    }
    eprintln!(
        "{name}: {runs} runs on {} seeds in {:?}, slowest {slowest:?}",
        seeds.len() - 1,
        begin.elapsed()
    );
    true
}

fn read_all(folder: &Path) -> Vec<Vec<u8>> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<_> = entries.flatten().map(|e| e.path()).collect();
    paths.sort();
    paths.iter().filter_map(|path| fs::read(path).ok()).collect()
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % (end.max(1) as u64)).unwrap_or(0)
    }
}

/// One to eight changes of a seed.
fn mutate(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut out = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(8) {
        // Most of what decides stands at the beginning.
        let end = if random.below(2) == 0 { out.len().min(1024) } else { out.len() };
        let at = random.below(end);
        let len = random.below(64).min(out.len() - at.min(out.len()));
        match random.below(9) {
            0 if !out.is_empty() => out[at] ^= 1 << random.below(8),
            1 if !out.is_empty() => out[at] = random.next().to_le_bytes()[0],
            2 => out.insert(at.min(out.len()), random.next().to_le_bytes()[0]),
            3 => drop(out.drain(at..at + len)),
            4 => out.truncate(at),
            5 => {
                let piece = out[at..at + len].to_vec();
                out.splice(at..at, piece);
            }
            6 => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len());
                let to = (from + random.below(4096)).min(other.len());
                let end = (at + random.below(256)).min(out.len());
                out.splice(at.min(end)..end, other[from..to].iter().copied());
            }
            7 => {
                const ODD: [u32; 10] =
                    [0, 1, 0x7f, 0x80, 0xff, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_fff0, 0xffff_ffff];
                let number = ODD[random.below(ODD.len())];
                let bytes = if random.below(4) == 0 { number.to_le_bytes() } else { number.to_be_bytes() };
                let end = (at + 4).min(out.len());
                out[at.min(end)..end].copy_from_slice(&bytes[..end - at.min(end)]);
            }
            _ => {
                const WORDS: [&[u8]; 14] = [
                    b"|",
                    b"\n",
                    b"\0",
                    b"..",
                    b"[",
                    b"=",
                    b"<",
                    b"&#x10ffff;",
                    b"\xff\xfe",
                    b"\x1b[2J",
                    b"ustar  \0",
                    b"070701",
                    b"07070X",
                    b"TRAILER!!!",
                ];
                let word = WORDS[random.below(WORDS.len())];
                out.splice(at..at, word.iter().copied());
            }
        }
    }
    out.truncate(LONGEST);
    out
}
