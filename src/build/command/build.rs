//! `build` and `verify-build`: from a recipe to a package with its manifest, and the same again to see that it is equal.

use std::fs::File;
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use sha2::{Digest as _, Sha256};

use super::compose::{from_recipe, watcher, workplace};
use crate::build::compare::differences;
use crate::build::compose::{Composition, Format, Made, Manifest, Summary, spdx};
use crate::build::compress::{Compression, Method};
use crate::build::keys::SigningKey;
use crate::build::layer::input::Spool;
use crate::build::layer::{Form, Layer, put, sha256};
use crate::build::package::{Making, PART, pack};
use crate::build::recipe::Recipe;
use crate::build::repodata;
use crate::build::tree::Tree;

const SPOOL_LIMIT: u64 = 64 << 30;

/// Make a template package and its repository from a recipe
///
/// Composes the image, packs it into OUT/rpm and writes OUT/repodata, both signed where there is a key. Beside the
/// package stand a manifest, which says what it is made of, and the same as SPDX; the package has the manifest's short
/// form in it.
#[derive(Debug, Args)]
pub struct Build {
    /// Recipe (TOML)
    recipe: PathBuf,
    /// Folder of the repository
    #[arg(short, long, value_name = "FOLDER", default_value = ".")]
    output: PathBuf,
    /// Secret key that signs the package (armored)
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// File with the key's passphrase
    #[arg(long, value_name = "FILE", requires = "key")]
    passphrase_file: Option<PathBuf>,
    /// Make only the image, twice under different conditions, and say whether both are equal
    #[arg(long)]
    check: bool,
}

/// Make an image again and say whether it is the one of a manifest
///
/// Exits with 1 when it is not, after naming what differs: inputs first.
#[derive(Debug, Args)]
pub struct VerifyBuild {
    /// Manifest of the build
    manifest: PathBuf,
    /// Recipe of the build
    recipe: PathBuf,
    /// Folder for the image while it is compared
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    folder: PathBuf,
}

impl Build {
    /// Makes package and manifest; `now` is the time where nobody gave one, `threads` how many may compress.
    pub fn run(
        &self,
        now: i64,
        threads: NonZeroUsize,
        out: &mut dyn Write,
        talk: &mut dyn Write,
    ) -> Result<()> {
        let composition = from_recipe(&self.recipe, now)?;
        ensure!(
            matches!(composition.format, Format::Raw | Format::RawFs),
            "a template's package holds a disk image: the recipe's format must be raw or raw-fs"
        );
        std::fs::create_dir_all(&self.output).with_context(|| format!("making {}", self.output.display()))?;
        if self.check {
            return self.twice(&composition, out, talk);
        }
        let text = std::fs::read_to_string(&self.recipe)?;
        let recipe = Recipe::parse(&text)?;
        let date = u32::try_from(composition.time).context("using the source date")?;
        let mut package = recipe.package(date)?;
        let signer = self.signer(&recipe)?;
        let place = tempfile::tempdir_in(&self.output).context("making a temporary folder")?;
        let image = place.path().join("root.img");
        let (mut manifest, summary) = compose(&composition, &image, talk)?;
        package.manifest = Some((manifest.compact()? + "\n").into_bytes());
        let making = Making {
            compression: recipe.compression()?,
            threads,
            part: PART,
            spool: place.path(),
            signer: signer.as_ref(),
            rpmv3: false,
        };
        let packages = self.output.join("rpm");
        std::fs::create_dir_all(&packages).with_context(|| format!("making {}", packages.display()))?;
        let name = package.file_name();
        let mut packed =
            tempfile::NamedTempFile::new_in(place.path()).context("making the package's file")?;
        let done = pack(&File::open(&image)?, &package, &making, &mut packed)?;
        let parts = spdx(&manifest, &summary.packages, summary.distribution.as_deref())?;
        let parts_name = format!("{name}.spdx.json");
        manifest.outputs.push(Made { file: name.clone(), sha256: done.sha256.clone() });
        manifest
            .outputs
            .push(Made { file: parts_name.clone(), sha256: format!("{:x}", Sha256::digest(&parts)) });
        for (name, text) in [(parts_name, parts), (format!("{name}.manifest.json"), manifest.text()?)] {
            let mut file =
                tempfile::NamedTempFile::new_in(place.path()).with_context(|| format!("making {name}"))?;
            file.write_all(text.as_bytes()).with_context(|| format!("writing {name}"))?;
            keep(file, &packages.join(name))?;
        }
        keep(packed, &packages.join(&name))?;
        let compression = Compression::new(Method::Gzip, None)?;
        let options = repodata::Options { compression, revision: date, signer: signer.as_ref() };
        repodata::write(&self.output, &options).context("writing the repository's metadata")?;
        writeln!(out, "{}  root.img", manifest.image.sha256)?;
        writeln!(out, "{}  {}", done.sha256, packages.join(name).display())?;
        Ok(())
    }

    /// The key of the command line, else the recipe's.
    fn signer(&self, recipe: &Recipe) -> Result<Option<SigningKey>> {
        let folder = self.recipe.parent().unwrap_or_else(|| Path::new(""));
        let (path, passphrase) = match (&self.key, &recipe.sign.key) {
            (Some(path), _) => (path.clone(), self.passphrase_file.clone()),
            (None, Some(path)) => {
                (folder.join(path), recipe.sign.passphrase_file.as_ref().map(|path| folder.join(path)))
            }
            (None, None) => return Ok(None),
        };
        let read = |path: &Path| {
            std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
        };
        let passphrase = passphrase.as_deref().map(read).transpose()?;
        let passphrase = passphrase.as_deref().map(|text| text.trim_end_matches('\n'));
        let key = SigningKey::read(read(&path)?.as_bytes(), passphrase);
        Ok(Some(key.with_context(|| format!("using the key {}", path.display()))?))
    }

    /// The second time with another umask and the spool in another folder, whose name has another length.
    fn twice(&self, composition: &Composition, out: &mut dyn Write, talk: &mut dyn Write) -> Result<()> {
        let first = tempfile::tempdir_in(&self.output).context("making a temporary folder")?;
        let second = tempfile::Builder::new().prefix("another-place-").tempdir_in(&self.output)?;
        let (a, b) = (first.path().join("root.img"), second.path().join("the-second.img"));
        let (one, _) = compose(composition, &a, talk)?;
        let before = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
        let two = compose(composition, &b, talk);
        nix::sys::stat::umask(before);
        let (two, _) = two?;
        if one.image == two.image {
            writeln!(out, "equal: {}", one.image.sha256)?;
            return Ok(());
        }
        let (a, b) = (tree(&a, first.path())?, tree(&b, second.path())?);
        for difference in differences(&a, &b, 20)? {
            writeln!(
                out,
                "/{} {}: {} | {}",
                difference.path, difference.attribute, difference.a, difference.b
            )?;
        }
        bail!("two builds gave {} and {}", one.image.sha256, two.image.sha256)
    }
}

impl VerifyBuild {
    /// Says to `out` whether both are equal, and returns it.
    pub fn run(&self, out: &mut dyn Write, talk: &mut dyn Write) -> Result<bool> {
        let context = || format!("reading {}", self.manifest.display());
        let manifest = Manifest::parse(&std::fs::read_to_string(&self.manifest).with_context(context)?)
            .with_context(context)?;
        let composition = from_recipe(&self.recipe, manifest.source_date)?;
        let place = tempfile::tempdir_in(&self.folder).context("making a temporary folder")?;
        let (again, _) = compose(&composition, &place.path().join("root.img"), talk)?;
        let found = manifest.differences(&again);
        for line in &found {
            writeln!(out, "{line}")?;
        }
        if found.is_empty() {
            writeln!(out, "equal: {}", again.image.sha256)?;
        }
        Ok(found.is_empty())
    }
}

fn compose(composition: &Composition, image: &Path, talk: &mut dyn Write) -> Result<(Manifest, Summary)> {
    let place = workplace(None, image, SPOOL_LIMIT);
    let summary = composition.write(image, &place, &mut watcher(talk))?;
    Ok((Manifest::new(composition, &summary, sha256(image)?), summary))
}

fn tree(image: &Path, folder: &Path) -> Result<Tree> {
    let mut tree = Tree::new();
    put(&Layer::new(Form::Image, image.to_owned()), &mut tree, &mut Spool::new(folder, SPOOL_LIMIT)?, 0)?;
    Ok(tree)
}

fn keep(file: tempfile::NamedTempFile, path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let context = || format!("writing {}", path.display());
    file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644)).with_context(context)?;
    file.as_file().sync_all().with_context(context)?;
    file.persist(path).with_context(context)?;
    Ok(())
}
