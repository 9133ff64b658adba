//! What a command costs: wall time, CPU time of all its processes, and their memory together.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use serde::{Deserialize, Serialize};

/// First argument that turns this program into the one that measures inside a qube.
pub const CHILD: &str = "measure-command";

/// What one run of a command cost.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Cost {
    /// Seconds from start to end.
    pub wall: f64,
    /// Seconds of CPU, user and system, of the command and everything it waited for.
    pub cpu: f64,
    /// Largest sum of resident memory of its processes, in bytes, sampled every 10 ms. Shared pages count for each process.
    pub memory: u64,
}

/// Runs `command` inside a qube of the sandbox, as `prefix` says, and measures it there, without the sandbox's own cost.
pub fn in_qube(prefix: &[OsString], command: &[impl AsRef<OsStr>]) -> Result<Cost> {
    let itself = std::env::current_exe().context("finding this program")?;
    let (head, rest) = prefix.split_first().context("an empty command prefix")?;
    let output = Command::new(head)
        .args(rest)
        .arg(itself)
        .arg(CHILD)
        .args(command)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("running {}", head.display()))?;
    ensure!(output.status.success(), "the measured command failed: {}", output.status);
    let last = output
        .stdout
        .split(|&b| b == b'\n')
        .rfind(|line| !line.is_empty())
        .context("no measurement came back")?;
    serde_json::from_slice(last).context("reading the measurement")
}

/// Runs and measures a command here.
pub fn here(command: &[impl AsRef<OsStr>]) -> Result<Cost> {
    let (program, arguments) = command.split_first().context("an empty command")?;
    let before = cpu()?;
    let start = Instant::now();
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| format!("starting {}", program.as_ref().display()))?;
    let root = child.id();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let sampler = thread::spawn(move || {
        let mut peak = 0;
        while stopped
            .recv_timeout(Duration::from_millis(10))
            .is_err_and(|e| e == std::sync::mpsc::RecvTimeoutError::Timeout)
        {
            peak = peak.max(tree_memory(root));
        }
        peak
    });
    let status = child.wait().context("waiting for the command")?;
    let wall = start.elapsed().as_secs_f64();
    drop(stop);
    let memory = sampler.join().unwrap_or(0);
    ensure!(status.success(), "{} ended with {status}", program.as_ref().display());
    Ok(Cost { wall, cpu: cpu()? - before, memory })
}

/// Body of the process that measures inside a qube.
pub fn child(arguments: &[String]) -> ExitCode {
    match here(arguments).and_then(|cost| Ok(serde_json::to_string(&cost)?)) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("peers: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn cpu() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("reading the use of CPU")?;
    #[allow(clippy::cast_precision_loss, reason = "seconds of CPU are far below 2^52 microseconds")]
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// Resident memory of `root` and its descendants, in bytes.
fn tree_memory(root: u32) -> u64 {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        // The program's name, in parentheses, may hold spaces; the parent is the second field after it, the pages the 22nd.
        let Some((_, fields)) = stat.rsplit_once(") ") else { continue };
        let fields: Vec<&str> = fields.split(' ').collect();
        let number =
            |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        parents.push((pid, number(1), number(21) * 4096));
    }
    let mut members = vec![u64::from(root)];
    let mut sum = 0;
    let mut at = 0;
    while let Some(&member) = members.get(at) {
        at += 1;
        for &(pid, parent, memory) in &parents {
            if u64::from(pid) == member {
                sum += memory;
            } else if parent == member {
                members.push(u64::from(pid));
            }
        }
    }
    sum
}
