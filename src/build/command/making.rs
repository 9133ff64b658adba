//! One build: from the text of a recipe to a repository with the package, its manifest and SPDX.

use std::fs::File;
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use sha2::{Digest as _, Sha256};

use super::compose::{digest, from_text, text_of, watcher, workplace};
use crate::build::compose::{Format, Made, Manifest, Summary, spdx};
use crate::build::compress::{Compression, Method};
use crate::build::keys::SigningKey;
use crate::build::package::{Making, PART, pack};
use crate::build::recipe::Recipe;
use crate::build::repodata;

/// The most that compressed layers may unpack to.
pub(super) const SPOOL_LIMIT: u64 = 64 << 30;

/// What a build needs to know.
#[derive(Debug, Clone)]
pub(super) struct Job {
    /// The recipe.
    pub(super) recipe: String,
    /// What paths in the recipe are relative to.
    pub(super) folder: PathBuf,
    /// The source date, where the recipe names none.
    pub(super) now: i64,
    /// How many may compress.
    pub(super) threads: NonZeroUsize,
    /// Secret key and passphrase file, before the recipe's.
    pub(super) key: Option<(PathBuf, Option<PathBuf>)>,
    /// Whether the listings of directories are turned around.
    pub(super) backwards: bool,
}

impl Job {
    /// Makes the image alone.
    pub(super) fn image(&self, image: &Path, talk: &mut dyn Write) -> Result<(Manifest, Summary)> {
        let mut composition = from_text(&self.recipe, &self.folder, self.now)?.identified();
        composition.layers.iter_mut().for_each(|layer| layer.backwards = self.backwards);
        ensure!(
            matches!(composition.format, Format::Raw | Format::RawFs),
            "a template's package holds a disk image: the recipe's format must be raw or raw-fs"
        );
        let place = workplace(None, image, SPOOL_LIMIT);
        let summary = composition.write(image, &place, &mut watcher(talk))?;
        let manifest = Manifest::new(&composition, &summary, digest(image, &summary)?);
        Ok((manifest.of_recipe(&self.recipe), summary))
    }

    /// Makes `output/rpm` and `output/repodata`.
    pub(super) fn repository(&self, output: &Path, talk: &mut dyn Write) -> Result<Manifest> {
        std::fs::create_dir_all(output).with_context(|| format!("making {}", output.display()))?;
        let recipe = Recipe::parse(&self.recipe)?;
        let signer = self.signer(&recipe)?;
        let place = tempfile::tempdir_in(output).context("making a temporary folder")?;
        let image = place.path().join("root.img");
        let (mut manifest, summary) = self.image(&image, talk)?;
        manifest.signer = signer.as_ref().map(SigningKey::fingerprint);
        let date = u32::try_from(manifest.source_date).context("using the source date")?;
        let mut package = recipe.package(date)?;
        package.manifest = Some((manifest.compact()? + "\n").into_bytes());
        let making = Making {
            compression: recipe.compression()?,
            threads: self.threads,
            part: PART,
            spool: place.path(),
            signer: signer.as_ref(),
            rpmv3: false,
        };
        let packages = output.join("rpm");
        std::fs::create_dir_all(&packages).with_context(|| format!("making {}", packages.display()))?;
        let name = package.file_name();
        let mut packed =
            tempfile::NamedTempFile::new_in(place.path()).context("making the package's file")?;
        let done = pack(&File::open(&image)?, &package, &making, &mut packed)?;
        let parts = spdx(&manifest, &summary.packages, summary.distribution.as_deref())?;
        let parts_name = format!("{name}.spdx.json");
        manifest.outputs.push(Made { file: name.clone(), sha256: done.sha256 });
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
        repodata::write(output, &options).context("writing the repository's metadata")?;
        Ok(manifest)
    }

    /// The key of the command line, else the recipe's.
    pub(super) fn signer(&self, recipe: &Recipe) -> Result<Option<SigningKey>> {
        let (path, passphrase) = match (&self.key, &recipe.sign.key) {
            (Some((path, passphrase)), _) => (path.clone(), passphrase.clone()),
            (None, Some(path)) => {
                let passphrase = recipe.sign.passphrase_file.as_ref();
                (self.folder.join(path), passphrase.map(|path| self.folder.join(path)))
            }
            (None, None) => return Ok(None),
        };
        let passphrase = passphrase.as_deref().map(text_of).transpose()?;
        let passphrase = passphrase.as_deref().map(|text| text.trim_end_matches('\n'));
        let key = SigningKey::read(text_of(&path)?.as_bytes(), passphrase);
        Ok(Some(key.with_context(|| format!("using the key {}", path.display()))?))
    }
}

fn keep(file: tempfile::NamedTempFile, path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let context = || format!("writing {}", path.display());
    file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644)).with_context(context)?;
    file.as_file().sync_all().with_context(context)?;
    file.persist(path).with_context(context)?;
    Ok(())
}
