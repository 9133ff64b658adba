//! dom0's socket: one request a connection, answered at its end.
//!
//! ```text
//! METHOD[+ARG] SP SOURCE SP name SP DEST NUL PAYLOAD
//! ```
//!
//! `keyword adminvm` may stand for `name dom0`. What cannot be understood, and what is longer than [`MAX_REQUEST`] with
//! its header, gets no reply.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};

use super::{Destination, MAX_REQUEST, Qubesd, Reply, Request, dom0};

impl Qubesd {
    /// Answers on a socket until it fails, one thread a connection.
    ///
    /// # Errors
    /// When no connection can be taken any more.
    pub fn serve_socket(&self, listener: &UnixListener) -> std::io::Result<()> {
        loop {
            let (stream, _) = listener.accept()?;
            let server = self.clone();
            std::thread::spawn(move || server.serve_connection(stream));
        }
    }

    /// Answers one connection. A client that has gone does not matter to anybody.
    pub fn serve_connection(&self, mut stream: UnixStream) {
        let mut bytes = Vec::new();
        if (&mut stream).take(MAX_REQUEST as u64 + 1).read_to_end(&mut bytes).is_err() {
            return;
        }
        match self.answer_bytes(&bytes) {
            Reply::Body(body) => {
                let _ = stream.write_all(&body);
            }
            Reply::Events(events) => dom0::pass_on(&events, &mut stream),
        }
        let _ = stream.shutdown(Shutdown::Both);
    }

    /// Answers the bytes of one connection.
    pub fn answer_bytes(&self, bytes: &[u8]) -> Reply {
        if bytes.len() > MAX_REQUEST {
            return Reply::Body(Vec::new());
        }
        parse(bytes).map_or_else(|| Reply::Body(Vec::new()), |request| self.answer(&request))
    }
}

fn parse(bytes: &[u8]) -> Option<Request> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    let payload = bytes[end + 1..].to_vec();
    // Bytes beyond ASCII stay one character each, so that they can be refused where the server refuses them.
    let header: String = bytes[..end].iter().map(|byte| char::from(*byte)).collect();
    let mut words = header.splitn(4, ' ');
    let (call, source, kind, dest) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let dest = match (kind, dest) {
        ("keyword", "adminvm") => Destination::Name("dom0".to_owned()),
        ("name", name) => Destination::Name(name.to_owned()),
        _ => return None,
    };
    let (method, arg) = call.split_once('+').unwrap_or((call, ""));
    Some(Request { source: source.to_owned(), method: method.to_owned(), arg: arg.to_owned(), dest, payload })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_has_four_words() {
        let request = parse(b"admin.vm.feature.Get+a+b dom0 name tpl\0x").expect("a request");
        assert_eq!((request.method.as_str(), request.arg.as_str()), ("admin.vm.feature.Get", "a+b"));
        assert_eq!(request.dest, Destination::Name("tpl".into()));
        assert_eq!(request.payload, b"x");
        assert_eq!(request.header(), b"admin.vm.feature.Get+a+b dom0 name tpl\0");
    }

    #[test]
    fn what_is_no_header_is_nothing() {
        for bytes in [&b""[..], b"\0", b"a+ dom0 name\0", b"a+ dom0 name dom0", b"a+ dom0 keyword default\0"]
        {
            assert_eq!(parse(bytes), None);
        }
    }
}
