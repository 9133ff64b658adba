//! `qubes.TemplateDownload`: one package to standard output.
//!
//! The bytes that leave are those of one file. A transfer that breaks off goes on with a range request only on the same
//! mirror and only if the file's state there (`ETag`, `Last-Modified`) is the same; in every other case the file is
//! read again from its beginning, and what has left already has to be a beginning of it. The end of the package is held
//! back until the checksum of the whole is the one in the metadata, so a package that is not the promised one never
//! arrives complete.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};

use super::address::Address;
use super::checksum::Hasher;
use super::client::{Client, Opened, Resume, Status, Validator};
use super::metadata::Package;
use super::repository::Repository;
use super::spec;
use crate::untrusted::displayable;

/// Bytes at the end of a package that leave only when the whole is checked.
const HELD_BACK: u64 = 1 << 20;

/// How often the list of mirrors is gone through, with growing pauses between.
const ROUNDS: u32 = 3;

/// How often one mirror may break off, with some bytes sent, before the next one is asked.
const MAX_RESUMES: u32 = 10;

/// A package, and every place that has it.
#[derive(Debug)]
pub struct Choice<'a> {
    /// The package.
    pub package: &'a Package,
    /// Where it can be fetched, best first.
    pub sources: Vec<(&'a Client, Address)>,
}

/// Finds the one package that `spec` means: of several builds the latest.
///
/// # Errors
/// None, or packages of different names.
pub fn choose<'a>(spec: &str, repositories: &'a [Repository]) -> Result<Choice<'a>> {
    let mut order: Vec<&Repository> = repositories.iter().collect();
    order.sort_by_key(|repository| repository.rank);
    let all: Vec<&Package> = order.iter().flat_map(|repository| &repository.packages).collect();
    let found = spec::select(spec, &all);
    let mut names: Vec<&str> = found.iter().map(|package| package.offer.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    if names.len() > 1 {
        bail!("'{}' means several packages: {}", displayable(spec, false), names.join(", "));
    }
    // `max_by` would take the last of equal builds; the first one is of the best repository.
    let package = found.into_iter().rev().max_by(|a, b| a.offer.evr.cmp(&b.offer.evr));
    let package = package.ok_or_else(|| anyhow!("No package {} available", displayable(spec, false)))?;
    let mut sources = Vec::new();
    for repository in order {
        // Another repository may have the very same file.
        let same = |other: &&Package| {
            other.checksum == package.checksum && other.offer.download_size == package.offer.download_size
        };
        let Some(here) = repository.packages.iter().find(same) else { continue };
        let base =
            here.base.as_deref().map(Address::parse).transpose().context("reading the package's address")?;
        let places = base.as_ref().map_or(repository.mirrors.as_slice(), std::slice::from_ref);
        for place in places {
            sources.push((&repository.client, place.join(&here.href)?));
        }
    }
    Ok(Choice { package, sources })
}

/// Sends the package to `out`. What went wrong on the way is told to `tell`, one line each.
///
/// # Errors
/// No source has the package as the metadata describes it, or `out` takes no more.
pub fn send(choice: &Choice<'_>, out: &mut dyn Write, tell: &mut dyn FnMut(String)) -> Result<()> {
    let mut transfer = Transfer::new(choice.package, out);
    let mut gone = vec![false; choice.sources.len()];
    for round in 0..ROUNDS {
        if round > 0 && gone.contains(&false) {
            std::thread::sleep(Duration::from_secs(u64::from(round)));
        }
        for (number, (client, address)) in choice.sources.iter().enumerate() {
            if gone[number] {
                continue;
            }
            let mut resume = None;
            for _ in 0..MAX_RESUMES {
                let before = transfer.received;
                match transfer.attempt(client, address, &mut resume) {
                    Ok(()) => return Ok(()),
                    Err(Failure::Out(error)) => return Err(error),
                    Err(Failure::Source(error)) => {
                        tell(format!("{}: {error:#}", address.shown()));
                        gone[number] = error.downcast_ref::<Status>().is_some_and(|status| status.is_final());
                        if gone[number] || transfer.received <= before {
                            break;
                        }
                    }
                }
            }
        }
    }
    bail!(
        "no mirror has the package '{}' as its repository describes it",
        displayable(&choice.package.href, false)
    )
}

enum Failure {
    /// This source failed; another may do.
    Source(anyhow::Error),
    /// Nobody listens any more.
    Out(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Source(error.into())
    }
}

/// A package on its way.
struct Transfer<'a> {
    package: &'a Package,
    out: &'a mut dyn Write,
    /// Sum of the bytes received.
    hasher: Hasher,
    received: u64,
    /// Received, but held back.
    tail: VecDeque<u8>,
}

impl<'a> Transfer<'a> {
    fn new(package: &'a Package, out: &'a mut dyn Write) -> Self {
        Self { package, out, hasher: package.checksum.hasher(), received: 0, tail: VecDeque::new() }
    }

    fn size(&self) -> u64 {
        self.package.offer.download_size
    }

    /// One connection. Leaves in `resume` the state of the file that the bytes received so far belong to.
    fn attempt(
        &mut self,
        client: &Client,
        address: &Address,
        resume: &mut Option<Validator>,
    ) -> Result<(), Failure> {
        let wanted = resume
            .take()
            .filter(|_| self.received > 0)
            .map(|validator| Resume { from: self.received, validator });
        let opened = match client.open(address, wanted.as_ref()) {
            // The server knows no such range: from the beginning, then.
            Err(error)
                if wanted.is_some()
                    && error.downcast_ref::<Status>().is_some_and(|status| status.0 == 416) =>
            {
                client.open(address, None)?
            }
            other => other?,
        };
        let Opened { from, size, validator, mut body } = opened;
        if let Some(size) = size.filter(|size| *size != self.size()) {
            return Err(anyhow!("the file has {size} bytes, the repository says {}", self.size()).into());
        }
        if from == 0 && self.received > 0 {
            self.compare_beginning(&mut *body)?;
        }
        resume.clone_from(&validator);
        self.receive(&mut *body)
    }

    /// Reads as many bytes of a new source as were received from others: they have to be the same.
    fn compare_beginning(&mut self, body: &mut dyn Read) -> Result<(), Failure> {
        let mut hasher = self.package.checksum.hasher();
        copy(&mut body.take(self.received), |bytes| hasher.update(bytes))?;
        if hasher.finish() != self.hasher.clone().finish() {
            return Err(anyhow!("the file begins in another way than the one begun with").into());
        }
        Ok(())
    }

    fn receive(&mut self, body: &mut dyn Read) -> Result<(), Failure> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = match body.read(&mut buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            if count == 0 {
                break;
            }
            if self.received + count as u64 > self.size() {
                return Err(anyhow!("the file has more bytes than the repository says").into());
            }
            self.received += count as u64;
            self.hasher.update(&buffer[..count]);
            self.tail.extend(&buffer[..count]);
            let held_back = self.size().saturating_sub(HELD_BACK);
            let left = self.received - self.tail.len() as u64;
            let ready =
                usize::try_from(held_back.saturating_sub(left)).unwrap_or(usize::MAX).min(self.tail.len());
            self.release(ready)?;
        }
        if self.received < self.size() {
            return Err(
                anyhow!("the connection ended after {} of {} bytes", self.received, self.size()).into()
            );
        }
        if self.hasher.clone().finish() != self.package.checksum {
            // As long as nothing has left, another source gets a chance.
            if self.received == self.tail.len() as u64 {
                (self.hasher, self.received) = (self.package.checksum.hasher(), 0);
                self.tail.clear();
            }
            return Err(anyhow!("the checksum is not the one that the repository names").into());
        }
        self.release(self.tail.len())?;
        self.out.flush().context("writing the package").map_err(Failure::Out)
    }

    /// Lets the first bytes of those held back leave.
    fn release(&mut self, count: usize) -> Result<(), Failure> {
        let (first, second) = self.tail.as_slices();
        let split = count.min(first.len());
        for part in [&first[..split], &second[..count - split]] {
            self.out.write_all(part).context("writing the package").map_err(Failure::Out)?;
        }
        self.tail.drain(..count);
        Ok(())
    }
}

fn copy(source: &mut dyn Read, mut take: impl FnMut(&[u8])) -> Result<(), Failure> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => take(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}
