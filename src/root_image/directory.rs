//! The forms in which a directory can hold a root image.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::payload::{MAX_TEMPLATE_FILE, TemplateFiles};
use crate::verify::Rejection;

/// What was found.
pub(super) struct Found {
    /// The bytes of the image, or of the tar archive around it.
    pub(super) bytes: Box<dyn Read + Send>,
    /// The size, where the bytes are the image itself.
    pub(super) raw_size: Option<u64>,
    /// The files for dom0.
    pub(super) files: TemplateFiles,
}

/// Opens all files now; none is opened later.
pub(super) fn open(directory: &Path) -> Result<Found, Rejection> {
    let files = template_files(directory)?;
    let parts: Vec<File> = (0..100)
        .map_while(|number| optional(&directory.join(format!("root.img.part.{number:02}"))).transpose())
        .collect::<io::Result<_>>()?;
    if !parts.is_empty() {
        let chained = parts
            .into_iter()
            .fold(Box::new(io::empty()) as Box<dyn Read + Send>, |before, part| Box::new(before.chain(part)));
        return Ok(Found { bytes: chained, raw_size: None, files });
    }
    if let Some(tar) = optional(&directory.join("root.img.tar"))? {
        return Ok(Found { bytes: Box::new(tar), raw_size: None, files });
    }
    let raw = optional(&directory.join("root.img"))?.ok_or(Rejection::NoRootImage)?;
    let size = raw.metadata()?.len();
    Ok(Found { bytes: Box::new(raw), raw_size: Some(size), files })
}

fn template_files(directory: &Path) -> Result<TemplateFiles, Rejection> {
    let mut files = TemplateFiles::default();
    for name in crate::payload::FILES_FOR_DOM0 {
        let Some(file) = optional(&directory.join(name))? else { continue };
        let mut bytes = Vec::new();
        file.take(MAX_TEMPLATE_FILE + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_TEMPLATE_FILE {
            return Err(Rejection::TemplateFile(name));
        }
        if let Some(place) = files.place(name) {
            *place = Some(bytes);
        }
    }
    Ok(files)
}

fn optional(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}
