//! The ext4 writer: what it writes passes `e2fsck`, and comes back the same through three readers.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use qvm_template::build::disk::Region;
use qvm_template::build::ext4;
use qvm_template::build::image::Image;
use qvm_template::build::layer::{self, Whiteouts};
use qvm_template::build::tree::content::{Content, Piece, Source};
use qvm_template::build::tree::{Device, Entries, Kind, Meta, NodeId, Tree};

use super::listing::{Dice, TIME, lines, mounted_lines};
use super::{have, run};

fn options() -> ext4::Options {
    ext4::Options { uuid: [7; 16], hash_seed: [9; 16], time: TIME, reserved_percent: 5, inodes: None }
}

fn write(path: &Path, size: u64, tree: &Tree) -> anyhow::Result<ext4::Report> {
    let mut image = Image::create(path)?;
    image.set_size(size)?;
    let report = ext4::write(&mut image, Region { offset: 0, size }, tree, &options(), &mut |_| {})?;
    image.commit()?;
    Ok(report)
}

fn check(image: &Path) {
    if have("e2fsck", "e2fsprogs") {
        let said = run(Command::new("e2fsck").args(["-f", "-n"]).arg(image));
        assert!(!said.contains("Fix?"), "{said}");
    }
}

/// Calls `with` on the image mounted read-only; says loudly when this machine does not allow it.
pub(super) fn mounted(image: &Path, with: impl FnOnce(&Path)) {
    let place = tempfile::tempdir().unwrap();
    let status = Command::new("mount").args(["-o", "loop,ro"]).arg(image).arg(place.path()).output();
    if !status.as_ref().is_ok_and(|output| output.status.success()) {
        eprintln!(
            "SKIPPED: this part of the test mounts an image, which this machine does not allow: {status:?}"
        );
        return;
    }
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| with(place.path())));
    run(Command::new("umount").arg(place.path()));
    result.unwrap();
}

fn read_back(image: &Path) -> Tree {
    try_read(image).unwrap()
}

fn try_read(image: &Path) -> anyhow::Result<Tree> {
    let file = Arc::new(std::fs::File::open(image)?);
    let size = file.metadata()?.len();
    let mut tree = Tree::new();
    let source = tree.sources.add(Source::File(Arc::clone(&file)))?;
    let mut entries = Vec::new();
    ext4::Reader::open(&file, Region { offset: 0, size })?.entries(source, &mut |entry| {
        entries.push(entry);
        Ok(())
    })?;
    layer::apply(&mut tree, entries, Whiteouts::None, 0)?;
    Ok(tree)
}

pub(super) fn same(expected: &BTreeMap<String, String>, found: &BTreeMap<String, String>, who: &str) {
    for (path, line) in expected {
        assert_eq!(found.get(path), Some(line), "`{path}`, read by {who}");
    }
    assert_eq!(expected.len(), found.len(), "{who} sees other names");
}

fn everywhere(tree: &Tree, size: u64) {
    let place = tempfile::tempdir().unwrap();
    let image = place.path().join("fs.img");
    let report = write(&image, size, tree).unwrap();
    check(&image);
    assert!(report.free_blocks < report.blocks);
    let expected = lines(tree);
    same(&expected, &lines(&read_back(&image)), "our reader");
    mounted(&image, |root| same(&expected, &mounted_lines(root), "the kernel"));
}

fn random_meta(dice: &mut Dice, kind: &Kind) -> Meta {
    let mut meta = Meta {
        mode: u16::try_from(dice.roll(0o10000)).unwrap(),
        uid: [0, 1000, 65_535, 70_000, 4_000_000_000][usize::try_from(dice.roll(5)).unwrap()],
        gid: u32::try_from(dice.roll(100_000)).unwrap(),
        mtime: i64::try_from(dice.roll(4_000_000_000)).unwrap() - 1_000_000_000,
        xattrs: None,
    };
    if matches!(kind, Kind::Symlink(_)) {
        meta.mode = 0o777;
        return meta;
    }
    if dice.roll(4) == 0 {
        for _ in 0..dice.roll(4) {
            let name = format!("trusted.{}", "n".repeat(1 + usize::try_from(dice.roll(40)).unwrap()));
            let len = dice.roll(600);
            meta.set_xattr(name.as_bytes(), &dice.bytes(len));
        }
    }
    if dice.roll(10) == 0 && matches!(kind, Kind::File(_)) {
        meta.set_xattr(
            b"security.capability",
            &[1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        );
    }
    if dice.roll(10) == 0 {
        let entry = |tag: u8, bits: u8, id: u32| [[tag, 0, bits, 0], id.to_le_bytes()].concat();
        let bits = u8::try_from(meta.mode & 7).unwrap();
        let mask = u8::try_from((meta.mode >> 3) & 7).unwrap();
        let owner = u8::try_from((meta.mode >> 6) & 7).unwrap();
        let all = u32::MAX;
        let acl = [
            vec![2, 0, 0, 0],
            entry(1, owner, all),
            entry(2, 6, 42),
            entry(4, 5, all),
            entry(8, 1, 101),
            entry(16, mask, all),
            entry(32, bits, all),
        ];
        meta.set_xattr(b"system.posix_acl_access", &acl.concat());
    }
    meta
}

fn random_name(dice: &mut Dice) -> Vec<u8> {
    let len = if dice.roll(20) == 0 { 200 + dice.roll(56) } else { 1 + dice.roll(20) };
    (0..len)
        .map(|_| b"abcdefghijklmnop qrs.-_\xff\xc3\xa9"[usize::try_from(dice.roll(26)).unwrap()])
        .collect()
}

/// A tree with some of everything.
pub fn random_tree(seed: u64, count: usize) -> Tree {
    let mut dice = Dice(seed);
    let mut tree = Tree::new();
    let data = dice.bytes(100_000);
    let source = tree.sources.add(Source::Bytes(data)).unwrap();
    *tree.meta_mut(Tree::ROOT) = Meta { uid: 3, ..Meta::root(0o751, 77) };
    let mut directories = vec![Tree::ROOT];
    let mut files: Vec<NodeId> = Vec::new();
    for _ in 0..count {
        let parent = directories[usize::try_from(dice.roll(directories.len() as u64)).unwrap()];
        let name = random_name(&mut dice);
        if tree.child(parent, &name).is_some() || matches!(name.as_slice(), b"." | b"..") {
            continue;
        }
        let device = Device {
            major: u32::try_from(dice.roll(4096)).unwrap(),
            minor: u32::try_from(
                [dice.roll(256), dice.roll(1 << 20)][usize::try_from(dice.roll(2)).unwrap()],
            )
            .unwrap(),
        };
        let kind = match dice.roll(16) {
            0..=3 => Kind::Directory(Entries::new()),
            4..=8 => {
                let size = dice.roll(30_000);
                Kind::File(Content::whole(source, dice.roll(70_000), size))
            }
            9 => {
                let mut list = Vec::new();
                let mut at = 0;
                for _ in 0..dice.roll(12) {
                    at += dice.roll(5) * 4096 + dice.roll(3000);
                    let len = 1 + dice.roll(9000);
                    list.push(Piece { at, len, source, offset: dice.roll(90_000) });
                    at += len;
                }
                Kind::File(Content::pieces(at + dice.roll(20_000), list).unwrap())
            }
            10..=11 => {
                let len =
                    usize::try_from([10, 59, 60, 61, 1000, 4095][usize::try_from(dice.roll(6)).unwrap()])
                        .unwrap();
                Kind::Symlink(vec![b'x'; len].into())
            }
            12 => Kind::Char(device),
            13 => Kind::Block(device),
            14 => Kind::Fifo,
            _ if !files.is_empty() => {
                let file = files[usize::try_from(dice.roll(files.len() as u64)).unwrap()];
                tree.link(parent, &name, file).unwrap();
                continue;
            }
            _ => Kind::Socket,
        };
        let meta = random_meta(&mut dice, &kind);
        let directory = matches!(kind, Kind::Directory(_));
        let id = tree.put(parent, &name, meta, kind).unwrap();
        if directory { directories.push(id) } else { files.push(id) }
    }
    tree
}

#[test]
fn any_tree_comes_back_the_same_through_three_readers() {
    for seed in 0..12 {
        everywhere(&random_tree(seed, 400), 64 << 20);
    }
}

#[test]
fn an_empty_tree_is_a_file_system_of_any_size() {
    for size in
        [8 << 20, 16 << 20, (128 << 20) + 4096, 129 << 20, 1 << 30, (10 << 30) - (204 << 20), 40 << 30]
    {
        everywhere(&Tree::new(), size);
    }
}

#[test]
fn large_directories_have_an_index() {
    let mut tree = Tree::new();
    let large =
        tree.put(Tree::ROOT, b"large", Meta::root(0o755, 5), Kind::Directory(Entries::new())).unwrap();
    let long = tree.put(Tree::ROOT, b"long", Meta::root(0o755, 5), Kind::Directory(Entries::new())).unwrap();
    let deep = tree.put(Tree::ROOT, b"deep", Meta::root(0o755, 5), Kind::Directory(Entries::new())).unwrap();
    for number in 0..20_000 {
        tree.put(large, format!("file {number}").as_bytes(), Meta::root(0o644, 5), Kind::Fifo).unwrap();
    }
    for number in 0..9_000 {
        let name = format!("{number:0250}");
        tree.put(long, name.as_bytes(), Meta::root(0o644, 5), Kind::Directory(Entries::new())).unwrap();
    }
    let mut parent = deep;
    for _ in 0..600 {
        parent = tree.put(parent, b"d", Meta::root(0o755, 5), Kind::Directory(Entries::new())).unwrap();
    }
    let place = tempfile::tempdir().unwrap();
    let image = place.path().join("fs.img");
    write(&image, 1 << 30, &tree).unwrap();
    check(&image);
    same(&lines(&tree), &lines(&read_back(&image)), "our reader");
    if have("debugfs", "e2fsprogs") {
        let said = run(Command::new("debugfs").args(["-R", "htree_dump /long"]).arg(&image));
        assert!(said.contains("Indirect levels: 1"), "{}", &said[..300]);
        for name in ["large/file 19999", &format!("long/{:0250}", 8999)] {
            let said = run(Command::new("debugfs").args(["-R", &format!("stat \"/{name}\"")]).arg(&image));
            assert!(said.contains("Links:"), "{said}");
        }
    }
    mounted(&image, |root| {
        for number in (0..20_000).step_by(97) {
            assert!(root.join(format!("large/file {number}")).exists(), "the kernel does not find {number}");
        }
        for number in 0..9_000 {
            assert!(root.join(format!("long/{number:0250}")).exists(), "the kernel does not find {number}");
        }
    });
}

#[test]
fn a_file_can_have_any_number_of_extents() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    std::fs::write(&data, vec![0x5a; 8192]).unwrap();
    let mut tree = Tree::new();
    let source = tree.sources.add(Source::File(Arc::new(std::fs::File::open(&data).unwrap()))).unwrap();
    for count in [3_u64, 4, 5, 340, 341, 1360, 1361, 10_000, 30_000] {
        let list = (0..count).map(|n| Piece { at: n * 8192, len: 4096, source, offset: 0 }).collect();
        let content = Content::pieces(count * 8192, list).unwrap();
        tree.put(Tree::ROOT, count.to_string().as_bytes(), Meta::root(0o644, 1), Kind::File(content))
            .unwrap();
    }
    everywhere(&tree, 2 << 30);
}

#[test]
fn a_full_file_system_says_how_large_it_would_have_to_be() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    std::fs::write(&data, vec![0x5a; 1 << 20]).unwrap();
    let mut tree = Tree::new();
    let source = tree.sources.add(Source::File(Arc::new(std::fs::File::open(&data).unwrap()))).unwrap();
    for number in 0..300 {
        let name = format!("{number}");
        tree.put(
            Tree::ROOT,
            name.as_bytes(),
            Meta::root(0o644, 1),
            Kind::File(Content::whole(source, 0, 1 << 20)),
        )
        .unwrap();
    }
    let image = place.path().join("fs.img");
    let error = format!("{:#}", write(&image, 200 << 20, &tree).unwrap_err());
    assert!(!image.exists());
    let figure = error.split("at least ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    let figure: u64 = figure.parse().unwrap();
    assert!((300..400).contains(&figure), "{error}");
    write(&image, figure << 20, &tree).unwrap();
    check(&image);
    let again = format!("{:#}", write(&image, (figure - 1) << 20, &tree).unwrap_err());
    assert!(again.contains(&format!("at least {figure} MiB")), "{again}");
}

#[test]
fn what_ext4_cannot_hold_is_refused_by_name() {
    let place = tempfile::tempdir().unwrap();
    let image = place.path().join("fs.img");
    let mut tree = Tree::new();
    let mut meta = Meta::root(0o644, 1);
    meta.set_xattr(b"user.big", &[1; 5000]);
    tree.put(Tree::ROOT, b"carrier", meta, Kind::Fifo).unwrap();
    let error = format!("{:#}", write(&image, 64 << 20, &tree).unwrap_err());
    assert!(error.contains("`/carrier`") && error.contains("5"), "{error}");
    let mut tree = Tree::new();
    tree.put(Tree::ROOT, b"lost+found", Meta::root(0o644, 1), Kind::Fifo).unwrap();
    assert!(format!("{:#}", write(&image, 64 << 20, &tree).unwrap_err()).contains("lost+found"));
    assert!(!image.exists());
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
}

#[test]
fn a_file_system_can_be_resized() {
    if !have("resize2fs", "e2fsprogs") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let image = place.path().join("fs.img");
    let tree = random_tree(99, 200);
    write(&image, 1 << 30, &tree).unwrap();
    std::fs::OpenOptions::new().write(true).open(&image).unwrap().set_len(20 << 30).unwrap();
    run(Command::new("resize2fs").arg(&image));
    check(&image);
    same(&lines(&tree), &lines(&read_back(&image)), "our reader");
    run(Command::new("resize2fs").arg(&image).arg("300M"));
    check(&image);
    same(&lines(&tree), &lines(&read_back(&image)), "our reader");
}

#[test]
fn damaged_metadata_is_never_taken_for_another_tree() {
    use std::os::unix::fs::FileExt;
    let place = tempfile::tempdir().unwrap();
    let image = place.path().join("fs.img");
    let mut tree = Tree::new();
    // only what has a checksum: no contents, and targets short enough to lie in the inode
    for number in 0..500_u32 {
        let mut meta = Meta::root(0o644, 7);
        if number % 3 == 0 {
            meta.set_xattr(b"user.note", &number.to_le_bytes().repeat(50));
        }
        let kind = match number % 5 {
            0 => Kind::Symlink(b"target"[..].into()),
            _ => Kind::File(Content::Empty),
        };
        tree.put(Tree::ROOT, format!("name-{number}").as_bytes(), meta, kind).unwrap();
    }
    write(&image, 24 << 20, &tree).unwrap();
    let whole = std::fs::read(&image).unwrap();
    let used: Vec<usize> = (0..whole.len() / 512)
        .filter(|sector| whole[sector * 512..][..512].iter().any(|byte| *byte != 0))
        .collect();
    let expected = lines(&read_back(&image));
    let file = std::fs::File::options().write(true).open(&image).unwrap();
    let mut dice = Dice(11);
    let (mut refused, mut same) = (0, 0);
    for _ in 0..120 {
        let sector = used[usize::try_from(dice.roll(used.len() as u64)).unwrap()];
        let at = sector * 512 + usize::try_from(dice.roll(512)).unwrap();
        file.write_all_at(&[whole[at] ^ (1 << dice.roll(8))], at as u64).unwrap();
        match try_read(&image) {
            Err(_) => refused += 1,
            // the journal, bitmaps, copies of the superblock: what no reader needs
            Ok(tree) => {
                assert_eq!(lines(&tree), expected, "byte {at}");
                same += 1;
            }
        }
        file.write_all_at(&whole[at..=at], at as u64).unwrap();
    }
    assert!(refused > 60 && same > 0, "{refused} refused, {same} the same");
}

#[test]
fn checksums_of_file_systems_that_others_made_are_right() {
    if !have("mke2fs", "e2fsprogs") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let (root, image) = (place.path().join("root"), place.path().join("fs.img"));
    std::fs::create_dir_all(root.join("many")).unwrap();
    for number in 0..4000 {
        std::fs::write(root.join(format!("many/a-rather-long-name-{number}")), "x").unwrap();
    }
    std::os::unix::fs::symlink("x".repeat(200), root.join("long")).unwrap();
    for (features, block) in [
        ("metadata_csum,64bit", "4096"),
        ("metadata_csum,metadata_csum_seed,^64bit", "1024"),
        ("^metadata_csum,uninit_bg", "4096"),
        ("metadata_csum,^extents,^64bit", "2048"),
    ] {
        std::fs::remove_file(&image).ok();
        run(Command::new("mke2fs")
            .args(["-q", "-t", "ext4", "-O", features, "-b", block, "-d"])
            .arg(&root)
            .arg(&image)
            .arg("64M"));
        // an index, which mke2fs does not make
        let indexed = Command::new("e2fsck").args(["-fyD"]).arg(&image).output().unwrap();
        assert!(matches!(indexed.status.code(), Some(0 | 1)), "{indexed:?}");
        let tree = read_back(&image);
        assert_eq!(tree.walk().filter(|step| step.path.starts_with(b"many/")).count(), 4000, "{features}");
    }
}
