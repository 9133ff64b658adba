//! What use cases say, on standard error: messages, progress, questions.
//!
//! Progress is a bar on a terminal, and elsewhere one line of ASCII that is written over by carriage returns, at most twice
//! a second. `--progress=json` writes one JSON object a line instead; `schema/progress-v1.json` describes them. Whatever
//! is written is made fit to be shown here once more, and is ASCII where nobody looks at a terminal.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, BufRead as _, IsTerminal as _, Write};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::config::Progress;
use super::format::{ascii, python_json};
use super::width::{self, fold};
use crate::qrexec::Pending;
use crate::report::{Message, Meter, Phase, Reporter};
use crate::untrusted::displayable;

/// Version of the lines that `--progress=json` writes.
pub const VERSION: u32 = 1;
/// Time between two lines of progress that is not drawn on a terminal.
const PACE: Duration = Duration::from_millis(500);
/// Cells of a bar of ASCII.
const CELLS: u64 = 20;

/// The reporter of a command line.
pub struct Terminal {
    style: Style,
    is_terminal: bool,
    quiet: bool,
    bars: MultiProgress,
    json: RefCell<Option<Box<dyn Write>>>,
    json_on_stderr: bool,
    answers_on_stdout: Cell<bool>,
    warnings: RefCell<Vec<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    None,
    Bars,
    Line,
    Json,
}

impl std::fmt::Debug for Terminal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Terminal").field("style", &self.style).finish_non_exhaustive()
    }
}

impl Terminal {
    /// A reporter that shows progress as `progress` says, and none when `quiet`.
    ///
    /// # Errors
    /// When the descriptor for lines of JSON cannot be written to.
    pub fn new(progress: Progress, quiet: bool) -> anyhow::Result<Self> {
        let is_terminal = io::stderr().is_terminal();
        let mut json: Option<Box<dyn Write>> = None;
        let style = match progress {
            Progress::Json(fd) => {
                json = Some(match fd {
                    1 => Box::new(io::stdout()),
                    2 => Box::new(io::stderr()),
                    fd => Box::new(
                        File::options()
                            .append(true)
                            .open(format!("/dev/fd/{fd}"))
                            .with_context(|| format!("opening file descriptor {fd} for progress"))?,
                    ),
                });
                Style::Json
            }
            Progress::None => Style::None,
            _ if quiet => Style::None,
            Progress::Plain => Style::Line,
            Progress::Auto if is_terminal && std::env::var_os("TERM").is_some_and(|term| term != "dumb") => {
                Style::Bars
            }
            Progress::Auto => Style::Line,
        };
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let json_on_stderr = progress == Progress::Json(2);
        let answers_on_stdout = Cell::new(true);
        Ok(Self {
            style,
            is_terminal,
            quiet,
            bars,
            json: RefCell::new(json),
            json_on_stderr,
            answers_on_stdout,
            warnings: RefCell::default(),
        })
    }

    /// Lets questions go to standard error, because standard output is for JSON only.
    pub fn keep_stdout_clean(&self) {
        self.answers_on_stdout.set(false);
    }

    /// The warnings that were said so far.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.borrow().clone()
    }

    /// Writes a line to standard error.
    pub fn line(&self, text: &str) {
        let text = displayable(text, true);
        let text = if self.is_terminal { fitted(&text) } else { ascii(&text) };
        // Nobody is left to be told when standard error is gone.
        self.bars.suspend(|| drop(writeln!(io::stderr(), "{text}")));
    }

    fn json_line(&self, value: serde_json::Value) {
        if let Some(out) = self.json.borrow_mut().as_mut() {
            let line = python_json(&value);
            let _ = writeln!(out, "{line}").and_then(|()| out.flush());
        }
    }
}

impl Reporter for Terminal {
    fn say(&self, message: &Message<'_>) {
        // What reads the original's lines gets the original's lines, as long as there is nothing to add.
        if matches!(message, Message::Summary { well: true, .. }) && (!self.is_terminal || self.quiet) {
            return;
        }
        let text = message.to_string();
        if let Message::Warning(text) = message {
            self.warnings.borrow_mut().push(displayable(text, true));
        }
        if self.style == Style::Json {
            let kind = if matches!(message, Message::Warning(_)) { "warning" } else { "note" };
            self.json_line(json!({"version": VERSION, "event": "message", "kind": kind, "text": displayable(&text, true)}));
        }
        if !self.json_on_stderr {
            self.line(&text);
        }
    }

    fn phase<'a>(&'a self, phase: Phase, subject: &'a str, total: Option<u64>) -> Box<dyn Meter + 'a> {
        let bar = match self.style {
            Style::Bars => {
                let bar = self.bars.add(bar(phase, subject, total));
                if total.is_none() {
                    bar.enable_steady_tick(Duration::from_millis(250));
                }
                bar
            }
            _ => ProgressBar::hidden(),
        };
        let now = Instant::now();
        let mut meter = Shown {
            terminal: self,
            phase,
            subject,
            total,
            bar,
            begun: now,
            told: None,
            done: 0,
            drawn: 0,
            ended: false,
        };
        meter.tell("begin");
        Box::new(meter)
    }

    fn confirm<'a>(&'a self, text: &'a str, names: &'a [String]) -> Pending<'a, io::Result<bool>> {
        let mut question = format!("{text}\n");
        names.iter().for_each(|name| question.push_str(&format!("  {name}\n")));
        question.push_str("Are you sure? [y/N] ");
        Box::pin(async move {
            let asked = self.bars.suspend(|| {
                if self.answers_on_stdout.get() {
                    let mut out = io::stdout();
                    let question =
                        width::columns(&out).map_or_else(|| question.clone(), |room| fold(&question, room));
                    out.write_all(question.as_bytes()).and_then(|()| out.flush())
                } else {
                    io::stderr().write_all(fitted(&question).as_bytes())
                }
            });
            asked?;
            // A thread of its own: nothing waits for it when a signal ends the question.
            let (send, answer) = tokio::sync::oneshot::channel();
            std::thread::spawn(move || {
                let mut line = String::new();
                let read = io::stdin().lock().read_line(&mut line);
                let _ = send.send(read.map(|length| (length, line)));
            });
            let (length, line) = answer.await.map_err(io::Error::other)??;
            if length == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "EOF when reading a line"));
            }
            Ok(matches!(line.strip_suffix('\n').unwrap_or(&line), "y" | "Y"))
        })
    }
}

/// How far one phase is.
struct Shown<'a> {
    terminal: &'a Terminal,
    phase: Phase,
    subject: &'a str,
    total: Option<u64>,
    bar: ProgressBar,
    begun: Instant,
    told: Option<Instant>,
    done: u64,
    /// Columns of the line that was drawn last.
    drawn: usize,
    ended: bool,
}

impl Shown<'_> {
    /// What the original shows a bar for; the others would stand in the way of what reads our standard error.
    fn has_line(&self) -> bool {
        self.terminal.style == Style::Line && self.phase == Phase::Download
    }

    fn rate(&self) -> u64 {
        let milliseconds = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        self.done.saturating_mul(1000) / milliseconds
    }

    fn tell(&mut self, event: &str) {
        self.told = Some(Instant::now());
        if self.terminal.style == Style::Json {
            self.terminal.json_line(json!({
                "version": VERSION,
                "event": event,
                "phase": word(self.phase),
                "template": self.subject,
                "bytes": self.done,
                "total": self.total,
                "rate": self.rate(),
            }));
        } else if self.has_line() {
            let line = ascii(&displayable(&line(self.subject, self.done, self.total, self.rate()), false));
            let line = match width::columns(io::stderr()) {
                Some(columns) => line.chars().take(columns - 1).collect(),
                None => line,
            };
            let end = if event == "done" || event == "failed" { "\n" } else { "" };
            // What is shorter than the line before it covers all of that.
            let _ = write!(io::stderr(), "\r{line:<0$}{end}", self.drawn);
            self.drawn = line.len();
        }
    }
}

impl Meter for Shown<'_> {
    fn at(&mut self, done: u64) {
        self.done = done;
        self.bar.set_position(done);
        if self.told.is_none_or(|told| told.elapsed() >= PACE) {
            self.tell("progress");
        }
    }

    fn finish(mut self: Box<Self>) {
        self.ended = true;
        self.tell("done");
        self.bar.finish_and_clear();
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.tell("failed");
            self.bar.finish_and_clear();
        }
    }
}

fn bar(phase: Phase, subject: &str, total: Option<u64>) -> ProgressBar {
    // Drawn where it is added, not before.
    let hidden = ProgressDrawTarget::hidden;
    let (bar, template) = match total {
        Some(total) => (
            ProgressBar::with_draw_target(Some(total), hidden()),
            match width::columns(io::stderr()) {
                Some(0..60) => "{wide_msg} {percent:>3}% {eta:>4}",
                Some(60..100) => "{prefix} {wide_msg} {percent:>3}% {bytes:>10} {bytes_per_sec:>12} {eta:>4}",
                _ => "{prefix} {wide_msg} {percent:>3}% [{bar:20}] {bytes:>10} {bytes_per_sec:>12} {eta:>4}",
            },
        ),
        None => (ProgressBar::with_draw_target(None, hidden()), "{prefix} {wide_msg} {spinner} {elapsed}"),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("#>-").tick_chars("|/-\\ "));
    }
    bar.set_prefix(format!("{:<10}", word(phase)));
    bar.set_message(displayable(subject, false));
    bar
}

/// A text for the terminal on standard error, no wider than that.
fn fitted(text: &str) -> String {
    width::columns(io::stderr()).map_or_else(|| text.to_owned(), |columns| fold(text, columns))
}

/// One line of ASCII, in the manner of the original's.
fn line(subject: &str, done: u64, total: Option<u64>, rate: u64) -> String {
    let Some(total) = total.filter(|total| *total > 0) else {
        return format!("{subject}: {}B [{}B/s]", decimal(done), decimal(rate));
    };
    let part = |whole: u64| done.min(total).saturating_mul(whole) / total;
    let filled = usize::try_from(part(CELLS)).unwrap_or_default();
    let cells = usize::try_from(CELLS).unwrap_or_default();
    let left = total.saturating_sub(done).checked_div(rate).map_or_else(|| "?".to_owned(), clock);
    let bar = "#".repeat(filled) + &" ".repeat(cells - filled);
    format!(
        "{subject}: {:>3}%|{bar}| {}/{} [{left}, {}B/s]",
        part(100),
        decimal(done),
        decimal(total),
        decimal(rate)
    )
}

/// A number with a decimal unit: `12.3M`.
fn decimal(number: u64) -> String {
    let units = [(1_000_000_000, 'G'), (1_000_000, 'M'), (1_000, 'k')];
    let unit = units.iter().find(|(size, _)| number >= *size);
    unit.map_or_else(
        || number.to_string(),
        |(size, unit)| format!("{}.{}{unit}", number / size, number % size * 10 / size),
    )
}

fn clock(seconds: u64) -> String {
    format!("{:02}:{:02}", seconds / 60, seconds % 60)
}

/// The phase as lines of JSON name it.
pub(crate) fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::Query => "query",
        Phase::Download => "download",
        Phase::Verify => "verify",
        Phase::Import => "import",
        Phase::PostInstall => "post-install",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_progress_are_short_ascii() {
        assert_eq!(line("x", 0, Some(2_500_000), 0), "x:   0%|                    | 0/2.5M [?, 0B/s]");
        assert_eq!(
            line("x", 1_250_000, Some(2_500_000), 125_000),
            "x:  50%|##########          | 1.2M/2.5M [00:10, 125.0kB/s]"
        );
        assert_eq!(line("x", 9, Some(9), 1), "x: 100%|####################| 9/9 [00:00, 1B/s]");
        assert_eq!(line("x", 9, Some(3), 1), "x: 100%|####################| 9/3 [00:00, 1B/s]");
        assert_eq!(line("x", 1_999, None, 10), "x: 1.9kB [10B/s]");
    }
}
