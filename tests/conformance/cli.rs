//! Replays `cli.jsonl`: command lines of the original, with what they printed and asked for.
//!
//! Each case runs the real `qvm-template` (or `qvm-template-postprocess`) in a qube of its own: its file tree holds
//! the case's files, `qrexec-client-vm` there is this very program, which hands the call to the case's [`desk`]. The
//! desk answers the Admin API from an emulated dom0 that was given the case's population, and plays the UpdateVM by
//! the recorded replies. What it was asked is compared with what the original asked.
//!
//! ```text
//! cargo test --test conformance -- cli                    all cases
//! cargo test --test conformance -- cli:install-start      cases whose name begins so
//! CLI_SHOW=1 cargo test --test conformance -- cli:list-   with everything they printed
//! ```

mod case;
mod compare;
mod desk;
mod front;
mod place;
mod reply;
mod rules;
mod text;

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;

use self::case::Case;
pub use self::place::World;
use self::rules::AllKept;
use super::differences::{Declared, Differences};
use super::recording::{Folder, word};
use super::report::CaseResult;
use super::support::packages::Packages;

/// What this program does under the names and with the words that a case's qube calls it by; none of them: the replay.
pub fn hidden() -> Option<ExitCode> {
    front::hidden()
}

/// Replays all cases, or those that the command line names.
pub fn run(folder: &Folder, declared: &Differences) -> anyhow::Result<Vec<CaseResult>> {
    replay(folder, declared, 1)
}

/// Replays every `step`th case.
pub fn replay(folder: &Folder, declared: &Differences, step: usize) -> anyhow::Result<Vec<CaseResult>> {
    let chosen: Vec<String> =
        std::env::args().filter_map(|word| word.strip_prefix("cli:").map(ToOwned::to_owned)).collect();
    let show = std::env::var_os("CLI_SHOW").is_some();
    let cases = folder.recording("cli")?.cases;
    let cases = cases.into_iter().map(Case::read).collect::<anyhow::Result<Vec<_>>>()?;
    let mut cases: Vec<_> = cases
        .into_iter()
        .filter(|case| chosen.is_empty() || chosen.iter().any(|begin| case.id.starts_with(begin.as_str())))
        .step_by(step)
        .collect();
    let world = world(folder)?;
    for case in &mut cases {
        case.stdout = text::with_our_sizes(&case.stdout, world.packages());
    }
    let kept = AllKept::read(&folder.kept(), declared, folder.is_own())?;

    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<(usize, CaseResult)>> = Mutex::default();
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(number) else { return };
                    let result = judge(&world, case, declared, &kept, show);
                    results.lock().expect("no thread panics with the results").push((number, result));
                }
            });
        }
    });
    let mut results = results.into_inner().context("gathering the results")?;
    results.sort_by_key(|(number, _)| *number);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

/// What all command lines have in common.
pub fn world(folder: &Folder) -> anyhow::Result<World> {
    World::new(folder.path(), Packages::of(folder.path()).context("making the packages of the recordings")?)
}

/// Runs a command line, and gives its exit status and the requests that it sends to the UpdateVM: service and text.
pub fn requests(world: &World, line: serde_json::Value) -> anyhow::Result<(i32, Vec<(String, String)>)> {
    let outcome = world.play(&Case::read(line)?)?;
    let services = outcome.book.requests.iter().map(|request| word(request, "service").to_owned());
    Ok((outcome.rc, services.zip(outcome.book.payloads).collect()))
}

fn judge(world: &World, case: &Case, declared: &Differences, kept: &AllKept, show: bool) -> CaseResult {
    let mut result = CaseResult::plain(&case.id, None);
    result.better = case.better.iter().cloned().collect();
    match world.play(case) {
        Err(error) => result.difference = Some(format!("the case cannot be played: {error:#}")),
        Ok(outcome) => {
            if show {
                println!("== {} {:?}\n{outcome}", case.id, case.args);
            }
            let differences = compare::differences(case, &outcome, world.packages());
            if differences.is_empty() && case.any_order() {
                // The rule about order leaves nothing to compare where the recorded order means nothing.
                result.better.clear();
            }
            if !differences.is_empty() {
                result.difference = Some(format!("{:?}\n{}", case.args, differences.join("\n")));
                let entry = declared.declares("cli", &case.id, &result.better);
                result.instead = match entry {
                    Some(Declared::ByCase(entry)) => {
                        Some(rules::by_case(&entry.expect, case, &outcome, world.packages()))
                    }
                    Some(Declared::ByRule(rule)) => {
                        Some(rules::by_rule(&rule.id, case, &outcome, world.packages(), kept))
                    }
                    None => None,
                };
            }
        }
    }
    result
}
