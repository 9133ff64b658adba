//! A layer as a person names it, and the one place that knows which reader it needs.

use std::fs::File;
use std::io::{Read, Seek as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest as _, Sha256};

use super::directory::Owner;
use super::input::{Input, Spool};
use super::template::Trust;
use super::{Whiteouts, apply, archive, deb, directory, disk, live, oci, rpm, squashfs, tar, template};
use crate::build::tree::Tree;
use crate::verify::keyring::Keyring;

/// The form a layer comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// A tar archive, plain or compressed with gzip, xz or zstd.
    Tar,
    /// A directory.
    Dir,
    /// An OCI image layout, as a directory or a tar archive.
    Oci,
    /// A squashfs file.
    Squashfs,
    /// A live image: squashfs with the tree or with an ext4 image of it.
    Live,
    /// A disk image or a file system.
    Image,
    /// A template package.
    Template,
    /// RPM packages: one, or a folder of them.
    Rpm,
    /// Debian packages: one, or a folder of them.
    Deb,
}

impl Form {
    /// All forms, with the words for them.
    pub const ALL: [(&'static str, Self); 9] = [
        ("tar", Self::Tar),
        ("dir", Self::Dir),
        ("oci", Self::Oci),
        ("squashfs", Self::Squashfs),
        ("live", Self::Live),
        ("image", Self::Image),
        ("template", Self::Template),
        ("rpm", Self::Rpm),
        ("deb", Self::Deb),
    ];

    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        Self::ALL.iter().find(|(_, form)| *form == self).map_or("", |(word, _)| word)
    }
}

impl std::str::FromStr for Form {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match Self::ALL.iter().find(|(word, _)| *word == text) {
            Some((_, form)) => Ok(*form),
            None => {
                let words: Vec<&str> = Self::ALL.iter().map(|(word, _)| *word).collect();
                bail!("`{text}` is no kind of layer; there are {}", words.join(", "))
            }
        }
    }
}

/// A layer: where it is, what it is, and how it deletes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// What it is.
    pub form: Form,
    /// Where it is.
    pub path: PathBuf,
    /// How it says that something below is gone.
    pub whiteouts: Whiteouts,
    /// Who owns what is in a directory.
    pub owner: Owner,
    /// Which image of an OCI layout.
    pub choice: oci::Choice,
    /// Certificates of which one must have signed a package.
    pub keys: Option<PathBuf>,
    /// SHA-256 that it must have, in hexadecimal digits; see [`Applied::digest`].
    pub sha256: Option<String>,
    /// Whether a directory gets a digest too, for which all of it is read once more.
    pub identify: bool,
    /// Whether what directories list is turned around, which must change nothing; for `build --check`.
    pub backwards: bool,
}

impl Layer {
    /// A layer with what is usual for its form: whiteouts as OCI has them for an OCI layout, none for everything else.
    #[must_use]
    pub fn new(form: Form, path: PathBuf) -> Self {
        let whiteouts = if form == Form::Oci { Whiteouts::Oci } else { Whiteouts::None };
        Self {
            form,
            path,
            whiteouts,
            owner: Owner::Disk,
            choice: oci::Choice::default(),
            keys: None,
            sha256: None,
            identify: false,
            backwards: false,
        }
    }
}

/// What was put on the tree.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Applied {
    /// The word for its form.
    pub kind: &'static str,
    /// The last part of its path.
    pub name: String,
    /// How it deleted.
    pub whiteouts: Whiteouts,
    /// What identifies the input: the SHA-256 of the file; the digest of an OCI image's manifest; for a folder of
    /// packages that of the list of their digests; for a directory that of the tar archive which `compose` makes of it
    /// alone, where somebody wants to know it.
    pub digest: Option<String>,
    /// Number of names in the tree after it.
    pub names: usize,
    /// The packages in it, for a layer of packages.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<rpm::Layered>,
    /// The program whose version the result depends on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// What a person should know.
    #[serde(skip)]
    pub warnings: Vec<String>,
}

/// Puts a layer on the tree. Directories it does not mention get the time `time`.
pub fn put(layer: &Layer, tree: &mut Tree, spool: &mut Spool, time: i64) -> Result<Applied> {
    let path = &layer.path;
    put_quietly(layer, tree, spool, time).with_context(|| format!("reading layer {}", path.display()))
}

fn put_quietly(layer: &Layer, tree: &mut Tree, spool: &mut Spool, time: i64) -> Result<Applied> {
    let path = &layer.path;
    let mut applied = Applied {
        kind: layer.form.word(),
        name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        whiteouts: layer.whiteouts,
        digest: None,
        names: 0,
        packages: Vec::new(),
        tool: None,
        warnings: Vec::new(),
    };
    let directory = std::fs::metadata(path).context("looking for it")?.is_dir();
    if !directory {
        let digest = sha256(path)?;
        if let Some(expected) = &layer.sha256 {
            ensure!(
                digest.eq_ignore_ascii_case(expected),
                "it has the SHA-256 {digest}, not {expected} as the recipe says"
            );
        }
        applied.digest = Some(format!("sha256:{digest}"));
    }
    let open = || File::open(path).context("opening it");
    let trust = || -> Result<Option<Trust>> {
        let Some(path) = &layer.keys else { return Ok(None) };
        Ok(Some(Trust { keyring: Keyring::from_files(&[path])?, now: moment(time)? }))
    };
    let mut entries = Vec::new();
    let mut sink = |entry| {
        entries.push(entry);
        Ok(())
    };
    match layer.form {
        Form::Oci => {
            let image = oci::read(path, &layer.choice, layer.whiteouts, time, tree, spool)?;
            applied.digest = Some(image.manifest);
            applied.warnings = image.warnings;
        }
        Form::Tar => tar::read(&mut Input::open(open()?, &mut tree.sources, spool)?, &mut sink)?,
        Form::Dir => {
            directory::read(path, layer.owner, layer.backwards, &mut tree.sources, &mut sink)?;
            if layer.identify || layer.sha256.is_some() {
                applied.digest = Some(format!("sha256:{}", of_directory(layer, time)?));
            }
        }
        Form::Squashfs => squashfs::Reader::open(&open()?)?.entries(&mut tree.sources, spool, &mut sink)?,
        Form::Live => {
            let folder = spool.folder().to_owned();
            live::read(&open()?, &folder, &mut tree.sources, spool, &mut sink)?;
        }
        Form::Template => template::read(open()?, trust()?, &mut tree.sources, spool, &mut sink)?,
        Form::Rpm => {
            let brought = rpm::put(path, trust()?.as_ref(), tree, spool, time)?;
            applied.digest = Some(brought.digest);
            applied.warnings = brought.warnings;
            applied.packages = brought.packages;
            applied.tool = Some(brought.tool);
        }
        Form::Deb => {
            let brought = deb::put(path, tree, spool, time)?;
            applied.digest = Some(brought.digest);
            applied.warnings = brought.warnings;
            applied.packages = brought.packages;
        }
        Form::Image => disk::read(Arc::new(open()?), &mut tree.sources, &mut sink)?,
    }
    if !matches!(layer.form, Form::Oci | Form::Rpm | Form::Deb) {
        applied.warnings = apply(tree, entries, layer.whiteouts, time)?;
    }
    if let (true, Some(expected), Some(found)) = (directory, &layer.sha256, &applied.digest) {
        let found = found.trim_start_matches("sha256:");
        ensure!(
            found.eq_ignore_ascii_case(expected),
            "it has the digest {found}, not {expected} as the recipe says"
        );
    }
    applied.names = tree.walk().count();
    Ok(applied)
}

/// SHA-256 of the archive that a directory alone becomes.
fn of_directory(layer: &Layer, time: i64) -> Result<String> {
    let mut alone = Tree::new();
    alone.meta_mut(Tree::ROOT).mtime = time;
    let mut entries = Vec::new();
    directory::read(&layer.path, layer.owner, layer.backwards, &mut alone.sources, &mut |entry| {
        entries.push(entry);
        Ok(())
    })?;
    apply(&mut alone, entries, Whiteouts::None, time)?;
    let hash = archive::write_tree(Hashing(Sha256::new()), &alone, time, &mut |_| {})?;
    Ok(format!("{:x}", hash.0.finalize()))
}

/// Hashes what is written.
struct Hashing(Sha256);

impl std::io::Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Signatures are judged at the moment that the source stands for, so that a build can be repeated.
fn moment(time: i64) -> Result<std::time::SystemTime> {
    let seconds = u64::try_from(time).context("a source date before 1970")?;
    Ok(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds))
}

/// SHA-256 of a file, in hexadecimal digits.
pub fn sha256(path: &Path) -> Result<String> {
    let context = || format!("reading {}", path.display());
    sha256_of(File::open(path).with_context(context)?).with_context(context)
}

/// SHA-256 of an open file, from its start, in hexadecimal digits.
pub fn sha256_of(mut file: File) -> Result<String> {
    file.rewind().context("going to its start")?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(format!("{:x}", hash.finalize())),
            count => hash.update(&buffer[..count]),
        }
    }
}
