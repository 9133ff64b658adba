//! What a command costs: wall time, CPU time of all its processes, and their memory together.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{Read as _, Write as _};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use serde::{Deserialize, Serialize};

/// First argument that turns this program into the one that measures inside a qube.
pub const CHILD: &str = "measure-command";
/// First argument that turns it into one that passes its input on, at so many bytes a second.
pub const THROTTLE: &str = "throttle";
/// First argument that turns it into one that writes so many zeros, as fast as can be.
pub const ZEROS: &str = "zeros";

/// What one run of a command cost.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Cost {
    /// Seconds from start to end.
    pub wall: f64,
    /// Seconds of CPU, user and system, of the command and everything it waited for.
    pub cpu: f64,
    /// Largest sum of resident memory of its processes, in bytes, sampled every 10 ms. Shared pages count for each process.
    pub memory: u64,
    /// Bytes that it made the kernel write to disks.
    pub written: u64,
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
    let before = (cpu()?, written()?);
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
    Ok(Cost { wall, cpu: cpu()? - before.0, memory, written: written()? - before.1 })
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

/// Passes standard input on, never faster than `rate` bytes a second.
pub fn throttle(rate: u64) -> Result<()> {
    let (mut input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
    let mut buffer = vec![0; 64 << 10];
    let start = Instant::now();
    let mut passed: u64 = 0;
    loop {
        let length = input.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        output.write_all(&buffer[..length])?;
        passed += u64::try_from(length)?;
        let due = Duration::from_nanos(u64::try_from(u128::from(passed) * 1_000_000_000 / u128::from(rate))?);
        thread::sleep(due.saturating_sub(start.elapsed()));
    }
}

/// Writes so many zeros from one buffer that stays in the processor's cache.
pub fn zeros(mut count: u64) -> Result<()> {
    let buffer = vec![0; 256 << 10];
    let mut output = std::io::stdout().lock();
    // As much as our own pipe holds; a machine that does not allow it lets neither have it.
    let _ = nix::fcntl::fcntl(&output, nix::fcntl::FcntlArg::F_SETPIPE_SZ(1 << 20));
    while count > 0 {
        let length = usize::try_from(count)?.min(buffer.len());
        output.write_all(&buffer[..length])?;
        count -= u64::try_from(length)?;
    }
    Ok(())
}

/// Bytes that this process and those that it waited for made the kernel write.
fn written() -> Result<u64> {
    let text = fs::read_to_string("/proc/self/io").context("reading /proc/self/io")?;
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.context("no write_bytes in /proc/self/io")?.trim().parse().context("reading /proc/self/io")
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
