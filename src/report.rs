//! What use cases say while they work, and how they end.
//!
//! A use case knows no terminal. It hands [`Message`]s, the progress of [`Phase`]s and questions to a [`Reporter`], and
//! ends with a [`Failure`] that says who must act; presentation decides where and how that is shown. The text of a
//! message is the one of the original tool where it has one.

use std::fmt;

use crate::qrexec::Pending;

/// Something that a person may want to know, on standard error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A download begins; the name of the package without `.rpm`.
    Downloading(&'a str),
    /// The file is there already (M14).
    AlreadyThere(&'a str),
    /// `--nogpgcheck` does not apply to what was downloaded (M19).
    CheckedAnyway,
    /// `--nogpgcheck` applies to this local file: what was not looked at.
    Unsigned(&'a str),
    /// A download did not succeed, for this reason, and is tried again.
    Retrying {
        /// Package.
        file: &'a str,
        /// Why.
        cause: &'a str,
    },
    /// A download did not succeed, for this reason, and is not tried again.
    DownloadFailed {
        /// Package.
        file: &'a str,
        /// Why; empty when nothing was tried.
        cause: &'a str,
    },
    /// The template is there already (M15).
    AlreadyInstalled(&'a str),
    /// The installed build is not what the command is for (M7, M8, M16, M17): template, or what was typed, and the end
    /// of the sentence such as `of highest version`.
    Skipping(&'a str, &'a str),
    /// An installation begins.
    Installing(&'a str),
    /// Something about one qube.
    Qube(&'a str, &'a str),
    /// One line that a remote service wrote to its standard error, free of control characters.
    Remote(&'a str),
    /// Something failed, of one template among several: the others go on.
    Failed(&'a str, &'a str),
    /// What became of several templates. All of it was said before if it went well: then only a person reads it again.
    Summary {
        /// The lines.
        text: &'a str,
        /// Whether nothing failed.
        well: bool,
    },
    /// Something else that is worth a line, and not a warning.
    Note(&'a str),
    /// Something that went otherwise than asked.
    Warning(&'a str),
}

impl fmt::Display for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Downloading(file) => write!(f, "Downloading '{file}'..."),
            Self::AlreadyThere(path) => write!(f, "'{path}' already exists, skipping..."),
            Self::CheckedAnyway => f.write_str("Warning: --nogpgcheck is ignored for downloaded templates"),
            Self::Unsigned(path) => write!(
                f,
                "Warning: --nogpgcheck: nobody's signature on '{path}' is checked, only its digests; whoever made or \
                 changed this file decides what the template does"
            ),
            Self::Retrying { file, cause } => {
                write!(f, "'{file}' download failed, retrying...\nreason: {cause}")
            }
            Self::DownloadFailed { file, cause } => {
                write!(f, "Error: '{file}' download failed.")?;
                if cause.is_empty() { Ok(()) } else { write!(f, "\nreason: {cause}") }
            }
            Self::AlreadyInstalled(name) => write!(
                f,
                "Template '{name}' already installed, skipping... (You may want to use the \
                 {{reinstall,upgrade,downgrade}} operations.)"
            ),
            Self::Skipping(name, state) => {
                write!(f, "Template '{name}' {state} already installed, skipping...")
            }
            Self::Installing(name) => write!(f, "Installing template '{name}'..."),
            Self::Qube(name, text) => write!(f, "{name}: {text}"),
            Self::Remote(line) => write!(f, "[Qrexec] {line}"),
            Self::Failed(name, text) => write!(f, "ERROR: {name}: {text}"),
            Self::Note(text) | Self::Summary { text, .. } => f.write_str(text),
            Self::Warning(text) => write!(f, "Warning: {text}"),
        }
    }
}

/// A part of the work that takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Asking the UpdateVM what there is.
    Query,
    /// Getting a package.
    Download,
    /// Checking a local package.
    Verify,
    /// Writing the image into its volume.
    Import,
    /// First start, services of the template, shutdown.
    PostInstall,
}

/// Shows how far a phase is. Dropping it without [`Meter::finish`] means that the phase failed.
pub trait Meter {
    /// So many bytes are done.
    fn at(&mut self, done: u64);
    /// The phase ended well.
    fn finish(self: Box<Self>);
}

/// Whoever listens to a use case.
pub trait Reporter {
    /// A message.
    fn say(&self, message: &Message<'_>);
    /// A phase begins. `subject` is what the progress bar is labelled with, `total` the bytes to come, where known.
    fn phase<'a>(&'a self, phase: Phase, subject: &'a str, total: Option<u64>) -> Box<dyn Meter + 'a>;
    /// Asks whether to go on: `text`, then `names` one a line, then the prompt. An end of input is an error. The
    /// question waits for an answer without holding up the thread, so that a signal can end it.
    fn confirm<'a>(&'a self, text: &'a str, names: &'a [String]) -> Pending<'a, std::io::Result<bool>>;
}

/// How a use case ends when it does not end well.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// What was asked for cannot be meant: status 2, like an error of the command line.
    #[error("{0}")]
    Usage(String),
    /// The person said no. Nothing was changed.
    #[error("command cancelled.")]
    Declined,
    /// All there is to say was said as a [`Message`].
    #[error("failed")]
    Reported,
    /// The same, with a text for who did not hear the messages.
    #[error("{message}")]
    Told {
        /// A word for the cause that stays the same in all versions.
        cause: &'static str,
        /// What was said, in one text.
        message: String,
    },
    /// A signal ended it, and what was begun was undone. The number of the signal.
    #[error("interrupted")]
    Interrupted(i32),
    /// Anything else: status 1.
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

impl Failure {
    /// A failure with this sentence.
    #[must_use]
    pub fn new(sentence: impl fmt::Display) -> Self {
        Self::Failed(anyhow::anyhow!("{sentence}"))
    }

    /// Status that the process ends with.
    #[must_use]
    pub fn status(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Interrupted(signal) => u8::try_from(128 + signal).unwrap_or(1),
            Self::Declined | Self::Reported | Self::Told { .. } | Self::Failed(_) => 1,
        }
    }
}

impl From<crate::admin::CallError> for Failure {
    fn from(error: crate::admin::CallError) -> Self {
        Self::Failed(error.into())
    }
}

/// A reporter that remembers what was said.
#[cfg(test)]
pub mod fake {
    use std::cell::{Cell, RefCell};

    use super::{Message, Meter, Pending, Phase, Reporter};

    /// What was said, and what is answered.
    #[derive(Debug, Default)]
    pub struct Heard {
        said: RefCell<Vec<String>>,
        /// Answer to questions.
        pub answer: Cell<bool>,
    }

    impl Heard {
        /// What was said so far.
        pub fn lines(&self) -> Vec<String> {
            self.said.borrow().clone()
        }
    }

    struct Nothing;

    impl Meter for Nothing {
        fn at(&mut self, _: u64) {}
        fn finish(self: Box<Self>) {}
    }

    impl Reporter for Heard {
        fn say(&self, message: &Message<'_>) {
            self.said.borrow_mut().push(message.to_string());
        }

        fn phase<'a>(&'a self, _: Phase, _: &'a str, _: Option<u64>) -> Box<dyn Meter + 'a> {
            Box::new(Nothing)
        }

        fn confirm<'a>(&'a self, text: &'a str, names: &'a [String]) -> Pending<'a, std::io::Result<bool>> {
            self.said.borrow_mut().push(format!("{text} {}", names.join(" ")));
            Box::pin(std::future::ready(Ok(self.answer.get())))
        }
    }
}
