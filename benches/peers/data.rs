//! What the rows work on: images, packages and a sandbox, made once and kept under the build directory.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use qvm_template::build::compress::{Compression, Method};
use qvm_template::build::keys::{Algorithm, NewKey, SigningKey};
use qvm_template::build::package::{Making, Menus, PART, Package, pack};

/// The folder and the key of this run.
#[derive(Debug)]
pub struct Data {
    folder: PathBuf,
    key: SigningKey,
    certificate: String,
}

/// What an image holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filling {
    /// Like a file system in use: three tenths holes, half of it compressible, a fifth not.
    Mixed,
    /// One MiB of every 64 holds data.
    MostlyHoles,
}

/// Which package is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Name of the template.
    pub name: &'static str,
    /// Length of the image, in MiB.
    pub mebibytes: u64,
    /// What the image holds.
    pub filling: Filling,
    /// How the payload is compressed.
    pub method: Method,
    /// With which level.
    pub level: u32,
    /// Whether it has frames and blocks that can be decoded side by side, as ours has, or is one piece, as Qubes' are.
    pub seams: bool,
}

/// Seconds since 1970 that stand in every package.
const BUILT: u32 = 1_763_000_000;

impl Data {
    /// Makes the folder and the key.
    pub fn new(folder: Option<PathBuf>) -> Result<Self> {
        let usual = || Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench");
        let folder = folder.unwrap_or_else(usual);
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let key = SigningKey::generate(&NewKey {
            user: "Benchmark <benchmark@example.invalid>".to_owned(),
            algorithm: Algorithm::Ed25519,
            created: BUILT - 86_400,
            lifetime: None,
            seed: Some("benchmark".to_owned()),
        })?;
        let certificate = key.certificate()?;
        Ok(Self { folder: folder.canonicalize()?, key, certificate })
    }

    /// A path in the folder.
    pub fn place(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The package, made when it is not there.
    pub fn package(&self, wanted: &Wanted) -> Result<PathBuf> {
        let stem = format!(
            "{}-{}-{:?}-{:?}-{}{}",
            wanted.name,
            wanted.mebibytes,
            wanted.filling,
            wanted.method,
            wanted.level,
            if wanted.seams { "-seams" } else { "" }
        );
        let path = self.place(&format!("{stem}.rpm"));
        if path.exists() {
            return Ok(path);
        }
        eprintln!("making {} ...", path.display());
        let image = self.image(wanted.mebibytes, wanted.filling)?;
        let package = Package {
            name: wanted.name.to_owned(),
            epoch: 0,
            version: "4.3.0".to_owned(),
            release: "202511130213".to_owned(),
            summary: "Benchmark".to_owned(),
            description: "Benchmark".to_owned(),
            url: None,
            license: "GPL".to_owned(),
            conf: Some(b"qrexec=1\n".to_vec()),
            menus: Menus::default(),
            build_time: BUILT,
            manifest: None,
            build_host: "localhost".to_owned(),
        };
        let compression = Compression::new(wanted.method, Some(wanted.level))?;
        let making = Making {
            compression: if wanted.seams { compression } else { compression.without_seams() },
            threads: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            part: PART,
            spool: &self.folder,
            signer: Some(&self.key),
            rpmv3: true,
        };
        let partial = path.with_extension("partial");
        let mut out = BufWriter::new(File::create(&partial)?);
        pack(&File::open(&image)?, &package, &making, &mut out)?;
        out.into_inner().context("writing the package")?;
        fs::rename(&partial, &path)?;
        Ok(path)
    }

    /// The payload of a package as a file of its own, for the decoders of the peers.
    pub fn payload(&self, package: &Path) -> Result<PathBuf> {
        let path = package.with_extension("payload");
        if !path.exists() {
            let mut from = File::open(package)?;
            from.seek(SeekFrom::Start(payload_offset(&mut File::open(package)?)?))?;
            std::io::copy(&mut from, &mut File::create(&path)?)?;
        }
        Ok(path)
    }

    /// An image of so many MiB.
    pub fn image(&self, mebibytes: u64, filling: Filling) -> Result<PathBuf> {
        let path = self.place(&format!("image-{mebibytes}-{filling:?}.img"));
        if path.exists() {
            return Ok(path);
        }
        let partial = path.with_extension("partial");
        let mut image = File::create(&partial)?;
        image.set_len(mebibytes << 20)?;
        let mut random = Random(0x9E37_79B9_7F4A_7C15);
        let mut block = vec![0; 1 << 20];
        for number in 0..mebibytes {
            let kind = match filling {
                Filling::Mixed => random.next() % 10,
                Filling::MostlyHoles if number % 64 == 0 => 5,
                Filling::MostlyHoles => 0,
            };
            match kind {
                0..3 => continue,
                3..8 => random.words(&mut block),
                _ => random.fill(&mut block),
            }
            image.seek(SeekFrom::Start(number << 20))?;
            image.write_all(&block)?;
        }
        fs::rename(&partial, &path)?;
        Ok(path)
    }

    /// A new sandbox whose management qube knows this run's key.
    pub fn sandbox(&self, name: &str) -> Result<Sandbox> {
        let place = self.place(name);
        if place.exists() {
            fs::remove_dir_all(&place)?;
        }
        let sandbox = Sandbox { place };
        sandbox.command(&["new"])?;
        let keys = sandbox.files("mgmt", "etc/qubes/repo-templates/keys")?;
        fs::write(keys.join(KEY), &self.certificate)?;
        Ok(sandbox)
    }
}

/// File name of the run's certificate.
const KEY: &str = "RPM-GPG-KEY-benchmark";
/// The certificate in the management qube.
pub const KEYRING: &str = "--keyring=/etc/qubes/repo-templates/keys/RPM-GPG-KEY-benchmark";
/// How the management qube knows the repository.
pub const REPOSITORY: &str = "[bench]
name = Benchmark
baseurl = file:///srv/templates
enabled = 1
gpgcheck = 1
gpgkey = file:///etc/qubes/repo-templates/keys/RPM-GPG-KEY-benchmark
";

/// A sandboxed system.
#[derive(Debug)]
pub struct Sandbox {
    place: PathBuf,
}

impl Sandbox {
    /// What stands before a command that runs in the management qube.
    pub fn prefix(&self) -> Vec<OsString> {
        let mut prefix: Vec<OsString> = vec![env!("CARGO_BIN_EXE_qubes-sandbox").into(), "exec".into()];
        prefix.extend([self.place.clone().into_os_string(), "--".into()]);
        prefix
    }

    /// A folder of a qube, made where it is missing.
    pub fn files(&self, qube: &str, folder: &str) -> Result<PathBuf> {
        let path = self.place.join("qubes").join(qube).join("root").join(folder);
        fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(path)
    }

    /// Lets the UpdateVM serve these packages.
    pub fn serve(&self, packages: &[&Path]) -> Result<()> {
        let repository = self.files("sys-net", "srv/templates")?;
        for package in packages {
            let name = package.file_name().context("a package has a name")?;
            fs::hard_link(package, repository.join(name))?;
        }
        let build = env!("CARGO_BIN_EXE_qubes-template-build");
        let status =
            Command::new(build).arg("repo").arg(&repository).stdout(std::process::Stdio::null()).status()?;
        ensure!(status.success(), "making the repository ended with {status}");
        self.know_repository()
    }

    /// Tells the management qube of the repository.
    pub fn know_repository(&self) -> Result<()> {
        let known = self.files("mgmt", "etc/qubes/repo-templates")?;
        fs::write(known.join("bench.repo"), REPOSITORY)?;
        fs::write(self.files("mgmt", "usr/share/qubes")?.join("marker-vm"), "4.3\n")?;
        Ok(())
    }

    /// Lets the UpdateVM's network have so many bytes a second.
    pub fn throttle(&self, rate: u64) -> Result<()> {
        let itself = std::env::current_exe().context("finding this program")?;
        let script = format!(
            "#!/bin/sh\n/usr/lib/qubes/qubes-template-service qubes.TemplateDownload | {} {} {rate}\n",
            itself.display(),
            crate::measure::THROTTLE
        );
        fs::write(self.files("sys-net", "etc/qubes-rpc")?.join("qubes.TemplateDownload"), script)?;
        Ok(())
    }

    /// Runs a command in the management qube, unmeasured.
    pub fn run(&self, command: &[&str]) -> Result<()> {
        let prefix = self.prefix();
        let status = Command::new(&prefix[0]).args(&prefix[1..]).args(command).status()?;
        ensure!(status.success(), "{command:?} ended with {status}");
        Ok(())
    }

    fn command(&self, words: &[&str]) -> Result<()> {
        let status =
            Command::new(env!("CARGO_BIN_EXE_qubes-sandbox")).args(words).arg(&self.place).status()?;
        ensure!(status.success(), "qubes-sandbox {words:?} ended with {status}");
        Ok(())
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // Volumes of some GiB; the packages stay.
        let _ = fs::remove_dir_all(&self.place);
    }
}

/// Where the payload of a package starts: after the lead (96 bytes), the signature header (padded to 8) and the header.
fn payload_offset(package: &mut File) -> Result<u64> {
    let mut end = 96;
    for padding in [8, 1] {
        let mut start = [0; 16];
        package.seek(SeekFrom::Start(end))?;
        package.read_exact(&mut start)?;
        let number = |at: usize| {
            u64::from(u32::from_be_bytes([start[at], start[at + 1], start[at + 2], start[at + 3]]))
        };
        end = (end + 16 + number(8) * 16 + number(12)).next_multiple_of(padding);
    }
    Ok(end)
}

/// A generator whose numbers are the same in every run (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    fn fill(&mut self, block: &mut [u8]) {
        for chunk in block.chunks_mut(4) {
            let bytes = self.next().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }

    /// Text of a few hundred words, which compresses about as well as programs and documents do.
    fn words(&mut self, block: &mut [u8]) {
        let mut at = 0;
        while at < block.len() {
            let word = (self.next() % 700 * 7919).to_string();
            for byte in word.bytes().chain([b' ', (self.next() & 0xff) as u8]) {
                if let Some(place) = block.get_mut(at) {
                    *place = byte;
                }
                at += 1;
            }
        }
    }
}
