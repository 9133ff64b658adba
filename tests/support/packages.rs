//! Keys and packages from a description of the shape of the recordings' `packages.json`.
//!
//! Each package is made by the builder, signed by a key of ours that stands where the description names one, and has
//! an image whose content follows from its name. Where that is possible it is as long as the description says, so that
//! recorded sizes are those of the packages at hand; [`Packages::size_of_record`] says the size where it is not.
//!
//! What was made stays in the build's folder, under a name that follows from all inputs and from the builder's own
//! source, so that it is made once.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use qvm_template::build::compress::{Compression, Method};
use qvm_template::build::keys::{Algorithm, NewKey, SigningKey};
use qvm_template::build::package::{Making, Menus, PART, Package, pack};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A package as described.
#[derive(Clone, Debug, Deserialize)]
pub struct Description {
    /// Repository that has it.
    pub repo: String,
    /// Name of the template.
    pub name: String,
    /// Epoch.
    pub epoch: u32,
    /// Version.
    pub version: String,
    /// Release.
    pub release: String,
    /// One line about it.
    pub summary: String,
    /// Longer text.
    pub description: String,
    /// Address; empty for none.
    pub url: String,
    /// Licence.
    pub license: String,
    /// File name of the key that signs it, `stranger` for one that nobody has.
    pub key: String,
    /// `template.conf`.
    pub conf: Option<String>,
    /// Whether the lists of menu entries are there.
    pub lists: bool,
    /// Length of the image.
    pub image_size: u64,
    /// Length of the package.
    #[serde(default)]
    pub size: u64,
    /// When it was built.
    pub buildtime: u32,
    /// Whether it has no signature.
    #[serde(default)]
    pub unsigned: bool,
    /// Whether it is damaged.
    #[serde(default)]
    pub flip: bool,
    /// Name that the repository claims instead.
    pub metadata_name: Option<String>,
    /// Version that the repository claims instead.
    pub metadata_version: Option<String>,
}

/// A package that was made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Built {
    /// `qubes-template-NAME-EPOCH:VERSION-RELEASE` as in its header.
    pub label: String,
    /// The same as the repository claims it.
    pub claimed: String,
    /// Repository that has it.
    pub repo: String,
    /// The package.
    pub path: PathBuf,
    /// Its length.
    pub size: u64,
    /// Its length as described.
    pub described_size: u64,
    /// SHA-256 of the image, in hexadecimal digits.
    pub image_sha256: String,
}

/// All packages of a description, and the certificates of their keys.
#[derive(Debug, Serialize, Deserialize)]
pub struct Packages {
    /// In the description's order.
    pub list: Vec<Built>,
    /// Armored certificates by file name; `stranger` is none of them.
    pub certificates: BTreeMap<String, String>,
}

/// Changed when the packages should be made anew although no input did.
const SHAPE: u32 = 1;

impl Packages {
    /// Makes, or finds, the packages of `recordings`: its `packages.json`, with the key files in its
    /// `etc/qubes/repo-templates/keys`.
    pub fn of(recordings: &Path) -> Result<Self> {
        let described = fs::read(recordings.join("packages.json")).context("reading packages.json")?;
        let descriptions: Vec<Description> =
            serde_json::from_slice(&described).context("understanding packages.json")?;
        let mut keys: Vec<String> = descriptions.iter().map(|package| package.key.clone()).collect();
        for entry in fs::read_dir(recordings.join("etc/qubes/repo-templates/keys")).into_iter().flatten() {
            keys.push(entry?.file_name().to_string_lossy().into_owned());
        }
        keys.sort();
        keys.dedup();
        Self::made_once(&described, &descriptions, &keys)
    }

    fn made_once(described: &[u8], descriptions: &[Description], keys: &[String]) -> Result<Self> {
        let mut inputs = Sha256::new();
        inputs.update(SHAPE.to_le_bytes());
        inputs.update(described);
        keys.iter().for_each(|key| inputs.update(key));
        for source in builder_source()? {
            inputs.update(fs::read(&source).with_context(|| format!("reading {}", source.display()))?);
        }
        let name = hex(&inputs.finalize())[..24].to_owned();
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("packages");
        let folder = cache.join(&name);
        if let Ok(text) = fs::read(folder.join("made.json")) {
            return serde_json::from_slice(&text).context("understanding made.json");
        }
        fs::create_dir_all(&cache)?;
        let making = tempfile::tempdir_in(&cache)?;
        let made = Self::make(making.path(), &folder, descriptions, keys)?;
        fs::write(making.path().join("made.json"), serde_json::to_vec_pretty(&made)?)?;
        // Another test program may have been quicker; both made the same.
        if fs::rename(making.path(), &folder).is_ok() {
            let _ = making.keep();
        }
        Ok(made)
    }

    fn make(here: &Path, later: &Path, descriptions: &[Description], keys: &[String]) -> Result<Self> {
        let keys =
            keys.iter().map(|name| Ok((name.clone(), key(name)?))).collect::<Result<BTreeMap<_, _>>>()?;
        let mut list = Vec::new();
        for (number, description) in descriptions.iter().enumerate() {
            let file = format!("{number:03}.rpm");
            let (size, image_sha256) = description
                .write(&here.join(&file), &keys[&description.key])
                .with_context(|| format!("making the package of {}", description.name))?;
            list.push(Built {
                label: description.label(&description.name, &description.version),
                claimed: description.label(
                    description.metadata_name.as_ref().unwrap_or(&description.name),
                    description.metadata_version.as_ref().unwrap_or(&description.version),
                ),
                repo: description.repo.clone(),
                path: later.join(&file),
                size,
                described_size: description.size,
                image_sha256,
            });
        }
        let public = keys.iter().filter(|(name, _)| *name != "stranger");
        let certificates =
            public.map(|(name, key)| Ok((name.clone(), key.certificate()?))).collect::<Result<_>>()?;
        Ok(Self { list, certificates })
    }

    /// The package that a repository offers as `label`, or whose header says so.
    pub fn find(&self, label: &str) -> Option<&Built> {
        let offered = self.list.iter().find(|built| built.claimed == label);
        offered.or_else(|| self.list.iter().find(|built| built.label == label))
    }

    /// What a record of a search reply that names this package and size should say instead.
    pub fn size_of_record(&self, label: &str, size: u64) -> u64 {
        let fits = |built: &&Built| built.claimed == label && built.described_size == size;
        self.list.iter().find(fits).map_or(size, |built| built.size)
    }
}

impl Description {
    fn label(&self, name: &str, version: &str) -> String {
        format!("qubes-template-{name}-{}:{version}-{}", self.epoch, self.release)
    }

    /// Writes the package; gives its length and the image's digest.
    ///
    /// The length is brought near by the amount of data in the image, to a difference that is a multiple of 4 by a little
    /// more data, and made exact by the length of the build host's name, which nobody reads.
    fn write(&self, path: &Path, key: &SigningKey) -> Result<(u64, String)> {
        let label = format!("{} {}", self.repo, self.label(&self.name, &self.version));
        let folder = path.parent().context("a package lies in a folder")?;
        let making = self.making(folder, key)?;
        let mut package = self.package();
        let mut make = |image: &File, host: usize| -> Result<u64> {
            package.build_host = "h".repeat(host.max(9));
            Ok(pack(image, &package, &making, &mut File::create(path)?)?.size)
        };
        let mut data = self.size.saturating_sub(6000).max(1);
        let mut content = image(&label, self.image_size, data)?;
        let mut size = make(&content, 0)?;
        for attempt in 0..150 {
            let missing = i128::from(self.size) - i128::from(size);
            if self.size == 0 || missing == 0 {
                break;
            }
            if !(0..3500).contains(&missing) {
                data = (data + self.size).saturating_sub(size + 3000).max(1);
            } else if missing % 4 == 0 {
                // The name moves what follows it in steps of 4.
                size = make(&content, 9 + usize::try_from(missing)?)?;
                if size == self.size {
                    break;
                }
            }
            data += 29 + attempt % 31;
            content = image(&label, self.image_size, data)?;
            size = make(&content, 0)?;
        }
        if self.flip {
            flip(&File::options().read(true).write(true).open(path)?, size * 2 / 3)?;
        }
        Ok((size, digest(&content)?))
    }

    fn package(&self) -> Package {
        let list = |text: &str| self.lists.then(|| text.as_bytes().to_vec());
        Package {
            name: self.name.clone(),
            epoch: self.epoch,
            version: self.version.clone(),
            release: self.release.clone(),
            summary: self.summary.clone(),
            description: self.description.clone(),
            url: Some(self.url.clone()).filter(|url| !url.is_empty()),
            license: self.license.clone(),
            conf: self.conf.as_ref().map(|conf| conf.clone().into_bytes()),
            menus: Menus {
                template: list("org.mozilla.firefox.desktop\nxfce4-terminal.desktop\n"),
                qubes: list("xfce4-terminal.desktop\n"),
                network: list("nm-connection-editor.desktop\n"),
            },
            build_time: self.buildtime,
            manifest: None,
            build_host: "localhost".to_owned(),
        }
    }

    fn making<'a>(&self, spool: &'a Path, key: &'a SigningKey) -> Result<Making<'a>> {
        Ok(Making {
            compression: Compression::new(Method::Zstd, Some(3))?,
            threads: NonZeroUsize::MIN,
            part: PART,
            spool,
            signer: (!self.unsigned).then_some(key),
            rpmv3: true,
        })
    }
}

/// Flips the lowest bit of one byte.
pub fn flip(file: &File, at: u64) -> Result<()> {
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    file.write_all_at(&[byte[0] ^ 1], at)?;
    Ok(())
}

/// A key that follows from its name.
pub fn key(name: &str) -> Result<SigningKey> {
    SigningKey::generate(&NewKey {
        user: format!("{name} <{}@example.invalid>", name.to_lowercase()),
        algorithm: Algorithm::Ed25519,
        created: 1_600_000_000,
        lifetime: None,
        seed: Some(format!("only for tests: {name}")),
    })
}

/// An image with `data` bytes that cannot be compressed, spread over it, some that can, and zeros.
fn image(name: &str, size: u64, data: u64) -> Result<File> {
    const RUN: u64 = 64 << 10;
    const EASY: u64 = 32 << 10;
    let file = tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR"))?;
    file.set_len(size)?;
    let data = data.min(size.saturating_sub(4 * EASY));
    let whole = data / 4096 * 4096;
    let runs = whole.div_ceil(RUN);
    for run in 0..runs {
        let at = (size - 2 * EASY) / runs * run / 4096 * 4096;
        file.write_all_at(&noise(name, run, RUN.min(whole - run * RUN))?, at)?;
    }
    // The last piece is easy to compress but for its beginning, whose length tells in the package's, byte for byte.
    let mut last = noise(name, u64::MAX, data - whole)?;
    last.resize(usize::try_from(EASY)?, b'A');
    file.write_all_at(
        &last[..last.len().min(usize::try_from(size)?)],
        size.saturating_sub(EASY) / 4096 * 4096,
    )?;
    file.set_len(size)?;
    Ok(file)
}

fn noise(name: &str, run: u64, length: u64) -> Result<Vec<u8>> {
    let length = usize::try_from(length)?;
    let mut bytes = Vec::with_capacity(length + 32);
    let mut number = 0_u64;
    while bytes.len() < length {
        let block = Sha256::new()
            .chain_update(name)
            .chain_update(run.to_le_bytes())
            .chain_update(number.to_le_bytes());
        bytes.extend(block.finalize());
        number += 1;
    }
    bytes.truncate(length);
    Ok(bytes)
}

fn digest(file: &File) -> Result<String> {
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        let taken = file.read_at(&mut buffer, at)?;
        if taken == 0 {
            return Ok(hex(&digest.finalize()));
        }
        digest.update(&buffer[..taken]);
        at += taken as u64;
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn builder_source() -> Result<Vec<PathBuf>> {
    let names = ["compress", "cpio", "header", "keys", "package", "package_header", "sparse"];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/build");
    Ok(names.iter().map(|name| folder.join(format!("{name}.rs"))).collect())
}
