//! A `qrexec-client-vm` that writes down what the real one exchanges.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::wire::to_text;

/// The variable that says where the recording is.
pub const RECORD_TO: &str = "QUBES_SANDBOX_RECORD_TO";

/// The variable that says where the real program is.
pub const REAL_CLIENT: &str = "QUBES_SANDBOX_REAL_CLIENT";

/// How much of each stream is kept.
const KEPT: usize = 1 << 20;

/// Calls the real program and adds a line to the recording; `arguments` starts with our name.
pub fn run(arguments: &[OsString], recording: &Path) -> Result<u8> {
    let real = std::env::var_os(REAL_CLIENT).context("finding the real qrexec-client-vm")?;
    let mut child = Command::new(real)
        .env_remove(RECORD_TO)
        .arg0("qrexec-client-vm")
        .args(arguments.iter().skip(1))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("calling the real qrexec-client-vm")?;
    let (input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (input, output, errors) =
        (input.context("its input")?, output.context("its output")?, errors.context("its errors")?);
    let (sent, sending) = std::sync::mpsc::channel();
    // Not waited for: a call may end before its input does.
    thread::spawn(move || {
        let mut kept = Vec::new();
        tee(&mut io::stdin(), input, &mut kept, Some(&sent));
    });
    let out = thread::spawn(move || {
        let (mut output, mut kept) = (output, Vec::new());
        tee(&mut output, io::stdout(), &mut kept, None);
        kept
    });
    let mut said = Vec::new();
    let mut errors = errors;
    tee(&mut errors, io::stderr(), &mut said, None);
    let told = out.join().unwrap_or_default();
    let status = child.wait().context("waiting for the real qrexec-client-vm")?;
    let status = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(125);
    let payload: Vec<u8> = sending.try_iter().flatten().collect();
    let words: Vec<String> = arguments.iter().skip(1).map(|word| to_text(word.as_bytes())).collect();
    let line = describe(&words, &payload, status, &told, &said);
    let mut file = OpenOptions::new().append(true).open(recording).context("opening the recording")?;
    file.write_all(format!("{line}\n").as_bytes()).context("adding to the recording")?;
    Ok(status.to_le_bytes()[0])
}

fn describe(words: &[String], payload: &[u8], status: i32, told: &[u8], said: &[u8]) -> Value {
    let plain: Vec<&String> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let mut line = json!({
        "from": "mgmt", "target": null, "service": null, "arg": null,
        "payload": to_text(payload), "policy": null,
        "rc": status, "stdout": to_text(told), "stderr": to_text(said), "note": "",
    });
    if let [target, service] = plain.as_slice() {
        let (service, arg) = match service.split_once('+') {
            Some((service, arg)) => (service.to_owned(), Some(arg)),
            None => ((*service).clone(), None),
        };
        line["target"] = json!(target);
        line["service"] = json!(service);
        line["arg"] = json!(arg);
    } else {
        line["argv"] = json!(words);
    }
    line
}

/// Passes everything on and keeps the beginning, in `kept` or by sending it off as it comes.
fn tee(
    from: &mut impl Read,
    mut to: impl Write,
    kept: &mut Vec<u8>,
    off: Option<&std::sync::mpsc::Sender<Vec<u8>>>,
) {
    let mut buffer = vec![0; 64 << 10];
    let mut room = KEPT;
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let piece = &buffer[..length.min(room)];
        room -= piece.len();
        match off {
            // Nobody listens when the call has ended.
            Some(off) => drop(off.send(piece.to_vec())),
            None => kept.extend_from_slice(piece),
        }
        if to.write_all(&buffer[..length]).and_then(|()| to.flush()).is_err() {
            break;
        }
    }
}
