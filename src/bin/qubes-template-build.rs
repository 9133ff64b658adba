// SPDX-License-Identifier: GPL-2.0-or-later
//! The builder's command line.

#![allow(clippy::print_stdout, reason = "results go to standard output")]

use std::fs::{self, File};
use std::io::Read;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use qvm_template::build::compress::{Compression, Method};
use qvm_template::build::disk::{self, Disk};
use qvm_template::build::image::Image;
use qvm_template::build::keys::{Algorithm, NewKey, SigningKey, seconds};
use qvm_template::build::package::{Making, PART, pack};
use qvm_template::build::recipe::{EXAMPLE, Recipe};
use qvm_template::build::repodata;

/// Builds template packages for Qubes OS, and repositories of them
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a package from an image
    Pack(Pack),
    /// Write the metadata of a repository
    Repo(Repo),
    /// Put a root file system into the disk that templates have
    Disk(DiskOf),
    /// Make a key pair that signs packages and repositories
    Keygen(Keygen),
    Compose(qvm_template::build::command::compose::Compose),
    Build(qvm_template::build::command::build::Build),
    VerifyBuild(qvm_template::build::command::verify::VerifyBuild),
    Export(qvm_template::build::command::export::Export),
    /// Print a recipe with every key, to begin with
    Example,
    Inspect(qvm_template::build::command::inspect::Inspect),
    Diff(qvm_template::build::command::inspect::Diff),
}

/// Make a package from an image
///
/// The package has the shape of those that Qubes' own builders make. Every date in it is SOURCE_DATE_EPOCH where that
/// is set, and the same image, recipe and key then give the same package, byte for byte.
#[derive(Args)]
struct Pack {
    /// Image of a disk or file system
    image: PathBuf,
    /// Recipe that describes the template (TOML)
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    /// Package to write, or folder for it under its usual name
    #[arg(short, long, value_name = "FILE", default_value = ".")]
    output: PathBuf,
    /// Name of the template, over the recipe's
    #[arg(long)]
    name: Option<String>,
    /// Version of the package, over the recipe's
    #[arg(long, value_name = "VERSION", id = "package_version")]
    version: Option<String>,
    /// Release of the package, over the recipe's (usual: the date, YYYYMMDDhhmm)
    #[arg(long)]
    release: Option<String>,
    /// One line about the template, over the recipe's
    #[arg(long)]
    summary: Option<String>,
    #[command(flatten)]
    signing: Signing,
    /// Sign header and payload together too, as Qubes' own packages are
    #[arg(long)]
    rpmv3: bool,
    /// Compression of the payload, over the recipe's [default: zstd]
    #[arg(long, value_enum)]
    compression: Option<MethodName>,
    /// Level of the compression, over the recipe's [default: zstd 19, xz 6, gzip 9]
    #[arg(long)]
    level: Option<u32>,
    /// Number of compressing threads [default: one for each core]
    #[arg(long)]
    threads: Option<NonZeroUsize>,
}

#[derive(Args)]
struct Signing {
    /// Secret key that signs (armored)
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// File with the key's passphrase
    #[arg(long, value_name = "FILE", requires = "key")]
    passphrase_file: Option<PathBuf>,
}

/// Write the metadata of a repository
///
/// Describes every package in a folder and below. Every date in it is SOURCE_DATE_EPOCH where that is set, else now.
#[derive(Args)]
struct Repo {
    /// Folder with the packages
    dir: PathBuf,
    #[command(flatten)]
    signing: Signing,
    /// Compression of the metadata
    #[arg(long, value_enum, default_value = "gzip")]
    compression: MethodName,
}

/// Put a root file system into the disk that templates have
///
/// The disk has the partitions that templates of Qubes OS have and that their qubes count on: EFI, BIOS boot, root.
#[derive(Args)]
struct DiskOf {
    /// Image of the root file system
    root: PathBuf,
    /// Disk to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Size of the disk in MiB
    #[arg(long, value_name = "MIB", default_value_t = 10 << 10)]
    size: u64,
}

/// Make a key pair that signs packages and repositories
#[derive(Args)]
struct Keygen {
    /// Secret key to write (readable by you alone)
    #[arg(long, value_name = "FILE")]
    secret: PathBuf,
    /// Certificate to write, for those who verify
    #[arg(long, value_name = "FILE")]
    public: PathBuf,
    /// Whose key
    #[arg(long, value_name = "NAME <ADDRESS>", default_value = "Template builder")]
    user: String,
    /// Kind of key
    #[arg(long, value_enum, default_value = "rsa4096")]
    algorithm: KeyKind,
    /// Make the same key from the same words: for demonstrations, as everybody who knows the words has the key
    #[arg(long, value_name = "WORDS")]
    seed: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum MethodName {
    Zstd,
    Xz,
    Gzip,
}

#[derive(Clone, Copy, ValueEnum)]
enum KeyKind {
    Rsa4096,
    Rsa3072,
    Ed25519,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.command {
        Command::Pack(args) => args.run(),
        Command::Repo(args) => args.run(),
        Command::Disk(args) => args.run(),
        Command::Keygen(args) => args.run(),
        Command::Compose(args) => source_date()
            .and_then(|date| args.run(i64::from(date), &mut std::io::stdout(), &mut std::io::stderr())),
        Command::Build(args) => source_date().and_then(|date| {
            args.run(i64::from(date), cores(), &mut std::io::stdout(), &mut std::io::stderr())
        }),
        Command::VerifyBuild(args) => match args.run(cores(), &mut std::io::stdout(), &mut std::io::stderr())
        {
            Ok(false) => return ExitCode::FAILURE,
            done => done.map(drop),
        },
        Command::Export(args) => {
            source_date().and_then(|date| args.run(i64::from(date), &mut std::io::stderr()))
        }
        Command::Example => {
            print!("{EXAMPLE}");
            Ok(())
        }
        Command::Inspect(args) => args.run(&mut std::io::stdout()),
        Command::Diff(args) => match args.run(&mut std::io::stdout()) {
            Ok(false) => return ExitCode::FAILURE,
            done => done.map(drop),
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ERROR: {error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Pack {
    fn run(&self) -> Result<()> {
        let mut recipe = match &self.recipe {
            Some(path) => Recipe::parse(&text(path)?)?,
            None => Recipe::default(),
        };
        if let Some(name) = &self.name {
            recipe.name.clone_from(name);
        }
        for (place, given) in [
            (&mut recipe.version, &self.version),
            (&mut recipe.release, &self.release),
            (&mut recipe.summary, &self.summary),
        ] {
            if given.is_some() {
                place.clone_from(given);
            }
        }
        if recipe.name.is_empty() {
            bail!("the template needs a name: give --recipe or --name");
        }
        let compression = match self.compression {
            Some(method) => Compression::new(method.into(), self.level)?,
            None => {
                recipe.payload.level = self.level.or(recipe.payload.level);
                recipe.compression()?
            }
        };
        let package = recipe.package(source_date()?)?;
        let output = match self.output.is_dir() {
            true => self.output.join(package.file_name()),
            false => self.output.clone(),
        };
        let folder =
            output.parent().filter(|folder| *folder != Path::new("")).unwrap_or_else(|| Path::new("."));
        let signer = self.signing.key()?;
        let image = File::open(&self.image).with_context(|| format!("opening {}", self.image.display()))?;
        let making = Making {
            compression,
            threads: self.threads.unwrap_or_else(cores),
            part: PART,
            spool: folder,
            signer: signer.as_ref(),
            rpmv3: self.rpmv3,
        };
        let mut file = tempfile::NamedTempFile::new_in(folder)
            .with_context(|| format!("making a file in {}", folder.display()))?;
        let packed = pack(&image, &package, &making, &mut file)?;
        keep(file, &output, 0o644)?;
        eprintln!("{}: {} bytes for an image of {}", output.display(), packed.size, packed.image_size);
        println!("{}  {}", packed.sha256, output.display());
        Ok(())
    }
}

impl Repo {
    fn run(&self) -> Result<()> {
        let revision = source_date()?;
        let signer = self.signing.key()?;
        let compression = Compression::new(self.compression.into(), None)?;
        let options = repodata::Options { compression, revision, signer: signer.as_ref() };
        let count = repodata::write(&self.dir, &options)?;
        eprintln!("{}: {count} packages", self.dir.display());
        Ok(())
    }
}

impl Signing {
    fn key(&self) -> Result<Option<SigningKey>> {
        let Some(path) = &self.key else { return Ok(None) };
        let passphrase = self.passphrase_file.as_deref().map(text).transpose()?;
        let passphrase = passphrase.as_deref().map(|text| text.trim_end_matches('\n'));
        let key = SigningKey::read(text(path)?.as_bytes(), passphrase)
            .with_context(|| format!("using the key {}", path.display()))?;
        Ok(Some(key))
    }
}

impl DiskOf {
    fn run(&self) -> Result<()> {
        let size = self.size.checked_mul(1 << 20).context("the disk is too large")?;
        let room = disk::root(size)?;
        let reading = || format!("reading {}", self.root.display());
        let mut root = File::open(&self.root).with_context(reading)?;
        let length = root.metadata().with_context(reading)?.len();
        if length > room.size {
            bail!("the root file system has {length} bytes, and the disk room for {}", room.size);
        }
        let time = source_date()?;
        let mut image = Image::create(&self.output)?;
        image.set_size(size)?;
        disk::write(&mut image, &Disk { size, serial: time, time: time.into(), ..Disk::default() })?;
        let mut at = room.offset;
        let mut buffer = vec![0; 1 << 20];
        loop {
            let taken = fill(&mut root, &mut buffer).with_context(reading)?;
            if taken == 0 {
                break;
            }
            // What is left of the last block is zero.
            let whole = taken.next_multiple_of(4096);
            buffer[taken..whole].fill(0);
            image.write_at(at, &buffer[..whole])?;
            at += whole as u64;
        }
        image.commit()?;
        Ok(())
    }
}

/// Reads as much as there is room for.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut taken = 0;
    while taken < buffer.len() {
        match from.read(&mut buffer[taken..])? {
            0 => break,
            more => taken += more,
        }
    }
    Ok(taken)
}

impl Keygen {
    fn run(&self) -> Result<()> {
        let created = match self.seed {
            Some(_) => source_date()?,
            None => seconds(SystemTime::now()),
        };
        let key = SigningKey::generate(&NewKey {
            user: self.user.clone(),
            algorithm: match self.algorithm {
                KeyKind::Rsa4096 => Algorithm::Rsa(4096),
                KeyKind::Rsa3072 => Algorithm::Rsa(3072),
                KeyKind::Ed25519 => Algorithm::Ed25519,
            },
            created,
            lifetime: None,
            seed: self.seed.clone(),
        })?;
        write(&self.secret, key.secret()?.as_bytes(), 0o600)?;
        write(&self.public, key.certificate()?.as_bytes(), 0o644)?;
        println!("{}", key.fingerprint());
        Ok(())
    }
}

impl From<MethodName> for Method {
    fn from(name: MethodName) -> Self {
        match name {
            MethodName::Zstd => Self::Zstd,
            MethodName::Xz => Self::Xz,
            MethodName::Gzip => Self::Gzip,
        }
    }
}

/// The moment that the source stands for: `SOURCE_DATE_EPOCH`, or now.
fn source_date() -> Result<u32> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => {
            text.parse().with_context(|| format!("SOURCE_DATE_EPOCH is not a number of seconds: {text}"))
        }
        Err(_) => Ok(seconds(SystemTime::now())),
    }
}

fn cores() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

fn text(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or_else(|| Path::new("."));
    let file = tempfile::NamedTempFile::new_in(folder)
        .with_context(|| format!("making a file in {}", folder.display()))?;
    fs::write(file.path(), bytes).with_context(|| format!("writing {}", path.display()))?;
    keep(file, path, mode)
}

/// Gives a finished file its name.
fn keep(file: tempfile::NamedTempFile, path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let named = || format!("writing {}", path.display());
    file.as_file().set_permissions(fs::Permissions::from_mode(mode)).with_context(named)?;
    file.as_file().sync_all().with_context(named)?;
    file.persist(path).with_context(named)?;
    Ok(())
}
