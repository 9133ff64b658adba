//! What a caller gets: lines of JSON, the last of which is the result.
//!
//! ```text
//! {"version":1,"event":"job","job":null,"state":"received"}      before anything is decided
//! {"version":1,"event":"job","job":"0f8c...","state":"running"}
//! {"version":1,"event":"begin","phase":"download",...}          as cli/schema/progress-v1.json has them
//! {"schema":1,"command":"install","result":"done","exit":0,...}  the last line, and the only one with "result"
//! ```
//!
//! A caller may read slowly, or lose its connection. Lines go through a queue that another thread empties: progress
//! that nobody reads is left out, and the work never waits for its reader. A caller that is gone shows when a line
//! cannot be written; so that this does not take long, the last line of progress is said again each second.
//!
//! What goes out is made here from values that were checked, or is one of the fixed sentences of [`Refused`]. Texts of
//! the use cases can name other qubes, files and rules, and stay here.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::records::Records;
use super::request::OnHangup;
use crate::cli::format::python_json;
use crate::qrexec::Pending;
use crate::report::{Message, Meter, Phase, Reporter};
use crate::untrusted::displayable;

/// Time between two lines of progress of one phase.
const PACE: Duration = Duration::from_millis(500);
/// After so long without a line the last one is said again.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Lines that wait for a slow reader; more are left out, but for the result.
const WAITING: usize = 64;
/// How long a slow reader may take for the end of an answer.
const LAST: Duration = Duration::from_secs(60);

/// Why a request is not carried out, in the words that every caller gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Grants do not allow it.
    Grants,
    /// The request is no request; the reason is about its own text.
    Malformed(&'static str),
    /// There is no such template, or it is not the caller's: the same to him.
    NoTemplate,
    /// No granted repository has such a build, or the name is taken: the same to him.
    NotAvailable,
    /// There is no such job of this caller.
    NoJob,
    /// The plan is none, is not the caller's, or does not hold any more.
    PlanVoid,
    /// More templates or bytes than granted.
    Quota,
    /// More changes in an hour than granted.
    Rate,
    /// Another change is under way.
    Busy,
    /// The template runs.
    Running,
    /// Something uses the template.
    InUse,
    /// Nothing to list.
    Nothing,
    /// It was ended, and what was begun was undone.
    Cancelled,
    /// The management qube could not do it; why is in its log.
    Failed,
}

impl Refused {
    const ALL: [Self; 14] = [
        Self::Grants,
        Self::Malformed(""),
        Self::NoTemplate,
        Self::NotAvailable,
        Self::NoJob,
        Self::PlanVoid,
        Self::Quota,
        Self::Rate,
        Self::Busy,
        Self::Running,
        Self::InUse,
        Self::Nothing,
        Self::Cancelled,
        Self::Failed,
    ];

    /// The same word as a caller got it; `failed` for one that is not known here.
    #[must_use]
    pub fn known(cause: &str) -> &'static str {
        Self::ALL.into_iter().map(Self::cause).find(|known| *known == cause).unwrap_or("failed")
    }

    /// The word for it that stays the same.
    #[must_use]
    pub fn cause(self) -> &'static str {
        match self {
            Self::Grants => "refused",
            Self::Malformed(_) => "malformed-request",
            Self::NoTemplate => "no-such-template",
            Self::NotAvailable => "not-available",
            Self::NoJob => "no-such-job",
            Self::PlanVoid => "plan-void",
            Self::Quota => "quota",
            Self::Rate => "rate",
            Self::Busy => "busy",
            Self::Running => "running",
            Self::InUse => "in-use",
            Self::Nothing => "nothing",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }

    /// The sentence, and what to do.
    #[must_use]
    pub fn message(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Grants => {
                ("the management qube does not grant this request", Some("ask who manages its grants"))
            }
            Self::Malformed(why) => (why, None),
            Self::NoTemplate => ("there is no such template", None),
            Self::NotAvailable => ("no such template can be installed here", None),
            Self::NoJob => ("there is no such job", None),
            Self::PlanVoid => ("the plan does not hold any more", Some("make a new one")),
            Self::Quota => ("more templates or a larger image than granted", Some("remove one first")),
            Self::Rate => ("more changes within an hour than granted", Some("try again later")),
            Self::Busy => ("another change is under way", Some("try again later")),
            Self::Running => ("the template is not shut down", Some("shut it down first")),
            Self::InUse => ("something uses the template", None),
            Self::Nothing => ("No matching templates to list", None),
            Self::Cancelled => ("ended on request; what was begun was undone", None),
            Self::Failed => ("the management qube could not do it", Some("its log has the reason")),
        }
    }

    /// The status that a command ends with because of it.
    #[must_use]
    pub fn exit(self) -> u8 {
        match self {
            Self::Malformed(_) | Self::NoTemplate | Self::Nothing | Self::NoJob => 2,
            Self::Cancelled => 143,
            _ => 1,
        }
    }

    /// The result line.
    #[must_use]
    pub fn line(self, command: &str, job: Option<&str>) -> Value {
        let (message, help) = self.message();
        let error = json!({"cause": self.cause(), "message": message, "help": help});
        let mut line = json!({
            "schema": 1, "command": command, "result": "failed", "exit": self.exit(), "error": error,
            "warnings": [], "templates": [],
        });
        if let Some(job) = job {
            line["job"] = json!(job);
        }
        line
    }
}

/// The way to a caller.
#[derive(Debug)]
pub struct Outbox {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug)]
struct Queue {
    lines: VecDeque<String>,
    /// What is said again when there is nothing new.
    beat: Option<String>,
    on_hangup: OnHangup,
    closed: bool,
    /// All is written, or nobody is there to be written to.
    over: bool,
    gone: bool,
}

impl Outbox {
    /// Starts to write to `out`.
    #[must_use]
    pub fn new(out: impl Write + Send + 'static) -> Self {
        let queue = Queue {
            lines: VecDeque::new(),
            beat: None,
            on_hangup: OnHangup::Continue,
            closed: false,
            over: false,
            gone: false,
        };
        let shared = Arc::new(Shared { queue: Mutex::new(queue), changed: Condvar::new() });
        let own = Arc::clone(&shared);
        std::thread::spawn(move || own.write_all(out));
        Self { shared }
    }

    /// Says what becomes of the work when the caller goes.
    pub fn on_hangup(&self, what: OnHangup) {
        let mut queue = self.shared.lock();
        queue.on_hangup = what;
        if queue.gone && what == OnHangup::Cancel {
            end_this_process();
        }
    }

    /// A line that may be left out for a slow reader.
    pub fn send(&self, line: String) {
        let mut queue = self.shared.lock();
        queue.beat = Some(line.clone());
        if queue.lines.len() < WAITING {
            queue.lines.push_back(line);
            self.shared.changed.notify_all();
        }
    }

    /// The last line. Returns when it was written, or nobody will read it.
    pub fn finish(&self, result: &Value) {
        let mut queue = self.shared.lock();
        queue.lines.push_back(python_json(result));
        queue.closed = true;
        self.shared.changed.notify_all();
        let end = Instant::now() + LAST;
        while !queue.over {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            queue = self.shared.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_all(&self, mut out: impl Write) {
        loop {
            let mut queue = self.lock();
            while queue.lines.is_empty() && !queue.closed {
                let (next, time) =
                    self.changed.wait_timeout(queue, HEARTBEAT).unwrap_or_else(PoisonError::into_inner);
                queue = next;
                if time.timed_out()
                    && queue.lines.is_empty()
                    && let Some(beat) = queue.beat.clone()
                {
                    queue.lines.push_back(beat);
                }
            }
            let Some(line) = queue.lines.pop_front() else { break };
            drop(queue);
            if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
                self.hung_up();
                break;
            }
        }
        let mut queue = self.lock();
        queue.over = true;
        self.changed.notify_all();
    }

    fn hung_up(&self) {
        let mut queue = self.lock();
        queue.gone = true;
        if queue.on_hangup == OnHangup::Cancel && !queue.closed {
            end_this_process();
        }
    }
}

/// Ends what this process does as a signal from outside would: undone where it was begun.
pub(super) fn end_this_process() {
    let _ = kill(Pid::this(), Signal::SIGTERM);
}

/// The reporter of a job: progress goes to the caller and to its record, and only what is about its own template.
pub struct Lines<'a> {
    outbox: &'a Outbox,
    records: &'a Records,
    job: &'a str,
    template: &'a str,
    /// What use cases said, for the log of this qube.
    said: RefCell<Vec<String>>,
    noted: Cell<Option<Instant>>,
}

impl std::fmt::Debug for Lines<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lines").field("job", &self.job).finish_non_exhaustive()
    }
}

/// Most of what use cases say that is kept for the log, in lines.
const SAID: usize = 20;

impl<'a> Lines<'a> {
    /// A reporter for a job about a template; the name of a job that is none is empty.
    #[must_use]
    pub fn new(outbox: &'a Outbox, records: &'a Records, job: &'a str, template: &'a str) -> Self {
        Self { outbox, records, job, template, said: RefCell::default(), noted: Cell::new(None) }
    }

    /// The job's own line: what becomes of it.
    pub fn tell_state(&self, state: &str) {
        self.send(&json!({"version": 1, "event": "job", "job": self.job, "state": state}), true);
    }

    /// A line of progress of another process, said again.
    pub fn repeat(&self, line: &Value) {
        self.send(line, false);
    }

    /// What was said and not passed on, in one text.
    #[must_use]
    pub fn said(&self) -> String {
        self.said.borrow().join("; ")
    }

    fn send(&self, value: &Value, note: bool) {
        let line = python_json(value);
        if !self.job.is_empty() && (note || self.noted.get().is_none_or(|at| at.elapsed() >= HEARTBEAT)) {
            self.noted.set(Some(Instant::now()));
            self.records.note_progress(self.job, &line);
        }
        self.outbox.send(line);
    }

    /// What a caller may read of a message: the kind that it is, and nothing that came from elsewhere.
    fn for_caller(&self, message: &Message<'_>) -> Option<String> {
        match message {
            Message::Downloading(_) | Message::Installing(_) => Some(message.to_string()),
            Message::AlreadyInstalled(name) | Message::Skipping(name, _) if *name == self.template => {
                Some(message.to_string())
            }
            Message::Retrying { file, .. } => Some(format!("'{file}' download failed, retrying...")),
            Message::DownloadFailed { file, .. } => Some(format!("Error: '{file}' download failed.")),
            Message::Qube(name, text) if *name == self.template && SAFE.contains(text) => {
                Some(message.to_string())
            }
            _ => None,
        }
    }
}

/// What a caller may be told about its template while it is worked on.
const SAFE: [&str; 2] = ["Importing data", "Clearing private volume"];

impl Reporter for Lines<'_> {
    fn say(&self, message: &Message<'_>) {
        if let Some(text) = self.for_caller(message) {
            let text = displayable(&text, true);
            self.send(&json!({"version": 1, "event": "message", "kind": "note", "text": text}), false);
            return;
        }
        let mut said = self.said.borrow_mut();
        if said.len() < SAID {
            said.push(displayable(&message.to_string(), false));
        }
    }

    fn phase<'a>(&'a self, phase: Phase, subject: &'a str, total: Option<u64>) -> Box<dyn Meter + 'a> {
        let begun = Instant::now();
        let mut meter =
            Progress { lines: self, phase, subject, total, begun, told: begun, done: 0, ended: false };
        meter.tell("begin");
        Box::new(meter)
    }

    /// Nobody is there to be asked: policy and grants have answered.
    fn confirm<'a>(&'a self, _: &'a str, _: &'a [String]) -> Pending<'a, io::Result<bool>> {
        Box::pin(std::future::ready(Ok(true)))
    }
}

struct Progress<'a> {
    lines: &'a Lines<'a>,
    phase: Phase,
    subject: &'a str,
    total: Option<u64>,
    begun: Instant,
    told: Instant,
    done: u64,
    ended: bool,
}

impl Progress<'_> {
    fn tell(&mut self, event: &str) {
        self.told = Instant::now();
        let milliseconds = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        let line = json!({
            "version": 1, "event": event, "phase": crate::cli::reporter::word(self.phase),
            "template": displayable(self.subject, false), "bytes": self.done, "total": self.total,
            "rate": self.done.saturating_mul(1000) / milliseconds,
        });
        self.lines.send(&line, event != "progress");
    }
}

impl Meter for Progress<'_> {
    fn at(&mut self, done: u64) {
        self.done = done;
        if self.told.elapsed() >= PACE {
            self.tell("progress");
        }
    }

    fn finish(mut self: Box<Self>) {
        self.ended = true;
        self.tell("done");
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.tell("failed");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;
    use crate::state::Directory;

    struct Slow(Sender<Vec<u8>>, Duration);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            std::thread::sleep(self.1);
            self.0.send(bytes.to_vec()).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines(receive: &std::sync::mpsc::Receiver<Vec<u8>>) -> Vec<Value> {
        let bytes: Vec<u8> = receive.try_iter().flatten().collect();
        String::from_utf8(bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_slow_reader_misses_progress_and_gets_the_result() {
        let (send, receive) = channel();
        let outbox = Outbox::new(Slow(send, Duration::from_millis(2)));
        let begun = Instant::now();
        for number in 0..5000 {
            outbox.send(format!("{{\"number\":{number}}}"));
        }
        assert!(begun.elapsed() < Duration::from_secs(2), "the work waited for its reader");
        outbox.finish(&json!({"result": "done"}));
        let lines = lines(&receive);
        assert!(lines.len() < 3000, "{}", lines.len());
        assert_eq!(lines.last().unwrap()["result"], "done");
    }

    #[test]
    fn a_reader_that_went_holds_nothing_up() {
        let (send, receive) = channel();
        let outbox = Outbox::new(Slow(send, Duration::ZERO));
        drop(receive);
        outbox.send("{}".to_owned());
        let begun = Instant::now();
        outbox.finish(&json!({}));
        assert!(begun.elapsed() < Duration::from_secs(5));
        assert!(outbox.shared.lock().gone);
    }

    #[test]
    fn a_caller_hears_of_its_own_template_only() {
        let place = tempfile::tempdir().unwrap();
        let records = Records::new(Directory::at(place.path()));
        let (send, receive) = channel();
        let outbox = Outbox::new(Slow(send, Duration::ZERO));
        let own = Lines::new(&outbox, &records, "", "mine");
        own.say(&Message::Warning("/etc/qubes/secret"));
        own.say(&Message::Remote("sys-net says"));
        own.say(&Message::Qube("other", "Importing data"));
        own.say(&Message::Qube("mine", "dom0 said: Domain is in use by 'other'"));
        own.say(&Message::AlreadyInstalled("other"));
        own.say(&Message::Retrying { file: "f", cause: "no route to mirror.internal" });
        own.say(&Message::Installing("mine"));
        own.phase(Phase::Import, "mine", Some(3)).at(1);
        outbox.finish(&Refused::NoTemplate.line("remove", None));
        let texts: Vec<String> = lines(&receive).iter().map(Value::to_string).collect();
        assert_eq!(texts.len(), 5, "{texts:?}");
        for secret in ["secret", "sys-net", "other", "internal", "dom0"] {
            assert!(!texts.iter().any(|line| line.contains(secret)), "{secret}: {texts:?}");
        }
        assert!(own.said().contains("sys-net says"));
    }
}
