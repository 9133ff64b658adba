//! What is measured while a package arrives, so that the verdict afterwards costs next to nothing.
//!
//! [`Watch`] sees every byte of the file once, in order. It keeps the head (bounded by the policy) and hashes what
//! follows with exactly the functions that the head names.

use std::fs::File;
use std::io::{self, Read as _};
use std::sync::Arc;
use std::thread;

use super::container::{self, Extent, Head};
use super::header::Header;
use super::rejection::Rejection;
use super::signature;
use super::tag::signature::{LONG_SIZE, MD5, SHA1, SHA256, SIZE};
use super::tag::{PAYLOAD_DIGEST, PAYLOAD_DIGEST_ALGORITHM};
use crate::confine;
use crate::io::at::ReadAt;
use crate::io::hash::{Hash, Running};

/// Measures a package while its bytes pass.
#[derive(Debug)]
pub(crate) struct Watch {
    state: State,
    total: u64,
}

#[derive(Debug)]
enum State {
    Head { bytes: Vec<u8>, needed: usize },
    Payload(Box<Body>),
    Refused(Rejection),
}

#[derive(Debug)]
struct Body {
    head: Head,
    payload: Option<Running>,
    md5: Option<Running>,
    both: Option<Running>,
}

/// The finished measurement of a package.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) head: Head,
    payload: Option<Vec<u8>>,
    md5: Option<Vec<u8>>,
    /// Digest over header and payload, not yet completed by the signature.
    pub(crate) both: Option<Running>,
    /// Bytes of the whole file.
    pub(crate) total: u64,
}

impl Watch {
    pub(crate) fn new() -> Self {
        Self { state: State::Head { bytes: Vec::new(), needed: 0 }, total: 0 }
    }

    /// Measures `size` bytes of `file` that are all there already: each digest on a thread of its own, as the slowest
    /// of them (MD5) takes longer than all others together.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn of_file(file: &Arc<File>, size: u64) -> io::Result<Result<Measured, Rejection>> {
        let mut watch = Self::new();
        let mut at = 0;
        while let State::Head { bytes, needed } = &watch.state {
            let missing = needed.saturating_sub(bytes.len()).max(1);
            let mut piece = vec![0; missing];
            let read = ReadAt::new(file.clone(), at, size).read(&mut piece)?;
            if read == 0 {
                break;
            }
            watch.feed(&piece[..read]);
            at += read as u64;
        }
        watch.total = size;
        if let State::Payload(body) = &mut watch.state {
            let running = [&mut body.payload, &mut body.md5, &mut body.both].into_iter().flatten();
            thread::scope(|scope| {
                let threads: Vec<_> = running
                    .map(|running| scope.spawn(|| update_from(running, ReadAt::new(file.clone(), at, size))))
                    .collect();
                threads.into_iter().try_for_each(|thread| {
                    thread.join().unwrap_or_else(|_| Err(io::Error::other("a hashing thread failed")))
                })
            })?;
        }
        Ok(watch.finish())
    }

    /// Takes in the next bytes of the file.
    pub(crate) fn feed(&mut self, mut piece: &[u8]) {
        self.total += piece.len() as u64;
        while let State::Head { bytes, needed } = &mut self.state {
            let take = needed.saturating_sub(bytes.len()).min(piece.len());
            bytes.extend_from_slice(&piece[..take]);
            piece = &piece[take..];
            if bytes.len() < *needed {
                return;
            }
            let next = match container::extent(bytes) {
                Ok(Extent::AtLeast(n)) => {
                    *needed = n;
                    continue;
                }
                Ok(Extent::Exactly(n)) if bytes.len() < n => {
                    *needed = n;
                    continue;
                }
                Ok(Extent::Exactly(_)) => Body::begin(bytes),
                Err(e) => Err(e),
            };
            self.state = match next {
                Ok(body) => State::Payload(Box::new(body)),
                Err(e) => State::Refused(e),
            };
        }
        if let State::Payload(body) = &mut self.state {
            [&mut body.payload, &mut body.md5, &mut body.both]
                .into_iter()
                .flatten()
                .for_each(|r| r.update(piece));
        }
    }

    /// The measurement, or why the file is not even formally a package.
    pub(crate) fn finish(self) -> Result<Measured, Rejection> {
        match self.state {
            State::Refused(e) => Err(e),
            State::Head { .. } if self.total == 0 => Err(Rejection::Truncated("the lead")),
            State::Head { bytes, .. } if container::extent(&bytes).is_err() => Err(Rejection::NotAPackage),
            State::Head { bytes, .. } if bytes.len() < container::LEAD => {
                Err(Rejection::Truncated("the lead"))
            }
            State::Head { .. } => Err(Rejection::Truncated("its headers")),
            State::Payload(body) => Ok(Measured {
                payload: body.payload.map(Running::finish),
                md5: body.md5.map(Running::finish),
                both: body.both,
                head: body.head,
                total: self.total,
            }),
        }
    }
}

fn update_from(running: &mut Running, mut from: ReadAt) -> io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => running.update(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

impl Body {
    fn begin(bytes: &[u8]) -> Result<Self, Rejection> {
        let head = confine::run(|| Head::parse(bytes))??;
        let over_both = |hash: Hash| {
            let mut running = hash.start();
            running.update(&head.signed);
            running
        };
        Ok(Self {
            payload: payload_digest(&head.header).ok().map(|(hash, _)| hash.start()),
            md5: head.signature.has(MD5).then(|| over_both(Hash::Md5)),
            both: signature::hash_over_both(&head.signature).map(over_both),
            head,
        })
    }
}

impl Measured {
    /// Compares every digest and size that the package has with what was measured. Says "cut off" rather than "changed"
    /// where the sizes show it.
    pub(crate) fn check(&self) -> Result<(), Rejection> {
        let header = &self.head.signature;
        let mut digests = 0;
        for (tag, hash, name) in [(SHA256, Hash::Sha256, "SHA-256"), (SHA1, Hash::Sha1, "SHA-1")] {
            if !header.has(tag) {
                continue;
            }
            let wanted = header.string(tag).map_err(|_| Rejection::HeaderDigest(name))?;
            if wanted != Some(crate::io::hash::hex(&hash.of(&self.head.signed)).as_str()) {
                return Err(Rejection::HeaderDigest(name));
            }
            digests += 1;
        }
        if digests == 0 {
            return Err(Rejection::NoHeaderDigest);
        }
        let (_, wanted) = payload_digest(&self.head.header)?;
        let named = self.named_size()?;
        let size = self.total - self.head.payload_offset + self.head.signed.len() as u64;
        if self.payload.as_deref() != Some(&wanted) {
            return Err(match named {
                Some(named) if named > size => Rejection::Truncated("the payload"),
                Some(named) if named < size => Rejection::TrailingBytes(size - named),
                _ => Rejection::PayloadWrong,
            });
        }
        if named.is_some_and(|named| named != size) {
            return Err(Rejection::OlderValue("size"));
        }
        if header.has(MD5) && header.binary(MD5).ok().flatten() != self.md5.as_deref() {
            return Err(Rejection::OlderValue("MD5 digest"));
        }
        Ok(())
    }

    /// The size of header and payload that the signature header names.
    fn named_size(&self) -> Result<Option<u64>, Rejection> {
        let header = &self.head.signature;
        let mut found = None;
        for tag in [SIZE, LONG_SIZE] {
            let size = header.number(tag).map_err(|_| Rejection::OlderValue("size"))?;
            if header.has(tag) && (size.is_none() || found.is_some()) {
                return Err(Rejection::OlderValue("size"));
            }
            found = found.or(size);
        }
        Ok(found)
    }
}

/// The digest of the compressed payload that the header names.
pub(crate) fn payload_digest(header: &Header) -> Result<(Hash, Vec<u8>), Rejection> {
    let number = header.number(PAYLOAD_DIGEST_ALGORITHM).ok().flatten().ok_or(Rejection::NoPayloadDigest)?;
    // rpm computes SHA-256 whatever the number says, so nothing else would be the same package to everybody.
    let hash = Hash::from_number(number).filter(|hash| *hash == Hash::Sha256);
    let hash = hash.ok_or_else(|| Rejection::PayloadDigestKind(u32::try_from(number).unwrap_or(u32::MAX)))?;
    let texts = header.strings(PAYLOAD_DIGEST).map_err(|_| Rejection::NoPayloadDigest)?;
    let [text] = texts[..] else { return Err(Rejection::NoPayloadDigest) };
    let digit = |b: u8| char::from(b).to_digit(16).filter(|_| !b.is_ascii_uppercase());
    let digits: Option<Vec<u32>> = text.bytes().map(digit).collect();
    let bytes: Vec<u8> = digits
        .unwrap_or_default()
        .chunks_exact(2)
        .map(|pair| u8::try_from(pair[0] << 4 | pair[1]).unwrap_or(0))
        .collect();
    if bytes.len() != 32 || text.len() != 64 {
        return Err(Rejection::NoPayloadDigest);
    }
    Ok((hash, bytes))
}
