//! Checks what we do instead, where a difference from the original is declared.
//!
//! For an entry of its own in `differences.toml` it is what the entry expects. For a rule it is, first, what every case
//! that names the rule must come to ([`by_rule`]), and second, for the recordings that come with this tree, the whole
//! outcome as kept in `instead.jsonl`: a line a case, bound to the recorded case by its digest. `CLI_KEEP=1` writes
//! that file anew; what changes in it is to be read like code.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::case::Case;
use super::compare;
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
fn calls(outcome: &Outcome) -> Vec<String> {
    let words = |call: &Value| match call["exec"].as_array() {
        Some(command) => command.first().and_then(|word| word.as_str()).unwrap_or_default().to_owned(),
        None => ["method", "service", "dest", "arg"]
            .iter()
            .filter_map(|key| call[*key].as_str())
            .collect::<Vec<_>>()
            .join(" "),
    };
    outcome.book.calls.iter().map(words).collect()
}

/// What a rule asks of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    /// Exit status 0.
    Success,
    /// Another exit status.
    Failure,
    /// The recorded exit status.
    SameStatus,
    /// The recorded lines on standard output, in any order.
    SameLines,
    /// The recorded lines on standard output, and perhaps more.
    NoLessLines,
    /// No changing call.
    NoChange,
    /// No changing call that dom0 followed.
    NothingDone,
    /// Nobody is told that something is not installed.
    NoAbsence,
    /// No import.
    NoImport,
    /// No request to the UpdateVM.
    NoRequest,
    /// Fewer requests to the UpdateVM than recorded.
    FewerRequests,
    /// A qube that was made is gone again.
    Undone,
    /// The recorded files.
    SameFiles,
    /// No call was refused.
    NothingRefused,
    /// Nothing but printable ASCII was stored.
    StoredPlain,
    /// The template is never set to the dummy for a holder that only names it in another property.
    OneProperty,
    /// dom0 is neither killed nor removed.
    SparesDom0,
}

/// See [`Want`]. Rules whose cases differ in one more way have their details in `instead.jsonl` alone.
fn wants(rule: &str) -> &'static [Want] {
    match rule {
        "1.1" | "R21" | "R29" | "R32" | "R42" | "R43" | "R44" => &[Want::NothingRefused],
        "R1" | "R3" | "R23" | "R30" | "R58" => &[Want::SameStatus],
        "R2" => &[Want::Success, Want::NoChange, Want::NoRequest],
        "R4" => &[Want::Failure, Want::NoChange, Want::NoRequest],
        "R5" => &[Want::Failure, Want::NoChange],
        "R7" => &[Want::SameStatus, Want::SameLines, Want::NoChange],
        "R8" | "R11" => &[Want::SameStatus, Want::NoChange],
        "R12" => &[Want::Success, Want::NoLessLines, Want::NoChange],
        "R13" => &[Want::Failure, Want::NoChange],
        "R14" => &[Want::NoChange],
        "R15" => &[Want::FewerRequests],
        "R16" => &[Want::SameStatus, Want::FewerRequests],
        "R25" => &[Want::NoAbsence, Want::NothingRefused],
        "R27" => &[Want::Failure, Want::NoChange],
        "R28" => &[Want::Success, Want::StoredPlain],
        "R34" => &[Want::Success, Want::StoredPlain, Want::NothingRefused],
        "R35" | "R47" | "R56" => &[Want::Failure, Want::Undone],
        "R36" => &[Want::Failure, Want::NothingDone, Want::NoImport],
        "R37" | "R38" => &[Want::Failure, Want::NoChange],
        "R45" => &[Want::Success, Want::NothingRefused],
        "R50" => &[Want::OneProperty],
        "R52" => &[Want::Success],
        "R53" => &[Want::SparesDom0],
        "R54" => &[Want::Failure],
        "R55" | "R57" => &[Want::Failure],
        "R59" => &[Want::SameStatus, Want::NoChange, Want::SameFiles],
        _ => &[],
    }
}

/// What a rule wants of every case that names it.
pub fn by_rule(rule: &str, case: &Case, outcome: &Outcome) -> Result<(), String> {
    for want in wants(rule) {
        if !met(*want, case, outcome) {
            return Err(format!("{rule} wants {want:?}:\n{outcome}"));
        }
    }
    let kept = Kept::of(case, outcome);
    if std::env::var_os("CLI_KEEP").is_some() {
        return kept.write().map_err(|error| format!("{error:#}"));
    }
    match KEPT.get(&kept.id) {
        Some(before) if before.recorded == kept.recorded && before != &kept => {
            Err(format!("it was otherwise before:\n{before:#?}\nnow\n{kept:#?}"))
        }
        Some(_) => Ok(()),
        None if wants(rule).is_empty() => Err(format!("nothing says what {rule} wants here:\n{outcome}")),
        None => Ok(()),
    }
}

fn met(want: Want, case: &Case, outcome: &Outcome) -> bool {
    let calls = &outcome.book.calls;
    let called = |method: &'static str| calls.iter().filter(move |call| call["method"] == method);
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(ToOwned::to_owned).collect();
        lines.sort();
        lines
    };
    match want {
        Want::Success => outcome.rc == 0,
        Want::Failure => outcome.rc != 0,
        Want::SameStatus => outcome.rc == case.rc,
        Want::SameLines => sorted(&outcome.stdout) == sorted(&case.stdout),
        Want::NoLessLines => {
            let ours = sorted(&outcome.stdout);
            sorted(&case.stdout).iter().all(|line| ours.contains(line))
        }
        Want::NoChange => calls.is_empty(),
        Want::NothingDone => calls.iter().all(|call| call.get("error").is_some()),
        Want::NoAbsence => !outcome.stderr.contains("not already installed"),
        Want::NoImport => called("admin.vm.volume.ImportWithSize").next().is_none(),
        Want::NoRequest => outcome.book.requests.is_empty(),
        Want::FewerRequests => outcome.book.requests.len() < case.requests.len(),
        Want::Undone => {
            let made = calls.iter().filter(|call| {
                let method = call["method"].as_str().unwrap_or_default();
                method.starts_with("admin.vm.Create") && call.get("error").is_none()
            });
            made.count() == called("admin.vm.Remove").filter(|call| call.get("error").is_none()).count()
        }
        Want::SameFiles => outcome.files_after == case.files_after,
        Want::NothingRefused => calls
            .iter()
            .filter(|call| call["method"] != "admin.vm.Kill")
            .all(|call| call.get("error").is_none()),
        Want::StoredPlain => {
            called("admin.vm.feature.Set").filter(|call| call.get("error").is_none()).all(|call| {
                call["payload"].as_str().unwrap_or_default().bytes().all(|b| (b' '..=b'~').contains(&b))
            })
        }
        Want::OneProperty => called("admin.vm.property.Set").all(|call| {
            let dummy = call["payload"].as_str().unwrap_or_default().starts_with("dummy");
            call["arg"] == "template" || !dummy
        }),
        Want::SparesDom0 => {
            let ended = called("admin.vm.Kill").chain(called("admin.vm.Remove"));
            ended.into_iter().all(|call| call["dest"] != "dom0")
        }
    }
}

/// The outcome of a case as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    id: String,
    /// Digest of the recorded case.
    recorded: String,
    rc: i32,
    stdout: String,
    stderr: String,
    calls: Vec<String>,
    requests: Vec<String>,
    files_after: Vec<String>,
}

static KEPT: LazyLock<BTreeMap<String, Kept>> = LazyLock::new(|| {
    let text = std::fs::read_to_string(path()).unwrap_or_default();
    let kept = text.lines().filter_map(|line| serde_json::from_str::<Kept>(line).ok());
    kept.map(|kept| (kept.id.clone(), kept)).collect()
});

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/instead.jsonl")
}

impl Kept {
    fn of(case: &Case, outcome: &Outcome) -> Self {
        let short = |call: &Value| {
            let mut call = call.clone();
            if let Some(object) = call.as_object_mut() {
                object.remove("data_sha256");
                if object.get("arg").is_some_and(|arg| arg == "template-installtime") {
                    object.insert("payload".to_owned(), Value::from("<NOW>"));
                }
            }
            text::without_names(&call.to_string())
        };
        Self {
            id: case.id.clone(),
            recorded: case.digest.clone(),
            rc: outcome.rc,
            stdout: text::without_names(&outcome.stdout),
            stderr: text::without_names(&outcome.stderr),
            calls: compare::in_one_form(&outcome.book.calls).iter().map(short).collect(),
            requests: outcome.book.requests.iter().map(ToString::to_string).collect(),
            files_after: outcome.files_after.clone(),
        }
    }

    /// Puts it into the file, among the others by name.
    fn write(self) -> anyhow::Result<()> {
        static WRITING: std::sync::Mutex<BTreeMap<String, Kept>> = std::sync::Mutex::new(BTreeMap::new());
        let mut all = WRITING.lock().map_err(|_| anyhow::anyhow!("another thread broke down"))?;
        if all.is_empty() {
            all.clone_from(&KEPT);
        }
        all.insert(self.id.clone(), self);
        let mut text = String::new();
        for kept in all.values() {
            text.push_str(&serde_json::to_string(kept)?);
            text.push('\n');
        }
        std::fs::write(path(), text).context("writing instead.jsonl")
    }
}
