//! The root image of a template: a stream of exactly known length.
//!
//! ```text
//! reading thread           confined thread                      caller
//! read, hash  --chunks-->  decompress, cpio, tar, sparse map  --chunks-->  write to dom0, last block held back
//! ```
//!
//! Reading with hashing, decoding and writing overlap; the chunks go round in a ring, so memory does not depend on
//! the image. The caller writes exactly [`RootImage::size`] bytes; the last ones only after
//!
//! * the archive ended where it should, with nothing behind it, and
//! * the bytes that were decompressed, hashed again on their way, are those that were signed.

#[cfg(test)]
mod chunking;
mod directory;
mod pump;
pub(crate) mod source;
mod sparse;
pub(crate) mod tar;

use std::io::{self, Write};
use std::path::Path;

pub use crate::payload::TemplateFiles;

use crate::io::tail::HoldBack;
use crate::io::zeros::{Copied, Sink};
use crate::payload::Payload;
use crate::verify::Rejection;
use pump::{Message, Pump};
use source::Plain;
use tar::Image;

/// Bytes held back until everything is proven.
const HELD_BACK: usize = 4096;

/// Most zeros at a time, so that progress is told.
const MOST_ZEROS: u64 = 16 << 20;

/// What an image may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most bytes of an image, holes included.
    pub image_size: u64,
    /// Threads that may decode at the same time, where the payload allows it.
    pub threads: u32,
}

impl Default for Limits {
    /// 256 GiB, ten times what the largest templates have; two threads.
    fn default() -> Self {
        Self { image_size: 256 << 30, threads: 2 }
    }
}

/// An image that is ready to be copied, once.
#[derive(Debug)]
pub struct RootImage {
    size: u64,
    pump: Pump,
}

/// Why an image was not copied to its end. The last block was not written in any of these cases.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The package is not what it should be.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The receiver did not take it.
    #[error("writing the image")]
    Write(#[from] io::Error),
}

impl RootImage {
    pub(crate) fn of_payload(payload: Payload, limits: Limits) -> Result<Self, Rejection> {
        let (reader, input) = pump::Reader::start(payload.bytes(), payload.digest().clone())?;
        let open = move || Image::open(payload.contents(input, limits.threads)?, limits.image_size);
        Self::start(open, Some(reader))
    }

    /// The image in a directory, as `qvm-template-postprocess` is given one: `root.img.part.00` and so on, or
    /// `root.img.tar`, or `root.img`.
    ///
    /// # Errors
    /// If there is none of them, or it is not what its name says.
    pub fn from_directory(directory: &Path, limits: Limits) -> Result<Self, Rejection> {
        let found = directory::open(directory)?;
        let open = move || {
            let source = Plain { bytes: found.bytes, files: found.files };
            match found.raw_size {
                Some(size) => Image::raw(source, size, limits.image_size),
                None => Image::open(source, limits.image_size),
            }
        };
        Self::start(open, None)
    }

    fn start<S: source::Source + 'static>(
        open: impl FnOnce() -> Result<Image<S>, Rejection> + Send + 'static,
        reader: Option<pump::Reader>,
    ) -> Result<Self, Rejection> {
        let (size, pump) = Pump::start(open, reader)?;
        Ok(Self { size, pump })
    }

    /// Bytes that [`RootImage::copy_to`] writes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Writes the image to `out` and tells `on_progress` how many bytes were written so far.
    ///
    /// # Errors
    /// If the package turns out to be something else than what was verified or an image, or `out` fails. Then `out`
    /// did not get the last bytes.
    pub fn copy_to(
        self,
        out: &mut impl Write,
        on_progress: &mut dyn FnMut(u64),
    ) -> Result<TemplateFiles, CopyError> {
        self.copy_and(&mut Copied(out), on_progress, |_| Ok(()))
    }

    /// As [`Self::copy_to`], with a last word of `before_end` on the files beside the image: what it says comes before
    /// the last bytes, when everything is proven, and its failure keeps them back.
    ///
    /// # Errors
    /// As [`Self::copy_to`], and when `before_end` fails.
    pub fn copy_and(
        mut self,
        out: &mut impl Sink,
        on_progress: &mut dyn FnMut(u64),
        before_end: impl FnOnce(&TemplateFiles) -> io::Result<()>,
    ) -> Result<TemplateFiles, CopyError> {
        let mut out = HoldBack::new(out, self.size, HELD_BACK);
        let mut written = 0;
        let files = loop {
            match self.pump.next() {
                Message::Chunk(chunk) => {
                    let mut from = 0;
                    for piece in &chunk.pieces {
                        out.write_all(&chunk.bytes[from..piece.data_end]).map_err(CopyError::Write)?;
                        write_zeros(
                            &mut out,
                            piece.zeros,
                            written + piece.data_end as u64 - from as u64,
                            on_progress,
                        )
                        .map_err(CopyError::Write)?;
                        written += (piece.data_end - from) as u64 + piece.zeros;
                        from = piece.data_end;
                    }
                    on_progress(written);
                    self.pump.recycle(chunk);
                }
                Message::End(Ok(files)) => break files,
                Message::End(Err(rejection)) => {
                    // Bytes that changed under us explain everything else that was found wrong.
                    self.pump.join()?;
                    return Err(rejection.into());
                }
            }
        };
        self.pump.join()?;
        before_end(&files).map_err(CopyError::Write)?;
        out.release().map_err(CopyError::Write)?;
        Ok(files)
    }
}

fn write_zeros(
    out: &mut impl Sink,
    mut count: u64,
    mut written: u64,
    report: &mut dyn FnMut(u64),
) -> io::Result<()> {
    while count > 0 {
        match out.write_zeros(count.min(MOST_ZEROS)) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => (count, written) = (count - n, written + n),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
        report(written);
    }
    Ok(())
}
