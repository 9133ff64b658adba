//! Moving bytes from one descriptor to another, cheaply.
//!
//! The kernel moves them itself where it can (`splice`, for which one side must be a pipe); elsewhere they go through
//! a buffer.
//!
//! The kernel holds the pipe's lock while it waits for the other side, and then whoever is at the pipe's other end is
//! held as well, in the middle of a read or a write that was never to block. So nothing is spliced before the other
//! side is ready, and into a socket never more than it takes at once.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SpliceFFlags, fcntl, splice};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{SFlag, fstat};

/// How much is moved at a time.
const PIECE: usize = 1 << 20;
/// How much a socket that is ready takes without waiting: less than three quarters of the usual 208 KiB.
const SOCKET_PIECE: usize = 64 << 10;
const BUFFER: usize = 256 << 10;

/// Moves everything until `from` ends, counting as it goes. A side that breaks ends it like an end.
pub fn pump<R, W>(from: &mut R, to: &mut W, count: &AtomicU64) -> io::Result<()>
where
    R: Read + AsFd,
    W: Write + AsFd,
{
    pump_while(from, to, count, |_| true)
}

/// The same as long as `more`, asked before each piece, does not call it the end.
pub fn pump_while<R, W>(
    from: &mut R,
    to: &mut W,
    count: &AtomicU64,
    more: impl Fn(&R) -> bool,
) -> io::Result<()>
where
    R: Read + AsFd,
    W: Write + AsFd,
{
    let piece = if is_socket(&*to) { SOCKET_PIECE } else { PIECE };
    while more(from) {
        wait(&*from, PollFlags::POLLIN)?;
        wait(&*to, PollFlags::POLLOUT)?;
        match splice(from.as_fd(), None, to.as_fd(), None, piece, SpliceFFlags::SPLICE_F_MOVE) {
            Ok(0) => return Ok(()),
            Ok(moved) => {
                count.fetch_add(moved as u64, Ordering::Relaxed);
            }
            Err(Errno::EINTR) => {}
            Err(Errno::EINVAL | Errno::ENOSYS | Errno::EBADF) => return copy(from, to, count, |_| {}),
            // A terminal or a socket that somebody made non-blocking: std waits as badly, but says so.
            Err(Errno::EAGAIN) => return copy(from, to, count, |_| {}),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Waits until `end` is ready, or will never be.
fn wait(end: &impl AsFd, wanted: PollFlags) -> io::Result<()> {
    loop {
        match poll(&mut [PollFd::new(end.as_fd(), wanted)], PollTimeout::NONE) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn is_socket(end: &impl AsFd) -> bool {
    fstat(end).is_ok_and(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFSOCK)
}

/// The same through a buffer, with each piece changed on the way.
pub fn copy(
    from: &mut impl Read,
    to: &mut impl Write,
    count: &AtomicU64,
    mut change: impl FnMut(&mut [u8]),
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        change(&mut buffer[..length]);
        to.write_all(&buffer[..length])?;
        to.flush()?;
        count.fetch_add(length as u64, Ordering::Relaxed);
    }
}

/// Lets a pipe hold more, where the system allows it; anything else stays as it is.
pub fn widen(pipe: impl AsFd) {
    // Only speed depends on it.
    let _ = fcntl(pipe, FcntlArg::F_SETPIPE_SZ(i32::try_from(PIECE).unwrap_or(i32::MAX)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Seek as _;

    #[test]
    fn everything_arrives_by_either_way() {
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251).to_le_bytes()[0]).collect();
        let mut source = tempfile::tempfile().unwrap();
        source.write_all(&bytes).unwrap();
        source.rewind().unwrap();
        // A file to a file cannot be spliced.
        let mut middle = tempfile::tempfile().unwrap();
        let count = AtomicU64::new(0);
        pump(&mut source, &mut middle, &count).unwrap();
        assert_eq!(count.load(Ordering::Relaxed), bytes.len() as u64);
        middle.rewind().unwrap();
        // A file to a pipe can.
        let (reader, writer) = nix::unistd::pipe().unwrap();
        widen(&writer);
        let feeder =
            std::thread::spawn(move || pump(&mut middle, &mut File::from(writer), &AtomicU64::new(0)));
        let mut arrived = Vec::new();
        File::from(reader).read_to_end(&mut arrived).unwrap();
        feeder.join().unwrap().unwrap();
        assert!(arrived == bytes);
    }

    #[test]
    fn who_waits_for_a_silent_sender_holds_nobody() {
        let (sender, mut receiver) = std::os::unix::net::UnixStream::pair().unwrap();
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let pumping =
            std::thread::spawn(move || pump(&mut receiver, &mut File::from(writer), &AtomicU64::new(0)));
        // Long enough for it to wait.
        std::thread::sleep(std::time::Duration::from_millis(100));
        fcntl(&reader, FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
        let mut byte = [0];
        let (tell, told) = std::sync::mpsc::channel();
        let reading = std::thread::spawn(move || tell.send(File::from(reader).read(&mut byte).unwrap_err()));
        let error = told.recv_timeout(std::time::Duration::from_secs(10));
        drop(sender);
        assert_eq!(error.unwrap().kind(), io::ErrorKind::WouldBlock);
        reading.join().unwrap().unwrap();
        // The other end of its pipe is gone by now.
        assert!(pumping.join().unwrap().is_err());
    }
}
