use std::io;
use std::path::PathBuf;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::over_qrexec::start_import;
use super::{AdminApi, CallError, CallName, CallResult, Import, Pending, wire};
use crate::qrexec::Program;

/// Where qubesd listens.
const SOCKET: &str = "/var/run/qubesd.sock";

/// The Admin API as dom0 reaches it: one connection to qubesd for each call, and its script for imports.
#[derive(Clone, Debug)]
pub struct OverSocket {
    socket: PathBuf,
}

impl OverSocket {
    /// The socket of this machine's qubesd.
    #[must_use]
    pub fn new() -> Self {
        Self { socket: PathBuf::from(SOCKET) }
    }

    async fn exchange(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(&self.socket).await?;
        // qubesd ends the connection without a word when it dislikes a header: reading tells more than writing.
        let _ = stream.write_all(request).await;
        let _ = stream.shutdown().await;
        let mut reply = Vec::new();
        let read = stream.take(wire::MAX_REPLY + 1).read_to_end(&mut reply).await;
        match read {
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => reply.clear(),
            Err(e) => return Err(e),
            Ok(_) if u64::try_from(reply.len()).is_ok_and(|length| length > wire::MAX_REPLY) => {
                return Err(io::Error::other("the answer is too long"));
            }
            Ok(_) => {}
        }
        Ok(reply)
    }
}

impl Default for OverSocket {
    fn default() -> Self {
        Self::new()
    }
}

impl AdminApi for OverSocket {
    fn call<'a>(
        &'a self,
        dest: &'a str,
        method: &'a str,
        arg: Option<&'a str>,
        payload: &'a [u8],
    ) -> Pending<'a, CallResult> {
        Box::pin(async move {
            let call = CallName::new(dest, method, arg);
            let socket = |cause| CallError::Socket { call: call.clone(), cause };
            let request = wire::request(&call, payload)
                .ok_or_else(|| socket(io::Error::other("the request is longer than 64 KiB")))?;
            let answer = self.exchange(&request).await.map_err(socket)?;
            if answer.is_empty() {
                return Err(CallError::Empty(call));
            }
            wire::reply(&call, answer).unwrap_or(Err(CallError::Malformed(call)))
        })
    }

    fn import(&self, qube: &str, volume: &str) -> Result<Import, CallError> {
        let call = CallName::new(qube, "admin.vm.volume.ImportWithSize", Some(volume));
        start_import(call, &Program::import_script(qube, volume))
    }

    fn may_probe(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    #[test]
    fn one_connection_a_call_ended_by_half_close() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let api = OverSocket { socket: directory.path().join("qubesd.sock") };
        runtime.block_on(async {
            let listener = UnixListener::bind(&api.socket).unwrap();
            let server = async {
                let mut seen = Vec::new();
                for answer in [&b"0\0yes"[..], b""] {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let mut request = Vec::new();
                    stream.read_to_end(&mut request).await.unwrap();
                    seen.push(String::from_utf8(request).unwrap());
                    stream.write_all(answer).await.unwrap();
                }
                seen
            };
            let client = async {
                let first = api.call("work", "admin.vm.feature.Set", Some("f"), b"1").await;
                let second = api.call("dom0", "admin.vm.List", None, b"").await;
                (first, second)
            };
            let (seen, (first, second)) = tokio::join!(server, client);
            assert_eq!(first.unwrap(), b"yes");
            assert!(matches!(second, Err(CallError::Empty(_))));
            assert_eq!(
                seen,
                ["admin.vm.feature.Set+f dom0 name work\x001", "admin.vm.List+ dom0 name dom0\0"]
            );
        });
    }
}
