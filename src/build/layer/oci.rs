//! An OCI image layout, as a directory or as one tar archive of it.
//!
//! ```text
//! oci-layout              {"imageLayoutVersion": "1.0.0"}
//! index.json              names manifests, or further indexes
//! blobs/sha256/HEX        index, manifest, configuration, layers
//! ```
//!
//! Size and digest of every blob are checked before it is parsed or unpacked, and the digest of each layer's unpacked
//! tar against the configuration's `diff_ids`. An index may point to another (four deep). With several images in it,
//! platform or reference must choose one: nothing is guessed. Source: OCI image specification 1.1.
//!
//! Limits: JSON has at most 8 MiB, an image 1024 layers.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::input::{Compression, Input, Spool};
use super::{Entry, What, Whiteouts, apply, tar};
use crate::build::tree::content::{Content, Source, SourceId, Sources};
use crate::build::tree::{Tree, shown};

const MAX_JSON: u64 = 8 << 20;
const MAX_LAYERS: usize = 1024;
const MAX_DEPTH: u32 = 4;
const INDEXES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
const MANIFESTS: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];

/// Which image of a layout is meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// `OS/ARCHITECTURE[/VARIANT]`.
    pub platform: Option<String>,
    /// The value of the annotation `org.opencontainers.image.ref.name`.
    pub reference: Option<String>,
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Digest of the manifest.
    pub manifest: String,
    /// Digests of the layers, as the manifest names them.
    pub layers: Vec<String>,
    /// What a person should know.
    pub warnings: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<Platform>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
    variant: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    config: Descriptor,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Debug, Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

/// Puts the layers of one image of the layout at `path` on the tree.
pub fn read(
    path: &Path,
    choice: &Choice,
    mode: Whiteouts,
    time: i64,
    tree: &mut Tree,
    spool: &mut Spool,
) -> Result<Image> {
    let layout = Layout::open(path, &mut tree.sources, spool)?;
    let index = layout.named("index.json", &mut tree.sources)?;
    let index: Index = parse(&index.read(MAX_JSON)?).context("reading index.json")?;
    let chosen = choose(&layout, &mut tree.sources, index, choice, 0)?;
    let manifest: Manifest =
        parse(&layout.blob(&chosen, &mut tree.sources)?.read(MAX_JSON)?).context("reading the manifest")?;
    let config: Config = parse(&layout.blob(&manifest.config, &mut tree.sources)?.read(MAX_JSON)?)
        .context("reading the image's configuration")?;
    let (layers, diff_ids) = (&manifest.layers, &config.rootfs.diff_ids);
    ensure!(layers.len() <= MAX_LAYERS, "the image has {} layers, more than {MAX_LAYERS}", layers.len());
    ensure!(
        layers.len() == diff_ids.len(),
        "the manifest has {} layers, the configuration {}",
        layers.len(),
        diff_ids.len()
    );
    let mut warnings = Vec::new();
    for (layer, diff_id) in layers.iter().zip(diff_ids) {
        let context = || format!("reading layer {}", layer.digest.escape_debug());
        let mut entries = Vec::new();
        let blob = layout.blob(layer, &mut tree.sources).with_context(context)?;
        unpacked(&blob, layer, diff_id, &mut tree.sources, spool, &mut |entry| {
            entries.push(entry);
            Ok(())
        })
        .with_context(context)?;
        warnings.extend(apply(tree, entries, mode, time).with_context(context)?);
    }
    Ok(Image {
        manifest: chosen.digest,
        layers: layers.iter().map(|layer| layer.digest.clone()).collect(),
        warnings,
    })
}

/// Reads a layer's tar, and checks it against the digest that the configuration has for it.
fn unpacked(
    blob: &Blob,
    layer: &Descriptor,
    diff_id: &str,
    sources: &mut Sources,
    spool: &mut Spool,
    sink: &mut super::Sink<'_>,
) -> Result<()> {
    let compression = compression(&layer.media_type)?;
    let seen = Rc::new(RefCell::new(Sha256::new()));
    if compression == Compression::None {
        let found = blob.digest()?;
        ensure!(found == diff_id, "its content has the digest {found}, not {diff_id}");
        let (position, end) = (blob.offset, blob.offset + blob.len);
        return tar::read(
            &mut Input::Plain { file: Arc::clone(&blob.file), source: blob.source, position, end },
            sink,
        );
    }
    let stream = Hashing { inner: compression.reader(blob.section())?, hash: Rc::clone(&seen) };
    let mut input = Input::stream(Box::new(stream), sources, spool)?;
    tar::read(&mut input, sink)?;
    drop(input);
    let found = format!("sha256:{:x}", seen.borrow().clone().finalize());
    ensure!(found == diff_id, "its content has the digest {found}, not {diff_id}");
    Ok(())
}

fn compression(media_type: &str) -> Result<Compression> {
    let form = media_type
        .strip_prefix("application/vnd.oci.image.layer.v1.tar")
        .or_else(|| media_type.strip_prefix("application/vnd.oci.image.layer.nondistributable.v1.tar"));
    Ok(match (form, media_type) {
        (Some(""), _) => Compression::None,
        (Some("+gzip"), _)
        | (
            _,
            "application/vnd.docker.image.rootfs.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        ) => Compression::Gzip,
        (Some("+zstd"), _) => Compression::Zstd,
        _ => bail!("a layer of the unknown type `{}`", media_type.escape_debug()),
    })
}

fn choose(
    layout: &Layout,
    sources: &mut Sources,
    index: Index,
    choice: &Choice,
    depth: u32,
) -> Result<Descriptor> {
    let mut fit = Vec::new();
    let mut others = Vec::new();
    for found in index.manifests {
        let known = |list: &[&str]| list.contains(&found.media_type.as_str());
        if !known(&INDEXES) && !known(&MANIFESTS) && !found.media_type.is_empty() {
            continue;
        }
        let reference = found.annotations.get("org.opencontainers.image.ref.name");
        let platform = found.platform.as_ref().map(|p| match &p.variant {
            Some(variant) => format!("{}/{}/{variant}", p.os, p.architecture),
            None => format!("{}/{}", p.os, p.architecture),
        });
        let wanted = choice.reference.is_none() || depth > 0 || reference == choice.reference.as_ref();
        // `linux/arm64` also means `linux/arm64/v8`; an image that says no platform is not ruled out
        let usable = match (&platform, &choice.platform) {
            (Some(have), Some(want)) => {
                have == want || have.strip_prefix(want.as_str()).is_some_and(|r| r.starts_with('/'))
            }
            _ => true,
        };
        if wanted && usable {
            fit.push(found);
        } else {
            others.push(platform.or_else(|| reference.cloned()).unwrap_or_else(|| found.digest.clone()));
        }
    }
    let one = match fit.len() {
        1 => fit.remove(0),
        0 if others.is_empty() => bail!("the index names no image"),
        0 => bail!("the index has no image for this choice; it has {}", others.join(", ").escape_debug()),
        count => {
            let names: Vec<String> = fit
                .iter()
                .map(|found| {
                    match (&found.platform, found.annotations.get("org.opencontainers.image.ref.name")) {
                        (Some(platform), _) => format!("platform {}/{}", platform.os, platform.architecture),
                        (None, Some(reference)) => format!("reference {reference}"),
                        (None, None) => found.digest.clone(),
                    }
                })
                .collect();
            bail!(
                "the index has {count} images ({}): choose by platform or reference",
                names.join(", ").escape_debug()
            )
        }
    };
    if INDEXES.contains(&one.media_type.as_str()) {
        ensure!(depth < MAX_DEPTH, "indexes point to indexes more than {MAX_DEPTH} deep");
        let inner: Index =
            parse(&layout.blob(&one, sources)?.read(MAX_JSON)?).context("reading a nested index")?;
        return choose(layout, sources, inner, choice, depth + 1);
    }
    Ok(one)
}

fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).context("this is not the JSON it should be")
}

/// Where the files of a layout are.
enum Layout {
    Directory(PathBuf),
    Archive(BTreeMap<Vec<u8>, Content>, Arc<File>, Arc<File>, SourceId),
}

/// A file of a layout, as a part of a file.
struct Blob {
    file: Arc<File>,
    source: SourceId,
    offset: u64,
    len: u64,
}

impl Layout {
    fn open(path: &Path, sources: &mut Sources, spool: &mut Spool) -> Result<Self> {
        let context = || format!("opening {}", path.display());
        if std::fs::metadata(path).with_context(context)?.is_dir() {
            return Ok(Self::Directory(path.to_owned()));
        }
        let file = Arc::new(File::open(path).with_context(context)?);
        let spooled = spool.file();
        let mut files = BTreeMap::new();
        let mut input = Input::open(file.try_clone().with_context(context)?, sources, spool)?;
        tar::read(&mut input, &mut |Entry { path, what, .. }| {
            if let What::File(content) = what {
                let plain: Vec<&[u8]> =
                    path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
                files.insert(plain.join(&b'/'), content);
            }
            Ok(())
        })
        .context("reading the archive of an OCI layout")?;
        let from_spool = matches!(input, Input::Stream { .. });
        drop(input);
        let source =
            if from_spool { spool.source(sources)? } else { sources.add(Source::File(Arc::clone(&file)))? };
        Ok(Self::Archive(files, file, spooled, source))
    }

    fn named(&self, name: &str, sources: &mut Sources) -> Result<Blob> {
        match self {
            Self::Directory(root) => {
                let path = root.join(name);
                let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
                let len = file.metadata().with_context(|| format!("opening {}", path.display()))?.len();
                let file = Arc::new(file);
                let source = sources.add(Source::File(Arc::clone(&file)))?;
                Ok(Blob { file, source, offset: 0, len })
            }
            Self::Archive(files, file, spooled, own) => {
                let content =
                    files.get(name.as_bytes()).with_context(|| format!("the layout has no `{name}`"))?;
                match content {
                    Content::Whole { source, offset, size } => {
                        let file = if sources.is(*source, spooled) { spooled } else { file };
                        Ok(Blob { file: Arc::clone(file), source: *source, offset: *offset, len: *size })
                    }
                    Content::Empty => Ok(Blob { file: Arc::clone(file), source: *own, offset: 0, len: 0 }),
                    Content::Pieces(_) => bail!("`{}` in the layout has holes", shown(name.as_bytes())),
                }
            }
        }
    }

    /// The blob that a descriptor names, its size and digest checked.
    fn blob(&self, descriptor: &Descriptor, sources: &mut Sources) -> Result<Blob> {
        let digest = &descriptor.digest;
        let hex = digest.strip_prefix("sha256:").filter(|hex| {
            hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
        });
        let hex = hex.with_context(|| format!("`{}` is no SHA-256 digest", digest.escape_debug()))?;
        let blob = self.named(&format!("blobs/sha256/{hex}"), sources)?;
        ensure!(blob.len == descriptor.size, "blob {digest} has {} bytes, not {}", blob.len, descriptor.size);
        let found = blob.digest()?;
        ensure!(found == *digest, "blob {digest} has the digest {found}");
        Ok(blob)
    }
}

impl Blob {
    fn section(&self) -> Section {
        Section { file: Arc::clone(&self.file), position: self.offset, end: self.offset + self.len }
    }

    fn digest(&self) -> Result<String> {
        let mut hash = Sha256::new();
        let mut section = self.section();
        let mut buffer = vec![0; 1 << 18];
        loop {
            let count = section.read(&mut buffer).context("reading a blob")?;
            if count == 0 {
                return Ok(format!("sha256:{:x}", hash.finalize()));
            }
            hash.update(&buffer[..count]);
        }
    }

    fn read(&self, limit: u64) -> Result<Vec<u8>> {
        ensure!(self.len <= limit, "{} bytes of JSON are more than the {limit} allowed", self.len);
        let mut bytes = Vec::new();
        self.section().read_to_end(&mut bytes).context("reading a blob")?;
        Ok(bytes)
    }
}

/// A part of a file as a stream.
pub(super) struct Section {
    file: Arc<File>,
    position: u64,
    end: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
        let len = buffer.len().min(left);
        let count = self.file.read_at(&mut buffer[..len], self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

struct Hashing<R> {
    inner: R,
    hash: Rc<RefCell<Sha256>>,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.borrow_mut().update(&buffer[..count]);
        Ok(count)
    }
}
