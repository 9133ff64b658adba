//! Power states.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The state of a qube's domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Power {
    /// No domain.
    #[default]
    Halted,
    /// The domain exists, its agent is not connected yet.
    Transient,
    /// Up.
    Running,
    /// Its processors stand still.
    Paused,
    /// Asleep with the machine.
    Suspended,
    /// On its way down.
    Halting,
    /// Gone, its memory is not.
    Dying,
    /// Ended by itself in a bad way.
    Crashed,
    /// The server cannot tell.
    NA,
}

impl Power {
    /// The state of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [
            Self::Halted,
            Self::Transient,
            Self::Running,
            Self::Paused,
            Self::Suspended,
            Self::Halting,
            Self::Dying,
            Self::Crashed,
            Self::NA,
        ]
        .into_iter()
        .find(|state| state.as_str() == name)
    }

    /// The name as the Admin API writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Halted => "Halted",
            Self::Transient => "Transient",
            Self::Running => "Running",
            Self::Paused => "Paused",
            Self::Suspended => "Suspended",
            Self::Halting => "Halting",
            Self::Dying => "Dying",
            Self::Crashed => "Crashed",
            Self::NA => "NA",
        }
    }

    /// Whether there is no domain.
    #[must_use]
    pub const fn is_halted(self) -> bool {
        matches!(self, Self::Halted | Self::Dying | Self::Crashed)
    }
}

impl fmt::Display for Power {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
