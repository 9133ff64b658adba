//! Requests and replies.

use super::EventStream;

/// Header and payload together may be this long.
pub const MAX_REQUEST: usize = 65536;

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A qube by name or by `uuid:...`; `dom0` for the system.
    Name(String),
    /// A word of qrexec: `adminvm` for dom0; the server knows no other.
    Keyword(String),
}

impl Destination {
    /// The destination that the qrexec daemon hands over for a target as policy sees it.
    #[must_use]
    pub fn of_target(target: &str) -> Self {
        match target.strip_prefix('@') {
            Some(keyword) => Self::Keyword(keyword.to_owned()),
            None => Self::Name(target.to_owned()),
        }
    }

    fn kind_and_name(&self) -> (&str, &str) {
        match self {
            Self::Name(name) => ("name", name),
            Self::Keyword(word) => ("keyword", word),
        }
    }
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The qube that asks.
    pub source: String,
    /// The method.
    pub method: String,
    /// Its argument, empty for none.
    pub arg: String,
    /// What it is about.
    pub dest: Destination,
    /// Its payload.
    pub payload: Vec<u8>,
}

impl Request {
    /// The header line as the daemon writes it, with its NUL.
    #[must_use]
    pub fn header(&self) -> Vec<u8> {
        let (kind, name) = self.dest.kind_and_name();
        format!("{}+{} {} {kind} {name}\0", self.method, self.arg, self.source).into_bytes()
    }

    /// Header and payload together.
    #[must_use]
    pub fn size(&self) -> usize {
        self.header().len() + self.payload.len()
    }
}

/// What comes back.
#[derive(Debug)]
pub enum Reply {
    /// The whole reply; empty when the server has nothing to say about what went wrong.
    Body(Vec<u8>),
    /// An open stream of events.
    Events(EventStream),
}

impl Reply {
    /// Success with this data.
    #[must_use]
    pub fn ok(data: &[u8]) -> Self {
        Self::Body([b"0\0", data].concat())
    }
}
