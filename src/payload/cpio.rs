//! The cpio archive inside of a payload, against the list of files in the signed header.
//!
//! ```text
//! 070701 ino mode uid gid nlink mtime size devmajor devminor rdevmajor rdevminor namesize check   (8 hex digits each)
//!        name NUL, zeros to a multiple of 4, data, zeros to a multiple of 4
//! 07070X index   (8 hex digits): the file at that place of the header's list; size and name come from there
//! last:  070701 ... TRAILER!!!, and nothing after it
//! ```
//!
//! Every file of the list that is no ghost is there exactly once, with the mode and size of the list; nothing else is
//! there. Hard links are refused: a second name for the same bytes has no place in a template.

use std::io::BufRead;

use super::decoder::Decoder;
use crate::verify::{FileInfo, Rejection};

const CUT: Rejection = Rejection::Archive("it is cut off");

/// Reads entries one after the other.
#[derive(Debug)]
pub(crate) struct Archive<R: BufRead> {
    decoder: Decoder<R>,
    files: Vec<FileInfo>,
    seen: Vec<bool>,
    /// Bytes of data that are left in the entry, and of padding behind it.
    left: u64,
    padding: u64,
}

impl<R: BufRead> Archive<R> {
    /// An archive that must hold `files`.
    pub(crate) fn new(decoder: Decoder<R>, files: Vec<FileInfo>) -> Self {
        Self { decoder, seen: vec![false; files.len()], files, left: 0, padding: 0 }
    }

    /// The next entry, skipping what is left of the last one. `None` at the end of the archive, which is also the end
    /// of the payload.
    pub(crate) fn next(&mut self) -> Result<Option<FileInfo>, Rejection> {
        self.skip_rest()?;
        let mut magic = [0; 14];
        self.exact(&mut magic)?;
        let index = match &magic[..6] {
            b"070701" => match self.newc(&magic)? {
                Some(index) => index,
                None => return self.end().map(|()| None),
            },
            b"07070X" => {
                self.zeros(2)?;
                self.padding = 0;
                usize::try_from(hex(&magic[6..])?).unwrap_or(usize::MAX)
            }
            _ => return Err(Rejection::Archive("an entry has an unknown magic")),
        };
        let file =
            self.files.get(index).ok_or(Rejection::Archive("an entry is not in the header's list"))?.clone();
        if file.ghost {
            return Err(Rejection::ArchiveEntry(file.path, "it is a ghost and must not be in the archive"));
        }
        if std::mem::replace(&mut self.seen[index], true) {
            return Err(Rejection::ArchiveEntry(file.path, "it is there twice"));
        }
        self.left = if file.is_dir() { 0 } else { file.size };
        self.padding = self.left.next_multiple_of(4) - self.left;
        Ok(Some(file))
    }

    /// Reads data of the present entry; 0 at its end.
    pub(crate) fn read(&mut self, buf: &mut [u8]) -> Result<usize, Rejection> {
        let len = buf.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if len == 0 {
            return Ok(0);
        }
        match self.decoder.read(&mut buf[..len])? {
            0 => Err(CUT),
            n => {
                self.left -= n as u64;
                Ok(n)
            }
        }
    }

    /// Ends reading; the archive must have ended before.
    pub(crate) fn finish(self) -> Result<(), Rejection> {
        self.decoder.finish()
    }

    /// The rest of a `newc` header: the index of its file, or `None` for the trailer.
    fn newc(&mut self, magic: &[u8; 14]) -> Result<Option<usize>, Rejection> {
        hex(&magic[6..])?;
        let mut fields = [0; 12 * 8];
        self.exact(&mut fields)?;
        let mut values = [0; 12];
        for (value, digits) in values.iter_mut().zip(fields.chunks_exact(8)) {
            *value = hex(digits)?;
        }
        let [mode, _, _, links, _, size, _, _, _, _, name_size, check] = values;
        if check != 0 {
            return Err(Rejection::Archive("an entry has a checksum"));
        }
        let name_len = usize::try_from(name_size).unwrap_or(usize::MAX);
        if !(2..=crate::verify::policy::MAX_PATH + 2).contains(&name_len) {
            return Err(Rejection::Archive("a name has an impossible length"));
        }
        let mut name = vec![0; name_len];
        self.exact(&mut name)?;
        let name_padding = (110 + u64::from(name_size)).next_multiple_of(4) - 110 - u64::from(name_size);
        self.zeros(name_padding)?;
        if name.pop() != Some(0) || name.contains(&0) {
            return Err(Rejection::Archive("a name has no end"));
        }
        if name == b"TRAILER!!!" {
            return if size == 0 { Ok(None) } else { Err(Rejection::Archive("its trailer has data")) };
        }
        let name = String::from_utf8_lossy(&name).into_owned();
        let path = name.strip_prefix('.').unwrap_or("");
        let index = self.files.iter().position(|f| f.path == path);
        let Some(index) = index else {
            return Err(Rejection::ArchiveEntry(name, "it is not in the header's list"));
        };
        let file = &self.files[index];
        if mode != file.mode {
            return Err(Rejection::ArchiveEntry(name, "its type or mode differs"));
        }
        let same_size = u64::from(size) == file.size || (file.is_dir() && size == 0);
        if !same_size {
            return Err(Rejection::ArchiveEntry(name, "its size differs"));
        }
        if !file.is_dir() && links != 1 {
            return Err(Rejection::ArchiveEntry(name, "it is a hard link"));
        }
        Ok(Some(index))
    }

    fn end(&mut self) -> Result<(), Rejection> {
        // The trailer's name ends at a multiple of 4; nothing may follow, which `finish` proves.
        let missing = self.files.iter().zip(&self.seen).find(|(file, seen)| !file.ghost && !**seen);
        match missing {
            Some((file, _)) => {
                Err(Rejection::ArchiveEntry(file.path.clone(), "it is missing in the archive"))
            }
            None => Ok(()),
        }
    }

    fn skip_rest(&mut self) -> Result<(), Rejection> {
        let mut scrap = [0; 4096];
        while self.left > 0 {
            self.read(&mut scrap)?;
        }
        let padding = std::mem::take(&mut self.padding);
        self.zeros(padding)
    }

    fn zeros(&mut self, count: u64) -> Result<(), Rejection> {
        let mut padding = [0; 4];
        let padding = &mut padding[..usize::try_from(count).unwrap_or(0).min(4)];
        self.exact(padding)?;
        if padding.iter().any(|b| *b != 0) {
            return Err(Rejection::Archive("its padding is not zero"));
        }
        Ok(())
    }

    fn exact(&mut self, mut buf: &mut [u8]) -> Result<(), Rejection> {
        while !buf.is_empty() {
            match self.decoder.read(buf)? {
                0 => return Err(CUT),
                n => buf = &mut buf[n..],
            }
        }
        Ok(())
    }
}

fn hex(digits: &[u8]) -> Result<u32, Rejection> {
    digits.iter().try_fold(0, |n, b| {
        let digit = char::from(*b).to_digit(16).ok_or(Rejection::Archive("a number is not hexadecimal"))?;
        Ok(n << 4 | digit)
    })
}
