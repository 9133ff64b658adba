//! What the programs in a qube and the sandbox's server say to each other.
//!
//! A frame is a length (4 bytes, little endian) and as many bytes of JSON. Every connection starts with one frame of
//! the program; which one says what the connection is for:
//!
//! ```text
//! Call, Script, Run -> Answer::Go, and in the end Answer::Exit | Answer::Refused | Answer::Reset
//! Data              -> from here on bytes, both ways: standard input there, standard output back
//! Errors            -> from here on bytes back: standard error
//! ```
//!
//! The three connections of a call know each other by a token that the program makes up.

use std::io::{self, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The first frame of a connection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Opening {
    /// A service call that policy decides.
    Call {
        /// Its token.
        token: String,
        /// The target as typed, one character a byte.
        target: String,
        /// Service and argument as typed, one character a byte.
        service: String,
        /// The qube that the caller says it relays for.
        source: Option<String>,
    },
    /// A service file of dom0 that dom0 runs itself.
    Script {
        /// Its token.
        token: String,
        /// The service's name.
        service: String,
        /// Its argument.
        arg: String,
        /// The qube that called.
        source: String,
        /// The target that was asked for.
        target: String,
        /// Whether the target is a keyword.
        keyword: bool,
    },
    /// A command that dom0 runs in a qube.
    Run {
        /// Its token.
        token: String,
        /// The qube.
        target: String,
        /// `USER:COMMAND` or `USER:QUBESRPC SERVICE SOURCE`, one character a byte.
        command: String,
        /// Whether nobody waits for it.
        forget: bool,
    },
    /// The data of a call.
    Data {
        /// Its token.
        token: String,
    },
    /// The standard error of a call.
    Errors {
        /// Its token.
        token: String,
    },
}

/// What the server says to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The call was let through.
    Go,
    /// It was not.
    Refused,
    /// The connection breaks, as the agent breaks it for a name that is too long.
    Reset,
    /// It ended with this status.
    Exit(i32),
}

/// A frame is not longer than this: the longest call, each byte as `\u00XX`.
const MAX_FRAME: usize = 1 << 20;

/// Writes one frame.
pub fn send(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    let length = u32::try_from(text.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    to.write_all(&[&length.to_le_bytes(), text.as_slice()].concat())
}

/// Reads one frame.
pub fn receive<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<T> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length > MAX_FRAME {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame that is too long"));
    }
    let mut text = vec![0; length];
    from.read_exact(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

/// Bytes as text, one character each.
#[must_use]
pub fn to_text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// Text as bytes, one for each character; characters that are no byte are lost.
#[must_use]
pub fn to_bytes(text: &str) -> Vec<u8> {
    text.chars().filter_map(|c| u8::try_from(u32::from(c)).ok()).collect()
}

/// A token that no other call has.
#[must_use]
pub fn token() -> String {
    let random = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
    format!("{}-{}", std::process::id(), random.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back() {
        let mut bytes = Vec::new();
        send(&mut bytes, &Answer::Exit(7)).unwrap();
        send(&mut bytes, &Answer::Refused).unwrap();
        let mut from = bytes.as_slice();
        assert_eq!(receive::<Answer>(&mut from).unwrap(), Answer::Exit(7));
        assert_eq!(receive::<Answer>(&mut from).unwrap(), Answer::Refused);
        assert!(receive::<Answer>(&mut from).is_err());
        assert!(receive::<Answer>(&mut [0xff_u8; 8].as_slice()).is_err());
    }

    #[test]
    fn bytes_survive_as_text() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(to_bytes(&to_text(&all)), all);
    }
}
