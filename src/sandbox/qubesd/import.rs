//! The import services of dom0: `admin.vm.volume.ImportWithSize` and `admin.vm.volume.Import`.
//!
//! Three parts, as in dom0: the server checks and opens an import; the program copies exactly as many bytes as were
//! announced, without keeping anybody else out; the server commits or throws away, and its reply is the program's
//! output. Two imports into one volume at a time are *not* kept apart, as they are not in dom0.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write};

use super::call::Answer;
use super::name::decode_qube;
use super::state::State;
use super::storage::{self, BLOCK};
use super::{Destination, Failure, Qubesd, Reply, ServiceCall, number, volumes};

impl Qubesd {
    /// Runs an import and returns the program's exit status. A reader that fails stands for the program being killed:
    /// what it began stays as it is.
    pub(super) fn import(
        &self,
        call: &ServiceCall,
        input: &mut dyn Read,
        output: &mut dyn Write,
        errors: &mut dyn Write,
    ) -> io::Result<i32> {
        let size_line = match call.service.ends_with("WithSize") {
            true => match read_size_line(input)? {
                Ok(line) => line,
                Err(fault) => {
                    writeln!(errors, "qubesd-query: error: {fault}")?;
                    return Ok(2);
                }
            },
            false => Vec::new(),
        };
        let mut open = match self.begin(call, &size_line) {
            Ok(open) => open,
            Err(failure) => {
                output.write_all(&failure.body())?;
                return Ok(1);
            }
        };
        let copied = open.copy(input)?;
        let reply = match self.end(open, copied) {
            Ok(data) => Reply::ok(&data),
            Err(failure) => failure.reply(),
        };
        if let Reply::Body(body) = reply {
            output.write_all(&body)?;
        }
        Ok(0)
    }

    fn begin(&self, call: &ServiceCall, size_line: &[u8]) -> Result<Open, Failure> {
        let mut state = self.lock();
        let Destination::Name(target) = &call.target else { return Err(Failure::Untold) };
        let qube = decode_qube(&state, target)?;
        // The helper that asks the server cannot send a call without an argument.
        if call.arg.is_empty() {
            return Err(Failure::Untold);
        }
        let fault = |state: &State| {
            state.system.fail.iter().find(|rule| rule.fits(&call.service, &call.arg, &qube)).cloned()
        };
        let found = state.qube(&qube)?;
        let Some(volume) = found.volume(&call.arg) else {
            return Err(Failure::protocol(format_args!("Argument not in {qube} volumes")));
        };
        if !found.state.is_halted() {
            return Err(Failure::not_halted(&qube));
        }
        let size =
            if size_line.is_empty() { volume.size } else { number::unsigned(size_line, "Size of new data")? };
        let pool = volumes::pool_of(&state, volume)?;
        let file = storage::begin_import(&state.dir, pool, volume, size)?;
        let free = pool
            .limit
            .map(|limit| limit.saturating_sub(storage::allocated(&state.dir.join("pools").join(&pool.name))));
        let fails = fault(&state).and_then(|rule| rule.error);
        volumes::tell_begin(&mut state, &qube, &call.arg, size);
        Ok(Open { qube, volume: call.arg.clone(), size, file, free, fails })
    }

    fn end(&self, open: Open, copied: Result<(), String>) -> Answer {
        let Open { qube, volume, size, file, fails, .. } = open;
        drop(file);
        let mut state = self.lock();
        state.qube(&qube)?;
        let told = match (&copied, fails) {
            (Ok(()), None) => None,
            (Ok(()), Some((class, text))) => Some(Failure::new(&class, text)),
            (Err(fault), _) => {
                Some(Failure::new("QubesException", format_args!("Data import failed: {fault}")))
            }
        };
        let done = volumes::changed(&mut state, &qube, &volume, |dir, pool, volume| {
            if told.is_none() {
                return storage::commit_import(dir, pool, volume, size);
            }
            storage::drop_import(dir, volume);
            Ok(())
        });
        volumes::tell_end(&mut state, &qube, &volume, told.is_none() && done.is_ok());
        self.save(&mut state).map_err(|_| Failure::Untold)?;
        match told {
            Some(failure) => Err(failure),
            None => done,
        }
    }
}

/// An import that data can be written to.
#[derive(Debug)]
struct Open {
    qube: String,
    volume: String,
    size: u64,
    file: File,
    /// How many bytes the pool still has room for; none: nobody counts.
    free: Option<u64>,
    /// What a population wants it to end with.
    fails: Option<(String, String)>,
}

impl Open {
    /// Copies the announced number of bytes and makes sure that no more follow. The inner error says what was wrong
    /// with the data.
    fn copy(&mut self, input: &mut dyn Read) -> io::Result<Result<(), String>> {
        let mut block = vec![0; BLOCK];
        let mut copied = 0;
        while copied < self.size {
            let wanted = usize::try_from(self.size - copied).unwrap_or(BLOCK).min(BLOCK);
            let length = read_full(input, &mut block[..wanted])?;
            if self.write(&block[..length]).is_err() {
                return Ok(Err("error copying data".to_owned()));
            }
            copied += length as u64;
            if length < wanted {
                let size = self.size;
                return Ok(Err(format!("not enough data (copied {copied} bytes, expected {size} bytes)")));
            }
        }
        if read_full(input, &mut block[..1])? > 0 {
            return Ok(Err(format!("too much data (expected {} bytes)", self.size)));
        }
        Ok(Ok(()))
    }

    /// Blocks of zeros become holes.
    fn write(&mut self, block: &[u8]) -> io::Result<()> {
        let length = block.len() as u64;
        if storage::is_zero(block) {
            let skip = i64::try_from(length).map_err(io::Error::other)?;
            return self.file.seek(SeekFrom::Current(skip)).map(drop);
        }
        if let Some(free) = &mut self.free {
            *free = free.checked_sub(length).ok_or(io::ErrorKind::StorageFull)?;
        }
        self.file.write_all(block)
    }
}

/// Fills the buffer as far as the input goes.
fn read_full(input: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The first line, read byte by byte so that nothing after it is taken. The inner error says why it is none.
fn read_size_line(input: &mut dyn Read) -> io::Result<Result<Vec<u8>, String>> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < SIZE_LINE {
        if read_full(input, &mut byte)? == 0 {
            return Ok(Err("End of input without a newline".to_owned()));
        }
        match byte[0] {
            b'\n' => return Ok(Ok(line)),
            0x20..=0x7e => line.push(byte[0]),
            odd => return Ok(Err(format!("Invalid byte {odd} in input"))),
        }
    }
    Ok(Err("No newline found in first 21 bytes".to_owned()))
}

/// A size line with its end is this long at most.
const SIZE_LINE: usize = 21;

#[cfg(test)]
mod tests {
    use super::read_size_line;

    fn line(text: &[u8]) -> Result<Vec<u8>, String> {
        read_size_line(&mut &text[..]).expect("a slice")
    }

    #[test]
    fn a_size_line_ends_within_21_bytes() {
        assert_eq!(line(b"12\nrest"), Ok(b"12".to_vec()));
        assert_eq!(line(b"\n"), Ok(Vec::new()));
        assert_eq!(line(b"12345678901234567890\n"), Ok(b"12345678901234567890".to_vec()));
        assert_eq!(line(b"123456789012345678901\n"), Err("No newline found in first 21 bytes".into()));
        assert_eq!(line(b"12"), Err("End of input without a newline".into()));
        assert_eq!(line(b"12\xe9\n"), Err("Invalid byte 233 in input".into()));
        assert_eq!(line(b"12\r\n"), Err("Invalid byte 13 in input".into()));
    }

    #[test]
    fn nothing_after_the_line_is_taken() {
        let mut input = &b"5\nhello"[..];
        assert_eq!(read_size_line(&mut input).expect("a slice"), Ok(b"5".to_vec()));
        assert_eq!(input, b"hello");
    }
}
