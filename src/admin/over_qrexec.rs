use std::time::Duration;

use super::{AdminApi, CallError, CallName, CallResult, Import, Pending, wire};
use crate::qrexec::{Ended, Escapes, Limits, Program, REFUSED, RunError, Side};
use crate::untrusted::displayable;

/// Long enough for a person to answer a policy's question, and for a qube to start.
const LIMITS: Limits = Limits {
    output: wire::MAX_REPLY,
    errors: 4096,
    total: Some(Duration::from_secs(15 * 60)),
    first: None,
    idle: None,
    pace: None,
};

/// An import lasts as long as its data; only its reply is bounded.
const IMPORT_LIMITS: Limits = Limits { total: None, ..LIMITS };

/// The Admin API as a qube reaches it: one run of `qrexec-client-vm` for each call.
#[derive(Clone, Copy, Debug)]
pub struct OverQrexec;

impl AdminApi for OverQrexec {
    fn call<'a>(
        &'a self,
        dest: &'a str,
        method: &'a str,
        arg: Option<&'a str>,
        payload: &'a [u8],
    ) -> Pending<'a, CallResult> {
        let call = CallName::new(dest, method, arg);
        let program = Program::service(Side::Qube, dest, method, arg, Escapes::Raw);
        Box::pin(async move { judge(&call, program.output(payload, LIMITS).await) })
    }

    fn import(&self, qube: &str, volume: &str) -> Result<Import, CallError> {
        let method = "admin.vm.volume.ImportWithSize";
        let program = Program::service(Side::Qube, qube, method, Some(volume), Escapes::Raw);
        start_import(CallName::new(qube, method, Some(volume)), &program)
    }

    fn may_probe(&self) -> bool {
        false
    }
}

/// Starts `program`, which is some form of an import, and promises its judged reply.
pub(super) fn start_import(call: CallName, program: &Program) -> Result<Import, CallError> {
    let started = program.fed(IMPORT_LIMITS);
    let (input, rest) = started.map_err(|cause| CallError::Run { call: call.clone(), cause })?;
    Ok(Import { input, reply: Box::pin(async move { judge(&call, rest.await) }) })
}

/// Body first, status second.
fn judge(call: &CallName, ended: Result<(Vec<u8>, Ended), RunError>) -> CallResult {
    let (output, ended) = ended.map_err(|cause| CallError::Run { call: call.clone(), cause })?;
    let silent = output.is_empty();
    if let Some(result) = wire::reply(call, output) {
        return match result {
            Ok(_) if ended.status != 0 => Err(failed(call, &ended)),
            result => result,
        };
    }
    match ended.status {
        0 if silent => Err(CallError::Empty(call.clone())),
        0 => Err(CallError::Malformed(call.clone())),
        REFUSED => Err(CallError::Denied(call.clone())),
        _ => Err(failed(call, &ended)),
    }
}

fn failed(call: &CallName, ended: &Ended) -> CallError {
    let errors = displayable(String::from_utf8_lossy(&ended.errors).trim(), false);
    CallError::Status { call: call.clone(), status: ended.status, errors }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(output: &[u8], status: i32, errors: &str) -> CallResult {
        let ended = Ended { status, errors: errors.as_bytes().to_vec() };
        judge(&CallName::new("x", "admin.vm.Start", None), Ok((output.to_vec(), ended)))
    }

    #[test]
    fn the_body_outranks_the_status() {
        assert_eq!(judged(b"0\0ok", 0, "").unwrap(), b"ok");
        let refused =
            judged(b"2\0QubesVMNotHaltedError\0\0Domain is not powered off: 'x'\0", 1, "").unwrap_err();
        assert!(refused.is("QubesVMNotHaltedError"));
        assert_eq!(refused.to_string(), "Domain is not powered off: 'x'");
        assert!(matches!(judged(b"", 0, ""), Err(CallError::Empty(_))));
        assert!(matches!(judged(b"what", 0, ""), Err(CallError::Malformed(_))));
        let denied = judged(b"", 126, "Request refused\n").unwrap_err();
        assert!(denied.is_denied() && denied.to_string().contains("admin.vm.Start to 'x'"), "{denied}");
        let failed = judged(b"", 1, "a\x1bb\n").unwrap_err();
        assert_eq!(failed.to_string(), "admin.vm.Start to 'x' failed with status 1: a_b");
        assert!(matches!(judged(b"0\0", 1, ""), Err(CallError::Status { status: 1, .. })));
    }
}
