//! `build`: from a recipe to a repository with the package.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use super::compose::text_of;
use super::making::Job;
use super::twice::{self, Again};

/// Make a template package and its repository from a recipe
///
/// Composes the image, packs it into OUT/rpm and writes OUT/repodata, both signed where there is a key. Beside the
/// package stand a manifest, which says what it is made of, and the same as SPDX; the package has the manifest's short
/// form in it.
#[derive(Debug, Args)]
pub struct Build {
    /// Recipe (TOML); `example` prints one
    recipe: PathBuf,
    /// Folder of the repository
    #[arg(short, long, value_name = "FOLDER", default_value = ".")]
    output: PathBuf,
    /// Secret key that signs the package and the repository (armored), over the recipe's
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// File with the key's passphrase
    #[arg(long, value_name = "FILE", requires = "key")]
    passphrase_file: Option<PathBuf>,
    /// Number of compressing threads [default: one for each core]
    #[arg(long)]
    threads: Option<NonZeroUsize>,
    /// Build twice under different conditions, keep nothing, and say whether both are equal
    ///
    /// Time zone, locale, umask, folders, order in directories and number of threads differ. Where the builds are not
    /// equal, the first differences are named by path, and the exit status is 1.
    #[arg(long)]
    check: bool,
    /// Turn around what directories list
    #[arg(long, hide = true)]
    backwards: bool,
}

impl Build {
    /// Makes package and repository; `now` is the time where nobody gave one, `threads` how many may compress.
    pub fn run(
        &self,
        now: i64,
        threads: NonZeroUsize,
        out: &mut dyn Write,
        talk: &mut dyn Write,
    ) -> Result<()> {
        let threads = self.threads.unwrap_or(threads);
        std::fs::create_dir_all(&self.output).with_context(|| format!("making {}", self.output.display()))?;
        if self.check {
            return self.twice(now, threads, out, talk);
        }
        let job = Job {
            recipe: text_of(&self.recipe)?,
            folder: self.recipe.parent().unwrap_or_else(|| Path::new("")).to_owned(),
            now,
            threads,
            key: self.key.clone().map(|key| (key, self.passphrase_file.clone())),
            backwards: self.backwards,
        };
        let manifest =
            job.repository(&self.output, talk).with_context(|| self.recipe.display().to_string())?;
        writeln!(out, "{}  root.img", manifest.image.sha256)?;
        for made in &manifest.outputs {
            writeln!(out, "{}  {}", made.sha256, self.output.join("rpm").join(&made.file).display())?;
        }
        Ok(())
    }

    fn twice(
        &self,
        now: i64,
        threads: NonZeroUsize,
        out: &mut dyn Write,
        talk: &mut dyn Write,
    ) -> Result<()> {
        // the builds run in other folders
        let whole =
            |path: &Path| path.canonicalize().with_context(|| format!("looking for {}", path.display()));
        let key = match &self.key {
            Some(key) => Some((whole(key)?, self.passphrase_file.as_deref().map(whole).transpose()?)),
            None => None,
        };
        let again = Again { recipe: &whole(&self.recipe)?, key, source_date: now, threads: threads.get() };
        twice::run(&again, &whole(&self.output)?, out, talk)
    }
}
