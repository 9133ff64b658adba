//! `inspect` and `diff`: what is in an image, a layer or a package, and where two of them differ.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::json;

use super::compose::workplace;
use crate::build::compare::{Difference, differences, word};
use crate::build::disk::{Region, read_partitions};
use crate::build::ext4::{Reader, is_ext4};
use crate::build::layer::input::Spool;
use crate::build::layer::squashfs::is_squashfs;
use crate::build::layer::{Form, Layer, Whiteouts, disk, put, sha256, template};
use crate::build::tree::{Kind, Tree, shown};

/// Show what is in an image, a layer or a package
#[derive(Debug, Args)]
pub struct Inspect {
    /// File or folder
    file: PathBuf,
    /// What it is, instead of what its first bytes say
    #[arg(long, value_name = "KIND", value_parser = kind)]
    kind: Option<Form>,
    /// List every file
    #[arg(long)]
    tree: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Name the first differences between two images, layers or packages
///
/// Compared is what is in them, path by path: kind, permissions, owner, time, extended attributes, links and content.
/// Exits with 1 when there are differences.
#[derive(Debug, Args)]
pub struct Diff {
    /// First file or folder
    a: PathBuf,
    /// Second file or folder
    b: PathBuf,
    /// Show this many differences
    #[arg(long, value_name = "COUNT", default_value = "20")]
    limit: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What was opened.
struct Opened {
    form: Form,
    tree: Tree,
    /// The disk image, if it is one or has one inside.
    image: Option<File>,
}

impl Inspect {
    /// Prints to `out`.
    pub fn run(&self, out: &mut dyn Write) -> Result<()> {
        let opened = open(&self.file, self.kind)?;
        let mut facts = json!({"file": self.file.display().to_string(), "kind": opened.form.word()});
        if !std::fs::metadata(&self.file)?.is_dir() {
            facts["sha256"] = sha256(&self.file)?.into();
            facts["size"] = std::fs::metadata(&self.file)?.len().into();
        }
        if opened.form == Form::Template
            && let Some(bytes) = template::manifest(File::open(&self.file)?, &std::env::temp_dir())?
        {
            facts["manifest"] = serde_json::from_slice(&bytes).context("reading its manifest")?;
        }
        if let Some(image) = &opened.image {
            facts["image"] = about_image(image)?;
        }
        facts["tree"] = about_tree(&opened.tree);
        if self.json {
            if self.tree {
                facts["entries"] = opened.tree.walk().map(|step| entry(&opened.tree, &step)).collect();
            }
            return Ok(writeln!(out, "{facts:#}")?);
        }
        print(out, &facts, 0)?;
        if self.tree {
            for step in opened.tree.walk() {
                writeln!(out, "{}", line(&opened.tree, &step))?;
            }
        }
        Ok(())
    }
}

impl Diff {
    /// Prints to `out`; says whether the two are equal.
    pub fn run(&self, out: &mut dyn Write) -> Result<bool> {
        let (a, b) = (open(&self.a, None)?, open(&self.b, None)?);
        let outside = outside(&a, &b)?;
        let found = differences(&a.tree, &b.tree, self.limit)?;
        if self.json {
            let outside: Vec<_> =
                outside.iter().map(|(key, a, b)| json!({"attribute": key, "a": a, "b": b})).collect();
            writeln!(out, "{:#}", json!({"image": outside, "tree": found}))?;
        } else {
            say(&outside, &found, self.limit, out)?;
        }
        Ok(outside.is_empty() && found.is_empty())
    }
}

/// Prints the first differences between what is in two files.
pub(super) fn compare_files(a: &Path, b: &Path, limit: usize, out: &mut dyn Write) -> Result<()> {
    let (a, b) = (open(a, None)?, open(b, None)?);
    say(&outside(&a, &b)?, &differences(&a.tree, &b.tree, limit)?, limit, out)
}

/// What differs about two images beside their files.
fn outside(a: &Opened, b: &Opened) -> Result<Vec<(&'static str, String, String)>> {
    let mut found = Vec::new();
    if let (Some(a), Some(b)) = (&a.image, &b.image) {
        let (a, b) = (about_image(a)?, about_image(b)?);
        for key in ["size", "partitions", "ext4"] {
            if a[key] != b[key] {
                found.push((key, a[key].to_string(), b[key].to_string()));
            }
        }
    }
    Ok(found)
}

fn say(
    outside: &[(&str, String, String)],
    found: &[Difference],
    limit: usize,
    out: &mut dyn Write,
) -> Result<()> {
    for (key, a, b) in outside {
        writeln!(out, "image {key}: {a} | {b}")?;
    }
    for difference in found {
        writeln!(out, "/{} {}: {} | {}", difference.path, difference.attribute, difference.a, difference.b)?;
    }
    if found.len() == limit {
        writeln!(out, "(there may be more; see --limit)")?;
    }
    Ok(())
}

fn open(path: &Path, kind: Option<Form>) -> Result<Opened> {
    let form = kind.map_or_else(|| guess(path), Ok)?;
    let place = workplace(Some(&std::env::temp_dir()), path, u64::MAX >> 1);
    let mut spool = Spool::new(&place.folder, place.spool_limit)?;
    let mut tree = Tree::new();
    // what a layer deletes is shown by the names that say so
    let layer = Layer {
        whiteouts: if form == Form::Oci { Whiteouts::Oci } else { Whiteouts::None },
        ..Layer::new(form, path.to_owned())
    };
    let image = match form {
        Form::Image => Some(File::open(path)?),
        Form::Template => {
            let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
            Some(template::root_image(file, None, &place.folder, place.spool_limit)?)
        }
        _ => None,
    };
    if let (Form::Template, Some(image)) = (form, &image) {
        let mut entries = Vec::new();
        disk::read(std::sync::Arc::new(image.try_clone()?), &mut tree.sources, &mut |entry| {
            entries.push(entry);
            Ok(())
        })?;
        crate::build::layer::apply(&mut tree, entries, Whiteouts::None, 0)?;
    } else {
        put(&layer, &mut tree, &mut spool, 0)?;
    }
    Ok(Opened { form, tree, image })
}

/// What a file is, by its first bytes; a tar archive is what has no other mark.
fn guess(path: &Path) -> Result<Form> {
    let context = || format!("opening {}", path.display());
    if std::fs::metadata(path).with_context(context)?.is_dir() {
        return Ok(if path.join("oci-layout").is_file() { Form::Oci } else { Form::Dir });
    }
    let mut file = File::open(path).with_context(context)?;
    let size = file.metadata().with_context(context)?.len();
    if is_squashfs(&file)? {
        return Ok(Form::Live);
    }
    let whole = Region { offset: 0, size };
    if is_ext4(&file, whole)? || read_partitions(&mut file, size)?.is_some() {
        return Ok(Form::Image);
    }
    let mut mark = [0; 4];
    std::io::Seek::rewind(&mut file)?;
    let count = file.read(&mut mark).with_context(context)?;
    ensure!(count > 0, "{} is empty", path.display());
    Ok(if mark == [0xed, 0xab, 0xee, 0xdb] { Form::Template } else { Form::Tar })
}

fn about_image(image: &File) -> Result<serde_json::Value> {
    let size = image.metadata()?.len();
    let mut facts = json!({"size": size});
    if let Some(partitions) = read_partitions(&mut &*image, size)? {
        facts["partitions"] = partitions
            .iter()
            .map(|p| {
                json!({"number": p.number, "start": p.region.offset, "size": p.region.size, "type": p.kind, "id": p.id,
                    "name": p.name.escape_debug().to_string()})
            })
            .collect();
    }
    let uuid = Reader::open(image, disk::root(image)?)?.uuid();
    facts["ext4"] = uuid.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into();
    Ok(facts)
}

fn about_tree(tree: &Tree) -> serde_json::Value {
    let mut kinds: std::collections::BTreeMap<&str, u64> = std::collections::BTreeMap::new();
    let (mut set_id, mut capable, mut attributes, mut linked) = (0_u64, 0_u64, 0_u64, 0_u64);
    for step in tree.walk() {
        let node = tree.node(step.id);
        *kinds.entry(word(&node.kind)).or_default() += 1;
        let file = matches!(node.kind, Kind::File(_));
        set_id += u64::from(file && node.meta.mode & 0o6000 != 0);
        capable += u64::from(node.meta.xattrs().any(|(name, _)| name == b"security.capability"));
        attributes += u64::from(node.meta.xattrs.is_some());
        linked += u64::from(node.names() > 1);
    }
    let (names, bytes) = tree.totals();
    json!({"names": names, "bytes": bytes, "kinds": kinds, "set-id": set_id, "with capabilities": capable,
        "with extended attributes": attributes, "hard links": linked})
}

fn print(out: &mut dyn Write, value: &serde_json::Value, depth: usize) -> Result<()> {
    let indent = "  ".repeat(depth);
    for (key, value) in value.as_object().into_iter().flatten() {
        match value {
            serde_json::Value::Object(_) => {
                writeln!(out, "{indent}{key}:")?;
                print(out, value, depth + 1)?;
            }
            serde_json::Value::Array(list) => {
                writeln!(out, "{indent}{key}:")?;
                for one in list {
                    if let serde_json::Value::String(text) = one {
                        writeln!(out, "{indent}  {text}")?;
                        continue;
                    }
                    let words: Vec<String> = one
                        .as_object()
                        .into_iter()
                        .flatten()
                        .map(|(key, value)| format!("{key}={value}"))
                        .collect();
                    writeln!(out, "{indent}  {}", words.join(" "))?;
                }
            }
            serde_json::Value::String(text) => writeln!(out, "{indent}{key}: {text}")?,
            other => writeln!(out, "{indent}{key}: {other}")?,
        }
    }
    Ok(())
}

fn entry(tree: &Tree, step: &crate::build::tree::Step) -> serde_json::Value {
    let node = tree.node(step.id);
    let mut facts = json!({"path": shown(&step.path), "kind": word(&node.kind), "mode": format!("{:04o}", node.meta.mode),
        "uid": node.meta.uid, "gid": node.meta.gid, "mtime": node.meta.mtime});
    match &node.kind {
        Kind::File(content) => facts["size"] = content.size().into(),
        Kind::Symlink(target) => facts["target"] = shown(target).into(),
        Kind::Char(device) | Kind::Block(device) => {
            facts["device"] = format!("{}:{}", device.major, device.minor).into();
        }
        _ => {}
    }
    let xattrs: Vec<String> = node.meta.xattrs().map(|(name, _)| shown(name)).collect();
    if !xattrs.is_empty() {
        facts["xattrs"] = xattrs.into();
    }
    facts
}

fn line(tree: &Tree, step: &crate::build::tree::Step) -> String {
    let node = tree.node(step.id);
    let letter = match node.kind {
        Kind::Directory(_) => 'd',
        Kind::File(_) => '-',
        Kind::Symlink(_) => 'l',
        Kind::Char(_) => 'c',
        Kind::Block(_) => 'b',
        Kind::Fifo => 'p',
        Kind::Socket => 's',
    };
    let what = match &node.kind {
        Kind::File(content) => content.size().to_string(),
        Kind::Char(device) | Kind::Block(device) => format!("{}:{}", device.major, device.minor),
        _ => "-".to_owned(),
    };
    let target = match &node.kind {
        Kind::Symlink(target) => format!(" -> {}", shown(target)),
        _ => String::new(),
    };
    let meta = &node.meta;
    format!(
        "{letter}{:04o} {}:{} {what} {} /{}{target}",
        meta.mode,
        meta.uid,
        meta.gid,
        meta.mtime,
        shown(&step.path)
    )
}

fn kind(text: &str) -> Result<Form, String> {
    text.parse().map_err(|error: anyhow::Error| format!("{error:#}"))
}
