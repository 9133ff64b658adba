//! Packages that are no templates: what a builder puts on a tree.
//!
//! Container, digests and signature are judged by the same rules as those of templates; what the package may be
//! called and which files it may have is not: whoever reads it decides. Signatures of single files (IMA, fs-verity),
//! which some distributions add, may stand in the signature header; they are not looked at.

use std::path::Path;
use std::time::SystemTime;

use super::header::Header;
use super::keyring::Keyring;
use super::rejection::Rejection;
use super::signature::{self, Signer};
use crate::confine;
use crate::io::at::ReadAt;
use crate::spool::Spooled;

/// Signatures of single files and their lengths: IMA (274, 275) and fs-verity (276, 277).
const FILE_SIGNATURES: [u32; 4] = [274, 275, 276, 277];

/// A package whose digests are right, and whose signature is right where certificates were given.
#[derive(Debug)]
pub struct Ordinary {
    spooled: Spooled,
    header: Header,
    payload_offset: u64,
    signer: Option<Signer>,
}

impl Ordinary {
    /// Judges a package: its digests, and with certificates its signature at that moment.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn open(spooled: Spooled, trust: Option<(&Keyring, SystemTime)>) -> Result<Self, Rejection> {
        let (spooled, measured) = spooled.into_measured()?;
        let judge = || -> Result<_, Rejection> {
            super::check_tags(&measured, &FILE_SIGNATURES)?;
            measured.check()?;
            let Some((keyring, now)) = trust else { return Ok(None) };
            let signer = signature::judge(&measured.head, keyring, now)?;
            signature::judge_over_both(&measured.head, measured.both.clone(), keyring, now)?;
            Ok(Some(signer))
        };
        let signer = confine::run(judge)??;
        Ok(Self {
            spooled,
            payload_offset: measured.head.payload_offset,
            header: measured.head.header,
            signer,
        })
    }

    /// Who signed it; `None` where no certificates were given.
    #[must_use]
    pub fn signer(&self) -> Option<&Signer> {
        self.signer.as_ref()
    }

    /// Whether the header has a tag.
    #[must_use]
    pub fn has(&self, tag: u32) -> bool {
        self.header.has(tag)
    }

    /// A text of the header.
    ///
    /// # Errors
    /// It has another type, or is no UTF-8.
    pub fn text(&self, tag: u32) -> Result<Option<&str>, Rejection> {
        self.header.string(tag).map_err(|_| Rejection::Field("text"))
    }

    /// A list of texts, which is empty where the tag is not there; one text is a list of one.
    ///
    /// # Errors
    /// It has another type, or is no UTF-8.
    pub fn texts(&self, tag: u32) -> Result<Vec<&str>, Rejection> {
        match self.header.strings(tag) {
            Ok(list) => Ok(list),
            Err(_) => Ok(self.text(tag)?.into_iter().collect()),
        }
    }

    /// A list of numbers, which is empty where the tag is not there.
    ///
    /// # Errors
    /// It has another type.
    pub fn numbers(&self, tag: u32) -> Result<Vec<u64>, Rejection> {
        self.header.numbers(tag).map_err(|_| Rejection::Field("number"))
    }

    /// The compressed payload.
    #[must_use]
    pub fn payload(&self) -> ReadAt {
        ReadAt::new(self.spooled.file(), self.payload_offset, self.spooled.size())
    }

    /// Gives the package a name.
    ///
    /// # Errors
    /// What the file system says.
    pub fn persist(&self, path: &Path) -> std::io::Result<()> {
        self.spooled.persist(path)
    }
}
