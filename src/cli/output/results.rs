//! What a command did to each template, or would do: for programs in our JSON, for people in a line each.

use serde_json::{Value, json};

use super::VERSION;
use crate::cli::exit::Status;
use crate::cli::format::{python_json, size};
use crate::cli::run::Done;
use crate::ledger::{Build, Ending, Entry, Ledger, Trouble};
use crate::report::Failure;
use crate::untrusted::displayable;

/// The result of a command that changes templates: one object on one line, whether it failed or not.
#[must_use]
pub(in crate::cli) fn outcome(
    command: &str,
    status: Status,
    failure: Option<&Failure>,
    ledger: &Ledger,
    done: Option<&Done>,
) -> String {
    if failure.is_some() {
        ledger.close();
    }
    let entries = ledger.entries();
    let has = |ending: &[Ending]| entries.iter().any(|entry| ending.contains(&entry.ending));
    let result = match () {
        () if failure.is_some() => "failed",
        () if has(&[Ending::Done, Ending::NotFinalized]) => "done",
        () if has(&[Ending::Planned]) => "planned",
        () => "unchanged",
    };
    let mut warnings = ledger.warnings();
    warnings.extend(done.into_iter().flat_map(|done| done.warnings.clone()));
    let mut object = json!({
        "version": VERSION,
        "schema": VERSION,
        "command": command,
        "result": result,
        "exit": status.code(),
        "error": failure.map(|failure| error(status, failure)),
        "warnings": warnings,
        "templates": entries.iter().map(entry).collect::<Vec<Value>>(),
    });
    // What only one command has to tell beside that.
    if let Some(object) = object.as_object_mut() {
        object.extend(ledger.told());
    }
    if let (Some(object), Some(Value::Object(more))) = (object.as_object_mut(), done.map(|done| &done.json)) {
        object.extend(more.clone());
    }
    python_json(&object) + "\n"
}

/// A failure for programs.
pub(super) fn error(status: Status, failure: &Failure) -> Value {
    let Trouble { cause, message, help } = Trouble::of(failure);
    json!({
        "kind": status.word(),
        "cause": cause,
        "message": displayable(&message, true),
        "help": help.map(|help| displayable(&help, true)),
        "status": status.code(),
    })
}

/// What a dry run found, for people.
#[must_use]
pub fn plan(ledger: &Ledger) -> String {
    let mut text = String::new();
    for entry in ledger.entries() {
        match entry.ending {
            Ending::Planned => text.push_str(&format!("would {} {}", entry.action.word(), entry.name)),
            _ => {
                let reason = entry.reason.unwrap_or_default();
                text.push_str(&format!("nothing to do for {}: {reason}\n", entry.name));
                continue;
            }
        }
        match (&entry.before, &entry.after) {
            (Some(before), Some(after)) => text.push_str(&format!(": {} -> {}", before.evr, after.evr)),
            (None, Some(after)) => text.push_str(&format!(": {}", after.evr)),
            (Some(before), None) => text.push_str(&format!(": {}", before.evr)),
            (None, None) => {}
        }
        if let Some(after) = &entry.after {
            text.push_str(&format!(" from {}", after.repo));
            if let Some(bytes) = after.size {
                text.push_str(&format!(", {}", size(bytes)));
            }
        }
        if let Some(reason) = entry.reason {
            text.push_str(&format!(" ({reason})"));
        }
        text.push('\n');
    }
    if text.is_empty() { "nothing to do\n".to_owned() } else { displayable(&text, true) }
}

fn entry(entry: &Entry) -> Value {
    let trouble = |trouble: &Trouble| {
        json!({
            "cause": trouble.cause,
            "message": displayable(&trouble.message, true),
            "help": trouble.help.as_ref().map(|help| displayable(help, true)),
        })
    };
    json!({
        "name": entry.name,
        "action": entry.action.word(),
        "outcome": entry.ending.word(),
        "before": entry.before.as_ref().map(before),
        "after": entry.after.as_ref().map(after),
        "reason": entry.reason,
        "error": entry.trouble.as_ref().map(trouble),
    })
}

fn before(build: &Build) -> Value {
    json!({"evr": build.evr, "reponame": build.repo, "buildtime": build.build_time})
}

fn after(build: &Build) -> Value {
    json!({
        "evr": build.evr,
        "reponame": build.repo,
        "buildtime": build.build_time,
        "size": build.size,
        "signer": build.signer,
    })
}
