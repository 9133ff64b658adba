//! What the main header of a template package says.
//!
//! Tags, order and values are those that rpmbuild 4.18 writes for the same files; what only rpmbuild itself would know
//! (its macros, colours and classes of files) is left out, which no consumer of template packages asks for.

use anyhow::{Context as _, Result};

use super::compress::{Compression, Method};
use super::header::{Header, Value};
use super::package::{Package, TEMPLATES, set_size};

const DIRECTORY: u16 = 0o040_000;
const REGULAR: u16 = 0o100_000;
/// File flag of a ghost.
const GHOST: u32 = 1 << 6;
/// All that `rpm -V` compares, and what it does not for a ghost.
const VERIFY_ALL: u32 = u32::MAX;
const VERIFY_GHOST: u32 = !0x27;
/// Sense of a dependency: nothing, an exact version, a newer one, one that rpm itself offers, the script's program.
const ANY: u32 = 0;
const EQUAL: u32 = 8;
const GREATER: u32 = 4;
const RPMLIB: u32 = 1 << 24 | 8 | 2;
const PRE_PROGRAM: u32 = 1 << 8 | 1 << 9;
/// The rpm whose packages these are like.
const RPM_VERSION: &str = "4.18.0";

const PRE: &str = "\
echo 'This package holds a Qubes template and cannot be installed by rpm. Import it with:' >&2
echo '  qvm-template install <name, or path of the package>' >&2
exit 1";

/// What a file of the package is.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// The template's own directory.
    Top,
    /// A directory for menus.
    Directory,
    /// A file that is not in the package.
    Ghost,
    /// A file with this content.
    Plain(Vec<u8>),
    /// A file with this content that everybody may read.
    Text(Vec<u8>),
    /// A part of the image, and its length.
    Part(u32),
}

impl Kind {
    /// Kind and permissions as in `stat`.
    pub(super) fn mode(&self) -> u16 {
        match self {
            Self::Top => DIRECTORY | 0o2770,
            Self::Directory => DIRECTORY | 0o775,
            Self::Ghost | Self::Plain(_) | Self::Part(_) => REGULAR | 0o660,
            Self::Text(_) => REGULAR | 0o664,
        }
    }

    /// Length of the content.
    pub(super) fn size(&self) -> Result<u32> {
        match self {
            Self::Plain(bytes) | Self::Text(bytes) => {
                u32::try_from(bytes.len()).context("the file is too large")
            }
            Self::Part(size) => Ok(*size),
            Self::Top | Self::Directory | Self::Ghost => Ok(0),
        }
    }

    /// Whether it is a directory.
    pub(super) fn is_directory(&self) -> bool {
        matches!(self, Self::Top | Self::Directory)
    }
}

/// A file of the package.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Absolute path.
    pub(super) path: String,
    /// What it is.
    pub(super) kind: Kind,
    /// SHA-256 in hexadecimal digits, once the content is known.
    pub(super) digest: String,
}

/// The files of the package.
#[derive(Clone, Debug)]
pub(super) struct Files {
    top: String,
    /// In the order of their paths, once sorted.
    pub(super) list: Vec<Entry>,
}

impl Files {
    pub(super) fn new(template: &str) -> Self {
        Self { top: format!("{TEMPLATES}/{template}"), list: Vec::new() }
    }

    pub(super) fn add(&mut self, name: &str, kind: Kind) {
        let path = if name.is_empty() { self.top.clone() } else { format!("{}/{name}", self.top) };
        self.list.push(Entry { path, kind, digest: String::new() });
    }

    pub(super) fn sort(&mut self) {
        self.list.sort_by(|a, b| a.path.cmp(&b.path));
    }

    fn each<T>(&self, what: impl Fn(&Entry) -> T) -> Vec<T> {
        self.list.iter().map(what).collect()
    }
}

/// What the header says about the payload.
#[derive(Clone, Debug)]
pub(super) struct Content {
    /// Length before compression.
    pub(super) archive_size: u64,
    /// SHA-256 before compression.
    pub(super) archive_sha256: String,
    /// SHA-256 of the payload as it stands in the package.
    pub(super) payload_sha256: String,
}

/// The main header.
pub(super) fn main_header(
    package: &Package,
    files: &Files,
    content: &Content,
    compression: Compression,
) -> Result<Header> {
    let mut header = Header::default();
    about(&mut header, package);
    dependencies(&mut header, package, compression.method());
    listing(&mut header, package, files)?;
    header
        .set_text(1124, "cpio")
        .set_text(1125, compression.name())
        .set_text(1126, &compression.level().to_string())
        .set(5092, Value::Texts(vec![content.payload_sha256.clone()]))
        .set(5093, Value::Int32(vec![8]))
        .set(5097, Value::Texts(vec![content.archive_sha256.clone()]));
    Ok(header)
}

fn about(header: &mut Header, package: &Package) {
    let translated = |text: &str| Value::Translated(vec![text.to_owned()]);
    let name = package.package_name();
    header
        .set(100, Value::Texts(vec!["C".into()]))
        .set_text(1000, &name)
        .set_text(1001, &package.version)
        .set_text(1002, &package.release)
        .set(1004, translated(&package.summary))
        .set(1005, translated(&package.description))
        .set(1006, Value::Int32(vec![package.build_time]))
        .set_text(1007, &package.build_host)
        .set_text(1014, &package.license)
        .set(1016, translated("Unspecified"))
        .set_text(1021, "linux")
        .set_text(1022, "noarch")
        .set_text(1023, PRE)
        .set_text(1044, &format!("{name}-{}-{}.src.rpm", package.version, package.release))
        .set_text(1064, RPM_VERSION)
        .set_text(1085, "/bin/sh")
        .set_text(5062, "utf-8");
    if package.epoch != 0 {
        header.set(1003, Value::Int32(vec![package.epoch]));
    }
    if let Some(url) = &package.url {
        header.set_text(1020, url);
    }
}

fn dependencies(header: &mut Header, package: &Package, method: Method) {
    let name = package.package_name();
    let label = match package.epoch {
        0 => format!("{}-{}", package.version, package.release),
        epoch => format!("{epoch}:{}-{}", package.version, package.release),
    };
    let has = |what: char| package.version.contains(what) || package.release.contains(what);
    let mut needed = vec![
        ("/bin/sh", "", PRE_PROGRAM),
        ("rpmlib(CompressedFileNames)", "3.0.4-1", RPMLIB),
        ("rpmlib(FileDigests)", "4.6.0-1", RPMLIB),
        ("rpmlib(PayloadFilesHavePrefix)", "4.0-1", RPMLIB),
    ];
    match method {
        Method::Zstd => needed.push(("rpmlib(PayloadIsZstd)", "5.4.18-1", RPMLIB)),
        Method::Xz => needed.push(("rpmlib(PayloadIsXz)", "5.2-1", RPMLIB)),
        Method::Gzip => {}
    }
    if has('~') {
        needed.push(("rpmlib(TildeInVersions)", "4.10.0-1", RPMLIB));
    }
    if has('^') {
        needed.push(("rpmlib(CaretInVersions)", "4.15.0-1", RPMLIB));
    }
    needed.sort_unstable();
    let provided = [("qubes-template", "", ANY), (name.as_str(), label.as_str(), EQUAL)];
    let replaced = [(name.as_str(), label.as_str(), GREATER)];
    for (tags, list) in
        [([1047, 1113, 1112], &provided[..]), ([1049, 1050, 1048], &needed), ([1090, 1115, 1114], &replaced)]
    {
        header
            .set(tags[0], Value::Texts(list.iter().map(|(name, _, _)| (*name).to_owned()).collect()))
            .set(tags[1], Value::Texts(list.iter().map(|(_, label, _)| (*label).to_owned()).collect()))
            .set(tags[2], Value::Int32(list.iter().map(|(_, _, sense)| *sense).collect()));
    }
}

fn listing(header: &mut Header, package: &Package, files: &Files) -> Result<()> {
    let count = files.list.len();
    let same = |text: &str| Value::Texts(vec![text.to_owned(); count]);
    let sizes = files.list.iter().map(|file| file.kind.size()).collect::<Result<Vec<_>>>()?;
    set_size(header, 1009, 5009, sizes.iter().map(|size| u64::from(*size)).sum());

    let parent = |path: &str| path.rfind('/').map_or("/", |at| &path[..=at]).to_owned();
    let mut directories: Vec<String> = files.each(|file| parent(&file.path));
    directories.dedup();
    let directory = |file: &Entry| directories.iter().position(|known| *known == parent(&file.path));
    let directory = files.each(directory).into_iter().map(|at| u32::try_from(at.unwrap_or(0)));
    let directory = directory.collect::<Result<Vec<_>, _>>()?;
    let base = |file: &Entry| file.path.rsplit('/').next().unwrap_or_default().to_owned();
    let ghost = |file: &Entry| matches!(file.kind, Kind::Ghost);

    header
        .set(1028, Value::Int32(sizes))
        .set(1030, Value::Int16(files.each(|file| file.kind.mode())))
        .set(1033, Value::Int16(vec![0; count]))
        .set(1034, Value::Int32(vec![package.build_time; count]))
        .set(1035, Value::Texts(files.each(|file| file.digest.clone())))
        .set(1036, same(""))
        .set(1037, Value::Int32(files.each(|file| if ghost(file) { GHOST } else { 0 })))
        .set(1039, same("root"))
        .set(1040, same("qubes"))
        .set(1045, Value::Int32(files.each(|file| if ghost(file) { VERIFY_GHOST } else { VERIFY_ALL })))
        .set(1095, Value::Int32(vec![1; count]))
        .set(1096, Value::Int32((1..).take(count).collect()))
        .set(1097, same(""))
        .set(1116, Value::Int32(directory))
        .set(1117, Value::Texts(files.each(base)))
        .set(1118, Value::Texts(directories))
        .set(5011, Value::Int32(vec![8]));
    Ok(())
}
