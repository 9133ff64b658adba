//! The forms in which a tree is written.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::Composition;
use crate::build::disk::{self, Disk, Region};
use crate::build::ext4;
use crate::build::image::{BlockMap, Image};
use crate::build::layer::{archive, layout};
use crate::build::tree::Tree;

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
        Format::Oci => through(output, Format::Oci, |file| {
            layout::write(file, folder_of(output), composition.time, |layer| {
                archive::write_tree(layer, tree, composition.time, progress)
            })
        }),
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

fn folder_of(output: &Path) -> &Path {
    output.parent().filter(|folder| *folder != Path::new("")).unwrap_or_else(|| Path::new("."))
}

/// Hands the tree as a tar archive to `tar2sqfs`. `sqfstar` 4.5.1 does not use what the archive says about the root
/// directory and puts the present time there.
fn squashfs(
    composition: &Composition,
    tree: &Tree,
    output: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<Written> {
    let place = tempfile::tempdir_in(folder_of(output)).context("making a temporary folder for tar2sqfs")?;
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

fn uuid_text(uuid: [u8; 16]) -> String {
    let digits: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
    [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| &digits[part]).join("-")
}
