//! `fault`: what is to go wrong.

use std::io::Write;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};

use super::Dir;
use crate::sandbox::server::faults::{Action, Direction, Fault, Faults, Victim};

/// `qubes-sandbox fault`
#[derive(Debug, Args)]
pub(super) struct FaultCommand {
    #[command(flatten)]
    dir: Dir,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List what is on order, with how often each has been met
    List,
    /// Take all of it back
    Clear,
    /// The policy refuses a call
    Refuse(Calls),
    /// A call is answered with an exception, without effect
    Exception {
        #[command(flatten)]
        calls: Calls,
        /// Its class, such as QubesVMError
        class: String,
        /// Its message
        #[arg(default_value = "fault on order")]
        message: String,
    },
    /// A call ends with a status, without effect
    Exit {
        #[command(flatten)]
        calls: Calls,
        /// The status
        status: i32,
        /// What is said on standard error
        #[arg(default_value = "")]
        stderr: String,
    },
    /// A stream ends early
    Cut {
        #[command(flatten)]
        calls: Calls,
        #[command(flatten)]
        place: Place,
        /// The status that is told; the service's own without it
        #[arg(long, value_name = "STATUS")]
        status: Option<i32>,
    },
    /// The lowest bit of one byte is changed
    Flip {
        #[command(flatten)]
        calls: Calls,
        #[command(flatten)]
        place: Place,
    },
    /// A stream stands still
    Stall {
        #[command(flatten)]
        calls: Calls,
        #[command(flatten)]
        place: Place,
        /// For how long
        #[arg(long, value_name = "SECONDS", default_value_t = 3600.0)]
        seconds: f64,
    },
    /// A process is killed with SIGKILL: before a call has any effect, after it, or within one of its streams
    Kill {
        #[command(flatten)]
        calls: Calls,
        /// client: the program that made the call; caller: the process that started it
        #[arg(long, value_name = "WHICH", default_value = "caller", value_parser = victim)]
        who: Victim,
        /// before, after, in:BYTE or out:BYTE
        #[arg(value_parser = point)]
        point: Point,
    },
}

/// Which calls.
#[derive(Debug, Args)]
struct Calls {
    /// The service or method, with +ARGUMENT where only that is meant; * for every one
    service: String,
    /// Only calls of this qube
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Only calls to or about this qube
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// The first of them that it happens to
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    call: u64,
    /// How many of them in a row
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    times: u64,
}

/// Which byte.
#[derive(Debug, Args)]
struct Place {
    /// in: from the caller to the service; out: back
    #[arg(value_parser = direction)]
    direction: Direction,
    /// The byte, from 0
    #[arg(value_parser = super::size::parse)]
    at: u64,
}

#[derive(Clone, Copy, Debug)]
enum Point {
    Before,
    After,
    At(Direction, u64),
}

impl FaultCommand {
    pub(super) fn run(self, out: &mut dyn Write) -> Result<()> {
        let faults = Faults::new(&self.dir.dir);
        anyhow::ensure!(
            self.dir.dir.join("system.json").exists(),
            "{} is no sandbox",
            self.dir.dir.display()
        );
        let (calls, action) = match self.what {
            What::List => {
                for fault in faults.list()? {
                    writeln!(out, "{}", serde_json::to_string(&fault)?).context("writing")?;
                }
                return Ok(());
            }
            What::Clear => return faults.clear(),
            What::Refuse(calls) => (calls, Action::Refuse),
            What::Exception { calls, class, message } => (calls, Action::Exception { class, message }),
            What::Exit { calls, status, stderr } => (calls, Action::Exit { status, stderr }),
            What::Cut { calls, place: Place { direction, at }, status } => {
                (calls, Action::Cut { direction, at, status })
            }
            What::Flip { calls, place: Place { direction, at } } => (calls, Action::Flip { direction, at }),
            What::Stall { calls, place: Place { direction, at }, seconds } => {
                let time = std::time::Duration::try_from_secs_f64(seconds).context("reading the seconds")?;
                let milliseconds = u64::try_from(time.as_millis()).context("reading the seconds")?;
                (calls, Action::Stall { direction, at, milliseconds })
            }
            What::Kill { calls, who, point } => {
                let action = match point {
                    Point::Before => Action::KillBefore(who),
                    Point::After => Action::KillAfter(who),
                    Point::At(direction, at) => Action::KillAt { victim: who, direction, at },
                };
                (calls, action)
            }
        };
        faults.add(calls.fault(action))
    }
}

impl Calls {
    fn fault(self, action: Action) -> Fault {
        let (service, arg) = match self.service.split_once('+') {
            Some((service, arg)) => (service.to_owned(), Some(arg.to_owned())),
            None => (self.service, None),
        };
        let Self { source, target, call, times, .. } = self;
        Fault { service, arg, source, target, call: call.max(1), times, action, seen: 0 }
    }
}

fn direction(text: &str) -> Result<Direction> {
    match text {
        "in" => Ok(Direction::In),
        "out" => Ok(Direction::Out),
        _ => bail!("`in` is from the caller to the service, `out` is back"),
    }
}

fn victim(text: &str) -> Result<Victim> {
    match text {
        "client" => Ok(Victim::Client),
        "caller" => Ok(Victim::Caller),
        _ => bail!("`client` is the program that made the call, `caller` the process that started it"),
    }
}

fn point(text: &str) -> Result<Point> {
    Ok(match text.split_once(':') {
        Some((stream, byte)) => Point::At(direction(stream)?, super::size::parse(byte)?),
        None if text == "before" => Point::Before,
        None if text == "after" => Point::After,
        None => bail!("a point is `before`, `after`, `in:BYTE` or `out:BYTE`"),
    })
}
