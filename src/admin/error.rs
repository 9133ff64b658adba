use std::fmt;

use crate::qrexec::RunError;

/// Which call: method, argument and the qube it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallName {
    /// Method, such as `admin.vm.Start`.
    pub method: String,
    /// Argument; `None` when the call has none.
    pub arg: Option<String>,
    /// Destination.
    pub dest: String,
}

impl CallName {
    /// The name of a call to `dest`.
    #[must_use]
    pub fn new(dest: &str, method: &str, arg: Option<&str>) -> Self {
        Self { method: method.to_owned(), arg: arg.map(str::to_owned), dest: dest.to_owned() }
    }
}

impl fmt::Display for CallName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.method)?;
        if let Some(arg) = &self.arg {
            write!(f, "+{arg}")?;
        }
        write!(f, " to '{}'", self.dest)
    }
}

/// Why a call gave no answer. The texts are made for people; what dom0 said is free of control characters.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Policy refused it, or the target does not exist: qrexec does not say which.
    #[error("Request refused: no qrexec policy rule allows {0}")]
    Denied(CallName),
    /// dom0 answered with an exception.
    #[error("{}", if .message.is_empty() { .class } else { .message })]
    Api {
        /// The call.
        call: CallName,
        /// Name of the exception's class, such as `QubesVMNotHaltedError`.
        class: String,
        /// Text of the exception.
        message: String,
    },
    /// dom0 took the call and answered nothing: an error inside qubesd, or a request that it could not read.
    #[error("no answer from dom0 to {0}; see 'journalctl -u qubesd' there")]
    Empty(CallName),
    /// dom0 answered with something that is not a reply.
    #[error("dom0's answer to {0} is not one of the Admin API")]
    Malformed(CallName),
    /// The transport ended with a status of its own.
    #[error("{call} failed with status {status}{}", explained(.errors))]
    Status {
        /// The call.
        call: CallName,
        /// Exit status of the transport.
        status: i32,
        /// What it wrote to standard error.
        errors: String,
    },
    /// The transport could not be used at all.
    #[error("calling {call}")]
    Run {
        /// The call.
        call: CallName,
        /// What went wrong.
        #[source]
        cause: RunError,
    },
    /// qubesd could not be reached from dom0.
    #[error("calling {call}")]
    Socket {
        /// The call.
        call: CallName,
        /// What went wrong.
        #[source]
        cause: std::io::Error,
    },
}

impl CallError {
    /// The call that failed.
    #[must_use]
    pub fn call(&self) -> &CallName {
        match self {
            Self::Denied(call) | Self::Empty(call) | Self::Malformed(call) => call,
            Self::Api { call, .. }
            | Self::Status { call, .. }
            | Self::Run { call, .. }
            | Self::Socket { call, .. } => call,
        }
    }

    /// Whether policy refused the call.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Denied(_))
    }

    /// Whether dom0 answered with an exception of this class.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        matches!(self, Self::Api { class, .. } if class == name)
    }
}

fn explained(errors: &str) -> String {
    if errors.is_empty() { String::new() } else { format!(": {errors}") }
}
