//! What a package's header says about its files.
//!
//! Tags and flags are those of rpm's `rpmtag.h` and `rpmfiles.h`. Names that are one file are told by device and inode
//! in the header, as rpm does it: the payload says their size as 0 but for the last.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

use crate::verify::Ordinary;

const NAME: u32 = 1000;
const VERSION: u32 = 1001;
const RELEASE: u32 = 1002;
const EPOCH: u32 = 1003;
const ARCH: u32 = 1022;
const OLD_FILE_NAMES: u32 = 1027;
const SIZES: u32 = 1028;
const MODES: u32 = 1030;
const DEVICE_NUMBERS: u32 = 1033;
const TIMES: u32 = 1034;
const DIGESTS: u32 = 1035;
const LINKS: u32 = 1036;
const FLAGS: u32 = 1037;
const USERS: u32 = 1039;
const GROUPS: u32 = 1040;
const SOURCE_RPM: u32 = 1044;
const OBSOLETES: u32 = 1090;
const DEVICES: u32 = 1095;
const INODES: u32 = 1096;
const FOLDER_INDEXES: u32 = 1116;
const BASE_NAMES: u32 = 1117;
const FOLDERS: u32 = 1118;
const FORMAT: u32 = 1124;
const COMPRESSOR: u32 = 1125;
const LONG_SIZES: u32 = 5008;
const CAPABILITIES: u32 = 5010;
const DIGEST_ALGORITHM: u32 = 5011;

/// `%config`.
const CONFIG: u64 = 1;
/// `%config(noreplace)`.
const NO_REPLACE: u64 = 1 << 4;
/// `%ghost`.
const GHOST: u64 = 1 << 6;

/// Most files of a package: as many as the largest of Fedora has, and room.
const MAX_FILES: usize = 1 << 19;

/// What a package is called and what is in it.
#[derive(Debug)]
pub(super) struct Facts {
    /// Name.
    pub(super) name: String,
    /// `EPOCH:VERSION-RELEASE`, without the epoch where it has none.
    pub(super) evr: String,
    /// Architecture.
    pub(super) arch: String,
    /// Names of packages that it takes the place of.
    pub(super) obsoletes: Vec<String>,
    /// Compression of the payload.
    pub(super) compressor: String,
    /// Its files in the order of the header.
    pub(super) files: Vec<File>,
}

/// A file of a package.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct File {
    /// Path without `/` at its start.
    pub(super) path: Vec<u8>,
    /// Type and permissions, as `stat` gives them.
    pub(super) mode: u16,
    pub(super) user: String,
    pub(super) group: String,
    pub(super) mtime: i64,
    pub(super) size: u64,
    /// Number of a device, as rpm has it: 8 bits each.
    pub(super) device: u16,
    /// Target of a symbolic link.
    pub(super) target: String,
    pub(super) flags: u64,
    pub(super) capabilities: String,
    /// Digest of the content in hexadecimal digits.
    pub(super) digest: String,
    /// The last file of the set of names that this one belongs to; itself where there is no other.
    pub(super) last: usize,
    /// The first one of the set.
    pub(super) first: usize,
}

impl File {
    pub(super) fn ghost(&self) -> bool {
        self.flags & GHOST != 0
    }

    pub(super) fn config(&self) -> bool {
        self.flags & CONFIG != 0
    }

    pub(super) fn keeps_old(&self) -> bool {
        self.flags & NO_REPLACE != 0
    }

    pub(super) fn is(&self, kind: u16) -> bool {
        self.mode & 0o170_000 == kind
    }
}

impl Facts {
    /// `NAME-EVR.ARCH`
    pub(super) fn nevra(&self) -> String {
        format!("{}-{}.{}", self.name, self.evr, self.arch)
    }

    /// Reads a header.
    pub(super) fn read(package: &Ordinary) -> Result<Self> {
        let needed = |tag, what: &str| -> Result<String> {
            let text = package.text(tag)?.filter(|text| !text.is_empty());
            Ok(text.with_context(|| format!("its header has no {what}"))?.to_owned())
        };
        let name = needed(NAME, "name")?;
        ensure!(package.has(SOURCE_RPM), "it is a source package");
        let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._+-~^".contains(&b));
        let (version, release) = (needed(VERSION, "version")?, needed(RELEASE, "release")?);
        let arch = needed(ARCH, "architecture")?;
        ensure!(
            plain(&name) && plain(&version) && plain(&release) && plain(&arch) && !name.starts_with('-'),
            "its name or version has characters that no package has"
        );
        let evr = match package.numbers(EPOCH)?.first() {
            Some(epoch) => format!("{epoch}:{version}-{release}"),
            None => format!("{version}-{release}"),
        };
        ensure!(
            matches!(package.text(FORMAT)?, None | Some("cpio")),
            "its payload is of a form that is not supported"
        );
        Ok(Self {
            name,
            evr,
            arch,
            obsoletes: package.texts(OBSOLETES)?.into_iter().map(str::to_owned).collect(),
            compressor: package.text(COMPRESSOR)?.unwrap_or("gzip").to_owned(),
            files: files(package)?,
        })
    }
}

fn files(package: &Ordinary) -> Result<Vec<File>> {
    let names = package.texts(BASE_NAMES)?;
    ensure!(
        !package.has(OLD_FILE_NAMES),
        "its list of files has the form of before 1999, which is not supported"
    );
    ensure!(names.len() <= MAX_FILES, "it has more than {MAX_FILES} files");
    let folders = package.texts(FOLDERS)?;
    let long = package.has(LONG_SIZES);
    let numbers = |tag| -> Result<Vec<u64>> {
        let list = package.numbers(tag)?;
        ensure!(list.len() == names.len(), "its lists of files differ in length (tag {tag})");
        Ok(list)
    };
    let texts = |tag, optional: bool| -> Result<Vec<&str>> {
        let list = package.texts(tag)?;
        ensure!(
            list.len() == names.len() || (optional && list.is_empty()),
            "its lists of files differ in length (tag {tag})"
        );
        Ok(list)
    };
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let (indexes, modes, flags) = (numbers(FOLDER_INDEXES)?, numbers(MODES)?, numbers(FLAGS)?);
    let sizes = numbers(if long { LONG_SIZES } else { SIZES })?;
    let (times, devices, inodes) = (numbers(TIMES)?, numbers(DEVICES)?, numbers(INODES)?);
    let numbers_of_devices = numbers(DEVICE_NUMBERS)?;
    let (users, groups) = (texts(USERS, false)?, texts(GROUPS, false)?);
    let (links, digests) = (texts(LINKS, false)?, texts(DIGESTS, true)?);
    let capabilities = texts(CAPABILITIES, true)?;
    let mut files = Vec::with_capacity(names.len());
    let mut sets: BTreeMap<(u64, u64), Vec<usize>> = BTreeMap::new();
    for (at, name) in names.iter().enumerate() {
        let folder = usize::try_from(indexes[at]).ok().and_then(|index| folders.get(index));
        let folder = folder.context("a file has no folder")?;
        let path = format!("{folder}{name}");
        let path = path.strip_prefix('/').with_context(|| format!("`{}` is no path", path.escape_debug()))?;
        let mode = u16::try_from(modes[at]).context("a file has an impossible mode")?;
        let file = File {
            path: path.as_bytes().to_vec(),
            mode,
            user: users[at].to_owned(),
            group: groups[at].to_owned(),
            mtime: i64::try_from(times[at]).unwrap_or(0),
            size: sizes[at],
            device: u16::try_from(numbers_of_devices[at]).unwrap_or(0),
            target: links[at].to_owned(),
            flags: flags[at],
            capabilities: capabilities.get(at).copied().unwrap_or_default().to_owned(),
            digest: digests.get(at).copied().unwrap_or_default().to_owned(),
            last: at,
            first: at,
        };
        if file.is(0o100_000) && !file.ghost() {
            sets.entry((devices[at], inodes[at])).or_default().push(at);
        }
        files.push(file);
    }
    for set in sets.into_values().filter(|set| set.len() > 1) {
        let (first, last) = (set[0], set[set.len() - 1]);
        let what = (files[first].size, files[first].digest.clone(), files[first].mode);
        for at in set {
            if (files[at].size, &files[at].digest, files[at].mode) != (what.0, &what.1, what.2) {
                bail!("names of one file say different things about it");
            }
            (files[at].first, files[at].last) = (first, last);
        }
    }
    Ok(files)
}

/// The hash of the digests, by its number in the header; MD5 where it has none.
pub(super) fn algorithm(package: &Ordinary) -> Result<crate::io::hash::Hash> {
    let number = package.numbers(DIGEST_ALGORITHM)?.first().copied().unwrap_or(1);
    crate::io::hash::Hash::from_number(number).context("its files have digests of an unknown kind")
}
