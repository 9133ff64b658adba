//! Checks what we do instead, where a difference from the original is declared.
//!
//! For an entry of its own in `differences.toml` it is what the entry expects. For a rule it is, first, what every case
//! that names the rule must come to, in any folder of recordings ([`by_rule`]), and second, for the recordings that come
//! with this tree, the whole outcome as kept in `instead.jsonl`: a line a case, bound to the recorded case by its digest. `CLI_KEEP=1` writes
//! that file anew; what changes in it is to be read like code.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::case::Case;
use super::compare;
use super::place::Outcome;
use super::text;
use crate::differences::Differences;
use crate::recording::kept_here;
use crate::support::packages::Packages;

/// What an entry of its own expects: any of the keys
///
/// | key | meaning |
/// |---|---|
/// | `rc` | exit status |
/// | `stdout`, `stderr` | the whole text, with the placeholders of the recordings |
/// | `stdout_has`, `stderr_has` | texts that are in it; a star stands for anything on the same line |
/// | `calls` | changing calls in order, `METHOD DEST ARG` each, without what is not there |
/// | `requests` | number of requests to the UpdateVM |
/// | `files_after` | as recorded |
/// | `same` | names of the above that are as recorded |
/// | `stderr_lines` | true: the recorded lines of standard error, each as often, in any order |
/// | `calls_without` | a word: the recorded changing calls but those that hold it |
/// | `no_less_calls` | true: the recorded changing calls in their order, and perhaps more |
pub fn by_case(
    expect: &toml::Table,
    case: &Case,
    outcome: &Outcome,
    packages: &Packages,
) -> Result<(), String> {
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
            "stdout_has" => texts().iter().all(|text| has(&outcome.stdout, text)),
            "stderr_has" => texts().iter().all(|text| has(&outcome.stderr, text)),
            "calls" => texts() == calls(outcome).iter().map(String::as_str).collect::<Vec<_>>(),
            "requests" => wanted.as_integer() == i64::try_from(outcome.book.requests.len()).ok(),
            "files_after" => texts() == outcome.files_after.iter().map(String::as_str).collect::<Vec<_>>(),
            "same" => texts().iter().all(|field| compare::same(field, case, outcome, packages)),
            "stderr_lines" => text::equal(&case.stderr, &outcome.stderr, true),
            "calls_without" => texts().iter().all(|word| {
                let mut left = case.clone();
                left.calls.retain(|call| !call.to_string().contains(word));
                compare::same("calls", &left, outcome, packages)
            }),
            "no_less_calls" => compare::no_less_calls(case, outcome, packages),
            _ => return Err(format!("the entry expects {key}, which is not known")),
        };
        if !met {
            return Err(format!("{key} is not {wanted}:\n{outcome}"));
        }
    }
    Ok(())
}

/// Whether a text has this part on one of its lines, where a star stands for anything.
fn has(text: &str, part: &str) -> bool {
    if !part.contains('*') {
        return text.contains(part);
    }
    text.lines().any(|line| {
        let mut rest = Some(line);
        for piece in part.split('*') {
            rest = rest.and_then(|rest| rest.find(piece).map(|at| &rest[at + piece.len()..]));
        }
        rest.is_some()
    })
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
    /// What can be read of the line is done: no complaint about its form.
    LineTaken,
    /// A failure names its reason in words of its own, not with a command line or nothing at all.
    SaysWhy,
    /// Advice.
    Advice,
    /// The template is there and named as unfinished.
    Unfinished,
    /// What did not shut down was killed.
    Kills,
    /// The recorded changing calls.
    SameChanges,
    /// No fewer files than recorded.
    LosesNothing,
    /// The last word about a network is not its default.
    KeepsNetwork,
    /// More is taken back than recorded.
    ClearsMore,
    /// Every address that is stored is a dotted quad.
    DottedQuads,
    /// A dummy that takes somebody's place is removed only if it was made in this run.
    SparesDummies,
    /// Nothing is stored as the word None.
    NoNone,
    /// Times have no offset.
    OneTime,
}

/// See [`Want`]. The whole outcome of the recordings at hand is kept in `instead.jsonl` besides.
fn wants(rule: &str) -> &'static [Want] {
    match rule {
        "1.1" => &[Want::NothingRefused, Want::LineTaken],
        "R1" | "R23" => &[Want::SameStatus],
        "R2" => &[Want::Success, Want::NoChange, Want::NoRequest],
        "R3" => &[Want::SameStatus, Want::SameChanges, Want::SameFiles],
        "R4" => &[Want::Failure, Want::SaysWhy, Want::NoChange, Want::NoRequest],
        "R5" => &[Want::Failure, Want::SaysWhy, Want::Advice, Want::NoChange],
        "R7" => &[Want::SameStatus, Want::SameLines, Want::NoChange],
        "R8" => &[Want::SameStatus, Want::NoChange, Want::OneTime],
        "R11" => &[Want::SameStatus, Want::NoChange],
        "R12" => &[Want::Success, Want::NoLessLines, Want::NoChange],
        "R13" => &[Want::Failure, Want::SaysWhy, Want::NoChange],
        "R14" => &[Want::Success, Want::NoChange],
        "R15" => &[Want::FewerRequests],
        "R16" => &[Want::SameStatus, Want::FewerRequests],
        "R21" | "R45" => &[Want::Success, Want::NothingRefused],
        "R25" => &[Want::NoAbsence, Want::NothingRefused],
        "R27" => &[Want::Failure, Want::SaysWhy, Want::NoChange],
        "R28" => &[Want::Success, Want::StoredPlain],
        "R29" | "R32" => &[Want::Success, Want::NoChange],
        "R30" => &[Want::SameStatus, Want::LosesNothing],
        "R34" => &[Want::Success, Want::StoredPlain, Want::NothingRefused],
        "R35" | "R47" | "R56" => &[Want::Failure, Want::SaysWhy, Want::Undone],
        "R36" => &[Want::Failure, Want::SaysWhy, Want::NothingDone, Want::NoImport],
        "R37" | "R38" => &[Want::Failure, Want::SaysWhy, Want::NoChange],
        "R39" => &[Want::Unfinished],
        "R40" => &[Want::Success, Want::Kills],
        "R42" => &[Want::Success, Want::NothingRefused, Want::KeepsNetwork],
        "R43" => &[Want::Success, Want::NothingRefused, Want::ClearsMore],
        "R44" => &[Want::NothingRefused, Want::DottedQuads],
        "R50" => &[Want::OneProperty],
        "R51" => &[Want::Success, Want::NothingRefused],
        "R52" => &[Want::Success, Want::SparesDummies],
        "R53" => &[Want::SparesDom0],
        "R54" | "R55" => &[Want::Failure, Want::SaysWhy],
        "R57" => &[Want::Failure, Want::SaysWhy, Want::Advice, Want::NothingDone],
        "R58" => &[Want::SameStatus, Want::NoChange],
        "R59" => &[Want::SameStatus, Want::NoChange, Want::SameFiles],
        "new" => &[Want::SaysWhy, Want::NoNone],
        _ => &[],
    }
}

/// What a rule wants of every case that names it.
pub fn by_rule(
    rule: &str,
    case: &Case,
    outcome: &Outcome,
    packages: &Packages,
    all: &AllKept,
) -> Result<(), String> {
    for want in wants(rule) {
        if !met(*want, case, outcome, packages) {
            return Err(format!("{rule} wants {want:?}:\n{outcome}"));
        }
    }
    let kept = Kept::of(case, outcome);
    if std::env::var_os("CLI_KEEP").is_some() {
        return kept.write(all).map_err(|error| format!("{error:#}"));
    }
    match all.by_id.get(&kept.id) {
        None if all.all => Err("instead.jsonl has no line for it; CLI_KEEP=1 writes one".to_owned()),
        Some(before) if before.recorded == kept.recorded && before != &kept => {
            Err(format!("it was otherwise before:\n{before:#?}\nnow\n{kept:#?}"))
        }
        _ if wants(rule).is_empty() => Err(format!("nothing says what {rule} wants here:\n{outcome}")),
        _ => Ok(()),
    }
}

fn met(want: Want, case: &Case, outcome: &Outcome, packages: &Packages) -> bool {
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
        Want::LineTaken => {
            let complaints = ["unrecognized arguments", "error: argument ", "invalid choice"];
            !complaints.iter().any(|text| outcome.stderr.contains(text))
        }
        Want::SaysWhy => {
            let bare = |line: &str| line.trim_end() == "ERROR:" || line.trim_end().ends_with("error:");
            let foreign = ["Command '[", "Traceback", "format string", "[Errno"];
            outcome.rc == 0
                || !outcome.stderr.is_empty()
                    && !outcome.stderr.lines().any(bare)
                    && !foreign.iter().any(|text| outcome.stderr.contains(text))
        }
        Want::Advice => outcome.stderr.lines().any(|line| line.starts_with("help: ")),
        Want::Unfinished => {
            let named = called("admin.vm.feature.Set").any(|call| call["arg"] == "template-name");
            outcome.rc == 3 && named && outcome.stderr.lines().count() > case.stderr.lines().count()
        }
        Want::Kills => called("admin.vm.Shutdown").filter(|call| call.get("error").is_some()).all(|call| {
            called("admin.vm.Kill").any(|kill| kill["dest"] == call["dest"] && kill.get("error").is_none())
        }),
        Want::SameChanges => compare::same("calls", case, outcome, packages),
        Want::LosesNothing => case.files_after.iter().all(|file| outcome.files_after.contains(file)),
        Want::KeepsNetwork => {
            let network = calls.iter().rfind(|call| call["arg"] == "netvm");
            network.is_some_and(|call| call["payload"].as_str().is_some_and(|value| !value.is_empty()))
        }
        Want::ClearsMore => {
            let clears = |calls: &[Value]| {
                let takes_back = |call: &&Value| {
                    let method = call["method"].as_str().unwrap_or_default();
                    method.ends_with(".feature.Remove") || method.ends_with(".property.Reset")
                };
                calls.iter().filter(takes_back).count()
            };
            clears(calls) > clears(&case.calls)
        }
        Want::DottedQuads => called("admin.vm.feature.Set")
            .filter(|call| call["arg"].as_str().is_some_and(|name| name.starts_with("net.fake-")))
            .all(|call| call["payload"].as_str().is_some_and(is_dotted_quad)),
        Want::SparesDummies => {
            let made: Vec<&str> = called("admin.vm.Create.TemplateVM")
                .filter_map(|call| call["payload"].as_str()?.strip_prefix("name=")?.split(' ').next())
                .collect();
            let stand_in = |name: &Value| {
                let set = |call: &Value| call["arg"] == "template" && call["payload"] == *name;
                called("admin.vm.property.Set").any(set)
            };
            called("admin.vm.Remove")
                .filter(|call| stand_in(&call["dest"]))
                .all(|call| call["dest"].as_str().is_some_and(|name| made.contains(&name)))
        }
        Want::NoNone => !called("admin.vm.feature.Set").any(|call| call["payload"] == "None"),
        Want::OneTime => !outcome.stdout.contains("+00:00"),
        Want::SparesDom0 => {
            let ended = called("admin.vm.Kill").chain(called("admin.vm.Remove"));
            ended.into_iter().all(|call| call["dest"] != "dom0")
        }
    }
}

fn is_dotted_quad(text: &str) -> bool {
    let number = |part: &str| {
        part.bytes().all(|byte| byte.is_ascii_digit())
            && part.parse::<u8>().is_ok_and(|n| n.to_string() == part)
    };
    text.split('.').count() == 4 && text.split('.').all(number)
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

/// The outcomes of all cases as they were, by name.
#[derive(Debug, Default)]
pub struct AllKept {
    by_id: BTreeMap<String, Kept>,
    /// Whether every case that a rule speaks of must be among them.
    all: bool,
}

impl AllKept {
    /// Reads them; `all`: those of the recordings that come with this tree.
    pub fn read(path: &Path, declared: &Differences, all: bool) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let mut by_id = BTreeMap::new();
        for line in text.lines() {
            let kept: Kept =
                serde_json::from_str(line).with_context(|| format!("reading {}", path.display()))?;
            // What has an entry of its own is checked by that; a line here would be a leftover that nobody compares.
            let leftover = declared.case("cli", &kept.id).is_some();
            anyhow::ensure!(!leftover, "{}: '{}' has an entry in differences.toml", path.display(), kept.id);
            by_id.insert(kept.id.clone(), kept);
        }
        Ok(Self { by_id, all })
    }
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
    fn write(self, before: &AllKept) -> anyhow::Result<()> {
        static WRITING: std::sync::Mutex<BTreeMap<String, Kept>> = std::sync::Mutex::new(BTreeMap::new());
        let mut all = WRITING.lock().map_err(|_| anyhow::anyhow!("another thread broke down"))?;
        if all.is_empty() {
            all.clone_from(&before.by_id);
        }
        all.insert(self.id.clone(), self);
        let mut text = String::new();
        for kept in all.values() {
            text.push_str(&serde_json::to_string(kept)?);
            text.push('\n');
        }
        std::fs::write(kept_here(), text).context("writing instead.jsonl")
    }
}
