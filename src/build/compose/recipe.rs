//! The part of a recipe that says what an image is made of; [`EXAMPLE`](crate::build::recipe::EXAMPLE) has every key.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::{Action, Edit, Format};
use crate::build::disk::EfiFile;
use crate::build::layer::{Form, Layer, Whiteouts, oci};

/// The size of a template's disk where nobody says otherwise.
pub const USUAL_SIZE: u64 = 10 << 30;

const MAX_EFI_FILE: u64 = 200 << 20;
const MAX_EDIT: u64 = 16 << 20;

/// `[image]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageRecipe {
    /// Size, with `M` or `G`.
    pub size: Option<String>,
    /// Form.
    pub format: Option<Format>,
    /// Percent of the blocks that only root may use.
    pub reserved: Option<u8>,
    /// Number of inodes.
    pub inodes: Option<u64>,
}

/// `[[layers]]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerRecipe {
    /// Form.
    pub kind: Form,
    /// Where it is.
    pub path: PathBuf,
    /// How it deletes.
    pub whiteouts: Whiteouts,
    /// SHA-256 it must have.
    pub sha256: Option<String>,
    /// Owner of what is in a directory.
    pub owner: Option<String>,
    /// Platform of an OCI image.
    pub platform: Option<String>,
    /// Reference of an OCI image.
    pub reference: Option<String>,
    /// Certificates of which one must have signed a package.
    pub keys: Option<PathBuf>,
}

/// `[[edits]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EditRecipe {
    /// Path of a file to write.
    pub write: Option<String>,
    /// Its content.
    pub content: Option<String>,
    /// File with its content.
    pub source: Option<PathBuf>,
    /// Path to remove.
    pub remove: Option<String>,
    /// Path of a symbolic link to make.
    pub symlink: Option<String>,
    /// Its target.
    pub target: Option<String>,
    /// Path of a directory to make.
    pub directory: Option<String>,
    /// Path whose permissions or owner change.
    pub set: Option<String>,
    /// Permissions, in octal digits.
    pub mode: Option<String>,
    /// `UID:GID`.
    pub owner: Option<String>,
}

/// `[[efi]]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EfiRecipe {
    /// Path in the EFI partition.
    pub path: String,
    /// The file.
    pub source: PathBuf,
}

impl LayerRecipe {
    /// The layer; paths are relative to `folder`.
    pub fn layer(&self, folder: &Path) -> Result<Layer> {
        let context = || format!("reading the layer `{}` of the recipe", self.path.display());
        let only = |given: bool, form: Form, key: &str| {
            ensure!(
                !given || self.kind == form,
                "`{key}` means something for a layer of kind `{}` only",
                form.word()
            );
            Ok(())
        };
        only(self.owner.is_some(), Form::Dir, "owner").with_context(context)?;
        only(self.platform.is_some(), Form::Oci, "platform").with_context(context)?;
        only(self.reference.is_some(), Form::Oci, "reference").with_context(context)?;
        ensure!(
            self.keys.is_none() || matches!(self.kind, Form::Template | Form::Rpm),
            "{}: `keys` means something for a layer of kind `template` or `rpm` only",
            context()
        );
        Ok(Layer {
            whiteouts: self.whiteouts,
            owner: self
                .owner
                .as_deref()
                .map(str::parse)
                .transpose()
                .with_context(context)?
                .unwrap_or_default(),
            choice: oci::Choice { platform: self.platform.clone(), reference: self.reference.clone() },
            keys: self.keys.as_ref().map(|keys| folder.join(keys)),
            sha256: self.sha256.clone(),
            ..Layer::new(self.kind, folder.join(&self.path))
        })
    }
}

impl EditRecipe {
    /// The edit; paths of this machine are relative to `folder`.
    pub fn edit(&self, folder: &Path) -> Result<Edit> {
        let actions = [&self.write, &self.remove, &self.symlink, &self.directory, &self.set];
        let mut given = actions.into_iter().flatten();
        let (Some(path), None) = (given.next(), given.next()) else {
            bail!("an edit has exactly one of `write`, `remove`, `symlink`, `directory` and `set`")
        };
        let context = || format!("reading the edit of `{path}` in the recipe");
        self.checked(path, folder).with_context(context)
    }

    fn checked(&self, path: &str, folder: &Path) -> Result<Edit> {
        let about_content = self.content.is_some() || self.source.is_some();
        ensure!(self.write.is_some() || !about_content, "`content` and `source` belong to `write`");
        ensure!(self.symlink.is_some() == self.target.is_some(), "`symlink` and `target` belong together");
        let action = if self.write.is_some() {
            Action::Write(match (&self.content, &self.source) {
                (Some(text), None) => text.clone().into_bytes(),
                (None, Some(source)) => bytes_of(&folder.join(source), MAX_EDIT)?,
                _ => bail!("`write` needs either `content` or `source`"),
            })
        } else if self.remove.is_some() {
            ensure!(
                self.mode.is_none() && self.owner.is_none(),
                "what is removed has neither mode nor owner"
            );
            Action::Remove
        } else if let Some(target) = &self.target {
            Action::Symlink(target.clone().into_bytes())
        } else if self.directory.is_some() {
            Action::Directory
        } else {
            ensure!(self.mode.is_some() || self.owner.is_some(), "`set` needs `mode` or `owner`");
            Action::Set
        };
        let mode = self.mode.as_deref().map(|mode| {
            let digits = u16::from_str_radix(mode, 8).ok().filter(|mode| *mode <= 0o7777);
            digits.with_context(|| format!("`{mode}` is no mode: it must be octal digits up to 7777"))
        });
        let owner = self.owner.as_deref().map(|owner| {
            let numbers =
                owner.split_once(':').and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)));
            numbers.with_context(|| format!("`{owner}` is no owner: it must be `UID:GID`"))
        });
        Ok(Edit {
            path: path.as_bytes().to_vec(),
            action,
            mode: mode.transpose()?,
            owner: owner.transpose()?,
        })
    }
}

impl EfiRecipe {
    /// The file, read; paths of this machine are relative to `folder`.
    pub fn file(&self, folder: &Path) -> Result<EfiFile> {
        Ok(EfiFile { path: self.path.clone(), content: bytes_of(&folder.join(&self.source), MAX_EFI_FILE)? })
    }
}

/// A size as people write it: bytes, or a number with `K`, `M`, `G` or `T`.
pub fn parse_size(text: &str) -> Result<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        "T" | "TiB" => 40,
        unit => bail!("`{unit}` is no unit of size; there are K, M, G and T"),
    };
    let number: u64 = digits.parse().with_context(|| format!("`{text}` is no size"))?;
    number.checked_mul(1 << shift).with_context(|| format!("`{text}` is too large"))
}

fn bytes_of(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let size = std::fs::metadata(path).with_context(|| format!("reading {}", path.display()))?.len();
    ensure!(size <= limit, "{} has {size} bytes, more than the {limit} allowed here", path.display());
    std::fs::read(path).with_context(|| format!("reading {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("10G").unwrap(), 10 << 30);
        assert_eq!(parse_size("512MiB").unwrap(), 512 << 20);
        assert_eq!(parse_size("4096").unwrap(), 4096);
        for bad in ["", "G", "10X", "-1", "99999999999T", "1.5G"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_edit_says_one_thing() {
        let parse = |text: &str| toml::from_str::<EditRecipe>(text).unwrap().edit(Path::new("."));
        assert_eq!(parse("set = '/a'\nmode = '4755'").unwrap().mode, Some(0o4755));
        for bad in [
            "",
            "write = '/a'",
            "write = '/a'\nremove = '/b'",
            "set = '/a'",
            "set = '/a'\nmode = '9'",
            "remove = '/a'\nmode = '0644'",
            "symlink = '/a'",
            "directory = '/a'\ncontent = 'x'",
            "set = '/a'\nowner = 'root'",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
