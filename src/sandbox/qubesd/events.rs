//! `admin.Events`: what happens in the system, told to whoever listens and may see it.
//!
//! One event is `1 NUL SUBJECT NUL EVENT NUL (KEY NUL VALUE NUL)* NUL`. The subject is empty for the system itself. A
//! stream starts with `connection-established` and has no end.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use super::{Facts, Visibility};

/// Events of one listener, as they come.
#[derive(Debug)]
pub struct EventStream(Receiver<Vec<u8>>);

impl EventStream {
    /// The next event's bytes. None after this long without one.
    ///
    /// # Errors
    /// When the server has gone.
    pub fn next(&self, patience: Duration) -> Result<Option<Vec<u8>>, Gone> {
        match self.0.recv_timeout(patience) {
            Ok(event) => Ok(Some(event)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(Gone),
        }
    }
}

/// The server has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server has gone")]
pub struct Gone;

/// Who listens.
#[derive(Debug, Default)]
pub struct Events {
    listeners: Vec<Listener>,
}

#[derive(Debug)]
struct Listener {
    source: String,
    /// The qube whose events are wanted; none: all and the system's.
    about: Option<String>,
    to: Sender<Vec<u8>>,
}

/// One event.
#[derive(Clone, Debug)]
pub(super) struct Event {
    /// The qube it happened to; none: the system.
    pub subject: Option<String>,
    /// What happened.
    pub name: String,
    /// More about it.
    pub values: Vec<(&'static str, String)>,
}

impl Event {
    fn bytes(&self) -> Vec<u8> {
        let mut text = format!("1\0{}\0{}\0", self.subject.as_deref().unwrap_or_default(), self.name);
        for (key, value) in &self.values {
            text.push_str(&format!("{key}\0{value}\0"));
        }
        text.push('\0');
        text.into_bytes()
    }

    /// The qube that policy is asked about: the one that comes or goes for the system's news of it.
    fn policy_target(&self) -> &str {
        let comes_or_goes = matches!(self.name.as_str(), "domain-add" | "domain-delete");
        let named = self.values.iter().find(|(key, _)| *key == "vm").map(|(_, value)| value.as_str());
        match (&self.subject, named) {
            (Some(subject), _) => subject,
            (None, Some(vm)) if comes_or_goes => vm,
            (None, _) => "dom0",
        }
    }
}

impl Events {
    /// A new listener.
    pub(super) fn listen(&mut self, source: &str, about: Option<&str>) -> EventStream {
        let (to, from) = channel();
        let hello = Event { subject: None, name: "connection-established".into(), values: Vec::new() };
        // The receiver is ours: it is there.
        let _ = to.send(hello.bytes());
        self.listeners.push(Listener { source: source.to_owned(), about: about.map(str::to_owned), to });
        EventStream(from)
    }

    /// Tells everybody who listens and may see it.
    pub(super) fn tell(
        &mut self,
        visibility: &Arc<dyn Visibility>,
        facts: impl FnOnce() -> Facts,
        event: &Event,
    ) {
        if self.listeners.is_empty() {
            return;
        }
        let facts = facts();
        let arg = event.name.replace(':', "_");
        let target = event.policy_target();
        self.listeners.retain(|listener| {
            let wanted = listener.about.as_ref().is_none_or(|qube| event.subject.as_ref() == Some(qube));
            let seen = wanted
                && (listener.source == "dom0"
                    || visibility.allows(&facts, &listener.source, "admin.Events", &arg, target));
            !seen || listener.to.send(event.bytes()).is_ok()
        });
    }
}
