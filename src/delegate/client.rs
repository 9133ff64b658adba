//! The caller's end of the services: a request to a management qube, its progress as if it were ours, its result.
//!
//! The management qube is believed about the templates, since it has them; what it writes is still bounded and made fit
//! to be shown before anybody sees it.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::io;
use std::time::Duration;

use serde_json::Value;

use super::Verb;
use crate::admin::{CallError, CallName};
use crate::cli::reporter::word;
use crate::qrexec::{Escapes, Limits, NO_SERVICE, Program, REFUSED, Side};
use crate::report::{Failure, Message, Meter, Phase, Reporter};
use crate::untrusted::displayable;

/// Longest line of an answer, in bytes.
const MAX_LINE: usize = 4 << 20;
/// All of an answer, in bytes.
const MAX_ANSWER: u64 = 64 << 20;
/// The other side says something each second; a link that is slower than this is none.
const SILENCE: Duration = Duration::from_secs(120);
/// Most things that progress is told of.
const MAX_SUBJECTS: usize = 256;

/// A management qube, seen from a qube that asks.
pub struct Remote<'a> {
    /// Its name.
    pub qube: &'a str,
    /// Who hears of progress.
    pub reporter: &'a dyn Reporter,
}

impl std::fmt::Debug for Remote<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").field("qube", &self.qube).finish_non_exhaustive()
    }
}

impl Remote<'_> {
    /// Asks, and returns the result line.
    ///
    /// # Errors
    /// When policy refuses the call, or no result comes. A result that is a refusal is no error here.
    pub async fn ask(&self, verb: Verb, name: Option<&str>, request: &Value) -> Result<Value, Failure> {
        let service = verb.service();
        let program = Program::service(Side::here(), self.qube, &service, name, Escapes::Raw);
        let limits = Limits {
            output: MAX_ANSWER,
            errors: 4096,
            total: None,
            // Somebody in dom0 may be asked first.
            first: None,
            idle: Some(SILENCE),
            pace: None,
        };
        let subjects = Subjects::default();
        let mut hearing = Hearing::new(self.reporter, &subjects);
        let input = request.to_string();
        let ended = program.stream(input.as_bytes(), limits, &mut |bytes| hearing.take(bytes)).await;
        let lost = |why: String| {
            let follow = name.map_or_else(String::new, |name| format!(" {name}"));
            let after = if verb.changes() {
                format!("\nhelp: `qvm-template --via {} status{follow}` tells what became of it", self.qube)
            } else {
                String::new()
            };
            Failure::new(format!("{} gave no result: {why}{after}", self.qube))
        };
        let ended = match ended {
            Ok(ended) => ended,
            Err(error) => return Err(lost(format!("{:#}", anyhow::Error::from(error)))),
        };
        match (hearing.finish(), ended.status) {
            (Some(result), _) => Ok(result),
            (None, REFUSED) => Err(CallError::Denied(CallName::new(self.qube, &service, name)).into()),
            (None, NO_SERVICE) => Err(Failure::new(format!(
                "{} offers no {service}\nhelp: a management qube has it in /etc/qubes-rpc",
                self.qube
            ))),
            (None, status) => Err(lost(format!("the connection ended with status {status}"))),
        }
    }
}

/// What comes back, line by line.
struct Hearing<'a> {
    reporter: &'a dyn Reporter,
    subjects: &'a Subjects,
    pending: Vec<u8>,
    last: Vec<u8>,
    meters: HashMap<&'static str, Box<dyn Meter + 'a>>,
    is_waiting: bool,
    result: Option<Value>,
}

impl<'a> Hearing<'a> {
    fn new(reporter: &'a dyn Reporter, subjects: &'a Subjects) -> Self {
        Self {
            reporter,
            subjects,
            pending: Vec::new(),
            last: Vec::new(),
            meters: HashMap::new(),
            is_waiting: false,
            result: None,
        }
    }

    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.pending.extend_from_slice(piece);
            if self.pending.len() > MAX_LINE {
                return Err(io::Error::other("a line of the answer is too long"));
            }
            if self.pending.ends_with(b"\n") {
                let line = std::mem::take(&mut self.pending);
                self.line(&line)?;
            }
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        // The last line is said again while there is nothing new.
        if line == self.last {
            return Ok(());
        }
        let odd = |_| io::Error::other("a line of the answer is not JSON");
        let value: Value = serde_json::from_slice(line).map_err(odd)?;
        self.last = line.to_vec();
        if self.result.is_some() {
            return Err(io::Error::other("something came after the result"));
        }
        if value.get("result").is_some() {
            self.result = Some(value);
            return Ok(());
        }
        self.event(&value);
        Ok(())
    }

    /// Events that are not known are left out: a newer side may have more of them.
    fn event(&mut self, value: &Value) {
        let text = |key: &str| value[key].as_str().unwrap_or_default();
        let phase = PHASES.into_iter().find(|phase| word(*phase) == text("phase"));
        match (text("event"), phase) {
            ("job", _) if text("state") == "waiting" && !self.is_waiting => {
                self.is_waiting = true;
                self.reporter.say(&Message::Note("Waiting for another change to end..."));
            }
            ("message", _) => self.reporter.say(&Message::Note(&displayable(text("text"), true))),
            ("begin", Some(phase)) => {
                let Some(subject) = self.subjects.keep(&displayable(text("template"), false)) else { return };
                let meter = self.reporter.phase(phase, subject, value["total"].as_u64());
                self.meters.insert(word(phase), meter);
            }
            ("progress", Some(phase)) => {
                if let (Some(meter), Some(done)) = (self.meters.get_mut(word(phase)), value["bytes"].as_u64())
                {
                    meter.at(done);
                }
            }
            ("done", Some(phase)) => {
                if let Some(mut meter) = self.meters.remove(word(phase)) {
                    meter.at(value["bytes"].as_u64().unwrap_or(0));
                    meter.finish();
                }
            }
            ("failed", Some(phase)) => drop(self.meters.remove(word(phase))),
            _ => {}
        }
    }

    fn finish(self) -> Option<Value> {
        self.result
    }
}

/// For [`crate::fuzzing`]: reads an answer with nobody to hear of it.
pub fn fuzz(data: &[u8]) {
    struct Nobody;
    struct Nothing;
    impl Meter for Nothing {
        fn at(&mut self, _: u64) {}
        fn finish(self: Box<Self>) {}
    }
    impl Reporter for Nobody {
        fn say(&self, message: &Message<'_>) {
            let text = message.to_string();
            assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
        }
        fn phase<'a>(&'a self, _: Phase, _: &'a str, _: Option<u64>) -> Box<dyn Meter + 'a> {
            Box::new(Nothing)
        }
        fn confirm<'a>(
            &'a self,
            _: &'a str,
            _: &'a [String],
        ) -> crate::qrexec::Pending<'a, io::Result<bool>> {
            Box::pin(std::future::ready(Ok(false)))
        }
    }
    let subjects = Subjects::default();
    let mut hearing = Hearing::new(&Nobody, &subjects);
    let (one, other) = data.split_at(data.len() / 2);
    let _ = hearing.take(one).and_then(|()| hearing.take(other));
}

const PHASES: [Phase; 5] = [Phase::Query, Phase::Download, Phase::Verify, Phase::Import, Phase::PostInstall];

/// Texts that live as long as the meters that show them.
#[derive(Default)]
struct Subjects(OnceCell<Box<(String, Self)>>);

impl Subjects {
    /// The text, kept; none when there are too many.
    fn keep(&self, text: &str) -> Option<&str> {
        let mut at = self;
        for _ in 0..MAX_SUBJECTS {
            let kept = at.0.get_or_init(|| Box::new((text.to_owned(), Self::default())));
            if kept.0 == text {
                return Some(&kept.0);
            }
            at = &kept.1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fake::Heard;

    #[test]
    fn lines_come_in_any_pieces_and_are_said_once() {
        let (heard, subjects) = (Heard::default(), Subjects::default());
        let mut hearing = Hearing::new(&heard, &subjects);
        let text = concat!(
            r#"{"event":"job","job":"1","state":"waiting"}"#,
            "\n",
            r#"{"event":"begin","phase":"import","template":"a","total":3}"#,
            "\n",
            r#"{"event":"message","text":"x\u001b[2Jy"}"#,
            "\n",
            r#"{"event":"message","text":"x\u001b[2Jy"}"#,
            "\n",
            r#"{"event":"new-in-version-7"}"#,
            "\n",
            r#"{"result":"done","exit":0}"#,
            "\n"
        );
        text.as_bytes().chunks(7).for_each(|piece| hearing.take(piece).unwrap());
        assert_eq!(hearing.finish().unwrap()["exit"], 0);
        let said = heard.lines();
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(!said[1].contains('\u{1b}'), "{said:?}");
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for text in ["nonsense\n", "{\"result\":1}\n{\"result\":2}\n"] {
            let (heard, subjects) = (Heard::default(), Subjects::default());
            assert!(Hearing::new(&heard, &subjects).take(text.as_bytes()).is_err(), "{text}");
        }
        let (heard, subjects) = (Heard::default(), Subjects::default());
        assert!(Hearing::new(&heard, &subjects).take(&vec![b' '; MAX_LINE + 1]).is_err());
        assert_eq!(Subjects::default().keep("a"), Some("a"));
        (0..MAX_SUBJECTS).for_each(|number| assert!(subjects.keep(&number.to_string()).is_some()));
        assert_eq!(subjects.keep("one more"), None);
    }
}
