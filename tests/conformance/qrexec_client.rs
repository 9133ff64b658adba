//! Replays `qrexec-client.jsonl`: `qrexec-client-vm` in the qube mgmt, each scenario in a sandbox of its own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use qvm_template::sandbox::server::log;
use qvm_template::sandbox::server::settings::{Answer, Settings};
use qvm_template::sandbox::{fixture, qubesd::Qubesd};
use serde_json::Value;

use super::admin_api;
use super::differences::Differences;
use super::recording::{Folder, bytes, matches, to_latin1, word};
use super::report::CaseResult;

/// Replays every case.
pub fn run(folder: &Folder, _declared: &Differences) -> Result<Vec<CaseResult>> {
    let recording = folder.recording("qrexec-client")?;
    let file = admin_api::policy_file(&recording.cases);
    let mut scenarios: BTreeMap<&str, Scenario> = BTreeMap::new();
    let mut results = Vec::new();
    for case in &recording.cases {
        let scenario = match scenarios.entry(word(case, "scenario")) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(Scenario::new(&recording.head, &file)?)
            }
        };
        let id = word(case, "id");
        let difference = scenario.replay(case).with_context(|| format!("replaying {id}"))?;
        results.push(CaseResult::plain(id, difference));
    }
    Ok(results)
}

/// A sandbox in which the steps of a scenario follow each other.
struct Scenario {
    dir: PathBuf,
    rules: Value,
    /// The qube that calls.
    source: String,
    /// Where the rules are written to: the recorded messages name it.
    policy_file: String,
    /// How many calls the log held before the step.
    logged: usize,
    _place: tempfile::TempDir,
}

impl Scenario {
    fn new(head: &Value, policy_file: &str) -> Result<Self> {
        let place = tempfile::tempdir().context("making a place for a sandbox")?;
        let dir = place.path().join("system");
        Qubesd::create(&dir, fixture::read(&head["fixture"])?)?;
        for qube in head["fixture"]["qubes"].as_array().context("the qubes of the fixture")? {
            let name = word(qube, "name");
            if name == "dom0" {
                continue;
            }
            let services = dir.join("qubes").join(name).join("root/etc/qubes-rpc");
            fs::create_dir_all(&services)?;
            for (name, text) in SERVICES {
                fs::write(services.join(name), text)?;
                fs::set_permissions(services.join(name), fs::Permissions::from_mode(0o755))?;
            }
        }
        Ok(Self {
            dir,
            rules: head["rules"].clone(),
            source: head["source"].as_str().unwrap_or("mgmt").to_owned(),
            policy_file: policy_file.to_owned(),
            logged: 0,
            _place: place,
        })
    }

    fn replay(&mut self, case: &Value) -> Result<Option<String>> {
        self.prepare(case)?;
        let payload = bytes(&case["payload"])?.unwrap_or_default();
        let words = case["argv"].as_array().context("argv")?;
        let words = words.iter().map(|word| Ok(OsString::from_vec(bytes(word)?.unwrap_or_default())));
        let words = words.collect::<Result<Vec<_>>>()?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_qubes-sandbox"));
        command.arg("exec").arg(&self.dir).args(["--qube", &self.source, "--user"]);
        command.arg(case["user"].as_str().unwrap_or("root"));
        command.args(["--", "qrexec-client-vm"]).args(words);
        let cut = case["cut"].as_u64().and_then(|cut| usize::try_from(cut).ok());
        let output = run_with_input(command, payload, cut)?;
        let mut log = log::read(&self.dir)?;
        // A killed call ends without us.
        while cut.is_some() && log.len() == self.logged {
            thread::sleep(Duration::from_millis(20));
            log = log::read(&self.dir)?;
        }
        let decision: Vec<String> =
            log.iter().skip(self.logged).flat_map(|entry| entry.decision.clone()).collect();
        self.logged = log.len();
        Ok(difference(case, &output, &decision)?.filter(|text| !text.is_empty()))
    }

    /// Sets the policy in force, and what the note says of the system.
    fn prepare(&self, case: &Value) -> Result<()> {
        let directory = self.dir.join("qubes/dom0/root/etc/qubes/policy.d");
        fs::create_dir_all(&directory)?;
        let rules = self.rules[word(case, "policy")].as_array().context("the rules of a policy")?;
        let rules: Vec<&str> = rules.iter().filter_map(Value::as_str).collect();
        fs::write(directory.join(&self.policy_file), format!("# rules of the case\n{}\n", rules.join("\n")))?;
        let note = word(case, "note");
        let answer = if note.contains("the user says yes") { Answer::Allow } else { Answer::Deny };
        Settings { answer }.write(&self.dir)?;
        if note.starts_with("the target is off") {
            let mut words = case["argv"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let target = words.find(|word| !word.starts_with('-')).context("a target")?;
            let off = r#"printf 'admin.vm.Kill+ dom0 name %s\0' "$1" | python3 -c '
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect("/run/qubesd.sock")
s.sendall(sys.stdin.buffer.read())
s.shutdown(socket.SHUT_WR)
sys.exit(s.recv(100) != b"0\0")'"#;
            let mut command = Command::new(env!("CARGO_BIN_EXE_qubes-sandbox"));
            command.arg("exec").arg(&self.dir).args(["--qube", "dom0", "--", "sh", "-c", off, "off", target]);
            ensure!(command.status()?.success(), "turning {target} off");
        }
        Ok(())
    }
}

/// Runs a program on this input; with `cut`, sends that much, waits a second and kills it.
fn run_with_input(mut command: Command, payload: Vec<u8>, cut: Option<usize>) -> Result<Output> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut input = child.stdin.take().context("its input")?;
    let feeder = thread::spawn(move || {
        let length = cut.unwrap_or(payload.len()).min(payload.len());
        // A program that no longer reads is what some cases are about.
        let _ = input.write_all(&payload[..length]);
        cut.map(|_| input)
    });
    if cut.is_some() {
        thread::sleep(Duration::from_secs(1));
        child.kill()?;
    }
    let output = child.wait_with_output()?;
    // A thread that panicked has said so.
    let _ = feeder.join();
    Ok(output)
}

fn difference(case: &Value, output: &Output, decision: &[String]) -> Result<Option<String>> {
    let mut differences = Vec::new();
    let mut compare = |what: &str, recorded: &[u8], ours: &[u8]| {
        if !matches(recorded, ours) {
            differences.push(format!("{what}: recorded {}, ours {}", shown(recorded), shown(ours)));
        }
    };
    let rc = case["rc"].as_i64().map_or_else(|| "killed".to_owned(), |rc| rc.to_string());
    let ours = output.status.code().map_or_else(|| "killed".to_owned(), |rc| rc.to_string());
    compare("status", rc.as_bytes(), ours.as_bytes());
    let stdout = bytes(&case["stdout"])?.unwrap_or_default();
    if case["cut"].is_null() {
        compare("stdout", &stdout, &free_form(&stdout, &output.stdout));
    }
    let stderr = without_log(&bytes(&case["stderr"])?.unwrap_or_default());
    let ours = without_log(&output.stderr);
    let ours = free_form(&stderr, &ours);
    // The program and the service write there at the same time, each in one piece: who comes first is chance.
    if !(has_program(case) && is_rotation(&stderr, &ours)) {
        compare("stderr", &stderr, &ours);
    }
    let recorded = case["decision"].as_array().context("decision")?;
    let recorded = recorded.iter().map(|line| Ok(bytes(line)?.unwrap_or_default()));
    let recorded = recorded.collect::<Result<Vec<_>>>()?.join(b"\n".as_slice());
    compare("decision", &recorded, decision.join("\n").as_bytes());
    Ok((!differences.is_empty()).then(|| differences.join("; ")))
}

/// Whether the client starts a program of its own side: what follows target and service.
fn has_program(case: &Value) -> bool {
    let words = case["argv"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_option = |word: &&Value| word.as_str().is_some_and(|word| word.starts_with('-'));
    words.iter().skip_while(is_option).count() > 2
}

/// Whether `ours` is `recorded` with some of its beginning at the end.
fn is_rotation(recorded: &[u8], ours: &[u8]) -> bool {
    let twice = recorded.repeat(2);
    recorded.len() == ours.len()
        && (recorded.is_empty() || twice.windows(ours.len()).any(|part| part == ours))
}

/// A text without the lines that the program writes to its log, whose coming depends on timing.
fn without_log(text: &[u8]) -> Vec<u8> {
    let is_log = |line: &[u8]| {
        line.starts_with(b"<TIME> qrexec-client-vm") || {
            let line = to_latin1(line);
            line.split_once(" qrexec-client-vm[")
                .is_some_and(|(time, _)| time.len() == "0000-00-00 00:00:00.000".len())
        }
    };
    text.split_inclusive(|byte| *byte == b'\n').filter(|line| !is_log(line)).flatten().copied().collect()
}

/// Our text with a block of usage or help, whose form is free, replaced by its placeholder where one is recorded.
fn free_form(recorded: &[u8], ours: &[u8]) -> Vec<u8> {
    let ours = to_latin1(ours);
    for mark in ["<USAGE>\n", "<HELP>\n"] {
        if to_latin1(recorded).ends_with(mark) && ours.contains("usage: ") {
            let kept = ours.split("usage: ").next().unwrap_or_default();
            return format!("{kept}{mark}").into_bytes();
        }
    }
    super::recording::latin1(&ours).unwrap_or_default()
}

fn shown(text: &[u8]) -> String {
    let text = to_latin1(text);
    let beginning: String = text.chars().take(200).collect();
    let more = if beginning.len() < text.len() {
        format!("... ({} characters)", text.chars().count())
    } else {
        String::new()
    };
    format!("{beginning:?}{more}")
}

/// The services of the recorded system, as the README of the recordings describes them.
const SERVICES: [(&str, &str); 4] = [
    ("test.Echo", ECHO),
    ("test.Odd_-.9", ECHO),
    ("test.Fail", "#!/bin/sh\necho out\necho err >&2\nexit $(($1 % 256))\n"),
    (
        "test.Bytes",
        "#!/usr/bin/env python3\nimport os\nfor fd in 1, 2:\n    os.write(fd, bytes(range(256)))\n",
    ),
];

const ECHO: &str = "#!/bin/sh\n\
    echo \"arg=${1-none} remote=$QREXEC_REMOTE_DOMAIN service=$QREXEC_SERVICE_FULL_NAME \
    target-type=$QREXEC_REQUESTED_TARGET_TYPE target=$QREXEC_REQUESTED_TARGET user=$(id -un)\"\n\
    exec cat\n";
