//! The two connections that a call's data takes, seen from the program.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::thread::{self, JoinHandle};

use super::filter::replace_escapes;
use super::pump::{copy, pump};
use super::wire::{Answer, Opening, receive, send};

/// A call that was let through.
#[derive(Debug)]
pub(super) struct Streams {
    data: UnixStream,
    errors: UnixStream,
}

impl Streams {
    /// Connects both.
    pub(super) fn open(socket: &Path, token: &str) -> io::Result<Self> {
        let connect = |opening: Opening| -> io::Result<UnixStream> {
            let mut stream = UnixStream::connect(socket)?;
            send(&mut stream, &opening)?;
            Ok(stream)
        };
        let data = connect(Opening::Data { token: token.to_owned() })?;
        let errors = connect(Opening::Errors { token: token.to_owned() })?;
        Ok(Self { data, errors })
    }

    /// Sends a prefix and then everything from `input`, in a thread of its own: nobody waits for input when the
    /// service has ended.
    pub(super) fn feed<R>(&self, prefix: Vec<u8>, mut input: R) -> io::Result<()>
    where
        R: Read + AsFd + Send + 'static,
    {
        let mut data = self.data.try_clone()?;
        thread::spawn(move || {
            // A service that no longer reads ends this; what it said is still to come.
            if data.write_all(&prefix).is_ok() {
                let _ = pump(&mut input, &mut data, &AtomicU64::new(0));
            }
            let _ = data.shutdown(Shutdown::Write);
        });
        Ok(())
    }

    /// Takes what comes back to the end, in two threads.
    pub(super) fn drain<W>(self, output: W, filter_output: bool, filter_errors: bool) -> Draining
    where
        W: Write + AsFd + Send + 'static,
    {
        let Self { data, errors } = self;
        Draining([
            thread::spawn(move || take(data, output, filter_output)),
            thread::spawn(move || take(errors, io::stderr(), filter_errors)),
        ])
    }
}

/// Two threads that write what comes back.
#[derive(Debug)]
pub(super) struct Draining([JoinHandle<()>; 2]);

impl Draining {
    /// Waits until all of it is written, and for the status.
    pub(super) fn status(self, control: &mut UnixStream) -> io::Result<i32> {
        for thread in self.0 {
            // A thread that panicked wrote what it could.
            let _ = thread.join();
        }
        match receive(control)? {
            Answer::Exit(status) => Ok(status),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

fn take(mut from: UnixStream, mut to: impl Write + AsFd, filter: bool) {
    let count = AtomicU64::new(0);
    let done = if filter {
        copy(&mut from, &mut to, &count, replace_escapes)
    } else {
        pump(&mut from, &mut to, &count)
    };
    // A reader of ours that went away does not stop the service.
    if done.is_err() {
        let _ = io::copy(&mut from, &mut io::sink());
    }
}
