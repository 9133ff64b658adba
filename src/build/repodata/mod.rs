//! Repository metadata, as `createrepo_c` writes it and dnf reads it.
//!
//! ```text
//! DIR/**/*.rpm
//! DIR/repodata/SHA256-primary.xml.gz      what a search needs
//! DIR/repodata/SHA256-filelists.xml.gz    the files of each package
//! DIR/repodata/SHA256-other.xml.gz        change logs
//! DIR/repodata/repomd.xml                 sizes and digests of the three
//! DIR/repodata/repomd.xml.asc             signature of repomd.xml, where there is a key
//! ```
//!
//! The same packages give the same bytes: packages are in the order of their paths, and every moment is the one given.
//! The three files are in place before `repomd.xml` is replaced, in one step; older ones are deleted after that, so
//! that whoever reads at that moment finds a whole repository. Packages are read up to the end of their header; their
//! digest needs all of them, but never more than one buffer at a time in memory.
//!
//! Source: the XML schemas of createrepo_c, and what dnf 4.14 reads.

mod package;
mod xml;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use crate::io::hash::hex;
use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};

use super::compress::{Compression, Method};
use super::keys::SigningKey;
use package::Indexed;

/// How metadata is written.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Compression of the three files.
    pub compression: Compression,
    /// The moment that stands in the metadata, in seconds since 1970.
    pub revision: u32,
    /// Who signs `repomd.xml`; nobody when there is none.
    pub signer: Option<&'a SigningKey>,
}

/// Writes the metadata of every package in `dir` and below; returns how many there are.
///
/// # Errors
/// A package that cannot be read (by name), two packages with one name and build, a folder that cannot be written.
pub fn write(dir: &Path, options: &Options<'_>) -> Result<usize> {
    let mut paths = Vec::new();
    find_packages(dir, Path::new(""), &mut paths)?;
    paths.sort();
    let packages: Vec<Indexed> = paths
        .iter()
        .map(|path| {
            Indexed::read(dir, path, options.revision)
                .with_context(|| format!("reading {}", dir.join(path).display()))
        })
        .collect::<Result<_>>()?;
    let mut builds = BTreeSet::new();
    for package in &packages {
        ensure!(
            builds.insert(package.nevra()),
            "{} is there twice; {} is the second",
            package.nevra(),
            package.location
        );
    }

    let repodata = dir.join("repodata");
    fs::create_dir_all(&repodata).with_context(|| format!("making {}", repodata.display()))?;
    let files = [
        ("primary", xml::primary(&packages)?),
        ("filelists", xml::filelists(&packages)?),
        ("other", xml::other(&packages)?),
    ];
    let mut entries = Vec::new();
    let mut keep = BTreeSet::new();
    for (kind, text) in files {
        let compressed = compress(&text, options.compression)?;
        let digest = hex(&Sha256::digest(&compressed));
        let name = format!("{digest}-{kind}.xml.{}", suffix(options.compression.method()));
        put(&repodata, &name, &compressed)?;
        entries.push(xml::DataEntry {
            kind,
            location: format!("repodata/{name}"),
            checksum: digest,
            size: compressed.len(),
            open_checksum: hex(&Sha256::digest(&text)),
            open_size: text.len(),
        });
        keep.insert(name);
    }
    let index = xml::repomd(&entries, options.revision)?;
    if let Some(signer) = options.signer {
        let signature = signer.sign_detached(index.as_slice(), options.revision)?;
        put(&repodata, "repomd.xml.asc", signature.as_bytes())?;
    } else if repodata.join("repomd.xml.asc").exists() {
        fs::remove_file(repodata.join("repomd.xml.asc"))
            .context("removing the old signature of repomd.xml")?;
    }
    put(&repodata, "repomd.xml", &index)?;
    remove_old(&repodata, &keep)?;
    Ok(packages.len())
}

/// Paths of all packages below `dir`, relative to it. Links are not followed.
fn find_packages(dir: &Path, below: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let here = dir.join(below);
    for entry in fs::read_dir(&here).with_context(|| format!("reading {}", here.display()))? {
        let entry = entry.with_context(|| format!("reading {}", here.display()))?;
        let kind = entry.file_type().with_context(|| format!("looking at {}", entry.path().display()))?;
        let path = below.join(entry.file_name());
        if kind.is_dir() {
            find_packages(dir, &path, found)?;
        } else if kind.is_file() && path.extension().is_some_and(|extension| extension == "rpm") {
            found.push(path);
        }
    }
    Ok(())
}

fn compress(text: &[u8], compression: Compression) -> Result<Vec<u8>> {
    let mut writer = compression.writer(Vec::new(), NonZeroUsize::MIN)?;
    writer.write_all(text).context("compressing metadata")?;
    writer.finish().context("compressing metadata")
}

fn suffix(method: Method) -> &'static str {
    match method {
        Method::Zstd => "zst",
        Method::Xz => "xz",
        Method::Gzip => "gz",
    }
}

/// Puts a file in place in one step.
fn put(folder: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let context = || format!("writing {}", folder.join(name).display());
    let mut file = tempfile::NamedTempFile::new_in(folder).with_context(context)?;
    file.write_all(bytes).with_context(context)?;
    file.as_file().set_permissions(fs::Permissions::from_mode(0o644)).with_context(context)?;
    file.as_file().sync_all().with_context(context)?;
    file.persist(folder.join(name)).with_context(context)?;
    Ok(())
}

/// Deletes metadata that `repomd.xml` no longer names: files that carry a digest in front of one of the three names.
fn remove_old(repodata: &Path, keep: &BTreeSet<String>) -> Result<()> {
    for entry in fs::read_dir(repodata).with_context(|| format!("reading {}", repodata.display()))? {
        let entry = entry.with_context(|| format!("reading {}", repodata.display()))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let ours = name.split_once('-').is_some_and(|(digest, rest)| {
            digest.len() == 64
                && digest.bytes().all(|b| b.is_ascii_hexdigit())
                && ["primary.xml.", "filelists.xml.", "other.xml."].iter().any(|kind| rest.starts_with(kind))
        });
        if ours && !keep.contains(&name) {
            fs::remove_file(entry.path()).with_context(|| format!("removing {}", entry.path().display()))?;
        }
    }
    Ok(())
}

/// SHA-256 of a whole file.
fn digest_of(file: &mut File) -> Result<String> {
    let mut hasher = Sha256::new();
    std::io::copy(file, &mut hasher)?;
    Ok(hex(&hasher.finalize()))
}
