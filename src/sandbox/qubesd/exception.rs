//! What a method can end with instead of an answer.

use std::fmt::Display;

use super::Reply;

/// An exception that clients are told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Its class.
    pub class: String,
    /// Its text.
    pub message: String,
}

/// Why a method did not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// With an exception that the client is told of.
    Told(Exception),
    /// With one it is not told of: the reply is empty.
    Untold,
}

impl Failure {
    /// An exception of this class.
    pub fn new(class: &str, message: impl Display) -> Self {
        Self::Told(Exception { class: class.to_owned(), message: message.to_string() })
    }

    /// A request that breaks the protocol.
    pub fn protocol(message: impl Display) -> Self {
        Self::new("ProtocolError", message)
    }

    /// The reply that says so.
    #[must_use]
    pub fn reply(&self) -> Reply {
        Reply::Body(self.body())
    }

    /// The bytes that say so.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        match self {
            Self::Told(Exception { class, message }) => format!("2\0{class}\0\0{message}\0").into_bytes(),
            Self::Untold => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Failure;

    #[test]
    fn an_exception_has_an_empty_traceback() {
        let failure = Failure::protocol("unexpected argument");
        assert_eq!(failure.body(), b"2\0ProtocolError\0\0unexpected argument\0");
        assert_eq!(Failure::Untold.body(), b"");
    }
}
