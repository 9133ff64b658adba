//! However its bytes come, and however they are taken, the image is the same.

use std::io::{self, BufReader, Read};

use proptest::prelude::*;

use super::source::{Plain, Source};
use super::tar::{Image, Piece};
use crate::payload::cpio::Archive;
use crate::payload::decoder::Compression;
use crate::payload::{Contents, TemplateFiles};
use crate::verify::{FileInfo, Rejection};

/// Gives its bytes in pieces of these lengths, over and over, with an interruption before each.
struct Pieces<'a> {
    bytes: &'a [u8],
    lengths: &'a [usize],
    at: usize,
    interrupt: bool,
}

impl<'a> Pieces<'a> {
    fn new(bytes: &'a [u8], lengths: &'a [usize]) -> Self {
        Self { bytes, lengths, at: 0, interrupt: true }
    }
}

impl Read for Pieces<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.interrupt = !self.interrupt;
        if !self.interrupt {
            return Err(io::ErrorKind::Interrupted.into());
        }
        self.at += 1;
        let most = self.lengths[self.at % self.lengths.len()].min(buf.len()).min(self.bytes.len());
        let (now, later) = self.bytes.split_at(most);
        buf[..most].copy_from_slice(now);
        self.bytes = later;
        Ok(most)
    }
}

/// A tar archive with `data`, in the GNU form, and two blocks of hole before it where `sparse`.
fn tar(data: &[u8], sparse: bool) -> Vec<u8> {
    let mut out = vec![0; 512];
    out[..8].copy_from_slice(b"root.img");
    out[124..136].copy_from_slice(format!("{:011o}\0", data.len()).as_bytes());
    out[156] = b'0';
    out[257..265].copy_from_slice(b"ustar  \0");
    if sparse {
        out[156] = b'S';
        out[483..495].copy_from_slice(format!("{:011o}\0", data.len() + 1024).as_bytes());
        out[386..398].copy_from_slice(b"00000002000\0");
        out[398..410].copy_from_slice(format!("{:011o}\0", data.len()).as_bytes());
    }
    out[148..156].fill(b' ');
    let sum: u32 = out.iter().map(|byte| u32::from(*byte)).sum();
    out[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    out.extend(data);
    out.resize(out.len().next_multiple_of(512) + 1024, 0);
    out
}

fn cpio(files: &[(String, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (path, data) in
        files.iter().map(|(path, data)| (path.as_str(), *data)).chain([("TRAILER!!!", &b""[..])])
    {
        out.extend(b"070701");
        let mode = if path == "TRAILER!!!" { 0 } else { 0o100_660 };
        for field in [1, mode, 0, 0, 1, 0, data.len(), 0, 0, 0, 0, path.len() + 1, 0] {
            out.extend(format!("{field:08x}").bytes());
        }
        out.extend(path.bytes().chain([0]));
        out.resize(out.len().next_multiple_of(4), 0);
        out.extend(data);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    out
}

/// The image, taken with buffers of these lengths.
fn drain<S: Source>(source: S, lengths: &[usize]) -> Result<(Vec<u8>, TemplateFiles), Rejection> {
    let mut image = Image::open(source, 1 << 20)?;
    let (mut out, mut buffer) = (Vec::new(), vec![0; 4096]);
    for length in lengths.iter().cycle() {
        match image.next(&mut buffer[..*length])? {
            Piece::Data(taken) => out.extend(&buffer[..taken]),
            Piece::Zeros(count) => out.resize(out.len() + usize::try_from(count).unwrap_or(0), 0),
            Piece::End => break,
        }
    }
    Ok((out, image.finish()?))
}

fn lengths() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![1..4_usize, 500..520_usize, 1..4096_usize], 1..20)
}

proptest! {
    #[test]
    fn a_plain_archive(
        data in prop::collection::vec(any::<u8>(), 1..5000),
        sparse in any::<bool>(),
        coming in lengths(),
        taking in lengths(),
    ) {
        let bytes = tar(&data, sparse);
        let wanted = [vec![0; if sparse { 1024 } else { 0 }], data].concat();
        let source = Plain { bytes: Pieces::new(&bytes, &coming), files: TemplateFiles::default() };
        let (image, _) = drain(source, &taking).unwrap();
        prop_assert!(image == wanted);
        // And one that ends before its end is never an image.
        for cut in [1, 512, 1024, 1025, bytes.len() - 1] {
            let source = Plain { bytes: Pieces::new(&bytes[..bytes.len() - cut], &coming), files: TemplateFiles::default() };
            prop_assert!(drain(source, &taking).is_err() || cut < 1024, "cut by {cut}");
        }
    }

    #[test]
    fn the_parts_of_a_payload(
        data in prop::collection::vec(any::<u8>(), 1..5000),
        sparse in any::<bool>(),
        part in 1..3000_usize,
        coming in lengths(),
        taking in lengths(),
    ) {
        let whole = tar(&data, sparse);
        prop_assume!(whole.len().div_ceil(part) <= 100);
        let directory = "/var/lib/qubes/vm-templates/t";
        let mut files: Vec<(String, &[u8])> = whole
            .chunks(part)
            .enumerate()
            .map(|(number, bytes)| (format!(".{directory}/root.img.part.{number:02}"), bytes))
            .collect();
        files.push((format!(".{directory}/template.conf"), b"gui=1\n"));
        let list = files
            .iter()
            .map(|(path, bytes)| FileInfo {
                path: path[1..].to_owned(),
                size: bytes.len() as u64,
                mode: 0o100_660,
                ghost: false,
            })
            .collect();
        let stream = zstd::encode_all(&cpio(&files)[..], 1).unwrap();
        let decoder = Compression::Zstd.decoder(BufReader::with_capacity(64, Pieces::new(&stream, &coming)), 1).unwrap();
        let contents = Contents::new(Archive::new(decoder, list), directory.into());
        let (image, found) = drain(contents, &taking).unwrap();
        let wanted = [vec![0; if sparse { 1024 } else { 0 }], data].concat();
        prop_assert!(image == wanted);
        prop_assert_eq!(found.conf.as_deref(), Some(&b"gui=1\n"[..]));
    }
}
