//! Decompression of the payload, with a cap on memory.
//!
//! The kind comes from the signed header, never from the bytes. The payload digest already covers every byte, so the
//! checksums inside of xz are not computed a second time.

use std::fmt;
use std::io::{self, BufRead, Read};

use crate::verify::Rejection;

/// Greatest zstd window: 128 MiB, what level 22 uses. Qubes' packages (level 19) need 8 MiB.
const ZSTD_WINDOW_LOG: u32 = 27;

/// Most memory of an xz decoder: a dictionary of 64 MiB (`xz -9`) and its own needs.
const XZ_MEMORY: u64 = 72 << 20;

/// Memory up to which blocks of an xz payload are decoded side by side. One more thread costs one more block, so
/// packages with huge blocks stay with one.
const XZ_MEMORY_PARALLEL: u64 = 64 << 20;

/// How a payload is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    Zstd,
    Xz,
    Gzip,
}

impl Compression {
    /// From the name in the signed header.
    pub(crate) fn named(name: &str) -> Result<Self, Rejection> {
        match name {
            "zstd" => Ok(Self::Zstd),
            "xz" => Ok(Self::Xz),
            "gzip" => Ok(Self::Gzip),
            other => Err(Rejection::Compressor(other.to_owned())),
        }
    }

    /// A decoder of what `input` yields. `threads` beside the calling one may help where the format allows it.
    pub(crate) fn decoder<R: BufRead>(self, mut input: R, threads: u32) -> Result<Decoder<R>, Rejection> {
        Ok(match self {
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Decoder::Zstd(decoder)
            }
            Self::Xz => {
                let stream = if threads > 1 && peek(&mut input, has_sizes)? {
                    liblzma::stream::MtStreamBuilder::new()
                        .threads(threads)
                        .timeout_ms(0)
                        .memlimit_threading(XZ_MEMORY_PARALLEL)
                        .memlimit_stop(XZ_MEMORY)
                        .decoder()
                } else {
                    liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::IGNORE_CHECK)
                };
                let stream = stream.map_err(io::Error::from)?;
                Decoder::Xz(liblzma::bufread::XzDecoder::new_stream(input, stream))
            }
            Self::Gzip => Decoder::Gzip(flate2::bufread::GzDecoder::new(input)),
        })
    }
}

/// Whether the first block of an xz stream names its sizes, as encoders with threads write it: only such blocks can be
/// decoded side by side, and the decoder for them cannot leave out the checksums.
fn has_sizes(stream: &[u8]) -> bool {
    const STREAM_HEADER: usize = 12;
    const BOTH_SIZES: u8 = 0xc0;
    stream.get(STREAM_HEADER + 1).is_some_and(|flags| flags & BOTH_SIZES == BOTH_SIZES)
}

/// A running decoder.
pub(crate) enum Decoder<R: BufRead> {
    Zstd(zstd::stream::read::Decoder<'static, R>),
    Xz(liblzma::bufread::XzDecoder<R>),
    Gzip(flate2::bufread::GzDecoder<R>),
}

impl<R: BufRead> fmt::Debug for Decoder<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Zstd(_) => "Zstd",
            Self::Xz(_) => "Xz",
            Self::Gzip(_) => "Gzip",
        })
    }
}

impl<R: BufRead> Decoder<R> {
    /// Reads decompressed bytes; 0 at the end of the stream.
    pub(crate) fn read(&mut self, buf: &mut [u8]) -> Result<usize, Rejection> {
        loop {
            let read = match self {
                Self::Zstd(d) => d.read(buf),
                Self::Xz(d) => d.read(buf),
                Self::Gzip(d) => d.read(buf),
            };
            return match read {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => {
                    let text = e.to_string();
                    let memory = text.contains("too much memory") || text.contains("memory limit");
                    Err(if memory { Rejection::Window } else { Rejection::Compression(text) })
                }
                Ok(n) => Ok(n),
            };
        }
    }

    /// Ends decoding: the stream must end here, and the input with it.
    pub(crate) fn finish(mut self) -> Result<(), Rejection> {
        if self.read(&mut [0])? != 0 {
            return Err(Rejection::TrailingData("the archive in the payload"));
        }
        let input = match &mut self {
            Self::Zstd(d) => d.get_mut(),
            Self::Xz(d) => d.get_mut(),
            Self::Gzip(d) => d.get_mut(),
        };
        let ended = peek(input, <[u8]>::is_empty)?;
        ended.then_some(()).ok_or(Rejection::TrailingData("the compressed payload"))
    }
}

/// Looks at what `input` has next. A signal in between is no error.
fn peek<T>(input: &mut impl BufRead, look: impl Fn(&[u8]) -> T) -> io::Result<T> {
    loop {
        match input.fill_buf() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other.map(&look),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gunzip(bytes: &[u8]) -> Result<Vec<u8>, Rejection> {
        read_all(Compression::Gzip, bytes)
    }

    fn read_all(kind: Compression, bytes: &[u8]) -> Result<Vec<u8>, Rejection> {
        let mut decoder = kind.decoder(bytes, 2)?;
        let (mut out, mut buf) = (Vec::new(), [0; 100]);
        loop {
            match decoder.read(&mut buf)? {
                0 => break,
                n => out.extend_from_slice(&buf[..n]),
            }
        }
        decoder.finish()?;
        Ok(out)
    }

    #[test]
    fn every_kind_ends_where_it_ends() {
        let text = b"some text, some text, some text".repeat(50);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(&text).unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 2);
        xz.write_all(&text).unwrap();
        let mut blocks = liblzma::stream::MtStreamBuilder::new();
        let blocks = blocks.threads(1).preset(0).block_size(500).encoder().unwrap();
        let mut blocks = liblzma::write::XzEncoder::new_stream(Vec::new(), blocks);
        blocks.write_all(&text).unwrap();
        let (xz, blocks) = (xz.finish().unwrap(), blocks.finish().unwrap());
        assert_eq!((has_sizes(&xz), has_sizes(&blocks)), (false, true));
        for (kind, packed) in [
            (Compression::Gzip, gzip.finish().unwrap()),
            (Compression::Xz, xz),
            (Compression::Xz, blocks),
            (Compression::Zstd, zstd::encode_all(&text[..], 3).unwrap()),
        ] {
            assert_eq!(read_all(kind, &packed).unwrap(), text, "{kind:?}");
            assert!(read_all(kind, &packed[..packed.len() - 1]).is_err(), "{kind:?} cut");
            let trailing = [&packed[..], b"x"].concat();
            assert!(read_all(kind, &trailing).is_err(), "{kind:?} with more");
        }
        assert!(matches!(gunzip(b"no gzip at all"), Err(Rejection::Compression(_))));
        assert!(matches!(Compression::named("lzma"), Err(Rejection::Compressor(_))));
    }

    #[test]
    fn a_window_beyond_the_cap_is_refused() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(28).unwrap();
        encoder.write_all(&[7; 1000]).unwrap();
        let packed = encoder.finish().unwrap();
        assert!(matches!(read_all(Compression::Zstd, &packed), Err(Rejection::Window)));
    }
}
