// SPDX-License-Identifier: GPL-2.0-or-later
//! Whatever goes wrong, a template is what it was or the new one, complete; `recover` brings it there.
//!
//! A cell of the matrix is one command (install, reinstall, upgrade, downgrade), one storage driver, one way to dom0 and
//! one harm. After the harm `recover` is run, and the template is held against what it was and what it would have become:
//! content of both volumes, all properties, features, tags, what its pool keeps, and that it is off.
//!
//! ```text
//! cargo test --test it crash::                  each harm with each command, drivers and ways to dom0 in turn
//! cargo test --test it crash:: -- --ignored     the same for each call: refused, an exception, killed before and after it
//! CRASH=all cargo test --test it crash:: -- --include-ignored        every cell
//! ```
//!
//! The matrix is printed with `--nocapture`, and with `CRASH_TIMES=1` each cell as it ends.

#[path = "crash/cell.rs"]
mod cell;
#[path = "crash/scene.rs"]
mod scene;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, setpgid};
use qvm_template::checkpoint;

use self::cell::{Cell, Harm, Outcome, Transport};
use self::scene::{DRIVERS, Scenes, VERBS};

/// Every cell that is to be tried of those with these harms: of each harm and command one, the drivers and ways to dom0 in
/// turn, or all of them.
fn cells(harms: impl Fn(&str) -> Result<Vec<Harm>>) -> Result<Vec<Cell>> {
    let all = std::env::var("CRASH").is_ok_and(|word| word == "all");
    let mut cells = Vec::new();
    for (turn, verb) in VERBS.into_iter().enumerate() {
        for (number, harm) in harms(verb)?.into_iter().enumerate() {
            for (place, driver) in DRIVERS.into_iter().enumerate() {
                for (way, transport) in [Transport::Qrexec, Transport::Socket].into_iter().enumerate() {
                    let is_its_turn =
                        (number + turn) % DRIVERS.len() == place && (number + turn / 2) % 2 == way;
                    if all || is_its_turn {
                        cells.push(Cell { verb, driver, transport, harm: harm.clone() });
                    }
                }
            }
        }
    }
    Ok(cells)
}

/// Tries the cells, prints the matrix, and fails where a cell did not hold.
fn try_all<'c>(title: &str, scenes: &Scenes, cells: &'c [Cell]) -> Vec<&'c Cell> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some(cell) = cells.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let begun = std::time::Instant::now();
                    let outcome = cell.run(scenes);
                    if std::env::var_os("CRASH_TIMES").is_some() {
                        let held = outcome.as_ref().map(|ended| (ended.is_old, ended.died));
                        eprintln!("{cell:?}: {held:?} after {} s", begun.elapsed().as_secs());
                    }
                    done.lock().expect("no thread panics with the list").push((cell, outcome));
                }
            });
        }
    });
    let done = done.into_inner().expect("no thread panics with the list");
    let mut rows: BTreeMap<(&str, &str), (usize, usize, usize, usize)> = BTreeMap::new();
    let mut broken = Vec::new();
    for (cell, outcome) in &done {
        let row = rows.entry((cell.verb, cell.driver)).or_default();
        row.0 += 1;
        match outcome {
            Ok(Outcome { is_old, .. }) => {
                row.1 += 1;
                *(if *is_old { &mut row.2 } else { &mut row.3 }) += 1;
            }
            Err(error) => broken.push(format!("{cell:?}: {error:#}")),
        }
    }
    eprintln!("{title}: command, driver: tried, held (as before / new)");
    for ((verb, driver), (tried, held, old, new)) in &rows {
        eprintln!("  {verb:9} {driver:12} {tried:4} {held:4} ({old} / {new})");
    }
    let tried = done.len();
    eprintln!("{title}: {tried} cells tried, {} held", tried - broken.len());
    assert!(tried > 0 && broken.is_empty(), "{}", broken.join("\n\n"));
    done.into_iter()
        .filter(|(_, outcome)| outcome.as_ref().is_ok_and(|ended| ended.died))
        .map(|(cell, _)| cell)
        .collect()
}

/// No test: the program under test in this one, for [`cell`], which runs it in a sandbox with the variables `WORDS` (its
/// arguments) and `DIE_AT` (where it is to end by `SIGKILL`). The program that is shipped has no such switch.
#[test]
#[expect(clippy::exit, reason = "what would come after is the test's and not the program's")]
fn as_the_program() {
    let Ok(words) = std::env::var("WORDS") else { return };
    // With what it started, as when the qube ends: the sandbox's client can keep a caller that dies alone from being gone.
    let group = setpgid(Pid::from_raw(0), Pid::from_raw(0));
    assert!(group.is_ok(), "no group of its own: {group:?}");
    checkpoint::arm(|place| {
        if std::env::var("DIE_AT").is_ok_and(|name| name == place) {
            let _ = kill(Pid::from_raw(0), Signal::SIGKILL);
        }
    });
    let words: Vec<String> = words.split('\x1f').map(ToOwned::to_owned).collect();
    // As much stack as a program's first thread has.
    let run =
        std::thread::Builder::new().stack_size(8 << 20).spawn(move || qvm_template::cli::run::run(&words));
    let ended = run.expect("a thread").join();
    std::process::exit(i32::from(ended.is_err()));
}

#[test]
fn killed_at_every_checkpoint() -> Result<()> {
    let scenes = Scenes::new()?;
    // In the middle of a stream the sandbox's client keeps a caller that ends itself from being gone; there the sandbox
    // does it: `Harm::KilledAt`.
    let places = || checkpoint::ALL.into_iter().filter(|place| *place != "image-checked");
    let cells = cells(|_| {
        Ok(places().map(Harm::DieAt).chain([0, 1 << 20, scene::IMAGE - 1].map(Harm::KilledAt)).collect())
    })?;
    let died = try_all("killed at a checkpoint", &scenes, &cells);
    let by = |place: &&str| died.iter().any(|cell| matches!(cell.harm, Harm::DieAt(name) if name == *place));
    let missed: Vec<&str> = places().filter(|place| !by(place)).collect();
    assert!(missed.is_empty(), "no command comes by {missed:?}");
    Ok(())
}

#[test]
#[ignore = "takes minutes"]
fn every_call_refused_and_answering_an_exception() -> Result<()> {
    let scenes = Scenes::new()?;
    let cells = cells(|verb| {
        let calls = scenes.calls(verb)?;
        Ok(calls
            .iter()
            .flat_map(|call| [Harm::Refused(call.clone()), Harm::Exception(call.clone())])
            .collect())
    })?;
    try_all("a call refused, or answering an exception", &scenes, &cells);
    Ok(())
}

#[test]
#[ignore = "takes minutes"]
fn killed_before_and_after_every_changing_call() -> Result<()> {
    let scenes = Scenes::new()?;
    let cells = cells(|verb| {
        let calls = scenes.calls(verb)?.into_iter().filter(|call| scene::is_changing(call));
        Ok(calls.flat_map(|call| [Harm::KilledBefore(call.clone()), Harm::KilledAfter(call)]).collect())
    })?;
    let died = try_all("killed before or after a changing call", &scenes, &cells);
    assert!(!died.is_empty(), "nothing was killed");
    Ok(())
}

#[test]
fn a_stream_cut_a_pool_full_an_update_vm_gone() -> Result<()> {
    let scenes = Scenes::new()?;
    let size = scene::IMAGE;
    let mut harms: Vec<Harm> = [0, 1, size / 2, size - 1, size].into_iter().map(Harm::ImportCut).collect();
    harms.extend([Harm::PoolFull, Harm::NoUpdateVm]);
    let cells = cells(|_| Ok(harms.clone()))?;
    try_all("a stream cut, a pool full, an UpdateVM gone", &scenes, &cells);
    Ok(())
}
