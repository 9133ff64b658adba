//! `verify-build`: the same build again, to see that it is equal.

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use super::compose::text_of;
use super::inspect::compare_files;
use super::making::{Job, SPOOL_LIMIT};
use crate::build::compose::Manifest;
use crate::build::layer::{sha256, template};
use crate::build::recipe::Recipe;

const MAX_MANIFEST: u64 = 64 << 20;

/// Make a build again and say whether it is equal
///
/// Takes the manifest that lies beside a package, or the package itself. A package's image is also compared with the
/// one that its own manifest names. Made again is the image; and the package too, where it is not signed or the key is
/// given. Says `equal`, or names what differs, inputs first, and exits with 1.
#[derive(Debug, Args)]
pub struct VerifyBuild {
    /// Manifest of the build, or the package
    file: PathBuf,
    /// Recipe of the build [default: the one in the manifest; a package has none]
    recipe: Option<PathBuf>,
    /// What paths in the recipe are relative to [default: the folder of the recipe, else this one]
    #[arg(long, value_name = "FOLDER")]
    inputs: Option<PathBuf>,
    /// Folder for the build while it is compared
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    folder: PathBuf,
    /// Secret key that signed the package, over the recipe's
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// File with the key's passphrase
    #[arg(long, value_name = "FILE", requires = "key")]
    passphrase_file: Option<PathBuf>,
}

impl VerifyBuild {
    /// Says to `out` whether both are equal, and returns it.
    pub fn run(&self, threads: NonZeroUsize, out: &mut dyn Write, talk: &mut dyn Write) -> Result<bool> {
        let place = tempfile::tempdir_in(&self.folder).context("making a temporary folder")?;
        let is_package = is_package(&self.file)?;
        let manifest = self
            .manifest(is_package, place.path())
            .with_context(|| format!("reading {}", self.file.display()))?;
        if is_package {
            let found = image_digest(&self.file, place.path())?;
            if found != manifest.image.sha256 {
                writeln!(out, "image in the package: {found} | its manifest: {}", manifest.image.sha256)?;
                return Ok(false);
            }
        }
        let job = self.job(&manifest, threads)?;
        let again = place.path().join("again");
        let signer = job.signer(&Recipe::parse(&job.recipe)?)?.map(|key| key.fingerprint());
        let whole = signer == manifest.signer;
        let made = if whole {
            job.repository(&again, talk)?
        } else {
            std::fs::create_dir(&again).context("making a temporary folder")?;
            job.image(&again.join("root.img"), talk)?.0
        };
        for line in manifest.differences(&made) {
            writeln!(out, "{line}")?;
        }
        let mut equal = manifest.image == made.image
            && manifest.outputs.iter().all(|one| !whole || made.outputs.contains(one));
        if is_package && whole {
            let name = made.outputs.first().map(|one| one.file.clone()).unwrap_or_default();
            let second = again.join("rpm").join(name);
            equal &= sha256(&self.file)? == sha256(&second)?;
            if !equal {
                writeln!(out, "package: {} | {}", sha256(&self.file)?, sha256(&second)?)?;
            }
        }
        if !equal && is_package {
            let second = if whole {
                again.join("rpm").join(made.outputs.first().map_or("", |one| &one.file))
            } else {
                again.join("root.img")
            };
            compare_files(&self.file, &second, 20, out)?;
        }
        if equal {
            writeln!(out, "equal: {}", made.image.sha256)?;
            if !whole {
                writeln!(out, "not compared: the package, which is signed; --key has it made again")?;
            }
        }
        Ok(equal)
    }

    fn manifest(&self, is_package: bool, folder: &Path) -> Result<Manifest> {
        let file = File::open(&self.file).context("opening it")?;
        let text = if is_package {
            let bytes = template::manifest(file, folder)?;
            String::from_utf8(bytes.context("the package does not say what it is made of")?)?
        } else {
            let size = file.metadata()?.len();
            ensure!(size <= MAX_MANIFEST, "{size} bytes are more than a manifest has");
            text_of(&self.file)?
        };
        Manifest::parse(&text)
    }

    fn job(&self, manifest: &Manifest, threads: NonZeroUsize) -> Result<Job> {
        let (recipe, beside) = match (&self.recipe, &manifest.recipe) {
            (Some(path), _) => (text_of(path)?, path.parent().unwrap_or_else(|| Path::new("")).to_owned()),
            (None, Some(text)) => (text.clone(), PathBuf::new()),
            (None, None) => bail!("it does not have the recipe in it\nhelp: give the recipe's file too"),
        };
        Ok(Job {
            recipe,
            folder: self.inputs.clone().unwrap_or(beside),
            now: manifest.source_date,
            threads,
            key: self.key.clone().map(|key| (key, self.passphrase_file.clone())),
            backwards: false,
        })
    }
}

fn is_package(path: &Path) -> Result<bool> {
    let mut mark = [0; 4];
    let mut file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let count = file.read(&mut mark).with_context(|| format!("reading {}", path.display()))?;
    Ok(mark[..count] == [0xed, 0xab, 0xee, 0xdb])
}

fn image_digest(package: &Path, folder: &Path) -> Result<String> {
    let context = || format!("unpacking {}", package.display());
    let file = File::open(package).with_context(context)?;
    let image = template::root_image(file, None, folder, SPOOL_LIMIT).with_context(context)?;
    crate::build::layer::sha256_of(image).with_context(context)
}
