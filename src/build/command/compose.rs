//! `compose`: layers in, an image out.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use sha2::{Digest as _, Sha256};

use crate::build::compose::{
    Action, Composition, Edit, Event, Format, Made, Manifest, Summary, USUAL_SIZE, Workplace, parse_size,
};
use crate::build::disk::EfiFile;
use crate::build::layer::rpm::Missing;
use crate::build::layer::{Form, Layer, sha256};
use crate::build::recipe::Recipe;

/// Make a template's image from layers
///
/// The image depends on the layers and the recipe alone: the same input gives the same bytes on every machine. Times
/// in it are not later than the recipe's source_date, or SOURCE_DATE_EPOCH.
#[derive(Debug, Args)]
pub struct Compose {
    /// Recipe that names the layers (TOML)
    #[arg(required_unless_present = "layers")]
    recipe: Option<PathBuf>,
    /// Layer, the lowest first: KIND[,OPTION=VALUE...]:PATH
    ///
    /// KIND is tar, dir, oci, squashfs, live, image, template, rpm or deb (a package, or a folder of packages). Options: whiteouts=oci|overlayfs|ostree|none (usually oci for an OCI image, none
    /// for all others), owner=UID:GID for a directory, platform=OS/ARCHITECTURE and reference=NAME for an OCI image,
    /// keys=FILE with the certificates a package must be signed with, sha256=DIGEST.
    #[arg(long = "layer", value_name = "LAYER", value_parser = parse_layer, conflicts_with = "recipe")]
    layers: Vec<Layer>,
    /// Image to write
    #[arg(short, long, value_name = "FILE", required_unless_present = "missing")]
    output: Option<PathBuf>,
    /// Size of the image, over the recipe's (usual: 10G)
    #[arg(long, value_name = "SIZE", value_parser = |text: &str| parse_size(text).map_err(|error| format!("{error:#}")))]
    size: Option<u64>,
    /// Form of the image, over the recipe's
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Only the file system, without a partition table (as --format raw-fs)
    #[arg(long, conflicts_with = "format")]
    no_partitions: bool,
    /// Name that the image's identity is made from, over the recipe's
    #[arg(long)]
    name: Option<String>,
    /// Folder for the contents of compressed layers (usual: where the image goes)
    #[arg(long, value_name = "FOLDER")]
    spool: Option<PathBuf>,
    /// The most that compressed layers may unpack to
    #[arg(long, value_name = "SIZE", default_value = "64G", value_parser = |text: &str| parse_size(text).map_err(|error| format!("{error:#}")))]
    spool_limit: u64,
    /// Do not print the SHA-256 of the image, which all of it has to be hashed for
    #[arg(long, conflicts_with = "manifest")]
    no_digest: bool,
    /// Print what was made as JSON
    #[arg(long)]
    json: bool,
    /// Make no image; print what the packages of the layers need and nothing has, a line each
    #[arg(long)]
    missing: bool,
    /// File for a manifest: what the image is made of
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
}

impl Compose {
    /// Makes the image; results go to `out`, talk to `talk`. `now` is the time where nobody gave one.
    pub fn run(&self, now: i64, out: &mut dyn Write, talk: &mut dyn Write) -> Result<()> {
        let composition = self.composition(now)?;
        let output = self.output.as_deref().unwrap_or_else(|| Path::new("root.img"));
        let workplace = workplace(self.spool.as_deref(), output, self.spool_limit);
        if self.missing {
            return missing(&composition, &workplace, out, talk);
        }
        let composition = if self.manifest.is_some() { composition.identified() } else { composition };
        let summary = composition.write(output, &workplace, &mut watcher(talk))?;
        let digest = (!self.no_digest).then(|| digest(output, &summary)).transpose()?;
        if let (Some(path), Some(digest)) = (&self.manifest, &digest) {
            let mut manifest = Manifest::new(&composition, &summary, digest.clone());
            if let Some(recipe) = &self.recipe {
                manifest = manifest.of_recipe(&text_of(recipe)?);
            }
            std::fs::write(path, manifest.text()?).with_context(|| format!("writing {}", path.display()))?;
        }
        self.report(&summary, digest.as_deref(), out)
    }

    fn composition(&self, now: i64) -> Result<Composition> {
        let mut composition = match &self.recipe {
            Some(path) => from_recipe(path, now)?,
            None => quick(self.layers.clone(), now),
        };
        if let Some(name) = &self.name {
            composition.name.clone_from(name);
        }
        composition.size = self.size.unwrap_or(composition.size);
        composition.format = self.format.unwrap_or(composition.format);
        if self.no_partitions {
            composition.format = Format::RawFs;
        }
        Ok(composition)
    }

    fn report(&self, summary: &Summary, digest: Option<&str>, out: &mut dyn Write) -> Result<()> {
        if self.json {
            let mut value = serde_json::to_value(summary)?;
            if let Some(digest) = digest {
                value["sha256"] = digest.into();
            }
            return Ok(writeln!(out, "{value:#}")?);
        }
        for layer in &summary.layers {
            let digest = layer.digest.as_deref().unwrap_or("-");
            writeln!(out, "layer   {} {} {}", layer.kind, layer.name.escape_debug(), digest)?;
        }
        writeln!(out, "tree    {} names, {} bytes in files", summary.names, summary.content)?;
        let output = &summary.output;
        writeln!(out, "image   {} bytes, {} of them not in holes", output.size, output.data)?;
        if let Some([blocks, free, inodes, used]) = output.file_system {
            writeln!(
                out,
                "ext4    {} of {blocks} blocks and {used} of {inodes} inodes in use",
                blocks - free
            )?;
        }
        if let Some(uuid) = &output.uuid {
            writeln!(out, "uuid    {uuid}")?;
        }
        if let Some(digest) = digest {
            writeln!(out, "sha256  {digest}")?;
        }
        Ok(())
    }
}

/// Prints what packages need and nothing has; an error when there is something.
fn missing(
    composition: &Composition,
    workplace: &Workplace,
    out: &mut dyn Write,
    talk: &mut dyn Write,
) -> Result<()> {
    let Err(error) = composition.tree(workplace, &mut watcher(talk)) else { return Ok(()) };
    let Some(Missing(lines)) = error.downcast_ref() else { return Err(error) };
    for line in lines {
        writeln!(out, "{line}")?;
    }
    bail!("{} dependencies are not fulfilled", lines.len())
}

/// SHA-256 of an image that was made.
pub fn digest(image: &Path, summary: &Summary) -> Result<String> {
    match &summary.output.map {
        Some(map) => map.sha256(&File::open(image).with_context(|| format!("opening {}", image.display()))?),
        None => sha256(image),
    }
}

/// The text of a recipe.
pub fn text_of(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

/// What the recipe in a file says about an image.
pub fn from_recipe(path: &Path, now: i64) -> Result<Composition> {
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    from_text(&text_of(path)?, folder, now).with_context(|| format!("in {}", path.display()))
}

/// What a recipe says about an image; its paths are relative to `folder`.
pub fn from_text(text: &str, folder: &Path, now: i64) -> Result<Composition> {
    let recipe = Recipe::parse(text)?;
    ensure!(!recipe.layers.is_empty(), "the recipe names no layers");
    let image = &recipe.image;
    let defaults = quick(Vec::new(), now);
    let edits: Vec<Edit> = recipe.edits.iter().map(|edit| edit.edit(folder)).collect::<Result<_>>()?;
    let efi_files: Vec<EfiFile> = recipe.efi.iter().map(|file| file.file(folder)).collect::<Result<_>>()?;
    let made = |path: &Path, bytes: &[u8]| Made {
        file: path.display().to_string(),
        sha256: format!("{:x}", Sha256::digest(bytes)),
    };
    let mut files = Vec::new();
    for (written, edit) in recipe.edits.iter().zip(&edits) {
        if let (Some(path), Action::Write(bytes)) = (&written.source, &edit.action) {
            files.push(made(path, bytes));
        }
    }
    files.extend(recipe.efi.iter().zip(&efi_files).map(|(file, read)| made(&file.source, &read.content)));
    Ok(Composition {
        name: recipe.name.clone(),
        layers: recipe.layers.iter().map(|layer| layer.layer(folder)).collect::<Result<_>>()?,
        edits,
        efi_files,
        files,
        size: image.size.as_deref().map_or(Ok(defaults.size), parse_size)?,
        format: image.format.unwrap_or_default(),
        reserved_percent: image.reserved.unwrap_or(defaults.reserved_percent),
        inodes: image.inodes,
        time: recipe.source_date.unwrap_or(now),
    })
}

/// A composition of layers alone.
#[must_use]
pub fn quick(layers: Vec<Layer>, time: i64) -> Composition {
    Composition {
        name: "template".to_owned(),
        layers,
        edits: Vec::new(),
        efi_files: Vec::new(),
        files: Vec::new(),
        size: USUAL_SIZE,
        format: Format::Raw,
        reserved_percent: 5,
        inodes: None,
        time,
    }
}

/// Where the spool goes: the folder that was given, or the one of the output.
#[must_use]
pub fn workplace(folder: Option<&Path>, output: &Path, spool_limit: u64) -> Workplace {
    let beside = || {
        output.parent().filter(|folder| *folder != Path::new("")).unwrap_or_else(|| Path::new(".")).to_owned()
    };
    Workplace { folder: folder.map_or_else(beside, Path::to_owned), spool_limit }
}

/// Tells a person what goes on.
pub fn watcher(talk: &mut dyn Write) -> impl FnMut(Event<'_>) {
    let live = std::io::stderr().is_terminal();
    let mut shown = 0;
    move |event| {
        // talk is for people: when it cannot be written, there is nobody to tell
        let _ = match event {
            Event::Layer(layer) => writeln!(talk, "reading {}", layer.path.display()),
            Event::Applied(applied) => {
                applied.warnings.iter().try_for_each(|warning| writeln!(talk, "WARNING: {warning}"))
            }
            Event::Written(done, all) => {
                let percent = (done * 100).checked_div(all).unwrap_or(100);
                if live && percent > shown {
                    shown = percent;
                    let end = if percent >= 100 { "\n" } else { "" };
                    write!(talk, "\rwriting {percent} %{end}").and_then(|()| talk.flush())
                } else {
                    Ok(())
                }
            }
        };
    }
}

/// Reads `KIND[,OPTION=VALUE...]:PATH`.
pub fn parse_layer(text: &str) -> Result<Layer, String> {
    layer(text).map_err(|error| format!("{error:#}"))
}

fn layer(text: &str) -> Result<Layer> {
    let words: Vec<&str> = Form::ALL.iter().map(|(word, _)| *word).collect();
    let kind_end = text.find([',', ':']).context("a layer is KIND[,OPTION=VALUE...]:PATH")?;
    let form: Form = text[..kind_end].parse().with_context(|| format!("one of {}", words.join(", ")))?;
    let mut layer = Layer::new(form, PathBuf::new());
    let mut rest = &text[kind_end..];
    while let Some(option) = rest.strip_prefix(',') {
        let (key, value) = option.split_once('=').context("an option is NAME=VALUE")?;
        // values have a colon only where the next comma or a further colon shows that the path is still to come
        let end = match key {
            "owner" => value.match_indices([',', ':']).map(|(at, _)| at).nth(1),
            "sha256" | "whiteouts" | "platform" | "reference" | "keys" => value.find([',', ':']),
            _ => bail!(
                "`{key}` is no option; there are whiteouts, owner, platform, reference, keys and sha256"
            ),
        };
        let end = end.context("a layer is KIND[,OPTION=VALUE...]:PATH")?;
        let given = &value[..end];
        match key {
            "whiteouts" => layer.whiteouts = given.parse()?,
            "owner" => layer.owner = given.parse()?,
            "keys" => layer.keys = Some(PathBuf::from(given)),
            "platform" => layer.choice.platform = Some(given.to_owned()),
            "reference" => layer.choice.reference = Some(given.to_owned()),
            _ => layer.sha256 = Some(given.to_owned()),
        }
        rest = &value[end..];
    }
    let path = rest.strip_prefix(':').filter(|path| !path.is_empty()).context("a layer needs a path")?;
    layer.path = PathBuf::from(path);
    Ok(layer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::layer::Whiteouts;
    use crate::build::layer::directory::Owner;

    #[test]
    fn layers_are_named_in_one_word() {
        let layer = parse_layer("dir,whiteouts=overlayfs,owner=0:5:a:b,c").unwrap();
        assert_eq!((layer.form, layer.whiteouts), (Form::Dir, Whiteouts::Overlayfs));
        assert_eq!(layer.owner, Owner::Fixed { uid: 0, gid: 5 });
        assert_eq!(layer.path, Path::new("a:b,c"));
        assert_eq!(parse_layer("oci:x").unwrap().whiteouts, Whiteouts::Oci);
        assert_eq!(
            parse_layer("tar,platform=linux/arm64/v8:x").unwrap().choice.platform.unwrap(),
            "linux/arm64/v8"
        );
        for bad in [
            "",
            "tar",
            "tar:",
            "zip:x",
            "tar,x=1:y",
            "tar,whiteouts=maybe:y",
            "dir,owner=0:y",
            "tar,whiteouts=oci",
        ] {
            assert!(parse_layer(bad).is_err(), "{bad}");
        }
    }
}
