//! Checks what we do instead, where a difference from the original is declared.

use super::case::Case;
use super::place::Outcome;
use super::text;

/// What an entry of its own expects: any of the keys
///
/// | key | meaning |
/// |---|---|
/// | `rc` | exit status |
/// | `stdout`, `stderr` | the whole text, with the placeholders of the recordings |
/// | `stdout_has`, `stderr_has` | texts that are in it |
/// | `calls` | changing calls in order, `METHOD DEST ARG` each, without what is not there |
/// | `requests` | number of requests to the UpdateVM |
/// | `files_after` | as recorded |
pub fn by_case(expect: &toml::Table, case: &Case, outcome: &Outcome) -> Result<(), String> {
    if expect.is_empty() {
        return Err("the entry expects nothing".to_owned());
    }
    for (key, wanted) in expect {
        let texts = || -> Vec<&str> {
            match wanted {
                toml::Value::Array(list) => list.iter().filter_map(toml::Value::as_str).collect(),
                other => other.as_str().into_iter().collect(),
            }
        };
        let met = match key.as_str() {
            "rc" => wanted.as_integer() == Some(i64::from(outcome.rc)),
            "stdout" => texts().iter().all(|text| text::equal(text, &outcome.stdout, case.any_order())),
            "stderr" => texts().iter().all(|text| text::equal(text, &outcome.stderr, case.any_order())),
            "stdout_has" => texts().iter().all(|text| outcome.stdout.contains(text)),
            "stderr_has" => texts().iter().all(|text| outcome.stderr.contains(text)),
            "calls" => texts() == calls(outcome).iter().map(String::as_str).collect::<Vec<_>>(),
            "requests" => wanted.as_integer() == i64::try_from(outcome.book.requests.len()).ok(),
            "files_after" => texts() == outcome.files_after.iter().map(String::as_str).collect::<Vec<_>>(),
            _ => return Err(format!("the entry expects {key}, which is not known")),
        };
        if !met {
            return Err(format!("{key} is not {wanted}:\n{outcome}"));
        }
    }
    Ok(())
}

/// The changing calls in short.
pub fn calls(outcome: &Outcome) -> Vec<String> {
    let words = |call: &serde_json::Value| match call["exec"].as_array() {
        Some(command) => command.first().and_then(|word| word.as_str()).unwrap_or_default().to_owned(),
        None => ["method", "service", "dest", "arg"]
            .iter()
            .filter_map(|key| call[*key].as_str())
            .collect::<Vec<_>>()
            .join(" "),
    };
    outcome.book.calls.iter().map(words).collect()
}

/// What a rule wants of every case that names it.
pub fn by_rule(rule: &str, _case: &Case, _outcome: &Outcome) -> Result<(), String> {
    Err(format!("there is no check for the rule {rule} yet"))
}
