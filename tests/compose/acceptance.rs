//! The cases that decide whether images are composed as they must be, each with the test that has its name.
//!
//! | case | what | test |
//! |---|---|---|
//! | 002 a | two builds, by two users, under other conditions, without helpers, are equal byte for byte | [`case_002_a_two_users_build_the_same`] |
//! | 002 b | `e2fsck`, `sfdisk` and the kernel see what went in | [`case_002_b_other_programs_see_what_went_in`] |
//! | 002 c | tar, OCI, squashfs and live image of one tree give one image | [`super::command::case_002_c_one_tree_in_every_form_gives_one_image`] |
//! | 002 d | the original's probe of the first 512 bytes finds the size | [`case_002_d_the_first_512_bytes_tell_the_size`] |
//! | 003 a | RPM packages offline: links, capabilities, owners, ghosts, database; scripts refused by name | `super::packages::case_003_a_*` |
//! | 003 b | packages that a template keeps over upgrades | no matter of images |
//! | 004 a | overlay as the kernel has it; OCI stacks as umoci has them; refusals by name that write nothing else | [`super::archives::case_004_a_an_upper_directory_gives_what_the_kernels_overlay_shows`], [`super::layers::case_004_a_stacks_of_oci_layers_are_what_umoci_makes_of_them`], [`case_004_a_refusals_name_the_entry_and_write_nothing`] |
//! | 004 b | ostree's whiteouts become devices, those of container storage survive into the image | [`case_004_b_devices_of_container_storage_are_in_the_image`] |

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use qvm_template::build::layer::sha256;

use super::command::{fails, make, program};
use super::file_system::{mounted, same};
use super::layers::without_times;
use super::listing::{lines, mounted_lines};
use super::{have, run};

const BUILD: &str = env!("CARGO_BIN_EXE_qubes-template-build");

/// SHA-256 of every file below a folder.
fn digests(folder: &Path) -> BTreeMap<String, String> {
    let said = run(Command::new("find").args([".", "-type", "f"]).current_dir(folder));
    said.lines().map(|path| (path.to_owned(), sha256(&folder.join(path)).unwrap())).collect()
}

/// A tree of Debian, made by mmdebstrap: with `QVM_TEST_DEBIAN=make`, or the archive that the variable names.
pub(super) fn debian() -> Option<PathBuf> {
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("debian.tar");
    match std::env::var_os("QVM_TEST_DEBIAN") {
        Some(word) if word == "make" && !kept.exists() => {
            let made = kept.with_extension("new.tar");
            let packages = "--include=iputils-ping,systemd,sudo";
            run(Command::new("mmdebstrap").args(["--variant=minbase", packages, "bookworm"]).arg(&made));
            std::fs::rename(&made, &kept).unwrap();
            Some(kept)
        }
        Some(word) if word != "make" => Some(word.into()),
        _ if kept.exists() => Some(kept),
        _ => {
            eprintln!(
                "SKIPPED: a tree of Debian; QVM_TEST_DEBIAN=make has mmdebstrap make one (network, 100 MB)"
            );
            None
        }
    }
}

#[test]
fn case_002_a_two_users_build_the_same() {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name);
    run(program()
        .args(["keygen", "--seed", "case", "--algorithm", "ed25519", "--secret"])
        .arg(path("key"))
        .arg("--public")
        .arg(path("public")));
    let recipe = "name = 'example'\n[image]\nsize = '300M'\n[payload]\nlevel = 3\n[sign]\nkey = 'key'\n\
        [[layers]]\nkind = 'tar'\npath = 'base.tar'\nwhiteouts = 'none'\n\
        [[layers]]\nkind = 'dir'\npath = 'upper'\nwhiteouts = 'none'\nowner = '0:0'\n\
        [[edits]]\nwrite = '/etc/hostname'\ncontent = 'x'\n";
    let input = "mkdir -p t/etc t/usr/bin upper/opt; echo tool > t/usr/bin/tool; chmod 4755 t/usr/bin/tool; chown -R 7:8 t/etc; \
        for n in 1 2 3 B a Z ı İ; do echo $n > upper/opt/$n; done; chmod -R a+rX,u+w .; chmod 644 key; \
        find . -exec touch -h -d @1500000000 {} +; tar --numeric-owner --sort=name -cf base.tar -C t .; rm -r t; touch -d @1500000000 base.tar";
    make(&path("one"), "cp ../key .");
    make(&path("one"), input);
    std::fs::write(path("one/recipe.toml"), recipe).unwrap();
    // the second folder lies on another file system where there is one
    let second =
        tempfile::tempdir_in(if Path::new("/dev/shm").is_dir() { "/dev/shm" } else { "/tmp" }).unwrap();
    run(Command::new("cp").arg("-rp").arg(path("one")).arg(second.path().join("two")));
    run(Command::new("chmod").arg("755").args([place.path(), second.path()]));
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: only root can build as another user");
    }
    let empty = path("empty");
    std::fs::create_dir(&empty).unwrap();
    let mut made = Vec::new();
    for (folder, zone, locale, umask, other) in [
        (path("one"), "UTC", "C", "022", false),
        (second.path().join("two"), "America/St_Johns", "tr_TR.UTF-8", "077", root),
    ] {
        let mut command = Command::new("/bin/sh");
        command.args([
            "-c",
            &format!("umask {umask}; exec \"$0\" \"$@\""),
            BUILD,
            "build",
            "recipe.toml",
            "-o",
            "out",
        ]);
        if other {
            run(Command::new("chown").args(["4242:4343"]).arg(&folder));
            command.uid(4242).gid(4343);
        }
        // nothing to call: no mke2fs, no losetup, no tar
        command.env_clear().env("PATH", &empty).env("TZ", zone).env("LANG", locale).env("LC_ALL", locale);
        run(command.env("SOURCE_DATE_EPOCH", "1700000000").current_dir(&folder));
        made.push(digests(&folder.join("out")));
    }
    assert_eq!(made[0], made[1]);
    let names: Vec<&str> = made[0].keys().map(String::as_str).collect();
    for wanted in [".rpm", ".manifest.json", ".spdx.json", "repodata/repomd.xml", "repodata/repomd.xml.asc"] {
        assert!(names.iter().any(|name| name.ends_with(wanted)), "{wanted}: {names:?}");
    }
    // the image too, whose digest the manifest has
    assert_eq!(names.len(), 8, "{names:?}");
}

/// Image of the root file system of a disk, as `dd skip=203M` would take it.
fn root_of(disk: &Path, to: &Path) {
    run(Command::new("dd")
        .args(["bs=1M", "skip=203", "conv=sparse", "status=none"])
        .args([format!("if={}", disk.display()), format!("of={}", to.display())]));
    // the table's second copy stands behind it
    let size = std::fs::metadata(to).unwrap().len();
    std::fs::File::options().write(true).open(to).unwrap().set_len(size - (1 << 20)).unwrap();
}

#[test]
fn case_002_b_other_programs_see_what_went_in() {
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = |name: &str| place.path().join(name);
    let small = path("small.tar");
    make(
        &path("tree"),
        "mkdir -p usr/bin etc dev; echo x > usr/bin/x; ln usr/bin/x usr/bin/y; chmod 6755 usr/bin/x; mknod dev/null c 1 3; \
         ln -s x usr/bin/z; chown 42:101 etc; touch -h -d @1500000000 usr/bin/*",
    );
    run(Command::new("tar")
        .args(["--xattrs", "--acls", "--numeric-owner", "-cf"])
        .arg(&small)
        .arg("-C")
        .arg(path("tree"))
        .arg("."));
    for (tar, size) in std::iter::once((small, "300M")).chain(debian().map(|tar| (tar, "2G"))) {
        let (disk, root) = (path("disk.img"), path("root.fs"));
        let layer = format!("tar:{}", tar.display());
        run(program().args(["compose", "--layer", &layer, "--size", size, "--no-digest", "-o"]).arg(&disk));
        root_of(&disk, &root);
        if have("e2fsck", "e2fsprogs") {
            let said = run(Command::new("e2fsck").arg("-fn").arg(&root));
            assert!(!said.contains("Fix?"), "{said}");
        }
        if have("sfdisk", "fdisk") {
            let said = run(Command::new("sfdisk").arg("-d").arg(&disk)).to_lowercase();
            let sectors = (std::fs::metadata(&disk).unwrap().len() - (204 << 20)) / 512;
            for line in [
                "label-id: f4796a2a-e377-45bd-b539-d6d49e569055".to_owned(),
                partition(
                    2048,
                    409_600,
                    "c12a7328-f81f-11d2-ba4b-00a0c93ec93b",
                    "fa4d6529-56da-47c7-ae88-e2dfecb72621",
                    "efi system",
                ),
                partition(
                    411_648,
                    4096,
                    "21686148-6449-6e6f-744e-656564454649",
                    "1e6c9db4-1e91-46c4-846a-2030dcb13b8c",
                    "bios boot partition",
                ),
                partition(
                    415_744,
                    sectors,
                    "0fc63daf-8483-4772-8e79-3d69d8477de4",
                    "693244e6-3e07-47bf-ad79-acade4293fe7",
                    "root filesystem",
                ),
            ] {
                let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join("");
                assert!(
                    said.lines().any(|found| plain(found).ends_with(&plain(&line))),
                    "{line} is not in {said}"
                );
            }
        }
        // what the archive says, as GNU tar and our reader unpack it, is what the kernel shows
        let read = |form: &str, from: &Path| {
            let layer = format!("{form}:{}", from.display());
            super::layers::read(&qvm_template::build::command::compose::parse_layer(&layer).unwrap()).unwrap()
        };
        let expected = lines(&read("tar", &tar));
        same(&expected, &lines(&read("image", &disk)), "our reader");
        mounted(&root, |mounted| same(&expected, &mounted_lines(mounted), "the kernel"));
        if nix::unistd::geteuid().is_root() {
            let unpacked = path("unpacked");
            std::fs::create_dir_all(&unpacked).unwrap();
            run(Command::new("tar")
                .args(["--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "-xpf"])
                .arg(&tar)
                .arg("-C")
                .arg(&unpacked));
            // GNU tar 1.34 loses the ACLs of directories that it unpacks before what is in them
            let plain = |found: BTreeMap<String, String>| -> BTreeMap<String, String> {
                let cut = |line: &str| line.split(" system.posix_acl").next().unwrap_or_default().to_owned();
                without_times(&found).into_iter().map(|(path, line)| (path, cut(&line))).collect()
            };
            same(&plain(expected), &plain(mounted_lines(&unpacked)), "GNU tar");
            std::fs::remove_dir_all(&unpacked).unwrap();
        }
    }
}

/// A line of `sfdisk -d` behind the name of the device.
fn partition(start: u64, size: u64, kind: &str, id: &str, name: &str) -> String {
    format!(": start={start}, size={size}, type={kind}, uuid={id}, name=\"{name}\"")
}

#[test]
fn case_002_d_the_first_512_bytes_tell_the_size() {
    if !have("rpm2cpio", "rpm") || !have("cpio", "cpio") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    make(place.path(), "mkdir -p t/etc; echo x > t/etc/x; tar -cf t.tar -C t .");
    let recipe = "name = 'example'\n[image]\nsize = '700M'\n[payload]\nlevel = 1\n\
        [[layers]]\nkind = 'tar'\npath = 't.tar'\nwhiteouts = 'none'\n";
    std::fs::write(place.path().join("recipe.toml"), recipe).unwrap();
    run(program().args(["build", "recipe.toml", "-o", "out"]).current_dir(place.path()));
    let script = "rpm2cpio out/rpm/*.rpm | cpio -idm --quiet --no-absolute-filenames; \
        head -c 512 var/lib/qubes/vm-templates/example/root.img.part.00 | tar tvf - 2>/dev/null || true";
    let said = run(Command::new("sh").args(["-ec", script]).current_dir(place.path()));
    assert_eq!(said.split_whitespace().nth(2), Some("734003200"), "{said}");
}

#[test]
fn case_004_a_refusals_name_the_entry_and_write_nothing() {
    let place = tempfile::tempdir().unwrap();
    let inside = place.path().join("inside");
    std::fs::create_dir(&inside).unwrap();
    // an archive by Python, which writes whatever it is asked to
    if !have("python3", "python3") {
        return;
    }
    for (names, wanted) in [
        ("f:../canary", "../canary"),
        ("f:a/../../canary", "a/../../canary"),
        ("f:a/.wh...", "a/.wh..."),
        ("f:a/.wh..", "a/.wh.."),
        ("f:a/.wh.", "a/.wh."),
        ("f:x f:x/canary", "x/canary"),
        ("h:x:../canary", "x"),
        ("h:x:nowhere", "x"),
    ] {
        let script = "import sys, tarfile\nwith tarfile.open('bad.tar', 'w') as out:\n for word in sys.argv[1].split():\n  \
            kind, name, *target = word.split(':')\n  entry = tarfile.TarInfo(name)\n  \
            if kind == 'h': entry.type, entry.linkname = tarfile.LNKTYPE, target[0]\n  out.addfile(entry)\n";
        run(Command::new("python3").args(["-c", script, names]).current_dir(&inside));
        let out = inside.join("out.img");
        let layer = "tar,whiteouts=oci:bad.tar";
        let said = fails(
            program()
                .args(["compose", "--size", "300M", "--layer", layer, "-o"])
                .arg(&out)
                .current_dir(&inside),
        );
        assert!(said.contains(&format!("`{wanted}`")), "{names}: {said}");
        assert_eq!(std::fs::read_dir(&inside).unwrap().count(), 1, "{names} left something");
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 1, "{names} wrote outside");
    }
}

#[test]
fn case_004_b_devices_of_container_storage_are_in_the_image() {
    if !nix::unistd::geteuid().is_root() || !have("debugfs", "e2fsprogs") {
        eprintln!("SKIPPED: only root can make the devices of this test");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let storage = "var/lib/containers/storage/overlay/x/diff";
    make(
        place.path(),
        &format!(
            "mkdir -p base/{storage} base/etc upper/srv/{storage} over/etc; mknod base/{storage}/gone c 0 0; echo x > base/etc/lost; \
             : > upper/srv/{storage}/.ostree-wh.gone; mknod over/etc/lost c 0 0"
        ),
    );
    let image = place.path().join("root.fs");
    run(program()
        .args(["compose", "--no-partitions", "--size", "64M", "--layer", "dir:base"])
        .args(["--layer", "dir,whiteouts=ostree:upper", "--layer", "dir,whiteouts=overlayfs:over", "-o"])
        .arg(&image)
        .current_dir(place.path()));
    let show = |path: &str| run(Command::new("debugfs").args(["-R", &format!("stat {path}")]).arg(&image));
    for path in [format!("/{storage}/gone"), format!("/srv/{storage}/gone")] {
        let said = show(&path);
        assert!(
            said.contains("character special") && said.contains("Device major/minor number: 00:00"),
            "{path}: {said}"
        );
    }
    assert!(show("/etc/lost").contains("File not found"));
    assert!(show(&format!("/srv/{storage}/.ostree-wh.gone")).contains("File not found"));
}
