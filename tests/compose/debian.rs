//! Debian packages as layers, made by dpkg-deb and asked about by dpkg.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::command::{fails, make, program};
use super::{have, run};

/// Makes a package of a folder `NAME` with its `DEBIAN/control` from `control`.
fn package(place: &Path, name: &str, control: &str, script: &str) -> PathBuf {
    let folder = place.join("source").join(name);
    make(&folder, &format!("mkdir -p DEBIAN; chmod 755 . DEBIAN; umask 022; {script}"));
    let text = format!(
        "Package: {name}\nVersion: 1.0-1\nArchitecture: all\nMaintainer: x <x@example.org>\n{control}Description: x\n more\n"
    );
    std::fs::write(folder.join("DEBIAN/control"), text).unwrap();
    let out = place.join("debs").join(name);
    std::fs::create_dir_all(&out).unwrap();
    run(Command::new("find").arg(&folder).args(["-exec", "touch", "-h", "-d", "@1500000000", "{}", "+"]));
    run(Command::new("dpkg-deb")
        .args(["--root-owner-group", "-b"])
        .arg(&folder)
        .arg(&out)
        .env("SOURCE_DATE_EPOCH", "1500000000"));
    out
}

const BASE: &str = "mkdir -p usr/bin usr/share/man etc var/lib/dpkg/info var/lib/dpkg/triggers var/lib/dpkg/updates; echo base > usr/bin/tool; \
    echo old > etc/mine.conf; printf '/.\\n/usr/bin/tool\\n' > var/lib/dpkg/info/libc-bin.list; echo libc-bin > var/lib/dpkg/triggers/ldconfig; \
    printf '/usr/share/man man-db/noawait\\n/usr/share/icons icons\\n' > var/lib/dpkg/triggers/File; : > etc/.updated; \
    printf 'Package: libc-bin\\nStatus: install ok installed\\nMaintainer: x <x@example.org>\\nArchitecture: amd64\\nVersion: 2.36-9\\nProvides: ldc (= 3)\\nDescription: x\\n\\n\
Package: man-db\\nStatus: install ok installed\\nMaintainer: x <x@example.org>\\nArchitecture: amd64\\nVersion: 2\\nDescription: x\\n\\n' > var/lib/dpkg/status; \
    : > var/lib/dpkg/info/man-db.list; find . -exec touch -h -d @1500000000 {} +";

#[test]
fn debian_packages_are_put_on_a_base_and_registered() {
    if !have("dpkg-deb", "dpkg") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("root");
    make(&root, BASE);
    let out = place.path().join("out.tar");
    let compose = |packages: &Path| {
        let mut command = program();
        command.args(["compose", "--layer"]).arg(format!("dir:{}", root.display()));
        command
            .arg("--layer")
            .arg(format!("deb:{}", packages.display()))
            .args(["--format", "tar", "--json", "-o"])
            .arg(&out);
        command
    };
    let good = package(
        place.path(),
        "good",
        "Depends: libc-bin (>= 2.14), nothere | ldc (>= 2)\n",
        "mkdir -p usr/bin usr/share/man/man1 usr/lib/x86_64-linux-gnu etc; echo good > usr/bin/good; ln usr/bin/good usr/bin/good2; \
         chmod 4755 usr/bin/good; : > usr/share/man/man1/good.1; : > usr/lib/x86_64-linux-gnu/libgood.so.1; echo new > etc/mine.conf; \
         echo other > etc/other.conf; printf '/etc/mine.conf\\n/etc/other.conf\\n' > DEBIAN/conffiles; \
         echo 'activate-noawait ldconfig' > DEBIAN/triggers; printf '#!/bin/sh\\nset -e\\nrm -rf /\\n' > DEBIAN/postrm; chmod 755 DEBIAN/postrm",
    );
    let said = run(&mut compose(&good));
    assert!(
        said.contains("good 1.0-1 all")
            && said.contains("trigger ldconfig")
            && said.contains("etc/mine.conf.dpkg-dist"),
        "{said}"
    );
    let first = qvm_template::build::layer::sha256(&out).unwrap();
    run(&mut compose(&good));
    assert_eq!(first, qvm_template::build::layer::sha256(&out).unwrap());
    let unpacked = place.path().join("unpacked");
    std::fs::create_dir(&unpacked).unwrap();
    run(Command::new("tar").arg("-xpf").arg(&out).arg("-C").arg(&unpacked));
    let text = |path: &str| std::fs::read_to_string(unpacked.join(path)).unwrap();
    assert_eq!((text("etc/mine.conf"), text("etc/mine.conf.dpkg-dist")), ("old\n".into(), "new\n".into()));
    assert!(!unpacked.join("etc/.updated").exists());
    let dpkg = |program: &str, arguments: &[&str]| {
        run(Command::new(program)
            .arg(format!("--admindir={}", unpacked.join("var/lib/dpkg").display()))
            .args(arguments))
    };
    let shown =
        dpkg("dpkg-query", &["-W", "-f", "${Package} ${Version} ${db:Status-Abbrev}${Triggers-Pending}\\n"]);
    assert_eq!(shown, "good 1.0-1 ii \nlibc-bin 2.36-9 it  ldconfig\nman-db 2 it  /usr/share/man\n");
    let list = dpkg("dpkg-query", &["-L", "good"]);
    assert!(list.contains("/usr/bin/good2") && list.contains("/etc/other.conf"), "{list}");
    assert!(text("var/lib/dpkg/info/good.postrm").contains("rm -rf"));
    // dpkg itself finds every file as it should be, but the configuration that stayed
    let verified = Command::new("dpkg")
        .arg(format!("--root={}", unpacked.display()))
        .args(["--verify", "good"])
        .output()
        .unwrap();
    let verified = String::from_utf8_lossy(&verified.stdout).into_owned();
    assert_eq!(verified.split_whitespace().collect::<Vec<_>>(), ["??5??????", "c", "/etc/mine.conf"]);

    for (name, control, script, wanted) in [
        (
            "scripty",
            "",
            "printf '#!/bin/sh\\ntouch /canary\\n' > DEBIAN/postinst; chmod 755 DEBIAN/postinst",
            "`postinst` (/bin/sh)",
        ),
        ("thief", "", "mkdir -p usr/bin; echo x > usr/bin/tool", "libc-bin"),
        ("newer", "Depends: libc-bin (>= 3)\n", ":", "libc-bin (>= 3) is needed by newer"),
        ("enemy", "Conflicts: ldc (<< 4)\n", ":", "does not go together"),
        ("icon", "", "mkdir -p usr/share/icons; : > usr/share/icons/x", "/usr/share/icons"),
        (
            "lib",
            "",
            "mkdir -p opt/lib; : > opt/lib/libx.so.1; echo 'activate-noawait ldconfig' > DEBIAN/triggers",
            "ldconfig",
        ),
        (
            "waits",
            "",
            "echo 'interest /usr/bin' > DEBIAN/triggers; printf '#!/bin/sh\\n:\\n' > DEBIAN/postinst; chmod 755 DEBIAN/postinst",
            "interest",
        ),
    ] {
        std::fs::remove_file(&out).ok();
        let folder = package(place.path(), name, control, script);
        let said = fails(&mut compose(&folder));
        assert!(said.contains(wanted) && !out.exists() && !said.contains("panicked"), "{name}: {said}");
    }
    // damage is said and leaves nothing
    let deb = std::fs::read_dir(&good).unwrap().next().unwrap().unwrap().path();
    let whole = std::fs::read(&deb).unwrap();
    for cut in [0, 7, 70, 140, whole.len() / 2, whole.len() - 3] {
        std::fs::write(place.path().join("cut.deb"), &whole[..cut]).unwrap();
        let said = fails(&mut compose(&place.path().join("cut.deb")));
        assert!(said.contains("cut.deb") && !out.exists() && !said.contains("panicked"), "{cut}: {said}");
    }
}
