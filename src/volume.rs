//! Writing an image into a volume.
//!
//! dom0 takes a size and then that many bytes, writes them beside the volume's content, and puts them in its place only
//! when exactly that many arrived. So whoever writes holds the end back until it is sure ([`crate::root_image`]), and a
//! stream that ends early, for whatever reason, leaves the volume as it was.
//!
//! The writer works on a thread of its own, on the descriptor of a pipe; this side waits for dom0's answer. When dom0
//! refuses early the writer sees a broken pipe, and the reason stands in the answer, not in the broken pipe.

use std::io::{self, PipeWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use tokio::time::timeout;

use crate::admin::{AdminApi, CallError};
use crate::cancel::Cancel;
use crate::io::zeros::{Copied, Sink, Zeros};

/// How long an import that is given up may take to end by itself, before its transport is killed.
const GIVE_UP: Duration = Duration::from_secs(3);

/// Why a volume has its old content.
#[derive(Debug, thiserror::Error)]
pub enum ImportError<E> {
    /// dom0 refused, or did not get all.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The data is not what it should be; the end of it was never sent.
    #[error(transparent)]
    Data(E),
    /// There is nothing to import. dom0 would take it and leave an empty volume.
    #[error("the image is empty")]
    Empty,
    /// A signal came, and the end was never sent.
    #[error("interrupted")]
    Interrupted(i32),
    /// Everything was sent, and no answer came: nobody knows which content the volume has.
    #[error("dom0 did not say whether it took the image")]
    Unknown,
}

/// Imports `size` bytes into `volume` of `qube`. `write` gets the pipe on a thread of its own and writes exactly that
/// many bytes, or fails before the last of them.
///
/// A signal makes the next write fail, so that the end is never sent. When everything was sent already, dom0's answer
/// is still waited for, a short while.
///
/// # Errors
/// When the volume keeps its old content, or dom0 does not say that it has the new one.
pub async fn import_with_size<T, E>(
    api: &dyn AdminApi,
    qube: &str,
    volume: &str,
    size: u64,
    cancel: &Cancel,
    write: impl FnOnce(&mut dyn Sink) -> Result<T, E> + Send + 'static,
) -> Result<T, ImportError<E>>
where
    T: Send + 'static,
    E: Send + 'static,
{
    if size == 0 {
        return Err(ImportError::Empty);
    }
    let import = api.import(qube, volume)?;
    let stop = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicBool::new(false));
    let mut pipe = Pipe { pipe: import.input, broken: false, stop: stop.clone(), zeros: Zeros::new().ok() };
    let all_sent = sent.clone();
    let writer = tokio::task::spawn_blocking(move || {
        if writeln!(pipe, "{size}").is_err() {
            return (true, None);
        }
        let written = write(&mut pipe);
        all_sent.store(written.is_ok(), Ordering::SeqCst);
        (pipe.broken, Some(written))
    });
    // The pipe is closed when the writer is done, and dom0 answers when the pipe is closed.
    let both = async { tokio::join!(writer, import.reply) };
    tokio::pin!(both);
    let (ended, signal) = tokio::select! {
        ended = &mut both => (Some(ended), None),
        signal = cancel.requested() => {
            stop.store(true, Ordering::SeqCst);
            (timeout(GIVE_UP, &mut both).await.ok(), Some(signal))
        }
    };
    match (ended, signal) {
        (Some((Ok((_, Some(Ok(done)))), Ok(_))), _) => Ok(done),
        (None, Some(signal)) if !sent.load(Ordering::SeqCst) => Err(ImportError::Interrupted(signal)),
        (Some((_, Err(_))), Some(signal)) => Err(ImportError::Interrupted(signal)),
        (Some((Ok((false, Some(Err(error)))), _)), _) => Err(ImportError::Data(error)),
        (Some((_, Err(error))), None) => Err(ImportError::Call(error)),
        _ => Err(ImportError::Unknown),
    }
}

/// The pipe to dom0, which remembers whether it broke: then dom0 knows why, and the writer does not.
struct Pipe {
    pipe: PipeWriter,
    broken: bool,
    stop: Arc<AtomicBool>,
    /// Nothing where holes have to be copied.
    zeros: Option<Zeros>,
}

impl Pipe {
    fn check_stop(&mut self) -> io::Result<()> {
        if self.stop.load(Ordering::SeqCst) {
            self.broken = true;
            return Err(io::Error::other("interrupted"));
        }
        Ok(())
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.check_stop()?;
        self.pipe.write(bytes).inspect_err(|error| self.broken |= error.kind() != io::ErrorKind::Interrupted)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pipe.flush()
    }
}

impl Sink for Pipe {
    fn write_zeros(&mut self, count: u64) -> io::Result<u64> {
        self.check_stop()?;
        match self.zeros.as_ref().map(|zeros| zeros.put_into(&self.pipe, count)) {
            Some(Ok(put @ 1..)) => Ok(put),
            Some(Err(errno @ (Errno::EINTR | Errno::EPIPE))) => {
                self.broken |= errno == Errno::EPIPE;
                Err(errno.into())
            }
            // What cannot share pages is handed bytes.
            _ => {
                self.zeros = None;
                Copied(self).write_zeros(count)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::admin::fake::{FakeAdmin, Fault};

    fn import(fake: &Rc<FakeAdmin>, size: u64, data: &'static [u8]) -> Result<(), ImportError<io::Error>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(import_with_size(fake, "t", "root", size, &Cancel::never(), move |out| {
            out.write_all(data)?;
            if data.ends_with(b"!") { Err(io::Error::other("held back")) } else { Ok(()) }
        }))
    }

    fn fake() -> Rc<FakeAdmin> {
        let fake = FakeAdmin::with(&[("t", "TemplateVM", "Halted")]);
        fake.qubes.borrow_mut().get_mut("t").unwrap().volumes.insert("root".into(), b"old".to_vec());
        Rc::new(fake)
    }

    fn root(fake: &FakeAdmin) -> Vec<u8> {
        fake.qubes.borrow()["t"].volumes["root"].clone()
    }

    #[test]
    fn exactly_the_announced_bytes_are_committed() {
        let fake = fake();
        import(&fake, 8, b"contents").unwrap();
        assert_eq!(root(&fake), b"contents");
        assert!(matches!(import(&fake, 9, b"contents"), Err(ImportError::Call(_))));
        assert!(matches!(import(&fake, 0, b""), Err(ImportError::Empty)));
        assert_eq!(root(&fake), b"contents");
    }

    #[test]
    fn a_writer_that_gives_up_leaves_the_old_content_and_its_own_reason() {
        let fake = fake();
        assert!(
            matches!(import(&fake, 8, b"conten!"), Err(ImportError::Data(e)) if e.to_string() == "held back")
        );
        assert_eq!(root(&fake), b"old");
    }

    #[test]
    fn what_dom0_says_is_the_reason_of_a_refusal() {
        let fake = fake();
        fake.fail("admin.vm.volume.ImportWithSize", "", Fault::Exception("QubesVMNotHaltedError", "not off"));
        assert!(
            matches!(import(&fake, 8, b"contents"), Err(ImportError::Call(e)) if e.to_string() == "not off")
        );
        assert_eq!(root(&fake), b"old");
    }
}
