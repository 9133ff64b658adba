//! Where the bytes around a root image come from.

use std::io::Read;

use crate::payload::TemplateFiles;
use crate::verify::Rejection;

/// A stream of bytes that can end well or badly.
pub(crate) trait Source {
    /// Reads some bytes; 0 at the end.
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, Rejection>;

    /// Proves that nothing is left, and hands over what was found beside the image.
    fn finish(self) -> Result<TemplateFiles, Rejection>;

    /// Fills `buf` or fails with `cut`.
    fn exact(&mut self, mut buf: &mut [u8], cut: &'static str) -> Result<(), Rejection> {
        while !buf.is_empty() {
            match self.read(buf)? {
                0 => return Err(Rejection::Tar(cut)),
                n => buf = &mut buf[n..],
            }
        }
        Ok(())
    }
}

/// Plain bytes, with files that were found before.
#[derive(Debug)]
pub(crate) struct Plain<R> {
    pub(crate) bytes: R,
    pub(crate) files: TemplateFiles,
}

impl<R: Read> Source for Plain<R> {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, Rejection> {
        loop {
            match self.bytes.read(buf) {
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                other => return Ok(other?),
            }
        }
    }

    fn finish(mut self) -> Result<TemplateFiles, Rejection> {
        match self.read(&mut [0])? {
            0 => Ok(self.files),
            _ => Err(Rejection::TrailingData("the root image")),
        }
    }
}
