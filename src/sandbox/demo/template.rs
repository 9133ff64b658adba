//! The template of the demonstration: a small tree on a real file system, on a disk with Qubes' partitions.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::build::disk::{self, Disk};
use crate::build::ext4;
use crate::build::image::Image;
use crate::build::tree::content::{Content, Source};
use crate::build::tree::{Kind, Meta, NodeId, Tree};

/// Its name.
pub const TEMPLATE: &str = "demo-1";

/// Size of the disk, in bytes.
const SIZE: u64 = 1 << 30;

/// Every date in it: 2025-11-13.
const TIME: i64 = 1_763_000_000;

/// How it is packed.
pub const RECIPE: &str = r#"name = "demo-1"
version = "4.3.0"
summary = "Demonstration of a template"
description = "Made by `qubes-sandbox demo`.\nIt has a file system, but nothing that boots."
license = "GPL-2.0-or-later"

[conf]
qrexec = "1"
gui = "1"

[menus]
template = ["org.example.Terminal.desktop"]
qubes = ["org.example.Terminal.desktop", "org.example.Files.desktop"]
network = ["org.example.Terminal.desktop"]
"#;

/// How the management qube knows the repository. The path is one of sys-net, where the package comes from.
pub const REPOSITORY: &str = "[demo]
name = Templates of the demonstration
baseurl = file:///srv/templates
enabled = 1
gpgcheck = 1
gpgkey = file:///etc/qubes/repo-templates/keys/RPM-GPG-KEY-demo
";

/// Writes the disk image to `path`.
pub fn make_image(path: &Path) -> Result<()> {
    let mut image = Image::create(path)?;
    image.set_size(SIZE)?;
    let disk = Disk { size: SIZE, serial: 0x2025_1113, time: TIME, efi_files: Vec::new() };
    let root = disk::write(&mut image, &disk)?;
    let options = ext4::Options {
        uuid: *b"qubes-demo-root!",
        hash_seed: *b"qubes-demo-seed!",
        time: TIME,
        reserved_percent: 5,
        inodes: None,
    };
    ext4::write(&mut image, root, &tree()?, &options, &mut |_| {})?;
    image.commit().context("writing the disk image")?;
    Ok(())
}

/// A few files that one knows, and enough data for a progress bar to be seen.
fn tree() -> Result<Tree> {
    let mut tree = Tree::new();
    let etc = directory(&mut tree, Tree::ROOT, "etc")?;
    file(&mut tree, etc, "hostname", b"demo-1\n".to_vec())?;
    file(&mut tree, etc, "os-release", b"ID=demo\nVERSION_ID=1\nPRETTY_NAME=\"Demonstration 1\"\n".to_vec())?;
    let usr = directory(&mut tree, Tree::ROOT, "usr")?;
    let share = directory(&mut tree, usr, "share")?;
    for name in ["bin", "sbin", "lib"] {
        directory(&mut tree, usr, name)?;
        let target = format!("usr/{name}").into_bytes().into_boxed_slice();
        tree.put(Tree::ROOT, name.as_bytes(), Meta::root(0o777, TIME), Kind::Symlink(target))?;
    }
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    for number in 0..192 {
        let mut bytes = vec![0; 1 << 20];
        for chunk in bytes.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            // A third of it is text that compresses.
            let word = if number % 3 == 0 { u64::from_le_bytes(*b"template") } else { state };
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        file(&mut tree, share, &format!("data-{number:03}"), bytes)?;
    }
    Ok(tree)
}

fn directory(tree: &mut Tree, parent: NodeId, name: &str) -> Result<NodeId> {
    tree.put(parent, name.as_bytes(), Meta::root(0o755, TIME), Kind::Directory(Default::default()))
}

fn file(tree: &mut Tree, parent: NodeId, name: &str, bytes: Vec<u8>) -> Result<NodeId> {
    let size = bytes.len() as u64;
    let source = tree.sources.add(Source::Bytes(bytes))?;
    tree.put(parent, name.as_bytes(), Meta::root(0o644, TIME), Kind::File(Content::whole(source, 0, size)))
}
