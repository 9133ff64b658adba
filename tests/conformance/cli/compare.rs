//! Compares what a case came to with what the original did.

use serde_json::{Value, json};

use super::super::support::packages::Packages;
use super::case::Case;
use super::place::Outcome;
use super::text;

/// Everything that differs, a paragraph each.
pub fn differences(case: &Case, outcome: &Outcome, packages: &Packages) -> Vec<String> {
    let mut found = Vec::new();
    if case.rc != outcome.rc {
        found.push(format!("status: recorded {}, ours {}", case.rc, outcome.rc));
    }
    for (name, recorded, ours) in
        [("stdout", &case.stdout, &outcome.stdout), ("stderr", &case.stderr, &outcome.stderr)]
    {
        if !text::equal(recorded, ours, case.any_order()) {
            found.push(text::difference(name, recorded, ours));
        }
    }
    let (recorded, ours) = (in_one_form(&case.calls), in_one_form(&outcome.book.calls));
    let equal = |(one, other): (&Value, &Value)| call_fits(one, other, packages);
    if recorded.len() != ours.len() || !recorded.iter().zip(&ours).all(equal) {
        found.push(list("calls", &recorded, &ours, equal));
    }
    let same = |(one, other): (&Value, &Value)| one == other;
    if case.requests != outcome.book.requests {
        found.push(list("requests", &case.requests, &outcome.book.requests, same));
    }
    if case.files_after != outcome.files_after {
        found.push(format!("files: recorded {:?}, ours {:?}", case.files_after, outcome.files_after));
    }
    found
}

/// Whether one field of the outcome is as recorded.
pub fn same(field: &str, case: &Case, outcome: &Outcome, packages: &Packages) -> bool {
    match field {
        "rc" => case.rc == outcome.rc,
        "stdout" => text::equal(&case.stdout, &outcome.stdout, case.any_order()),
        "stderr" => text::equal(&case.stderr, &outcome.stderr, case.any_order()),
        "requests" => case.requests == outcome.book.requests,
        "files_after" => case.files_after == outcome.files_after,
        "calls" => case.calls.len() == outcome.book.calls.len() && no_less_calls(case, outcome, packages),
        _ => false,
    }
}

/// Whether the recorded changing calls were made in their order, perhaps with others between them.
pub fn no_less_calls(case: &Case, outcome: &Outcome, packages: &Packages) -> bool {
    let ours = in_one_form(&outcome.book.calls);
    let mut ours = ours.iter();
    in_one_form(&case.calls).iter().all(|recorded| ours.any(|call| call_fits(recorded, call, packages)))
}

/// Calls without what means nothing: an empty payload, the same property set twice in a row, the order of kills.
pub fn in_one_form(calls: &[Value]) -> Vec<Value> {
    let mut list: Vec<Value> = Vec::new();
    for call in calls {
        let mut call = call.clone();
        if call["payload"] == json!("")
            && let Some(object) = call.as_object_mut()
        {
            object.remove("payload");
        }
        if call["method"] == "admin.vm.property.Set" && list.last() == Some(&call) {
            continue;
        }
        list.push(call);
    }
    let kill = |call: &Value| call["method"] == "admin.vm.Kill";
    for run in list.chunk_by_mut(|one, other| kill(one) && kill(other)) {
        if kill(&run[0]) {
            run.sort_by_key(|call| call["dest"].to_string());
        }
    }
    list
}

/// Whether a call is the recorded one.
pub fn call_fits(recorded: &Value, ours: &Value, packages: &Packages) -> bool {
    let (Some(one), Some(other)) = (recorded.as_object(), ours.as_object()) else { return false };
    if one.len() != other.len() {
        return false;
    }
    one.iter().all(|(key, recorded)| {
        let Some(ours) = other.get(key) else { return false };
        match (key.as_str(), recorded, ours) {
            ("payload", Value::String(one), Value::String(other)) => text::line_fits(one, other),
            ("exec", Value::Array(one), Value::Array(other)) => {
                let fits = |(one, other): (&Value, &Value)| match (one.as_str(), other.as_str()) {
                    (Some(one), Some(other)) => text::line_fits(one, other),
                    _ => false,
                };
                one.len() == other.len() && one.iter().zip(other).all(fits)
            }
            // The recorded image is that of another package; ours must be one of the same template and length.
            ("data_sha256", _, Value::String(digest)) => {
                recorded == ours || is_image(packages, other, digest)
            }
            _ => recorded == ours,
        }
    })
}

fn is_image(packages: &Packages, call: &serde_json::Map<String, Value>, digest: &str) -> bool {
    let begin = format!("qubes-template-{}-", call["dest"].as_str().unwrap_or_default());
    packages.list.iter().any(|built| built.image_sha256 == digest && built.label.starts_with(&begin))
}

fn list(name: &str, recorded: &[Value], ours: &[Value], equal: impl Fn((&Value, &Value)) -> bool) -> String {
    let begin = recorded.iter().zip(ours).take_while(|pair| equal(*pair)).count();
    let (recorded, ours) = (&recorded[begin..], &ours[begin..]);
    let end = recorded.iter().rev().zip(ours.iter().rev()).take_while(|pair| equal(*pair)).count();
    let mut text = format!("{name}, number {}:", begin + 1);
    for (mark, list) in [('-', recorded), ('+', ours)] {
        for value in &list[..list.len() - end] {
            text.push_str(&format!("\n  {mark} {value}"));
        }
    }
    text
}
