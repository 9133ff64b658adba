//! dom0's service files, as the qrexec daemon runs them after policy allowed a call.

use std::io::{self, Read, Write};
use std::time::Duration;

use super::{Destination, EventStream, MAX_REQUEST, Qubesd, Reply, Request, dispatch};

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

/// Whether dom0 has a file for a service.
#[must_use]
pub fn has_service(name: &str) -> bool {
    dispatch::has_method(name) || IMPORTS.contains(&name) || name == FEATURES_REQUEST
}

impl Qubesd {
    /// Runs a service of dom0 and returns its exit status: 127 when there is no file for it.
    ///
    /// Reads `input` only as far as the service does. What the service says on its standard error goes to `errors`.
    ///
    /// # Errors
    /// When a stream fails; the service then stands where it stood, as one that was killed.
    pub fn service(
        &self,
        call: &ServiceCall,
        input: &mut dyn Read,
        output: &mut dyn Write,
        errors: &mut dyn Write,
    ) -> io::Result<i32> {
        let name = call.service.as_str();
        if !has_service(name) {
            return Ok(127);
        }
        if IMPORTS.contains(&name) {
            return self.import(call, input, output, errors);
        }
        if name == FEATURES_REQUEST {
            // The program tells its caller nothing, whatever the server said.
            let _ = self.request_features(&call.source);
            return Ok(0);
        }
        let mut request = Request {
            source: call.source.clone(),
            method: call.service.clone(),
            arg: call.arg.clone(),
            dest: call.target.clone(),
            payload: Vec::new(),
        };
        input.take(MAX_REQUEST as u64 + 1).read_to_end(&mut request.payload)?;
        match self.call(&request) {
            Reply::Body(body) => output.write_all(&body)?,
            Reply::Events(stream) => pass_on(&stream, output),
        }
        Ok(0)
    }
}

/// Writes events until nobody reads them any more.
pub(super) fn pass_on(stream: &EventStream, output: &mut dyn Write) {
    loop {
        match stream.next(PATIENCE) {
            Ok(Some(event)) if output.write_all(&event).and_then(|()| output.flush()).is_err() => return,
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

const IMPORTS: [&str; 2] = ["admin.vm.volume.Import", "admin.vm.volume.ImportWithSize"];
const FEATURES_REQUEST: &str = "qubes.FeaturesRequest";
/// How long one wait for an event is; the next one follows.
const PATIENCE: Duration = Duration::from_secs(3600);
