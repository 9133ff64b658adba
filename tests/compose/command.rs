//! `qubes-template-build compose` as a person calls it.

use std::path::Path;
use std::process::Command;

use super::run;

pub(super) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qubes-template-build"));
    command.env("SOURCE_DATE_EPOCH", "1700000000");
    command
}

pub(super) fn fails(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(!output.status.success(), "{command:?} succeeded");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(super) fn make(folder: &Path, script: &str) {
    std::fs::create_dir_all(folder).unwrap();
    run(Command::new("sh").args(["-ec", script]).current_dir(folder));
}

/// A Debian-like tree without what some forms cannot hold (ACLs, sockets, times with fractions).
const TREE: &str = "mkdir -p usr/bin usr/lib etc/x var/empty home/user; ln -s usr/lib lib; echo root:x:0:0:::/ > etc/passwd; \
    printf '#!/bin/sh\\n' > usr/bin/tool; ln usr/bin/tool usr/bin/other; chmod 4755 usr/bin/tool; : > usr/lib/zero; \
    head -c 3000000 /dev/zero | tr '\\0' x > usr/lib/large; truncate -s 20M usr/lib/holes; \
    printf data | dd of=usr/lib/holes bs=1 seek=9000000 conv=notrunc status=none; ln -s $(printf 'n%.0s' $(seq 90)) etc/long; \
    for n in $(seq 1 700); do echo $n > etc/x/file-$n; done; mkfifo var/pipe; mknod etc/null c 1 3; mknod etc/loop b 7 300; \
    chown 42:101 etc/x/file-7; chmod 600 etc/x/file-8; chown -h 5:6 lib; chmod 1777 var/empty; \
    find . -depth -exec touch -h -d @1600000000 {} +";

fn image(arguments: &[&str], output: &Path) -> String {
    run(program().arg("compose").args(arguments).args(["--size", "400M", "--json", "-o"]).arg(output));
    let bytes = std::fs::read(output).unwrap();
    use sha2::Digest as _;
    format!("{:x}", sha2::Sha256::digest(bytes))
}

#[test]
fn case_002_c_one_tree_in_every_form_gives_one_image() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("root");
    make(&root, TREE);
    let path = |name: &str| place.path().join(name).display().to_string();
    let out = place.path().join("out.img");
    let tar = path("root.tar");
    run(Command::new("tar").args(["--xattrs", "--numeric-owner", "-cf", &tar, "-C"]).arg(&root).arg("."));
    let expected = image(&["--layer", &format!("tar:{tar}")], &out);
    std::fs::rename(&out, path("first.img")).unwrap();
    for (form, extension) in [("tar", "tar"), ("oci", "oci"), ("raw", "img"), ("raw-fs", "fs")] {
        let made = path(&format!("again.{extension}"));
        run(program().args([
            "compose",
            "--size",
            "400M",
            "--layer",
            &format!("tar:{tar}"),
            "--format",
            form,
            "-o",
            &made,
        ]));
        let kind = if form.starts_with("raw") { "image" } else { form };
        assert_eq!(image(&["--layer", &format!("{kind}:{made}")], &out), expected, "{form}");
    }
    assert_eq!(image(&["--layer", &format!("dir:{}", root.display())], &out), expected, "dir");
    if super::have("mksquashfs", "squashfs-tools") {
        let squash = |from: &str, to: &str, compressor: &str| {
            run(Command::new("mksquashfs").args([
                from,
                to,
                "-quiet",
                "-no-progress",
                "-noappend",
                "-comp",
                compressor,
            ]));
        };
        for compressor in ["gzip", "xz", "zstd"] {
            let file = path(compressor);
            squash(&path("root"), &file, compressor);
            assert_eq!(
                image(&["--layer", &format!("squashfs:{file}")], &out),
                expected,
                "squashfs {compressor}"
            );
            assert_eq!(image(&["--layer", &format!("live:{file}")], &out), expected, "live {compressor}");
        }
        let live = place.path().join("live/LiveOS");
        std::fs::create_dir_all(&live).unwrap();
        std::fs::copy(path("again.fs"), live.join("rootfs.img")).unwrap();
        squash(&path("live"), &path("live.squashfs"), "xz");
        assert_eq!(
            image(&["--layer", &format!("live:{}", path("live.squashfs"))], &out),
            expected,
            "LiveOS/rootfs.img"
        );
        if super::have("tar2sqfs", "squashfs-tools-ng") {
            let made = path("ours.squashfs");
            run(program().args([
                "compose",
                "--layer",
                &format!("tar:{tar}"),
                "--format",
                "squashfs",
                "-o",
                &made,
            ]));
            assert_eq!(image(&["--layer", &format!("squashfs:{made}")], &out), expected, "our squashfs");
        }
        // damaged input is an error or another tree, never a panic
        let whole = std::fs::read(path("zstd")).unwrap();
        let mut dice = super::listing::Dice(3);
        for round in 0..40 {
            let mut damaged = whole.clone();
            for _ in 0..3 {
                let at = usize::try_from(dice.roll(damaged.len() as u64)).unwrap();
                damaged[at] ^= 1 << dice.roll(8);
            }
            damaged.truncate(whole.len() - round * 7);
            std::fs::write(path("damaged"), damaged).unwrap();
            let layer = format!("squashfs:{}", path("damaged"));
            let output =
                program().args(["compose", "--layer", &layer, "--size", "400M", "-o"]).arg(&out).output();
            assert!(matches!(output.unwrap().status.code(), Some(0 | 1)));
        }
    }
}

#[test]
fn the_bytes_do_not_depend_on_where_when_and_who() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("root");
    make(&root, TREE);
    run(Command::new("tar")
        .args(["--numeric-owner", "-czf"])
        .arg(place.path().join("a.tgz"))
        .arg("-C")
        .arg(&root)
        .arg("."));
    let recipe = "name = 'example'\nsource_date = 1650000000\n[image]\nsize = '400M'\n\
        [[layers]]\nkind = 'tar'\npath = 'a.tgz'\nwhiteouts = 'none'\n\
        [[layers]]\nkind = 'dir'\npath = 'more'\nwhiteouts = 'oci'\nowner = '0:0'\n\
        [[edits]]\nwrite = '/etc/hostname'\ncontent = 'template'\n\
        [[edits]]\nset = '/usr/bin/tool'\nmode = '0755'\nowner = '1:2'\n\
        [[edits]]\nremove = '/etc/x/file-9'\n\
        [[edits]]\nsymlink = '/etc/localtime'\ntarget = '/usr/share/zoneinfo/UTC'\n\
        [[efi]]\npath = 'EFI/BOOT/BOOTX64.EFI'\nsource = 'more/lib/added'\n";
    let mut digests = Vec::new();
    for (folder, umask, zone, date) in
        [("one", "022", "UTC", "1"), ("two", "077", "Asia/Tokyo", "1800000000")]
    {
        let folder = place.path().join(folder);
        make(
            &folder,
            "mkdir -p more/lib more/etc/x; echo added > more/lib/added; : > more/etc/x/.wh.file-1; find more -exec touch -d @1500000000 {} +",
        );
        std::fs::copy(place.path().join("a.tgz"), folder.join("a.tgz")).unwrap();
        std::fs::write(folder.join("recipe.toml"), recipe).unwrap();
        // as another user in the second folder, where this user may become one
        let script = format!("umask {umask}; exec \"$0\" \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &script]).arg(env!("CARGO_BIN_EXE_qubes-template-build"));
        command.args(["compose", "recipe.toml", "-o", "out.img", "--json"]).current_dir(&folder);
        command.env_clear().env("TZ", zone).env("LC_ALL", if zone == "UTC" { "C" } else { "tr_TR.UTF-8" });
        command.env("SOURCE_DATE_EPOCH", date);
        let said = run(&mut command);
        let said = &said[said.find('{').unwrap()..=said.rfind('}').unwrap()];
        let value: serde_json::Value = serde_json::from_str(said).unwrap();
        digests.push(value["sha256"].as_str().unwrap().to_owned());
        let image = folder.join("out.img");
        let root = folder.join("root.fs");
        run(program()
            .args(["compose", "--no-partitions", "--size", "196M", "-o"])
            .arg(&root)
            .arg("--layer")
            .arg(format!("image:{}", image.display())));
        let show = |command: &str| run(Command::new("debugfs").args(["-R", command]).arg(&root));
        if super::have("debugfs", "e2fsprogs") {
            assert!(show("cat /etc/hostname").contains("template"));
            assert!(
                show("stat /usr/bin/other").contains("User:     1   Group:     2"),
                "{}",
                show("stat /usr/bin/other")
            );
            assert!(
                show("stat /usr/lib/added").contains("Type: directory")
                    || show("stat /lib").contains("directory")
            );
            assert!(show("stat /etc/x/file-9").contains("not found"));
            assert!(show("stat /etc/x/file-1").contains("not found"));
        }
    }
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn what_is_wrong_is_said_and_leaves_nothing() {
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("out.img");
    std::fs::write(place.path().join("junk"), vec![7; 5000]).unwrap();
    let junk = |kind: &str| format!("{kind}:{}", place.path().join("junk").display());
    for kind in ["tar", "oci", "squashfs", "live", "image", "dir"] {
        let said = fails(program().args(["compose", "--layer", &junk(kind), "-o"]).arg(&out));
        assert!(said.contains("junk") && !said.contains("panicked"), "{kind}: {said}");
    }
    let said = fails(program().args(["compose", "--layer", &junk("zip"), "-o"]).arg(&out));
    assert!(said.contains("no kind of layer") && said.contains("squashfs"), "{said}");
    let write = |text: &str| {
        let recipe = place.path().join("recipe.toml");
        std::fs::write(&recipe, text).unwrap();
        fails(program().arg("compose").arg(recipe).arg("-o").arg(&out))
    };
    let said = write("name = 'x'\n[[layers]]\nkind = 'tar'\npath = 'junk'\n");
    assert!(said.contains("whiteouts"), "{said}");
    let said =
        write("name = 'x'\n[[layers]]\nkind = 'tar'\npath = 'junk'\nwhiteouts = 'none'\nsha265 = 'x'\n");
    assert!(said.contains("sha265") && said.contains("did you mean `sha256`"), "{said}");
    let said =
        write("name = 'x'\n[[layers]]\nkind = 'tar'\npath = 'junk'\nwhiteouts = 'none'\nsha256 = '00'\n");
    assert!(said.contains("as the recipe says"), "{said}");
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 2, "something was left");
}

#[test]
fn a_difference_exported_and_put_back_gives_the_same_tree() {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name).display().to_string();
    let lower = "mkdir -p a/b c d/e; echo 1 > a/1; echo 2 > a/b/2; ln a/1 c/link; ln a/1 c/other; echo f > d/e/f; ln -s a s; \
        echo t > t; find . -exec touch -h -d @1500000000 {} +";
    make(&place.path().join("base"), lower);
    let change = "rm a/b/2 c/link; rm -r d/e; echo new > d/e; rm s; mkdir s; echo in > s/in; chmod 700 c; echo more > t; \
        ln t t2; find . -exec touch -h -d @1500000000 {} +";
    make(&place.path().join("top"), &format!("{lower}; {change}"));
    let (base, top) = (format!("dir:{}", path("base")), format!("dir:{}", path("top")));
    for mode in ["oci", "overlayfs", "ostree"] {
        let made = path("layer.tar");
        run(program().args(["export", "--layer", &top, "--over", &base, "--whiteouts", mode, "-o", &made]));
        let again = path("again.tar");
        let layout = path("layer.oci");
        run(program().args(["export", "--format", "oci", "--layer", &top, "--over", &base]).args([
            "--whiteouts",
            mode,
            "-o",
            &layout,
        ]));
        for upper in [format!("tar,whiteouts={mode}:{made}"), format!("oci,whiteouts={mode}:{layout}")] {
            let words = ["compose", "--layer", &base, "--layer", &upper, "--format", "tar", "-o", &again];
            run(program().args(words));
            let said = run(program().arg("diff").arg(path("top")).arg(&again));
            assert_eq!(said, "", "{upper}");
        }
    }
    let said = fails(program().args([
        "export",
        "--layer",
        &top,
        "--over",
        &base,
        "--whiteouts",
        "none",
        "-o",
        &path("x"),
    ]));
    assert!(said.contains("`/a/b/2`") && !place.path().join("x").exists(), "{said}");
    let output = program().arg("diff").arg(path("base")).arg(path("top")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains("/a/b/2 only: there | not there") && said.contains("/c mode: 0755 | 0700"),
        "{said}"
    );
}

#[test]
fn a_build_is_packed_and_can_be_verified() {
    let place = tempfile::tempdir().unwrap();
    make(
        place.path(),
        "mkdir -p root/etc root/var/lib/dpkg out; echo x > root/etc/x; \
        printf 'Package: tool\\nStatus: install ok installed\\nVersion: 1-2\\nArchitecture: all\\n' > root/var/lib/dpkg/status; \
        find root -exec touch -d @1500000000 {} +; tar --numeric-owner -cf root.tar -C root .",
    );
    let recipe = "name = 'example'\nsource_date = 1650000000\n[image]\nsize = '300M'\n\
        [[layers]]\nkind = 'tar'\npath = 'root.tar'\nwhiteouts = 'none'\n";
    let file = place.path().join("recipe.toml");
    std::fs::write(&file, recipe).unwrap();
    let out = place.path().join("out");
    run(program().arg("build").arg(&file).arg("-o").arg(&out));
    assert!(out.join("repodata/repomd.xml").exists());
    let out = out.join("rpm");
    let names: Vec<String> = std::fs::read_dir(&out)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let find = |end: &str| {
        out.join(names.iter().find(|name| name.ends_with(end)).unwrap_or_else(|| panic!("{names:?}")))
    };
    let (package, manifest) = (find(".rpm"), find(".manifest.json"));
    assert_eq!(names.len(), 3, "{names:?}");
    let parts: serde_json::Value =
        serde_json::from_slice(&std::fs::read(find(".spdx.json")).unwrap()).unwrap();
    assert_eq!(
        (parts["spdxVersion"].as_str(), parts["dataLicense"].as_str()),
        (Some("SPDX-2.3"), Some("CC0-1.0"))
    );
    let purls: Vec<&str> = parts["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|p| p["externalRefs"][0]["referenceLocator"].as_str())
        .collect();
    assert_eq!(purls, ["pkg:deb/tool@1-2?arch=all"]);
    let text = std::fs::read_to_string(&manifest).unwrap();
    assert!(text.contains("dpkg tool 1-2 all"), "{text}");
    let verify = |status| {
        let output = program()
            .arg("verify-build")
            .arg(&manifest)
            .arg(&file)
            .arg("--folder")
            .arg(&out)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(status), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(verify(0).starts_with("equal"));
    assert!(run(program().args(["build", "--check"]).arg(&file).arg("-o").arg(&out)).contains("equal"));
    // the package is a layer too, with the same tree in it
    let said = run(program().arg("diff").arg(&package).arg(place.path().join("root.tar")));
    assert_eq!(said, "");
    make(place.path(), "echo y > root/etc/x; tar --numeric-owner -cf root.tar -C root .");
    let said = verify(1);
    assert!(said.starts_with("layer root.tar") && said.contains("image: "), "{said}");
}
