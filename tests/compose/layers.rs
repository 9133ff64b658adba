//! Layers: what stacks of them mean, against an oracle, umoci and the kernel's overlay.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use qvm_template::build::layer::input::Spool;
use qvm_template::build::layer::{self, Entry, Form, Layer, What, Whiteouts, apply};
use qvm_template::build::tree::content::{Content, Source};
use qvm_template::build::tree::{Device, Kind, Meta, Tree, shown};
use sha2::{Digest, Sha256};

use super::have;
use super::listing::{Dice, lines, mounted_lines};

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// An entry of a generated layer, as simple as it can be.
#[derive(Debug, Clone)]
enum Item {
    Dir(String, u16),
    File(String, u8),
    Symlink(String, String),
    Link(String, String),
    Gone(String),
    Opaque(String),
}

/// A path whose directories are mostly `a` and `b`, and whose last part is mostly not.
fn random_path(dice: &mut Dice, depth: u64, directory: bool) -> String {
    let mut parts = Vec::new();
    for left in (0..=dice.roll(depth)).rev() {
        let inner = left > 0 || directory;
        let name = if dice.roll(12) == 0 {
            dice.roll(5)
        } else if inner {
            dice.roll(2)
        } else {
            2 + dice.roll(3)
        };
        parts.push(NAMES[usize::try_from(name).unwrap()]);
    }
    parts.join("/")
}

/// A layer over others whose files are in `files`.
fn random_layer(dice: &mut Dice, symlinks: bool, files: &mut Vec<String>) -> Vec<Item> {
    let mut items = Vec::new();
    for _ in 0..1 + dice.roll(10) {
        let path = random_path(dice, 3, false);
        let directory = random_path(dice, 2, true);
        items.push(match dice.roll(14) {
            0..=3 => Item::Dir(directory, 0o700 + u16::try_from(dice.roll(64)).unwrap()),
            4..=6 => {
                files.push(path.clone());
                Item::File(path, u8::try_from(dice.roll(250)).unwrap())
            }
            7 if symlinks => {
                let up = ["", "/", "../", "../../../../"][usize::try_from(dice.roll(4)).unwrap()];
                let target = random_path(dice, 2, true);
                Item::Symlink(path, format!("{up}{target}"))
            }
            8..=9 if !files.is_empty() && dice.roll(20) > 0 => {
                let target = files[usize::try_from(dice.roll(files.len() as u64)).unwrap()].clone();
                Item::Link(path, target)
            }
            8 => Item::Link(path, directory),
            10 => Item::Gone(path),
            11 => Item::Gone(directory),
            12 => Item::Opaque(directory),
            _ => Item::File(path, 7),
        });
    }
    items
}

fn random_stack(dice: &mut Dice, symlinks: bool) -> Vec<Vec<Item>> {
    let mut files = Vec::new();
    (0..1 + dice.roll(4)).map(|_| random_layer(dice, symlinks, &mut files)).collect()
}

/// The entries of a layer; content byte N is N bytes of N.
fn entries(items: &[Item], tree: &mut Tree) -> Vec<Entry> {
    let entry = |path: String, mode, what| Entry { path: path.into_bytes(), meta: Meta::root(mode, 1), what };
    items
        .iter()
        .map(|item| match item {
            Item::Dir(path, mode) => entry(path.clone(), *mode, What::Directory),
            Item::File(path, byte) => {
                let bytes = vec![*byte; usize::from(*byte)];
                let source = tree.sources.add(Source::Bytes(bytes)).unwrap();
                entry(path.clone(), 0o644, What::File(Content::whole(source, 0, (*byte).into())))
            }
            Item::Symlink(path, target) => {
                entry(path.clone(), 0o777, What::Symlink(target.as_bytes().into()))
            }
            Item::Link(path, target) => entry(path.clone(), 0o644, What::Link(target.clone().into_bytes())),
            Item::Gone(path) => entry(marked(path, ".wh."), 0o644, What::File(Content::Empty)),
            Item::Opaque(path) => entry(format!("{path}/.wh..wh..opq"), 0o644, What::File(Content::Empty)),
        })
        .collect()
}

fn marked(path: &str, prefix: &str) -> String {
    let (parent, name) = path.rsplit_once('/').map_or(("", path), |(parent, name)| (parent, name));
    if parent.is_empty() { format!("{prefix}{name}") } else { format!("{parent}/{prefix}{name}") }
}

/// The specification as a map from path to what is there. `None` when the stack must be refused.
fn oracle(layers: &[Vec<Item>]) -> Option<BTreeMap<String, String>> {
    let mut state: BTreeMap<String, String> = BTreeMap::new();
    let below = |path: &str| format!("{path}/");
    let is_dir = |state: &BTreeMap<String, String>, path: &str| {
        state.get(path).is_some_and(|what| what.starts_with("dir"))
    };
    let parents = |path: &str| -> Vec<String> {
        path.match_indices('/').map(|(at, _)| path[..at].to_owned()).collect()
    };
    let mut inode = 0;
    for layer in layers {
        let mut whiteout_parents = Vec::new();
        for item in layer {
            match item {
                Item::Gone(path) => {
                    // below something that is no directory there is nothing to remove
                    if parents(path).iter().all(|parent| is_dir(&state, parent)) {
                        state.retain(|other, _| other != path && !other.starts_with(&below(path)));
                    }
                    whiteout_parents.extend(parents(path));
                }
                Item::Opaque(path) => {
                    if is_dir(&state, path) {
                        state.retain(|other, _| !other.starts_with(&below(path)));
                    }
                    whiteout_parents.extend(parents(path));
                    whiteout_parents.push(path.clone());
                }
                _ => {}
            }
        }
        for item in layer {
            let path = match item {
                Item::Dir(path, _) | Item::File(path, _) | Item::Link(path, _) | Item::Symlink(path, _) => {
                    path
                }
                Item::Gone(_) | Item::Opaque(_) => continue,
            };
            for parent in parents(path) {
                match state.get(&parent) {
                    None => drop(state.insert(parent, "dir 755".to_owned())),
                    Some(what) if what.starts_with("dir") => {}
                    Some(_) => return None,
                }
            }
            let value = match item {
                Item::Dir(_, mode) => {
                    if !is_dir(&state, path) {
                        state.remove(path);
                    }
                    state.insert(path.clone(), format!("dir {mode:o}"));
                    continue;
                }
                Item::File(_, byte) => {
                    inode += 1;
                    format!("file {byte} #{inode}")
                }
                Item::Link(_, target) => {
                    if target == path {
                        return None;
                    }
                    if !parents(target).iter().all(|parent| is_dir(&state, parent)) {
                        return None;
                    }
                    state.get(target).filter(|what| !what.starts_with("dir"))?.clone()
                }
                _ => return None,
            };
            state.retain(|other, _| !other.starts_with(&below(path)));
            state.insert(path.clone(), value);
        }
        if whiteout_parents.iter().any(|parent| state.contains_key(parent) && !is_dir(&state, parent)) {
            return None;
        }
    }
    Some(state)
}

/// A tree in the oracle's words; inodes are numbered by their first path.
fn in_oracles_words(tree: &Tree) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for step in tree.walk().skip(1) {
        let node = tree.node(step.id);
        let what = match &node.kind {
            Kind::Directory(_) => format!("dir {:o}", node.meta.mode),
            Kind::File(content) => format!("file {} #{}", content.size(), step.id.index()),
            other => format!("{other:?}"),
        };
        found.insert(shown(&step.path), what);
    }
    found
}

/// Numbers behind `#` replaced by the first path that has them.
fn by_first_path(found: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut first: BTreeMap<String, String> = BTreeMap::new();
    let mut named = BTreeMap::new();
    for (path, what) in found {
        let value = match what.split_once('#') {
            Some((what, inode)) => {
                format!("{what}= {}", first.entry(inode.to_owned()).or_insert_with(|| path.clone()))
            }
            None => what.clone(),
        };
        named.insert(path.clone(), value);
    }
    named
}

#[test]
fn stacks_of_oci_layers_mean_what_the_specification_says() {
    let (mut applied, mut refused) = (0, 0);
    for seed in 0..3000 {
        let mut dice = Dice(seed);
        let layers = random_stack(&mut dice, false);
        let mut tree = Tree::new();
        let result = layers.iter().try_for_each(|items| {
            let list = entries(items, &mut tree);
            apply(&mut tree, list, Whiteouts::Oci, 0).map(drop)
        });
        match (oracle(&layers), result) {
            (Some(expected), Ok(())) => {
                let found = by_first_path(&in_oracles_words(&tree));
                assert_eq!(found, by_first_path(&expected), "seed {seed}: {layers:#?}");
                applied += 1;
            }
            (None, Err(_)) => refused += 1,
            (expected, result) => panic!("seed {seed}: {result:?}, but {expected:?}: {layers:#?}"),
        }
    }
    assert!(applied > 400 && refused > 100, "{applied} {refused}");
}

/// Writes a layer as a tar archive with Rust's `tar`, which is not what reads it.
fn archive(items: &[Item]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for item in items {
        let mut header = tar::Header::new_gnu();
        header.set_mtime(1);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mode(0o644);
        header.set_size(0);
        let add =
            |builder: &mut tar::Builder<Vec<u8>>, mut header: tar::Header, path: &str, content: &[u8]| {
                header.set_size(content.len() as u64);
                builder.append_data(&mut header, path, content).unwrap();
            };
        match item {
            Item::Dir(path, mode) => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode((*mode).into());
                add(&mut builder, header, path, &[]);
            }
            Item::File(path, byte) => add(&mut builder, header, path, &vec![*byte; usize::from(*byte)]),
            Item::Symlink(path, target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_mode(0o777);
                builder.append_link(&mut header, path, target).unwrap();
            }
            Item::Link(path, target) => {
                header.set_entry_type(tar::EntryType::Link);
                builder.append_link(&mut header, path, target).unwrap();
            }
            Item::Gone(path) => add(&mut builder, header, &marked(path, ".wh."), &[]),
            Item::Opaque(path) => add(&mut builder, header, &format!("{path}/.wh..wh..opq"), &[]),
        }
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

/// Puts a blob into a layout and returns its descriptor.
fn blob(layout: &Path, kind: &str, bytes: &[u8]) -> serde_json::Value {
    let hex = format!("{:x}", Sha256::digest(bytes));
    std::fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    std::fs::write(layout.join("blobs/sha256").join(&hex), bytes).unwrap();
    serde_json::json!({
        "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": format!("sha256:{hex}"), "size": bytes.len(),
    })
}

/// An OCI layout with these layers; the first is plain, then gzip and zstd take turns.
fn layout(place: &Path, layers: &[Vec<u8>]) -> PathBuf {
    let root = place.join("layout");
    let _ = std::fs::remove_dir_all(&root);
    let mut descriptors = Vec::new();
    let mut diff_ids = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        diff_ids.push(format!("sha256:{:x}", Sha256::digest(layer)));
        descriptors.push(match number % 2 {
            0 => blob(&root, "layer.v1.tar", layer),
            _ => blob(&root, "layer.v1.tar+gzip", &gzip(layer)),
        });
    }
    finish_layout(&root, &descriptors, &diff_ids);
    root
}

fn finish_layout(root: &Path, descriptors: &[serde_json::Value], diff_ids: &[String]) {
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = blob(root, "config.v1+json", config.to_string().as_bytes());
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config,
        "layers": descriptors,
    });
    let mut manifest = blob(root, "manifest.v1+json", manifest.to_string().as_bytes());
    manifest["annotations"] = serde_json::json!({"org.opencontainers.image.ref.name": "tag"});
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [manifest]});
    std::fs::write(root.join("index.json"), index.to_string()).unwrap();
    std::fs::write(root.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
}

pub fn read(layer: &Layer) -> anyhow::Result<Tree> {
    let mut tree = Tree::new();
    let mut spool = Spool::new(&std::env::temp_dir(), 1 << 30)?;
    layer::put(layer, &mut tree, &mut spool, 1)?;
    Ok(tree)
}

/// Without the times of directories, which umoci makes when it likes.
pub fn without_times(found: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    found
        .iter()
        .filter(|(path, _)| !path.is_empty())
        .map(|(path, line)| {
            let words: Vec<&str> =
                line.split(' ').enumerate().filter(|(at, _)| *at != 2).map(|(_, word)| word).collect();
            (path.clone(), words.join(" "))
        })
        .collect()
}

#[test]
fn case_004_a_stacks_of_oci_layers_are_what_umoci_makes_of_them() {
    if !have("umoci", "umoci") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let (mut equal, mut refused, mut stricter) = (0, 0, 0);
    for seed in 0..400 {
        let mut dice = Dice(seed + 70_000);
        let mut layers = random_stack(&mut dice, true);
        // umoci keeps the mode of a deleted directory when the whiteout comes after what is new below it, so its answer
        // depends on the order; the oracle's test has whiteouts anywhere
        for layer in &mut layers {
            layer.sort_by_key(|item| !matches!(item, Item::Gone(_) | Item::Opaque(_)));
        }
        let archives: Vec<Vec<u8>> = layers.iter().map(|items| archive(items)).collect();
        let root = layout(place.path(), &archives);
        let bundle = place.path().join("bundle");
        let _ = std::fs::remove_dir_all(&bundle);
        let image = format!("{}:tag", root.display());
        let output =
            Command::new("umoci").args(["raw", "unpack", "--image", &image]).arg(&bundle).output().unwrap();
        let ours = read(&Layer::new(Form::Oci, root));
        match (output.status.success(), ours) {
            (true, Ok(tree)) => {
                let theirs = without_times(&mounted_lines(&bundle));
                assert_eq!(without_times(&lines(&tree)), theirs, "seed {seed}: {layers:#?}");
                equal += 1;
            }
            (false, Err(_)) => refused += 1,
            // it clamps and creates where we refuse
            (true, Err(_)) => stricter += 1,
            (false, Ok(_)) => {
                let said = String::from_utf8_lossy(&output.stderr);
                panic!("seed {seed}: umoci refuses: {said}: {layers:#?}");
            }
        }
    }
    eprintln!("umoci: {equal} equal, {refused} refused by both, {stricter} refused by us alone");
    assert!(equal > 100, "{equal} {refused} {stricter}");
}

#[test]
fn every_form_of_a_layout_is_checked() {
    let place = tempfile::tempdir().unwrap();
    let tar = archive(&[Item::Dir("d".to_owned(), 0o755), Item::File("d/f".to_owned(), 200)]);
    let root = place.path().join("z");
    let zstd = zstd::encode_all(tar.as_slice(), 3).unwrap();
    let diff_id = format!("sha256:{:x}", Sha256::digest(&tar));
    let layer = blob(&root, "layer.v1.tar+zstd", &zstd);
    finish_layout(&root, std::slice::from_ref(&layer), std::slice::from_ref(&diff_id));
    let expected = lines(&read(&Layer::new(Form::Oci, root.clone())).unwrap());
    assert!(expected["d/f"].contains(" 200 "));

    // the same layout as an archive, and as a compressed one
    let packed = place.path().join("z.tar");
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_dir_all(".", &root).unwrap();
    let bytes = builder.into_inner().unwrap();
    std::fs::write(&packed, &bytes).unwrap();
    assert_eq!(lines(&read(&Layer::new(Form::Oci, packed.clone())).unwrap()), expected);
    std::fs::write(&packed, gzip(&bytes)).unwrap();
    assert_eq!(lines(&read(&Layer::new(Form::Oci, packed)).unwrap()), expected);

    let error = || format!("{:#}", read(&Layer::new(Form::Oci, root.clone())).unwrap_err());
    // a nested index, of which the platform chooses
    let inner: serde_json::Value =
        serde_json::from_slice(&std::fs::read(root.join("index.json")).unwrap()).unwrap();
    let mut good = inner["manifests"][0].clone();
    good["platform"] = serde_json::json!({"os": "linux", "architecture": "amd64"});
    let mut other = good.clone();
    other["platform"] = serde_json::json!({"os": "linux", "architecture": "arm64", "variant": "v8"});
    let nested = serde_json::json!({"schemaVersion": 2, "manifests": [good, other]});
    let nested = blob(&root, "index.v1+json", nested.to_string().as_bytes());
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [nested]});
    std::fs::write(root.join("index.json"), index.to_string()).unwrap();
    assert!(error().contains("choose by platform"), "{}", error());
    let mut chosen = Layer::new(Form::Oci, root.clone());
    chosen.choice.platform = Some("linux/amd64".to_owned());
    assert_eq!(lines(&read(&chosen).unwrap()), expected);
    chosen.choice.platform = Some("linux/arm64".to_owned());
    assert_eq!(lines(&read(&chosen).unwrap()), expected);
    chosen.choice.platform = Some("linux/riscv64".to_owned());
    assert!(format!("{:#}", read(&chosen).unwrap_err()).contains("linux/arm64/v8"));

    // what is wrong is said
    let wrong = format!("sha256:{}", "0".repeat(64));
    finish_layout(&root, std::slice::from_ref(&layer), &[wrong]);
    assert!(error().contains("its content has the digest"), "{}", error());
    finish_layout(&root, &[], std::slice::from_ref(&diff_id));
    assert!(error().contains("0 layers"), "{}", error());
    let mut short = layer.clone();
    short["size"] = 5.into();
    finish_layout(&root, &[short], std::slice::from_ref(&diff_id));
    assert!(error().contains("bytes, not 5"), "{}", error());
    let mut escape = layer.clone();
    escape["digest"] = "sha256:../../../etc/passwd".into();
    finish_layout(&root, &[escape], std::slice::from_ref(&diff_id));
    assert!(error().contains("no SHA-256 digest"), "{}", error());
    let mut odd = layer.clone();
    odd["mediaType"] = "text/plain".into();
    finish_layout(&root, &[odd], std::slice::from_ref(&diff_id));
    assert!(error().contains("unknown type"), "{}", error());
    finish_layout(&root, std::slice::from_ref(&layer), &[diff_id]);
    let hex = layer["digest"].as_str().unwrap().trim_start_matches("sha256:");
    let mut damaged = zstd;
    damaged[20] ^= 1;
    std::fs::write(root.join("blobs/sha256").join(hex), damaged).unwrap();
    assert!(error().contains("has the digest"), "{}", error());
}

fn one(path: &str, what: What) -> Entry {
    Entry { path: path.as_bytes().to_vec(), meta: Meta::root(0o755, 1), what }
}

fn file(path: &str) -> Entry {
    one(path, What::File(Content::Empty))
}

fn link(path: &str, target: &str) -> Entry {
    one(path, What::Symlink(target.as_bytes().into()))
}

fn paths(tree: &Tree) -> Vec<String> {
    tree.walk().skip(1).map(|step| shown(&step.path)).collect()
}

#[test]
fn what_could_touch_something_else_is_refused_by_name() {
    let hard = |path: &str, target: &str| one(path, What::Link(target.as_bytes().to_vec()));
    for bad in [
        vec![file("../x")],
        vec![file("a/../../x")],
        vec![file("a/..")],
        vec![hard("x", "../../etc/passwd")],
        vec![hard("x", "etc/passwd")],
        vec![hard("x", "/")],
        vec![one("d", What::Directory), hard("x", "d")],
        vec![file("x"), hard("x", "./x")],
        vec![file("a/.wh.")],
        vec![file("a/.wh..")],
        vec![file("a/.wh...")],
        vec![file("f"), file("f/x")],
        vec![file("f"), file("f/.wh.x")],
        vec![link("l", "l"), file("l/x")],
        vec![file(".wh.d/x")],
        vec![file("")],
        vec![file("a\0b")],
    ] {
        let shown_name = shown(&bad.last().unwrap().path);
        let error = format!("{:#}", apply(&mut Tree::new(), bad, Whiteouts::Oci, 0).unwrap_err());
        assert!(error.contains(&shown_name), "{shown_name}: {error}");
    }
}

#[test]
fn links_stay_inside_the_tree_and_usrmerge_holds() {
    let mut tree = Tree::new();
    let base = vec![
        one("usr/lib", What::Directory),
        link("lib", "usr/lib"),
        link("x", "/etc"),
        link("up", "../../.."),
    ];
    apply(&mut tree, base, Whiteouts::None, 0).unwrap();
    let top = vec![one("lib", What::Directory), file("lib/foo"), file("x/passwd"), file("up/top")];
    apply(&mut tree, top.clone(), Whiteouts::None, 0).unwrap();
    assert_eq!(paths(&tree), ["etc", "etc/passwd", "lib", "top", "up", "usr", "usr/lib", "usr/lib/foo", "x"]);
    // by the rules of OCI the directory replaces the link, which is worth a word
    let warnings = apply(&mut tree, top, Whiteouts::Oci, 0).unwrap();
    assert!(warnings[0].contains("`lib`"), "{warnings:?}");
    assert!(paths(&tree).contains(&"lib/foo".to_owned()));
    apply(&mut tree, vec![file("x/.wh.passwd")], Whiteouts::Oci, 0).unwrap();
    assert!(!paths(&tree).contains(&"etc/passwd".to_owned()));
}

#[test]
fn a_device_of_container_storage_in_the_base_survives_and_ostree_makes_one() {
    let mut tree = Tree::new();
    let storage = "var/lib/containers/storage/overlay/x/diff/gone";
    let device = || What::Char(Device::default());
    let base = vec![one(storage, device()), file("kept"), file("lost"), file("low/a"), file("low/b")];
    apply(&mut tree, base, Whiteouts::None, 0).unwrap();
    apply(&mut tree, vec![one("also", device())], Whiteouts::Oci, 0).unwrap();
    apply(&mut tree, vec![one("lost", device())], Whiteouts::Overlayfs, 0).unwrap();
    apply(&mut tree, vec![file("dir/.ostree-wh.gone"), file(".wh.kept")], Whiteouts::Ostree, 0).unwrap();
    let mut opaque = one("low", What::Directory);
    opaque.meta.set_xattr(b"trusted.overlay.opaque", b"y");
    opaque.meta.set_xattr(b"trusted.overlay.origin", b"z");
    opaque.meta.set_xattr(b"trusted.overlay.overlay.opaque", b"y");
    apply(&mut tree, vec![opaque, file("low/c")], Whiteouts::Overlayfs, 0).unwrap();
    let low = tree.find(b"low").unwrap();
    let left: Vec<_> = tree.node(low).meta.xattrs().collect();
    assert_eq!(left, [(&b"trusted.overlay.opaque"[..], &b"y"[..])]);
    let found = paths(&tree);
    for path in [storage, "also", "dir/gone"] {
        let id = tree.find(path.as_bytes()).unwrap_or_else(|| panic!("{path}: {found:?}"));
        assert_eq!(tree.node(id).kind, Kind::Char(Device::default()));
    }
    for path in ["kept", "lost", "low/a", "low/b", "dir/.ostree-wh.gone"] {
        assert!(!found.contains(&path.to_owned()), "{path}: {found:?}");
    }
    // all whiteouts of an overlay may be one inode
    let mut tree = Tree::new();
    apply(&mut tree, vec![file("a"), file("b")], Whiteouts::None, 0).unwrap();
    let both = vec![one("a", device()), one("b", What::Link(b"a".to_vec()))];
    apply(&mut tree, both, Whiteouts::Overlayfs, 0).unwrap();
    assert!(paths(&tree).is_empty());
    let mut moved = one("d", What::Directory);
    moved.meta.set_xattr(b"user.overlay.redirect", b"/x");
    assert!(
        apply(&mut tree, vec![moved], Whiteouts::Overlayfs, 0).unwrap_err().to_string().contains("redirect")
    );
}
