//! How the program ends: every status that it can have.

use std::process::ExitCode;

use crate::report::Failure;

/// An exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// 0: done, or nothing to do.
    Done,
    /// 1: something failed.
    Failed,
    /// 1: the person said no.
    Declined,
    /// 2: what was asked for cannot be meant.
    Usage,
    /// 3: done, but the first start of a template did not go as it should.
    Unfinished,
    /// 128 and a signal's number: it was interrupted, and what was begun was undone.
    Interrupted(u8),
}

impl Status {
    /// The number.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed | Self::Declined => 1,
            Self::Usage => 2,
            Self::Unfinished => 3,
            Self::Interrupted(signal) => 128_u8.saturating_add(signal),
        }
    }

    /// The word for it in our JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Declined => "declined",
            Self::Usage => "usage",
            Self::Unfinished => "unfinished",
            Self::Interrupted(_) => "interrupted",
        }
    }
}

impl From<&Failure> for Status {
    fn from(failure: &Failure) -> Self {
        match failure {
            Failure::Usage(_) => Self::Usage,
            Failure::Declined => Self::Declined,
            Failure::Interrupted(signal) => Self::Interrupted(u8::try_from(*signal).unwrap_or(0)),
            Failure::Reported | Failure::Told { .. } | Failure::Failed(_) => Self::Failed,
        }
    }
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(status.code())
    }
}
