//! The forms in which a tree is written.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest as _, Sha256};

use super::{Action, Composition, Edit, edit};
use crate::build::disk::{self, Disk, Region};
use crate::build::ext4;
use crate::build::image::{BlockMap, Image};
use crate::build::layer::archive;
use crate::build::tree::content::{Content, Source};
use crate::build::tree::{Kind, Meta, Missing, Tree};

/// The form of an image.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// A disk with a partition table, as templates have it
    #[default]
    Raw,
    /// The file system alone
    RawFs,
    /// A tar archive
    Tar,
    /// An OCI image layout with one layer, as a tar archive
    Oci,
    /// A squashfs file, made by tar2sqfs (Debian package squashfs-tools-ng)
    Squashfs,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Written {
    /// Its form.
    pub format: Format,
    /// Size in bytes.
    pub size: u64,
    /// Bytes that are not in holes.
    pub data: u64,
    /// The file system: blocks of 4096 bytes, those free, inodes, those used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_system: Option<[u64; 4]>,
    /// UUID of the file system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// Where the image has data, for a sparse archive of it.
    #[serde(skip)]
    pub map: Option<BlockMap>,
}

/// Writes the tree to `output`.
pub(super) fn write(
    composition: &Composition,
    tree: &Tree,
    output: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<Written> {
    match composition.format {
        Format::Raw | Format::RawFs => raw(composition, tree, output, progress),
        Format::Tar => through(output, Format::Tar, |file| {
            archive::write_tree(BufWriter::with_capacity(1 << 20, file), tree, composition.time, progress)?
                .flush()?;
            Ok(())
        }),
        Format::Oci => through(output, Format::Oci, |file| oci(composition, tree, file, output, progress)),
        Format::Squashfs => squashfs(composition, tree, output, progress),
    }
}

fn raw(
    composition: &Composition,
    tree: &Tree,
    output: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<Written> {
    let size = composition.size;
    let mut image = Image::create(output)?;
    image.set_size(size)?;
    let region = if composition.format == Format::Raw {
        let [a, b, c, d, ..] = composition.identity("fat");
        let disk = Disk {
            size,
            serial: u32::from_le_bytes([a, b, c, d]),
            time: composition.time,
            efi_files: composition.efi_files.clone(),
        };
        disk::write(&mut image, &disk)?
    } else {
        ensure!(composition.efi_files.is_empty(), "EFI files need a disk with partitions");
        Region { offset: 0, size }
    };
    let uuid = composition.uuid("ext4");
    let options = ext4::Options {
        uuid,
        hash_seed: composition.identity("hash"),
        time: composition.time,
        reserved_percent: composition.reserved_percent,
        inodes: composition.inodes,
    };
    let report = ext4::write(&mut image, region, tree, &options, progress)?;
    let map = image.commit()?;
    Ok(Written {
        format: composition.format,
        size,
        data: map.written(),
        file_system: Some([report.blocks, report.free_blocks, report.inodes, report.used_inodes]),
        uuid: Some(uuid_text(uuid)),
        map: Some(map),
    })
}

/// Writes a file without holes that gets its name when it is complete.
fn through(output: &Path, format: Format, write: impl FnOnce(&File) -> Result<()>) -> Result<Written> {
    let image = Image::create(output)?;
    write(image.file())?;
    let size = image.file().metadata()?.len();
    image.commit()?;
    Ok(Written { format, size, data: size, file_system: None, uuid: None, map: None })
}

/// An OCI layout with one plain layer, the blobs in the order of the layout's specification.
fn oci(
    composition: &Composition,
    tree: &Tree,
    out: &File,
    output: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<()> {
    let folder = output.parent().filter(|folder| *folder != Path::new("")).unwrap_or_else(|| Path::new("."));
    let spool = tempfile::tempfile_in(folder).context("making a temporary file for the layer")?;
    let layer = {
        let counted =
            Counted { inner: BufWriter::with_capacity(1 << 20, &spool), hash: Sha256::new(), len: 0 };
        let counted = archive::write_tree(counted, tree, composition.time, progress)?;
        (format!("{:x}", counted.hash.finalize()), counted.len)
    };
    let created = jiff::Timestamp::from_second(composition.time)?.to_string();
    let platform = ("amd64", "linux");
    let config = serde_json::to_vec(&serde_json::json!({
        "created": created, "architecture": platform.0, "os": platform.1, "config": {},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", layer.0)]},
        "history": [{"created": created, "created_by": "qubes-template-build"}],
    }))?;
    let descriptor = |kind: &str, digest: &str, size: u64| {
        serde_json::json!({
            "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": format!("sha256:{digest}"), "size": size,
        })
    };
    let digest = |bytes: &[u8]| format!("{:x}", Sha256::digest(bytes));
    let manifest = serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("config.v1+json", &digest(&config), config.len() as u64),
        "layers": [descriptor("layer.v1.tar", &layer.0, layer.1)],
    }))?;
    let mut named = descriptor("manifest.v1+json", &digest(&manifest), manifest.len() as u64);
    named["platform"] = serde_json::json!({"architecture": platform.0, "os": platform.1});
    let index = serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [named],
    }))?;
    let time = composition.time;
    let mut files = Tree::new();
    let source = files.sources.add(Source::File(Arc::new(spool)))?;
    let blobs = Missing::Create(time);
    let blobs = files.directory(&[b"blobs", b"sha256"], blobs)?.context("the folder of the blobs")?;
    let content = Kind::File(Content::whole(source, 0, layer.1));
    files.put(blobs, layer.0.as_bytes(), Meta::root(0o644, time), content)?;
    for (path, bytes) in [
        (format!("blobs/sha256/{}", digest(&config)), config),
        (format!("blobs/sha256/{}", digest(&manifest)), manifest),
        ("index.json".to_owned(), index),
        ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
    ] {
        let action = Action::Write(bytes);
        edit(&mut files, &Edit { path: path.into_bytes(), action, mode: None, owner: None }, time)?;
    }
    files.meta_mut(Tree::ROOT).mtime = time;
    archive::write_tree(BufWriter::with_capacity(1 << 20, out), &files, composition.time, &mut |_| {})?
        .flush()?;
    Ok(())
}

/// Hands the tree as a tar archive to `tar2sqfs`. `sqfstar` 4.5.1 does not use what the archive says about the root
/// directory and puts the present time there.
fn squashfs(
    composition: &Composition,
    tree: &Tree,
    output: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<Written> {
    let folder = output.parent().filter(|folder| *folder != Path::new("")).unwrap_or_else(|| Path::new("."));
    let place = tempfile::tempdir_in(folder).context("making a temporary folder for tar2sqfs")?;
    let made: PathBuf = place.path().join("image");
    let child = Command::new("tar2sqfs")
        .args(["--quiet", "--compressor", "zstd"])
        .arg(&made)
        .env("SOURCE_DATE_EPOCH", composition.time.max(0).to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!(
                "a squashfs file is made by `tar2sqfs`, which is not installed (Debian package squashfs-tools-ng)"
            )
        }
        Err(error) => return Err(error).context("starting tar2sqfs"),
    };
    let input = child.stdin.take().context("the input of tar2sqfs")?;
    let sent =
        archive::write_tree(BufWriter::with_capacity(1 << 20, input), tree, composition.time, progress);
    let sent = sent.and_then(|mut out| Ok(out.flush()?));
    let result = child.wait_with_output().context("waiting for tar2sqfs")?;
    let said = String::from_utf8_lossy(&result.stderr);
    ensure!(result.status.success(), "tar2sqfs failed ({}): {}", result.status, said.trim().escape_debug());
    sent.context("sending the tree to tar2sqfs")?;
    let size = std::fs::metadata(&made)?.len();
    std::fs::rename(&made, output).with_context(|| format!("naming {}", output.display()))?;
    Ok(Written { format: Format::Squashfs, size, data: size, file_system: None, uuid: None, map: None })
}

struct Counted<W> {
    inner: W,
    hash: Sha256,
    len: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.len += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

fn uuid_text(uuid: [u8; 16]) -> String {
    let digits: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
    [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| &digits[part]).join("-")
}
