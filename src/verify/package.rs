//! What a package says about itself, read after the verdict, and the rules for its name and its files.

use std::collections::BTreeMap;

use super::container::Head;
use super::header::{Header, WrongType};
use super::policy::{self, Policy};
use super::rejection::Rejection;
use super::tag;
use crate::template::{Evr, Nevra, PACKAGE_PREFIX, TemplateName, Timestamp};

/// Where the files of all templates live.
pub const TEMPLATES: &str = "/var/lib/qubes/vm-templates/";

/// What a package says about itself. The texts are as the builder wrote them: make them safe before showing them.
#[derive(Clone, Debug)]
pub struct PackageInfo {
    /// Name, build and architecture.
    pub nevra: Nevra,
    /// The template that it carries.
    pub name: TemplateName,
    /// When it was built.
    pub build_time: Timestamp,
    /// Licence.
    pub license: String,
    /// Address of the project.
    pub url: Option<String>,
    /// One line about it.
    pub summary: String,
    /// Longer text.
    pub description: String,
    /// How the payload is compressed, as the header says.
    pub(crate) compressor: String,
    /// Files by path, in the order of the header.
    pub(crate) files: Vec<FileInfo>,
}

/// A file in the header's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// Path, absolute.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// Type and permissions as in `stat`.
    pub mode: u32,
    /// Listed, but not in the payload.
    pub ghost: bool,
}

impl FileInfo {
    /// Whether it is a directory; every other file is a regular one.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.mode & 0o170_000 == 0o040_000
    }
}

impl PackageInfo {
    /// Sizes and names of all files, ghosts included.
    #[must_use]
    pub fn files(&self) -> &[FileInfo] {
        &self.files
    }

    /// Directory of the template, without a slash at its end.
    #[must_use]
    pub fn directory(&self) -> String {
        format!("{TEMPLATES}{}", self.name)
    }

    /// Reads the header and applies the rules for names and files.
    pub(crate) fn read(head: &Head, policy: &Policy) -> Result<Self, Rejection> {
        let header = &head.header;
        if header.has(tag::SOURCE_PACKAGE) {
            return Err(Rejection::SourcePackage);
        }
        let text = |tag, what| header.string(tag).map_err(|WrongType| Rejection::Field(what));
        let needed = |tag, what| text(tag, what)?.ok_or(Rejection::Field(what));
        let (name, version, release) =
            (needed(tag::NAME, "name")?, needed(tag::VERSION, "version")?, needed(tag::RELEASE, "release")?);
        check_lead_name(&head.lead_name, name, version, release)?;
        // A source package is one whose header does not say from which source it was made.
        needed(tag::SOURCE_RPM, "source package").map_err(|_| Rejection::SourcePackage)?;
        let epoch = header.number(tag::EPOCH).map_err(|WrongType| Rejection::Field("epoch"))?;
        let epoch = epoch.map_or_else(String::new, |n| n.to_string());
        let evr = Evr::new(&epoch, version, release).map_err(|_| Rejection::Field("version"))?;
        let short =
            name.strip_prefix(PACKAGE_PREFIX).ok_or_else(|| Rejection::NotATemplate(name.to_owned()))?;
        let template = TemplateName::new(short).map_err(|e| Rejection::TemplateName(name.to_owned(), e))?;
        let arch = needed(tag::ARCH, "architecture")?;
        if arch != "noarch" {
            return Err(Rejection::Architecture(arch.to_owned()));
        }
        if policy.name.as_ref().is_some_and(|wanted| *wanted != template) {
            let wanted = policy.name.as_ref().map(ToString::to_string).unwrap_or_default();
            return Err(Rejection::OtherTemplate { found: template.to_string(), wanted });
        }
        if policy.evr.as_ref().is_some_and(|wanted| *wanted != evr) {
            let wanted = policy.evr.as_ref().map(ToString::to_string).unwrap_or_default();
            return Err(Rejection::OtherBuild { found: evr.to_string(), wanted });
        }
        if !matches!(text(tag::PAYLOAD_FORMAT, "payload format")?, None | Some("cpio")) {
            return Err(Rejection::Field("payload format"));
        }

        let build_time =
            header.number(tag::BUILD_TIME).map_err(|WrongType| Rejection::Field("build time"))?;
        let build_time =
            build_time.and_then(|t| i64::try_from(t).ok()).ok_or(Rejection::Field("build time"))?;
        let optional = |tag, what| Ok::<_, Rejection>(text(tag, what)?.unwrap_or_default().to_owned());
        let files = read_files(header)?;
        check_files(&files, &template)?;
        if archive_size(&head.signature)?.is_some_and(|named| named != expected_archive_size(&files)) {
            return Err(Rejection::OlderValue("size of the archive"));
        }
        Ok(Self {
            nevra: Nevra { name: name.to_owned(), evr, arch: arch.to_owned() },
            build_time: Timestamp(build_time),
            license: optional(tag::LICENSE, "licence")?,
            url: text(tag::URL, "url")?.map(ToOwned::to_owned),
            summary: optional(tag::SUMMARY, "summary")?,
            description: optional(tag::DESCRIPTION, "description")?,
            // rpm: a payload without a name for its compression is gzip.
            compressor: text(tag::COMPRESSOR, "compression")?.unwrap_or("gzip").to_owned(),
            name: template,
            files,
        })
    }
}

/// The lead holds what rpm puts there: `name-version-release`, cut to 65 bytes; other writers put the name alone.
fn check_lead_name(lead: &[u8], name: &str, version: &str, release: &str) -> Result<(), Rejection> {
    let full = format!("{name}-{version}-{release}");
    let cut = |text: &str| text.as_bytes()[..text.len().min(65)].to_vec();
    if lead == cut(&full) || lead == cut(name) {
        return Ok(());
    }
    Err(Rejection::Lead("it names another package than the header"))
}

fn archive_size(signature: &Header) -> Result<Option<u64>, Rejection> {
    let wrong = Rejection::OlderValue("size of the archive");
    let (Ok(short), Ok(long)) = (signature.number(1007), signature.number(271)) else { return Err(wrong) };
    match (short, long) {
        (Some(_), Some(_)) => Err(wrong),
        (one, other) => Ok(one.or(other)),
    }
}

/// Size that the archive of these files has; what rpm notes in the signature header.
fn expected_archive_size(files: &[FileInfo]) -> u64 {
    let present = || files.iter().filter(|f| !f.ghost);
    let size = |f: &FileInfo| if f.is_dir() { 0 } else { f.size };
    // rpm turns to the short headers as soon as one file does not fit into 32 bits.
    let short = present().any(|f| size(f) > u64::from(u32::MAX));
    let entries: u64 = present()
        .map(|f| {
            let head = if short { 16 } else { (110 + 1 + f.path.len() as u64 + 1).next_multiple_of(4) };
            head + size(f).next_multiple_of(4)
        })
        .sum();
    entries + (110 + 11_u64).next_multiple_of(4)
}

fn read_files(header: &Header) -> Result<Vec<FileInfo>, Rejection> {
    let wrong = |WrongType| Rejection::FileList("a list has the wrong type");
    let names = header.strings(tag::BASE_NAMES).map_err(wrong)?;
    let dirs = header.strings(tag::DIR_NAMES).map_err(wrong)?;
    let indexes = header.numbers(tag::DIR_INDEXES).map_err(wrong)?;
    let modes = header.numbers(tag::FILE_MODES).map_err(wrong)?;
    let flags = header.numbers(tag::FILE_FLAGS).map_err(wrong)?;
    let mut sizes = header.numbers(tag::FILE_SIZES).map_err(wrong)?;
    let long_sizes = header.numbers(tag::LONG_FILE_SIZES).map_err(wrong)?;
    if header.has(tag::OLD_FILE_NAMES) || (!sizes.is_empty() && !long_sizes.is_empty()) {
        return Err(Rejection::FileList("it is there twice"));
    }
    if !long_sizes.is_empty() {
        sizes = long_sizes;
    }
    if names.is_empty() {
        return Err(Rejection::NoRootImage);
    }
    if names.len() > policy::MAX_FILES || dirs.len() > policy::MAX_FILES {
        return Err(Rejection::FileList("too many files"));
    }
    if [indexes.len(), modes.len(), flags.len(), sizes.len()] != [names.len(); 4] {
        return Err(Rejection::FileList("its columns differ in length"));
    }
    names
        .iter()
        .enumerate()
        .map(|(i, name)| {
            let dir = usize::try_from(indexes[i]).ok().and_then(|at| dirs.get(at));
            let dir = dir.ok_or(Rejection::FileList("a file has no directory"))?;
            Ok(FileInfo {
                path: format!("{dir}{name}"),
                size: sizes[i],
                mode: u32::try_from(modes[i]).unwrap_or(u32::MAX),
                ghost: flags[i] & 0x40 != 0,
            })
        })
        .collect()
}

fn check_files(files: &[FileInfo], template: &TemplateName) -> Result<(), Rejection> {
    let root = format!("{TEMPLATES}{template}");
    let mut seen = BTreeMap::new();
    for file in files {
        let path = &file.path;
        let strange = |part: &str| matches!(part, "" | "." | "..");
        let well_formed = path.len() <= policy::MAX_PATH
            && path.bytes().all(|b| matches!(b, b' '..=b'~'))
            && path.strip_prefix('/').is_some_and(|relative| !relative.split('/').any(strange));
        if !well_formed {
            return Err(Rejection::FilePath(path.clone()));
        }
        let inside = path.strip_prefix(&root);
        if !inside.is_some_and(|rest| rest.starts_with('/') || (rest.is_empty() && file.is_dir())) {
            return Err(Rejection::FileOutside(path.clone()));
        }
        // Ghosts are not in the payload; rpm gives some of them no mode at all.
        let regular = file.mode & 0o170_000 == 0o100_000;
        if !(regular || file.is_dir() || (file.ghost && file.mode & 0o170_000 == 0)) {
            return Err(Rejection::FileKind(path.clone()));
        }
        if seen.insert(path, ()).is_some() {
            return Err(Rejection::FileTwice(path.clone()));
        }
    }
    Ok(())
}
