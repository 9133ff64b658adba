//! Framing of requests and replies.
//!
//! Request on qubesd's socket: `METHOD+ARG SP SOURCE SP name SP DEST NUL PAYLOAD`, then half-close. The plus stays
//! when there is no argument. Header and payload together have at most [`MAX_REQUEST`] bytes.
//!
//! Reply: `0 NUL DATA` is success; `2 NUL CLASS NUL TRACEBACK NUL MESSAGE NUL [ARG NUL]...` is an exception. Nothing
//! at all is an error inside qubesd. Old servers leave `%`-formatting of MESSAGE with the ARGs to the client; today's
//! send the final text and no ARGs. A text without ARGs is never formatted, and formatting never fails.

use super::{CallError, CallName, CallResult};
use crate::untrusted::displayable;

/// Most bytes that qubesd takes of header and payload together.
pub const MAX_REQUEST: usize = 65_536;
/// Most bytes of a reply that we take. The longest real ones list all qubes of a machine.
pub const MAX_REPLY: u64 = 16 * 1024 * 1024;
/// Longest text of an exception that is kept.
const MAX_MESSAGE: usize = 4096;

/// The bytes of a request on the socket, or `None` when it would be too long.
#[must_use]
pub fn request(call: &CallName, payload: &[u8]) -> Option<Vec<u8>> {
    let arg = call.arg.as_deref().unwrap_or("");
    let mut bytes = format!("{}+{arg} dom0 name {}\0", call.method, call.dest).into_bytes();
    bytes.extend_from_slice(payload);
    (bytes.len() <= MAX_REQUEST).then_some(bytes)
}

/// Takes the frame off a reply. `None` when the bytes are no reply at all.
#[must_use]
pub fn reply(call: &CallName, untrusted: Vec<u8>) -> Option<CallResult> {
    match untrusted.get(..2) {
        Some(b"0\0") => Some(Ok(untrusted[2..].to_vec())),
        Some(b"2\0") => Some(Err(exception(call, &untrusted[2..]))),
        _ => None,
    }
}

fn exception(call: &CallName, untrusted: &[u8]) -> CallError {
    let mut fields = untrusted.splitn(4, |byte| *byte == 0);
    let mut text = |most: usize| {
        let bytes = fields.next().unwrap_or_default();
        let bytes = &bytes[..bytes.len().min(most)];
        displayable(&String::from_utf8_lossy(bytes), false)
    };
    let class = text(200);
    text(0);
    let message = text(MAX_MESSAGE);
    let args: Vec<String> = fields
        .next()
        .unwrap_or_default()
        .split(|byte| *byte == 0)
        .filter(|arg| !arg.is_empty())
        .map(|arg| displayable(&String::from_utf8_lossy(arg), false))
        .collect();
    CallError::Api { call: call.clone(), class, message: formatted(message, &args) }
}

/// Puts `args` in the places of `%s`, `%d` and `%r`; `%%` is a percent sign. Anything else stays as it is.
fn formatted(message: String, args: &[String]) -> String {
    if args.is_empty() {
        return message;
    }
    let mut result = String::new();
    let mut args = args.iter();
    let mut rest = message.as_str();
    while let Some(place) = rest.find('%') {
        result.push_str(&rest[..place]);
        let after = &rest[place + 1..];
        match after.chars().next() {
            Some('%') => result.push('%'),
            Some('s' | 'd') => result.push_str(args.next().map_or("?", String::as_str)),
            Some('r') => {
                result.push('\'');
                result.push_str(args.next().map_or("?", String::as_str));
                result.push('\'');
            }
            _ => {
                result.push('%');
                rest = after;
                continue;
            }
        }
        rest = &after[1..];
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call() -> CallName {
        CallName::new("work", "admin.vm.feature.Get", Some("a"))
    }

    fn message(bytes: &[u8]) -> (String, String) {
        match reply(&call(), bytes.to_vec()) {
            Some(Err(CallError::Api { class, message, .. })) => (class, message),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn requests_have_the_header_of_the_socket() {
        assert_eq!(request(&call(), b"x").unwrap(), b"admin.vm.feature.Get+a dom0 name work\0x");
        let list = CallName::new("dom0", "admin.vm.List", None);
        assert_eq!(request(&list, b"").unwrap(), b"admin.vm.List+ dom0 name dom0\0");
        let header = request(&list, b"").unwrap().len();
        assert_eq!(request(&list, &vec![0; MAX_REQUEST - header]).unwrap().len(), MAX_REQUEST);
        assert_eq!(request(&list, &vec![0; MAX_REQUEST - header + 1]), None);
    }

    #[test]
    fn replies_are_success_exception_or_nothing() {
        assert_eq!(reply(&call(), b"0\0data\0".to_vec()).unwrap().unwrap(), b"data\0");
        assert_eq!(reply(&call(), b"0\0".to_vec()).unwrap().unwrap(), b"");
        for none in [&b""[..], b"0", b"2", b"1\0", b"x\0", b"Request refused"] {
            assert!(reply(&call(), none.to_vec()).is_none(), "{none:?}");
        }
        assert_eq!(
            message(b"2\0QubesVMNotHaltedError\0\0Domain is not powered off: 'x'\0"),
            ("QubesVMNotHaltedError".to_owned(), "Domain is not powered off: 'x'".to_owned())
        );
        assert_eq!(message(b"2\0"), (String::new(), String::new()));
    }

    #[test]
    fn server_text_is_formatted_only_when_it_has_arguments() {
        assert_eq!(message(b"2\0E\0\0no room 100% full\0").1, "no room 100% full");
        assert_eq!(message(b"2\0E\0\0%s is %d%% of %r, %q\0a\x008\0c\0").1, "a is 8% of 'c', %q");
        assert_eq!(message(b"2\0E\0\0%s %s\0a\0").1, "a ?");
        assert_eq!(message(b"2\0E\0trace\nback\0a\x1b[2Jb\0").1, "a_[2Jb");
    }
}
