//! Replays `policy.jsonl`: the policy language, each case alone.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use qvm_template::sandbox::policy::{
    Call, Denial, Directories, Facts, LoadError, Policy, RequestError, Verdict,
};
use serde_json::{Value, json};

use super::differences::Differences;
use super::recording::{Folder, latin1, word};
use super::report::CaseResult;

/// Replays every case.
pub fn run(folder: &Folder, _declared: &Differences) -> Result<Vec<CaseResult>> {
    let recording = folder.recording("policy")?;
    let facts =
        serde_json::from_value(recording.head["system"].clone()).context("reading the head's system")?;
    recording.cases.iter().map(|case| replay(case, &facts)).collect()
}

fn replay(case: &Value, facts: &Facts) -> Result<CaseResult> {
    let id = word(case, "id");
    let said = verdict(case, facts).with_context(|| format!("replaying {id}"))?;
    let recorded = &case["expect"];
    let difference = (said != *recorded).then(|| format!("recorded {recorded}, ours {said}"));
    Ok(CaseResult::plain(id, difference))
}

/// What our policy says to a case, in the recording's words.
fn verdict(case: &Value, facts: &Facts) -> Result<Value> {
    let directory = tempfile::tempdir()?;
    let shown = directory.path().canonicalize()?.join("policy.d");
    fs::create_dir(&shown)?;
    for (name, text) in case["files"].as_object().context("files")? {
        let path = shown.join(name);
        fs::create_dir_all(path.parent().context("parent")?)?;
        fs::write(path, latin1(text.as_str().context("text")?)?)?;
    }
    let text = |key: &str| case[key].as_str().unwrap_or_default();
    let argument = format!("+{}", text("arg"));
    let paths = vec![shown.clone()];
    let policy = Policy::load(&Directories { root: Path::new("/").to_owned(), paths });
    let said = match policy {
        Err(LoadError::Syntax { place, message }) => {
            json!({"action": "syntax-error", "message": format!("{place}: {message}")})
        }
        Err(LoadError::Refused(message)) => {
            json!({"action": "load-error", "message": message, "class": "AccessDenied"})
        }
        Err(LoadError::Encoding(message)) => {
            json!({"action": "load-error", "message": message, "class": "UnicodeDecodeError"})
        }
        Ok(policy) => {
            let notes = &mut Vec::new();
            match Call::new((text("service"), &argument), text("source"), text("target"), facts, notes) {
                Err(RequestError::Target(message)) => json!({"action": "request-error", "message": message}),
                Err(RequestError::Denied(message)) => {
                    json!({"action": "deny", "message": message, "notify": true})
                }
                Ok(call) => describe(policy.evaluate(&call, facts, notes)),
            }
        }
    };
    let parent = shown.parent().context("parent")?.to_string_lossy().into_owned();
    let written = said.to_string().replace(&*shown.to_string_lossy(), "<DIR>").replace(&parent, "<PARENT>");
    Ok(serde_json::from_str(&written)?)
}

fn describe(verdict: Result<Verdict, Denial>) -> Value {
    match verdict {
        Ok(Verdict::Allow { target, user, autostart, notify }) => {
            json!({"action": "allow", "user": user, "autostart": autostart, "notify": notify, "target": target})
        }
        Ok(Verdict::Ask { targets, default_target, user, autostart, notify, rule: _ }) => json!({
            "action": "ask", "user": user, "autostart": autostart, "notify": notify,
            "targets": targets, "default_target": default_target,
        }),
        Err(Denial { message, notify }) => json!({"action": "deny", "message": message, "notify": notify}),
    }
}
