//! One call of a method, and what answers it.

use super::Failure;
use super::exception::python_repr;

/// What a method answers: the data of a reply.
pub(super) type Answer = Result<Vec<u8>, Failure>;

/// A request whose source and destination are known to be there.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) source: String,
    pub(super) dest: String,
    pub(super) method: String,
    pub(super) arg: String,
    pub(super) payload: Vec<u8>,
}

impl Call {
    /// The payload read as a switch, in the server's spelling: `True` or `False`.
    pub(super) fn switch(&self) -> Result<String, Failure> {
        let text = std::str::from_utf8(&self.payload).ok();
        let parsed = text.and_then(|text| parse_switch(text).ok());
        parsed.ok_or_else(|| Failure::protocol("Payload is not boolean ASCII"))
    }
}

/// A switch in any of the spellings that the server takes.
pub(super) fn parse_switch(text: &str) -> Result<String, Failure> {
    match text.to_ascii_lowercase().as_str() {
        "0" | "no" | "false" | "off" => Ok("False".to_owned()),
        "1" | "yes" | "true" | "on" => Ok("True".to_owned()),
        _ => Err(Failure::value(format_args!("Invalid literal for boolean property: {}", python_repr(text)))),
    }
}

/// A boolean as the server's language writes it.
pub(super) fn python_bool(value: bool) -> String {
    if value { "True".to_owned() } else { "False".to_owned() }
}
