//! Replays `admin-api.jsonl`: the Admin API over qrexec, over dom0's socket, and through dom0's import program.
//!
//! Steps of a scenario follow each other on one system, fresh from the fixture. Compared are exit status, both output
//! streams, and what the policy says about the call. Not compared, as the recordings' README has it: the output of a
//! cut call, the order of the events that one call causes, and whether a creator is told of the tag with its own name.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use serde_json::Value;

use qvm_template::sandbox::fresh;
use qvm_template::sandbox::qubesd::Reply;

use super::differences::Differences;
use super::line::{Policies, Running, Says, System};
use super::recording::{Folder, bytes, latin1, matches, to_latin1, word};
use super::report::CaseResult;

/// Replays every step.
pub fn run(folder: &Folder, _declared: &Differences) -> anyhow::Result<Vec<CaseResult>> {
    let recording = folder.recording("admin-api")?;
    let dir = tempfile::tempdir().context("making a directory for policies")?;
    let file = policy_file(&recording.cases);
    let policies = Arc::new(Policies::read(&recording.head["rules"], &file, dir.path())?);
    let mut scenarios: Vec<Vec<&Value>> = Vec::new();
    for case in &recording.cases {
        match scenarios.last_mut() {
            Some(steps) if word(steps[0], "scenario") == word(case, "scenario") => steps.push(case),
            _ => scenarios.push(vec![case]),
        }
    }
    let mut results = Vec::new();
    for steps in scenarios {
        let source = recording.head["source"].as_str().unwrap_or("mgmt").to_owned();
        let system = System::new(&recording.head["fixture"], &policies)?;
        let mut scenario = Scenario { system, source, open: HashMap::new() };
        for step in steps {
            let id = word(step, "id");
            let difference = scenario.step(step).with_context(|| format!("replaying {id}"))?;
            results.push(CaseResult::plain(id, difference));
        }
    }
    Ok(results)
}

/// The name of the file that the rules were recorded in: messages name it.
pub fn policy_file(cases: &[Value]) -> String {
    let stock = |name: &str| fresh::STOCK_POLICY.iter().any(|(stock, _)| *stock == name);
    let named =
        cases.iter().flat_map(|case| case["decision"].as_array().into_iter().flatten()).find_map(|line| {
            let (_, path) = line.as_str()?.split_once("/etc/qubes/policy.d/")?;
            let (name, _) = path.split_once(':')?;
            (!stock(name)).then(|| name.to_owned())
        });
    named.unwrap_or_else(|| "30-rules.policy".to_owned())
}

struct Scenario {
    system: System,
    source: String,
    /// Calls that stay open, by name.
    open: HashMap<String, Running>,
}

/// What came back.
#[derive(Debug, Default)]
struct Outcome {
    status: Option<i32>,
    output: Vec<u8>,
    errors: Vec<u8>,
    decision: Option<Vec<String>>,
}

impl Scenario {
    /// Runs one step: what differs from the recording.
    fn step(&mut self, step: &Value) -> anyhow::Result<Option<String>> {
        self.system.enforce(word(step, "policy"))?;
        let outcome = match word(step, "from") {
            "check" => return self.check(step),
            "dom0-socket" => self.socket(step)?,
            "dom0-script" => {
                let running =
                    self.system.dom0_service(word(step, "target"), word(step, "service"), word(step, "arg"));
                finished(running, &payload(step)?)
            }
            qube if qube == self.source || qube == "mgmt" => self.qrexec(step)?,
            other => bail!("{other} is no place to call from"),
        };
        compare(step, &outcome, &self.source)
    }

    /// A call of the client in the qube. Of one that stays open, what the policy said.
    fn qrexec(&mut self, step: &Value) -> anyhow::Result<Outcome> {
        let payload = payload(step)?;
        if let Some(name) = step.get("finish").and_then(Value::as_str) {
            let running = self.open.remove(name).with_context(|| format!("finding the open call {name}"))?;
            return Ok(finish(step, running));
        }
        let arg = step.get("arg").and_then(Value::as_str);
        let running =
            self.system.call(&self.source, word(step, "target"), word(step, "service"), arg, &says(step));
        if let Some(name) = step.get("begin").and_then(Value::as_str) {
            match step.get("first").and_then(Value::as_u64).and_then(|first| usize::try_from(first).ok()) {
                Some(first) => {
                    running.feed.push(&payload[..first]);
                    running.feed.drained();
                    // The rest is sent when the step that finishes the call says so.
                    running.feed.keep(&payload[first..]);
                }
                None => {
                    running.feed.push(&payload);
                    running.feed.close();
                    running.output.started();
                }
            }
            let decision = Some(running.decision.clone());
            self.open.insert(name.to_owned(), running);
            return Ok(Outcome { decision, ..Outcome::default() });
        }
        if let Some(cut) = step.get("cut").and_then(Value::as_u64).and_then(|cut| usize::try_from(cut).ok()) {
            running.feed.push(&payload[..cut]);
            running.feed.drained();
            running.feed.close();
            return Ok(ended(running));
        }
        Ok(finished(running, &payload))
    }

    /// One request at dom0's socket.
    fn socket(&self, step: &Value) -> anyhow::Result<Outcome> {
        let header = match step.get("header").and_then(Value::as_str) {
            Some(header) => latin1(header)?,
            None => {
                let source = step.get("source").and_then(Value::as_str).unwrap_or("dom0");
                let (service, arg, target) = (word(step, "service"), word(step, "arg"), word(step, "target"));
                latin1(&format!("{service}+{arg} {source} name {target}\0"))?
            }
        };
        let request = [header, payload(step)?].concat();
        match self.system.server().answer_bytes(&request) {
            Reply::Body(output) => Ok(Outcome { output, ..Outcome::default() }),
            Reply::Events(_) => bail!("a stream of events at dom0's socket is nothing that a step can hold"),
        }
    }

    /// Looks at what a volume holds.
    fn check(&self, step: &Value) -> anyhow::Result<Option<String>> {
        let (qube, volume, recorded) = (word(step, "target"), word(step, "arg"), word(step, "stdout"));
        let content = self.system.server().content(qube, volume).context("finding a volume")?;
        let size = content.size;
        let ours = if recorded.contains(" zero=") {
            let zero = if content.is_zero().context("reading a volume")? { "True" } else { "False" };
            format!("size={size} zero={zero}")
        } else {
            format!("size={size} sha256={}", content.sha256().context("reading a volume")?)
        };
        Ok((ours != recorded).then(|| format!("content is {ours}, recorded {recorded}")))
    }
}

fn payload(step: &Value) -> anyhow::Result<Vec<u8>> {
    Ok(bytes(&step["payload"])?.unwrap_or_default())
}

/// Sends everything and waits for the end.
fn finished(running: Running, payload: &[u8]) -> Outcome {
    running.feed.push(payload);
    running.feed.close();
    ended(running)
}

fn ended(running: Running) -> Outcome {
    let decision = Some(running.decision.clone());
    let (status, output, errors) = running.end();
    Outcome { status: Some(status), output, errors, decision }
}

fn finish(step: &Value, running: Running) -> Outcome {
    if step.get("killed").and_then(Value::as_bool) == Some(true) {
        running.output.settled();
        running.output.break_off();
        running.feed.close();
        return Outcome { output: running.output.bytes(), ..Outcome::default() };
    }
    running.feed.push_kept();
    running.feed.close();
    Outcome { decision: None, ..ended(running) }
}

/// What the recording's note says that the question is answered with.
fn says(step: &Value) -> Says {
    let note = word(step, "note");
    let invalid =
        step["decision"].as_array().into_iter().flatten().filter_map(Value::as_str).find_map(|line| {
            let (_, rest) = line.split_once(": denied: target ")?;
            rest.strip_suffix(" is not a valid choice")
        });
    match invalid {
        Some(target) => Says::Target(target.to_owned()),
        None if note.contains("says yes") => Says::Allow,
        None => Says::Deny,
    }
}

fn compare(step: &Value, ours: &Outcome, source: &str) -> anyhow::Result<Option<String>> {
    let mut differences = Vec::new();
    let status = step["rc"].as_i64().and_then(|rc| i32::try_from(rc).ok());
    if status.is_some() && ours.status != status {
        differences.push(format!("status {:?}, recorded {status:?}", ours.status));
    }
    let recorded = bytes(&step["stdout"])?.unwrap_or_default();
    let same = if step.get("cut").is_some() {
        true
    } else if is_events(&recorded) {
        events(&recorded, source) == events(&ours.output, source)
    } else {
        matches(&recorded, &ours.output)
    };
    if !same {
        let (ours, recorded) = (to_latin1(&ours.output), to_latin1(&recorded));
        differences.push(format!("output {ours:?}, recorded {recorded:?}"));
    }
    let (recorded, errors) =
        (without_client_lines(&latin1(word(step, "stderr"))?), without_client_lines(&ours.errors));
    if !matches(recorded.as_bytes(), errors.as_bytes()) {
        differences.push(format!("errors {errors:?}, recorded {recorded:?}"));
    }
    if let (Some(ours), Some(recorded)) = (&ours.decision, step.get("decision").and_then(Value::as_array)) {
        let recorded: Vec<String> = recorded
            .iter()
            .map(|line| Ok(to_latin1(&bytes(line)?.unwrap_or_default())))
            .collect::<anyhow::Result<_>>()?;
        if *ours != recorded {
            differences.push(format!("decision {ours:?}, recorded {recorded:?}"));
        }
    }
    Ok((!differences.is_empty()).then(|| differences.join("; ")))
}

/// Without the lines of the client that come or do not, depending on timing.
fn without_client_lines(errors: &[u8]) -> String {
    let text = to_latin1(errors);
    text.split_inclusive('\n').filter(|line| !line.starts_with("<TIME> qrexec-client-vm")).collect()
}

fn is_events(output: &[u8]) -> bool {
    output.starts_with(b"1\0")
}

/// The events of a stream: the order of those that one call causes means nothing, and whether somebody is told of the
/// tag with its own name is a matter of chance.
fn events(output: &[u8], source: &str) -> Vec<Vec<String>> {
    let mut events = Vec::new();
    let mut words = output.split(|byte| *byte == 0).map(to_latin1);
    let own_tag = format!("domain-tag-add:created-by-{source}");
    while words.next().as_deref() == Some("1") {
        let mut event: Vec<String> = words.by_ref().take(2).collect();
        // Keys are never empty: an empty one ends the event.
        while let Some(key) = words.next().filter(|key| !key.is_empty()) {
            event.push(key);
            event.extend(words.next());
        }
        if event.get(1) != Some(&own_tag) {
            events.push(event);
        }
    }
    events.sort();
    events
}
