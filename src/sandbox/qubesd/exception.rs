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

    /// An argument that is none of those there are.
    pub fn not_in(what: impl Display) -> Self {
        Self::new("PermissionDenied", format_args!("Argument not in '{what}'"))
    }

    /// A qube that is not there.
    pub fn no_such_qube(name: &str) -> Self {
        Self::new("QubesVMNotFoundError", format_args!("No such domain: {}", python_repr(name)))
    }

    /// A label that is not there.
    pub fn no_such_label(name: &str) -> Self {
        Self::new("QubesLabelNotFoundError", format_args!("Label does not exist: {name}"))
    }

    /// A qube that has to be off.
    pub fn not_halted(name: &str) -> Self {
        Self::new("QubesVMNotHaltedError", format_args!("Domain is not powered off: {}", python_repr(name)))
    }

    /// A qube that has to be on.
    pub fn not_started(name: &str) -> Self {
        Self::new("QubesVMNotStartedError", format_args!("Domain is powered off: {}", python_repr(name)))
    }

    /// A qube that has to run, and is not only there.
    pub fn not_running(name: &str) -> Self {
        let text = format_args!("Domain not running (either powered off or paused): {}", python_repr(name));
        Self::new("QubesVMNotRunningError", text)
    }

    /// A qube that others need.
    pub fn in_use(message: impl Display) -> Self {
        Self::new("QubesVMInUseError", message)
    }

    /// A value that a property cannot have.
    pub fn property_value(message: impl Display) -> Self {
        Self::new("QubesPropertyValueError", message)
    }

    /// A value that makes no sense.
    pub fn value(message: impl Display) -> Self {
        Self::new("QubesValueError", message)
    }

    /// What storage could not do.
    pub fn storage(message: impl Display) -> Self {
        Self::new("StoragePoolException", message)
    }

    /// The text of the exception, as an event tells it.
    #[must_use]
    pub fn message(&self) -> &str {
        match self {
            Self::Told(exception) => &exception.message,
            Self::Untold => "",
        }
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

/// An ASCII text as the server's language quotes it in messages.
pub(super) fn python_repr(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut quoted = String::from(quote);
    for c in text.chars() {
        match c {
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c == quote => quoted.extend(['\\', c]),
            c if c.is_ascii_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push(quote);
    quoted
}

#[cfg(test)]
mod tests {
    use super::{Failure, python_repr};

    #[test]
    fn an_exception_has_an_empty_traceback() {
        let failure = Failure::protocol("unexpected argument");
        assert_eq!(failure.body(), b"2\0ProtocolError\0\0unexpected argument\0");
        assert_eq!(Failure::Untold.body(), b"");
    }

    #[test]
    fn quoting_picks_the_quote_that_is_free() {
        assert_eq!(python_repr("a"), "'a'");
        assert_eq!(python_repr("a'b"), "\"a'b\"");
        assert_eq!(python_repr("a'\"b\n"), "'a\\'\"b\\n'");
    }
}
