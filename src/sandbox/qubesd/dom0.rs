//! dom0's service files, as the qrexec daemon runs them after policy allowed a call.

use std::io::{self, Read, Write};

use super::{Destination, MAX_REQUEST, Qubesd, Reply, Request};

/// A service of dom0 that is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceCall {
    /// The qube that called.
    pub source: String,
    /// The service's name.
    pub service: String,
    /// Its argument, empty for none.
    pub arg: String,
    /// The target that the caller asked for, as policy understood it.
    pub target: Destination,
}

/// Names of services that dom0 has a file for.
pub const SERVICES: &[&str] = &["admin.vm.List"];

impl Qubesd {
    /// Runs a service of dom0 and returns its exit status: 127 when there is no file for it.
    ///
    /// Reads `input` only as far as the service does. Failures to write `output` end it quietly, as a broken pipe
    /// ends the real one. What the service says on its standard error goes to `errors`.
    pub fn service(
        &self,
        call: &ServiceCall,
        input: &mut dyn Read,
        output: &mut dyn Write,
        _errors: &mut dyn Write,
    ) -> io::Result<i32> {
        if !SERVICES.contains(&call.service.as_str()) {
            return Ok(127);
        }
        let mut request = Request {
            source: call.source.clone(),
            method: call.service.clone(),
            arg: call.arg.clone(),
            dest: call.target.clone(),
            payload: Vec::new(),
        };
        input.take(MAX_REQUEST as u64 + 1).read_to_end(&mut request.payload)?;
        if let Reply::Body(body) = self.call(&request) {
            output.write_all(&body)?;
        }
        Ok(0)
    }
}
