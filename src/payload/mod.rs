//! What is inside of a verified package: the parts of a root image and four small files for dom0.
//!
//! | in the template's directory | what happens |
//! |---|---|
//! | `root.img.part.00`, `.01` ... | together, in this order, one tar archive with the root image in it |
//! | `template.conf`, `whitelisted-appmenus.list`, `vm-...`, `netvm-...` | handed to dom0's features, at most [`MAX_TEMPLATE_FILE`] bytes each |
//! | `root.img`, `root.img.tar` with content | refused: a second image |
//! | any other file or directory | ignored; files together at most [`MAX_IGNORED`] bytes |
//!
//! All this is decided from the signed list of files, before anything is decompressed; the archive must then agree
//! with the list.

pub(crate) mod cpio;
pub(crate) mod decoder;

use std::io::BufRead;
use std::sync::Arc;

use crate::io::at::ReadAt;
use crate::io::hash::Hash;
use crate::root_image::source::Source;
use crate::root_image::{Limits, RootImage};
use crate::template::TemplateName;
use crate::verify::{FileInfo, Rejection, Verified};
use cpio::Archive;
use decoder::Compression;

/// Largest file of the four that go to dom0. A feature holds less, and so does a list of all menu entries there are.
pub const MAX_TEMPLATE_FILE: u64 = 64 << 10;

/// Most bytes in files that are ignored.
pub const MAX_IGNORED: u64 = 256 << 20;

/// Most parts of a root image: two digits.
const MAX_PARTS: usize = 100;

/// Files for dom0, each where the package has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TemplateFiles {
    /// `template.conf`: features and properties.
    pub conf: Option<Vec<u8>>,
    /// `whitelisted-appmenus.list`: menu entries of qubes based on the template.
    pub menu_items: Option<Vec<u8>>,
    /// `vm-whitelisted-appmenus.list`: menu entries of the template itself.
    pub default_menu_items: Option<Vec<u8>>,
    /// `netvm-whitelisted-appmenus.list`: menu entries of network qubes.
    pub netvm_menu_items: Option<Vec<u8>>,
}

impl TemplateFiles {
    /// The place for the file of that name.
    pub(crate) fn place(&mut self, name: &str) -> Option<&mut Option<Vec<u8>>> {
        match name {
            "template.conf" => Some(&mut self.conf),
            "whitelisted-appmenus.list" => Some(&mut self.menu_items),
            "vm-whitelisted-appmenus.list" => Some(&mut self.default_menu_items),
            "netvm-whitelisted-appmenus.list" => Some(&mut self.netvm_menu_items),
            _ => None,
        }
    }
}

/// The payload of a verified package, not yet opened.
#[derive(Clone, Debug)]
pub struct Payload {
    bytes: ReadAt,
    digest: (Hash, Vec<u8>),
    compression: Compression,
    directory: Arc<str>,
    files: Vec<FileInfo>,
}

impl Payload {
    /// The payload of `verified`, which must be the template `name`.
    ///
    /// # Errors
    /// If it is another template, or its list of files is not that of a template with one root image.
    pub fn open(verified: &Verified, name: &TemplateName) -> Result<Self, Rejection> {
        let info = verified.info();
        if info.name != *name {
            return Err(Rejection::OtherTemplate { found: info.name.to_string(), wanted: name.to_string() });
        }
        let directory = info.directory();
        check_files(info.files(), &directory)?;
        let (hash, digest) = verified.payload_digest();
        Ok(Self {
            bytes: verified.payload(),
            digest: (hash, digest.to_vec()),
            compression: Compression::named(&info.compressor)?,
            directory: directory.into(),
            files: info.files().to_vec(),
        })
    }

    /// Opens the root image: starts decompressing and reads as far as its size.
    ///
    /// # Errors
    /// If the archive does not begin as it should, or the image is larger than `limits` allow.
    pub fn root_image(&self, limits: Limits) -> Result<RootImage, Rejection> {
        RootImage::of_payload(self.clone(), limits)
    }

    /// The content of another file of the template, if it has one of that name with at most `limit` bytes.
    ///
    /// # Errors
    /// If the archive is not as it should be as far as the file.
    pub fn other_file(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, Rejection> {
        let path = format!("{}/{name}", self.directory);
        let wanted = self.files.iter().find(|file| file.path == path && !file.ghost && !file.is_dir());
        let Some(size) = wanted.map(|file| file.size).filter(|size| *size <= limit) else { return Ok(None) };
        let input = std::io::BufReader::with_capacity(1 << 18, self.bytes());
        let mut archive = Archive::new(self.compression.decoder(input, 1)?, self.files.clone());
        while let Some(file) = archive.next()? {
            if file.path != path {
                continue;
            }
            let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
            let mut at = 0;
            while at < bytes.len() {
                at += archive.read(&mut bytes[at..])?;
            }
            return Ok(Some(bytes));
        }
        Ok(None)
    }

    /// The compressed bytes.
    pub(crate) fn bytes(&self) -> ReadAt {
        self.bytes.clone()
    }

    /// What the digest of the compressed bytes must be.
    pub(crate) fn digest(&self) -> &(Hash, Vec<u8>) {
        &self.digest
    }

    /// The parts and files in what `input` yields, which are the compressed bytes.
    pub(crate) fn contents<R: BufRead>(&self, input: R, threads: u32) -> Result<Contents<R>, Rejection> {
        let archive = Archive::new(self.compression.decoder(input, threads)?, self.files.clone());
        Ok(Contents::new(archive, self.directory.clone()))
    }
}

/// Checks that the signed list has the parts of one image, without a gap, and files of sensible size.
fn check_files(files: &[FileInfo], directory: &str) -> Result<(), Rejection> {
    let (mut parts, mut ignored) = (Vec::new(), 0_u64);
    for file in files.iter().filter(|f| !f.ghost && !f.is_dir()) {
        let name = file.path.strip_prefix(directory).and_then(|rest| rest.strip_prefix('/')).unwrap_or("");
        if let Some(number) = name.strip_prefix("root.img.part.") {
            if file.size == 0 {
                return Err(Rejection::Parts("one is empty"));
            }
            parts.push(number);
        } else if matches!(name, "root.img" | "root.img.tar") {
            return Err(Rejection::SecondImage);
        } else if let Some(known) = FILES_FOR_DOM0.iter().find(|known| **known == name) {
            if file.size > MAX_TEMPLATE_FILE {
                return Err(Rejection::TemplateFile(known));
            }
        } else {
            ignored = ignored.saturating_add(file.size);
        }
    }
    if parts.is_empty() {
        return Err(Rejection::NoRootImage);
    }
    parts.sort_unstable();
    let complete = parts.iter().enumerate().all(|(i, number)| *number == format!("{i:02}"));
    if !complete || parts.len() > MAX_PARTS {
        return Err(Rejection::Parts("a number is missing or malformed"));
    }
    if ignored > MAX_IGNORED {
        return Err(Rejection::FileList("files that no template needs are too large"));
    }
    Ok(())
}

pub(crate) const FILES_FOR_DOM0: [&str; 4] = [
    "template.conf",
    "whitelisted-appmenus.list",
    "vm-whitelisted-appmenus.list",
    "netvm-whitelisted-appmenus.list",
];

/// Reads the parts as one stream and picks up the files for dom0 on the way.
#[derive(Debug)]
pub(crate) struct Contents<R: BufRead> {
    archive: Archive<R>,
    directory: Arc<str>,
    found: TemplateFiles,
    parts: usize,
    ended: bool,
}

impl<R: BufRead> Contents<R> {
    /// What `archive` holds for the template that lives in `directory`.
    pub(crate) fn new(archive: Archive<R>, directory: Arc<str>) -> Self {
        Self { archive, directory, found: TemplateFiles::default(), parts: 0, ended: false }
    }

    /// Goes on to the next part; `false` at the end of the archive.
    fn next_part(&mut self) -> Result<bool, Rejection> {
        while let Some(file) = self.archive.next()? {
            let name = file
                .path
                .strip_prefix(&*self.directory)
                .and_then(|rest| rest.strip_prefix('/'))
                .unwrap_or("");
            if let Some(number) = name.strip_prefix("root.img.part.") {
                if *number != format!("{:02}", self.parts) {
                    return Err(Rejection::Parts("they are not in order"));
                }
                self.parts += 1;
                return Ok(true);
            }
            if let Some(place) = self.found.place(name).filter(|_| !file.is_dir()) {
                // At most `MAX_TEMPLATE_FILE`: the list was checked, and the archive agrees with the list.
                let mut bytes = vec![0; usize::try_from(file.size).unwrap_or(0)];
                let mut at = 0;
                while at < bytes.len() {
                    at += self.archive.read(&mut bytes[at..])?;
                }
                *place = Some(bytes);
            }
        }
        self.ended = true;
        Ok(false)
    }
}

impl<R: BufRead> Source for Contents<R> {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, Rejection> {
        if buf.is_empty() || self.ended {
            return Ok(0);
        }
        loop {
            if self.parts > 0 {
                match self.archive.read(buf)? {
                    0 => {}
                    n => return Ok(n),
                }
            }
            if !self.next_part()? {
                return Ok(0);
            }
        }
    }

    fn finish(mut self) -> Result<TemplateFiles, Rejection> {
        if !self.ended && self.next_part()? {
            return Err(Rejection::TrailingData("the tar archive of the root image"));
        }
        self.archive.finish()?;
        Ok(self.found)
    }
}
