//! Replays `policy.jsonl`.

use super::differences::Differences;
use super::recording::Folder;
use super::report::CaseResult;

/// Replays every case.
pub fn run(folder: &Folder, _declared: &Differences) -> anyhow::Result<Vec<CaseResult>> {
    let recording = folder.recording("policy")?;
    let missing = |case| CaseResult::plain(super::recording::word(case, "id"), Some("not replayed".into()));
    Ok(recording.cases.iter().map(missing).collect())
}
