//! Writes one template package: what it holds, in which order, and what its header says about it.
//!
//! The shape is the one of Qubes' own builders: everything under `/var/lib/qubes/vm-templates/NAME/`, the image as
//! `root.img.part.NN` (a sparse tar archive cut into pieces of 1 GiB), empty directories for menus, three files that
//! only dom0 would have made (ghosts), and a script that refuses installation by rpm.
//!
//! Neither the image nor the payload is ever held in memory: the payload goes, compressed and hashed on its way, into
//! an unnamed file, and only then can the header be written that names its digest.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write};
use std::num::NonZeroUsize;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use super::compress::Compression;
use super::cpio::{Archive, Member};
use super::header::{Header, REGION_IMMUTABLE, REGION_SIGNATURES, Value};
use super::keys::SigningKey;
use super::package_header::{Content, Files, Kind, main_header};
use super::sparse::SparseTar;
use crate::io::hash::hex;

/// Length of a part of the image's archive, as Qubes' builders cut it.
pub const PART: u64 = 1 << 30;
/// Where templates live in dom0.
pub const TEMPLATES: &str = "/var/lib/qubes/vm-templates";

/// What a package says about its template, and the small files in it.
#[derive(Clone, Debug)]
pub struct Package {
    /// Name of the template: the package's name without its prefix.
    pub name: String,
    /// Epoch; 0 is not written.
    pub epoch: u32,
    /// Version.
    pub version: String,
    /// Release.
    pub release: String,
    /// One line about the template.
    pub summary: String,
    /// Longer text.
    pub description: String,
    /// Address of the project.
    pub url: Option<String>,
    /// Licence.
    pub license: String,
    /// `template.conf`.
    pub conf: Option<Vec<u8>>,
    /// The lists of menu entries.
    pub menus: Menus,
    /// What the image is made of (`image-manifest.json`); nobody but a curious person reads it.
    pub manifest: Option<Vec<u8>>,
    /// When it was built, in seconds since 1970; every date in the package.
    pub build_time: u32,
    /// Name of the machine that built it, as the package tells it.
    pub build_host: String,
}

/// Lists of the menu entries that a template proposes, one a line.
#[derive(Clone, Debug, Default)]
pub struct Menus {
    /// For the template itself (`vm-whitelisted-appmenus.list`).
    pub template: Option<Vec<u8>>,
    /// For qubes that are based on it (`whitelisted-appmenus.list`).
    pub qubes: Option<Vec<u8>>,
    /// For those of them that provide network (`netvm-whitelisted-appmenus.list`).
    pub network: Option<Vec<u8>>,
}

/// How a package is made, beside what is in it.
#[derive(Clone, Copy, Debug)]
pub struct Making<'a> {
    /// Compression of the payload.
    pub compression: Compression,
    /// Number of threads that compress. The package does not depend on it.
    pub threads: NonZeroUsize,
    /// Length of a part; [`PART`] but for tests.
    pub part: u64,
    /// Folder on a file system that has room for the payload.
    pub spool: &'a Path,
    /// Who signs; nobody when there is none.
    pub signer: Option<&'a SigningKey>,
    /// Signs header and payload together as well, as `rpmsign --rpmv3` does and Qubes' own packages have it.
    pub rpmv3: bool,
}

/// A package that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Length of the package.
    pub size: u64,
    /// Length of the image.
    pub image_size: u64,
    /// SHA-256 of the package, in hexadecimal digits.
    pub sha256: String,
}

/// Writes a package for `image` to `out`.
///
/// # Errors
/// When the image cannot be read, the package cannot be written, or its parts do not suit each other.
pub fn pack(image: &File, package: &Package, making: &Making<'_>, out: &mut impl Write) -> Result<Packed> {
    ensure!(
        !package.name.is_empty()
            && package.name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._+-".contains(&b)),
        "the template's name is not possible"
    );
    ensure!(making.part > 0 && making.part < 1 << 32, "the parts' length is not possible");
    let mut tar = SparseTar::new(image, "root.img", package.build_time)?;
    let image_size = tar.image_size();
    let mut files = files(package, tar.len(), making.part)?;

    let spool = tempfile::tempfile_in(making.spool)
        .with_context(|| format!("making a temporary file in {}", making.spool.display()))?;
    let payload = Payload::write(spool, &mut files, &mut tar, package, making)?;
    let header =
        main_header(package, &files, &payload.content, making.compression)?.encode(REGION_IMMUTABLE)?;
    let signatures = payload.signatures(&header, package, making)?;

    let mut out = Hashing::new(out, Sha256::new());
    out.write_all(&lead(package)).context("writing the package")?;
    out.write_all(&signatures).context("writing the package")?;
    out.write_all(&[0; 8][..signatures.len().next_multiple_of(8) - signatures.len()])?;
    out.write_all(&header).context("writing the package")?;
    let mut spool = payload.spool;
    spool.rewind()?;
    io::copy(&mut spool, &mut out).context("writing the package")?;
    Ok(Packed { size: out.written, image_size, sha256: hex(&out.digest.finalize()) })
}

/// The files of a package in the order of their paths, as rpm sorts them.
fn files(package: &Package, archive: u64, part: u64) -> Result<Files> {
    let parts = archive.div_ceil(part);
    ensure!(parts <= 100, "the image is too large: its archive has more than 100 parts");
    let mut files = Files::new(&package.name);
    files.add("", Kind::Top);
    for name in ["apps", "apps.templates", "apps.tempicons"] {
        files.add(name, Kind::Directory);
    }
    for name in ["root.img", "private.img", "volatile.img"] {
        files.add(name, Kind::Ghost);
    }
    files.add("clean-volatile.img.tar", Kind::Plain(Vec::new()));
    for at in 0..parts {
        let size = part.min(archive - at * part);
        files.add(&format!("root.img.part.{at:02}"), Kind::Part(u32::try_from(size)?));
    }
    let small = [
        (super::layer::template::MANIFEST, &package.manifest),
        ("template.conf", &package.conf),
        ("vm-whitelisted-appmenus.list", &package.menus.template),
        ("whitelisted-appmenus.list", &package.menus.qubes),
        ("netvm-whitelisted-appmenus.list", &package.menus.network),
    ];
    for (name, content) in small {
        if let Some(content) = content {
            files.add(name, Kind::Text(content.clone()));
        }
    }
    files.sort();
    Ok(files)
}

/// The compressed archive, in an unnamed file, with what the headers tell about it.
struct Payload {
    spool: File,
    size: u64,
    content: Content,
}

impl Payload {
    fn write(
        spool: File,
        files: &mut Files,
        tar: &mut SparseTar<'_>,
        package: &Package,
        making: &Making<'_>,
    ) -> Result<Self> {
        let spooled = Hashing::new(spool, Sha256::new());
        let compressor = making.compression.writer(spooled, making.threads)?;
        let mut archive = Archive::new(Hashing::new(compressor, Sha256::new()));
        for (index, file) in files.list.iter_mut().enumerate() {
            if matches!(file.kind, Kind::Ghost) {
                continue;
            }
            let inode = u32::try_from(index + 1)?;
            let (mode, size) = (file.kind.mode(), file.kind.size()?);
            let path = format!(".{}", file.path);
            archive
                .begin(&Member { path: &path, inode, mode, mtime: package.build_time, size })
                .context("writing the payload")?;
            let mut content = Hashing::new(&mut archive, Sha256::new());
            match &file.kind {
                Kind::Part(size) => copy(&mut tar.take(u64::from(*size)), &mut content),
                Kind::Plain(bytes) | Kind::Text(bytes) => content.write_all(bytes),
                Kind::Top | Kind::Directory | Kind::Ghost => Ok(()),
            }
            .with_context(|| format!("packing {path}"))?;
            file.digest =
                if file.kind.is_directory() { String::new() } else { hex(&content.digest.finalize()) };
            archive.end().with_context(|| format!("packing {path}"))?;
        }
        let (archive, archive_size) = archive.finish().context("writing the payload")?;
        let archive_sha256 = hex(&archive.digest.finalize());
        let spooled = archive.out.finish().context("compressing the payload")?;
        let content =
            Content { archive_size, archive_sha256, payload_sha256: hex(&spooled.digest.finalize()) };
        Ok(Self { spool: spooled.out, size: spooled.written, content })
    }

    /// The signature header: digests and signatures over the header, and over header and payload together.
    fn signatures(&self, header: &[u8], package: &Package, making: &Making<'_>) -> Result<Vec<u8>> {
        let mut signatures = Header::default();
        signatures.set_text(269, &hex(&Sha1::digest(header)));
        signatures.set_text(273, &hex(&Sha256::digest(header)));
        set_size(&mut signatures, 1000, 270, header.len() as u64 + self.size);
        set_size(&mut signatures, 1007, 271, self.content.archive_size);

        let mut spool = self.spool.try_clone().context("reading the payload again")?;
        spool.seek(SeekFrom::Start(0))?;
        let mut whole = Tee { from: header.chain(spool), digest: Md5::new() };
        if let Some(signer) = making.signer {
            let (plain, both) = if signer.is_rsa()? { (268, 1002) } else { (267, 1005) };
            signatures.set(plain, Value::Bytes(signer.sign(header, package.build_time)?));
            if making.rpmv3 {
                signatures.set(both, Value::Bytes(signer.sign(&mut whole, package.build_time)?));
            }
        }
        copy(&mut whole, &mut io::sink()).context("reading the payload again")?;
        signatures.set(1004, Value::Bytes(whole.digest.finalize().to_vec()));
        signatures.encode(REGION_SIGNATURES)
    }
}

/// Sets a size under the tag for 32 bits, or where it does not fit under the one for 64.
pub(super) fn set_size(header: &mut Header, short: u32, long: u32, size: u64) {
    match u32::try_from(size) {
        Ok(size) => header.set(short, Value::Int32(vec![size])),
        Err(_) => header.set(long, Value::Int64(vec![size])),
    };
}

/// The 96 bytes before everything else. Nobody believes them, but everybody wants them.
fn lead(package: &Package) -> [u8; 96] {
    let mut lead = [0; 96];
    lead[..10].copy_from_slice(&[0xed, 0xab, 0xee, 0xdb, 3, 0, 0, 0, 0, 1]);
    let label = format!("{}-{}-{}", package.package_name(), package.version, package.release);
    for (place, byte) in lead[10..75].iter_mut().zip(label.bytes()) {
        *place = byte;
    }
    lead[77] = 1;
    lead[79] = 5;
    lead
}

impl Package {
    /// Name of the package.
    #[must_use]
    pub fn package_name(&self) -> String {
        format!("{}{}", crate::template::PACKAGE_PREFIX, self.name)
    }

    /// Name of the package's file.
    #[must_use]
    pub fn file_name(&self) -> String {
        format!("{}-{}-{}.noarch.rpm", self.package_name(), self.version, self.release)
    }
}

fn copy(from: &mut impl io::Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            taken => to.write_all(&buffer[..taken])?,
        }
    }
}

/// Hashes and counts what is written through it.
struct Hashing<W, D> {
    out: W,
    digest: D,
    written: u64,
}

impl<W: Write, D: sha2::digest::Update> Hashing<W, D> {
    fn new(out: W, digest: D) -> Self {
        Self { out, digest, written: 0 }
    }
}

impl<W: Write, D: sha2::digest::Update> Write for Hashing<W, D> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.out.write(bytes)?;
        self.digest.update(&bytes[..taken]);
        self.written += taken as u64;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Hashes what is read through it.
struct Tee<R, D> {
    from: R,
    digest: D,
}

impl<R: io::Read, D: sha2::digest::Update> io::Read for Tee<R, D> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let taken = self.from.read(into)?;
        self.digest.update(&into[..taken]);
        Ok(taken)
    }
}
