// SPDX-License-Identifier: GPL-2.0-or-later
//! Makes the seeds: heads of real packages, keys and signatures by gpg, archives and tar files, and small texts.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let made = folder.join("target/fixtures");
    if !made.join("complete").exists() {
        drop(fs::remove_dir_all(&made));
        let script = folder.join("../tests/fixtures/trust/make.sh");
        let status = Command::new(script).arg(&made).status().expect("running make.sh");
        assert!(status.success(), "gpg, rpmbuild and rpmsign are needed");
    }
    let corpus = folder.join("corpus");
    let put = |target: &str, name: &str, bytes: &[u8]| {
        let place = corpus.join(target);
        fs::create_dir_all(&place).expect("making the folder");
        fs::write(place.join(name), bytes).expect("writing a seed");
    };
    let packages = files(&made, "rpm").into_iter().chain(files(&made.join("built"), "rpm"));
    for path in packages {
        let bytes = fs::read(&path).expect("reading a package");
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        put("rpm_head", &name, &bytes[..head(&bytes)]);
    }
    for path in files(&made.join("keys"), "gpg") {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let key = fs::read(&path).expect("reading a key");
        put("openpgp", &name, &key);
        let signature = Command::new("gpg")
            .args(["--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", "", "--homedir"])
            .arg(made.join("gnupg"))
            .args([
                "--ignore-time-conflict",
                "--local-user",
                &format!("={name} <{name}@example.org>"),
                "--detach-sign",
            ])
            .arg(made.join("files/var/lib/qubes/vm-templates/test/template.conf"))
            .args(["--output", "-"])
            .output();
        let signature = signature.map(|o| o.stdout).unwrap_or_default();
        let len = u16::try_from(key.len()).unwrap_or(0).to_be_bytes();
        put(
            "openpgp",
            &format!("{name}-signed"),
            &[&len[..], &key, &signature, b"gui=1\nqrexec=1\n"].concat(),
        );
    }
    put("openpgp", "armored", &fs::read(made.join("keys/both.asc")).expect("reading a key"));
    archives(&put);
    layers(&put, &folder.join("target/layers"));
    texts(&put);
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("reading a folder").flatten();
    entries.map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == extension)).collect()
}

/// Bytes in front of the payload.
fn head(package: &[u8]) -> usize {
    let number = |at: usize| u32::from_be_bytes(package[at..at + 4].try_into().expect("four bytes")) as usize;
    let end = |at: usize| at + 16 + 16 * number(at + 8) + number(at + 12);
    end(end(96).next_multiple_of(8))
}

/// Small layers of every form, by the programs that people make them with; a form whose program is missing has no seed.
fn layers(put: &dyn Fn(&str, &str, &[u8]), place: &Path) {
    drop(fs::remove_dir_all(place));
    fs::create_dir_all(place).expect("making a folder");
    let make = |script: &str| {
        let done = Command::new("sh").args(["-ec", script]).current_dir(place).status();
        done.is_ok_and(|status| status.success())
    };
    assert!(make(
        "mkdir -p t/usr/bin t/etc; echo x > t/usr/bin/x; ln t/usr/bin/x t/usr/bin/y; ln -s usr/bin t/bin; : > t/etc/.wh.gone; \
         head -c 9000 /dev/zero > t/etc/z; setfattr -n user.a -v b t/etc/z || true"
    ));
    for (target, name, script) in [
        ("build_tar", "pax", "(printf 1; tar --format=posix --xattrs -cC t .) > out"),
        ("build_tar", "gnu", "(printf 0; tar --format=gnu -cSC t .) > out"),
        ("build_tar", "zstd", "(printf 0; tar -cC t . | zstd -q) > out"),
        ("build_tar", "xz", "(printf 2; tar -cC t . | xz) > out"),
        ("build_squashfs", "gzip", "rm -f out; mksquashfs t out -quiet -no-progress -comp gzip"),
        ("build_squashfs", "zstd", "rm -f out; mksquashfs t out -quiet -no-progress -comp zstd"),
        // without checksums, which would hide what comes after them
        (
            "build_image",
            "extents",
            "rm -f out; mke2fs -q -t ext4 -b 1024 -O ^metadata_csum,^has_journal,^resize_inode -d t out 128k",
        ),
        ("build_image", "lists", "rm -f out; mke2fs -q -t ext2 -b 1024 -d t out 128k"),
        (
            "build_deb",
            "plain",
            "mkdir -p d/DEBIAN d/usr; echo x > d/usr/x; printf 'Package: a\\nVersion: 1\\nArchitecture: all\\nMaintainer: x\\nDescription: x\\n' > d/DEBIAN/control; dpkg-deb --root-owner-group -b d out",
        ),
        (
            "build_rpm",
            "cpio",
            "mkdir -p r/usr/d; printf hello > r/usr/b; : > r/usr/a; ln -s a r/usr/l; (cd r; printf '%s\\n' usr/a usr/b usr/l usr/d | cpio -o --quiet -H newc) | gzip > body; (printf '\\0'; cat body) > out",
        ),
    ] {
        if make(script) {
            put(target, name, &fs::read(place.join("out")).expect("reading a seed"));
        } else {
            eprintln!("SKIPPED: seed {name} of {target}");
        }
    }
    // a layout by hand: every blob is named by its digest
    let layout = "mkdir -p o/blobs/sha256; put() { mv $1 o/blobs/sha256/$(sha256sum < $1 | cut -c-64); }; \
        size() { stat -c %s $1; }; sum() { sha256sum < $1 | cut -c-64; }; tar -cC t . > l; \
        printf '{\"architecture\":\"amd64\",\"os\":\"linux\",\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"sha256:%s\"]}}' $(sum l) > c; \
        printf '{\"schemaVersion\":2,\"config\":{\"mediaType\":\"application/vnd.oci.image.config.v1+json\",\"digest\":\"sha256:%s\",\"size\":%s},\"layers\":[{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\",\"digest\":\"sha256:%s\",\"size\":%s}]}' $(sum c) $(size c) $(sum l) $(size l) > m; \
        printf '{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"digest\":\"sha256:%s\",\"size\":%s}]}' $(sum m) $(size m) > o/index.json; \
        printf '{\"imageLayoutVersion\":\"1.0.0\"}' > o/oci-layout; put l; put c; put m; tar -cC o . > out";
    assert!(make(layout));
    put("build_oci", "layout", &fs::read(place.join("out")).expect("reading a seed"));
}

fn archives(put: &dyn Fn(&str, &str, &[u8])) {
    let plain = tar(b'0', &[7; 700], |_| {});
    put("tar", "plain", &plain);
    let sparse = tar(b'S', &[7; 1024], |h| {
        h[483..495].copy_from_slice(b"00000100000\0");
        h[386..410].copy_from_slice(b"00000001000\x0000000001000\0");
        h[410..434].copy_from_slice(b"00000010000\x0000000001000\0");
        h[434..458].copy_from_slice(b"00000100000\x0000000000000\0");
    });
    put("tar", "sparse", &sparse);
    let mut map = vec![0; 512];
    map[..24].copy_from_slice(b"00000020000\x0000000001000\0");
    let mut longer = tar(b'S', &[&map[..], &[7; 512]].concat(), |h| {
        h[124..136].copy_from_slice(b"00000001000\0");
        h[483..495].copy_from_slice(b"00000100000\0");
        h[482] = 1;
        for slot in h[386..482].chunks_exact_mut(24) {
            slot.copy_from_slice(b"00000000000\x0000000000000\0");
        }
    });
    put("tar", "continued", &longer);
    longer.resize(10240, 0);
    put("tar", "record", &longer);
    put("tar", "pax", &tar(b'x', b"30 GNU.sparse.major=1\n", |_| {}));

    let image = tar(b'0', &[7; 1024], |_| {});
    let mut cpio = Vec::new();
    for (path, size) in qvm_template::fuzzing::file_list() {
        let (mode, data) = match (path.rsplit('/').next(), size) {
            (_, None) => (0o040_770, &b""[..]),
            (Some("root.img.part.00"), _) => (0o100_660, &image[..1536]),
            (Some("root.img.part.01"), _) => (0o100_660, &image[1536..]),
            (Some("template.conf"), _) => (0o100_660, &b"gui=1\n"[..]),
            _ => (0o100_660, &b"abc"[..]),
        };
        entry(&mut cpio, &format!(".{path}"), mode, data);
    }
    entry(&mut cpio, "TRAILER!!!", 0, b"");
    put("archive", "good", &cpio);
    let packed = zstd::encode_all(&cpio[..], 3).expect("compressing");
    put("payload", "zstd", &[&[0], &packed[..]].concat());
    for (kind, program) in [(1, "xz"), (2, "gzip")] {
        let mut child = Command::new(program)
            .arg("-c")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("starting the compressor");
        child.stdin.take().expect("a pipe").write_all(&cpio).expect("writing");
        let packed = child.wait_with_output().expect("waiting").stdout;
        put("payload", program, &[&[kind], &packed[..]].concat());
    }
}

fn entry(out: &mut Vec<u8>, path: &str, mode: u32, data: &[u8]) {
    out.extend(b"070701");
    for field in [1, mode, 0, 0, 1, 0, data.len() as u32, 0, 0, 0, 0, path.len() as u32 + 1, 0] {
        out.extend(format!("{field:08x}").bytes());
    }
    out.extend(path.bytes().chain([0]));
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend(data);
    out.resize(out.len().next_multiple_of(4), 0);
}

fn tar(kind: u8, data: &[u8], change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut out = vec![0; 512];
    out[..8].copy_from_slice(b"root.img");
    out[124..136].copy_from_slice(format!("{:011o}\0", data.len()).as_bytes());
    out[156] = kind;
    out[257..265].copy_from_slice(b"ustar  \0");
    change(&mut out);
    out[148..156].fill(b' ');
    let sum: u32 = out.iter().map(|b| u32::from(*b)).sum();
    out[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    out.extend(data);
    out.resize(out.len().next_multiple_of(512) + 1024, 0);
    out
}

fn texts(put: &dyn Fn(&str, &str, &[u8])) {
    let record = "qubes-template-debian-13|0|4.3.0|202511051200|qubes-templates-itl|1000|2025-11-05 12:00|GPLv3+|https://www.qubes-os.org|A template|Line one|Line two|\n";
    put("search_reply", "one", record.as_bytes());
    put("search_reply", "three", record.repeat(3).as_bytes());
    put("search_reply", "dnf4", b"\nqubes-template-x|(none)|1|1|r|5|2025-1-1 1:01|A and B||s|d|\n");
    put(
        "search_request",
        "old",
        b"--refresh\n--releasever=4.3\nqubes-template-*\n---\n[r]\nname=x\nbaseurl=https://x/$releasever\n",
    );
    put("search_request", "keys", b"--enablerepo=r\nx\n---\n[r]\ngpgkey=file:///k\n###!Q!BEGIN-QUBES-WRAPPER!Q!###\n#file:///k\n#YWJj\n###!Q!END-QUBES-WRAPPER!Q!###\n");
    put("repo_file", "usual", b"# comment\n[qubes-templates-itl]\nname = Qubes Templates\n#baseurl = https://a/b\nmetalink = https://a/$releasever/b\nenabled = 1\nfastestmirror = 1\nmetadata_expire = 7d\ngpgcheck = 1\ngpgkey = file:///etc/qubes/repo-templates/keys/RPM-GPG-KEY-qubes-$releasever-primary\n  file:///second\n\n[other]\nbaseurl=http://x http://y\nenabled=no\n");
    put(
        "template_conf",
        "usual",
        b"gui=1\nqrexec=1\nvirt-mode=pvh\nkernel=\nnet.fake-ip=10.0.0.1\nselinux=1\nodd\n# x\n",
    );
    put("repomd", "usual", b"<?xml version=\"1.0\"?><repomd xmlns=\"http://linux.duke.edu/metadata/repo\"><revision>1</revision><data type=\"primary\"><checksum type=\"sha256\">aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa</checksum><location href=\"repodata/primary.xml.gz\"/><size>5</size><open-size>9</open-size></data></repomd>");
    put("primary", "usual", b"<?xml version=\"1.0\"?><metadata xmlns=\"http://linux.duke.edu/metadata/common\" xmlns:rpm=\"http://linux.duke.edu/metadata/rpm\" packages=\"1\"><package type=\"rpm\"><name>qubes-template-x</name><arch>noarch</arch><version epoch=\"0\" ver=\"1\" rel=\"2\"/><checksum type=\"sha256\" pkgid=\"YES\">aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa</checksum><summary>s &amp; t</summary><description>d</description><url>u</url><time file=\"1\" build=\"2\"/><size package=\"5\" installed=\"6\" archive=\"7\"/><location href=\"rpm/x.rpm\"/><format><rpm:license>GPL</rpm:license></format></package></metadata>");
    let record = r#"{"name":"debian-13","repository":"qubes-templates-itl","epoch":0,"version":"4.3.0","release":"202511051200","signer":"ABCD","time":1762300000}"#;
    put("seen", "one", format!("{{\"schema\":1,\"seen\":[{record}]}}").as_bytes());
    put("seen", "two", format!("{{\"schema\":1,\"seen\":[{record},{record}]}}").as_bytes());
    put(
        "config",
        "usual",
        b"repo-files = ['/a/*.repo']\nretries = 3\nmax-image-size = '40G'\nkeep-cache = true\n",
    );
    put("config", "size", b"40GiB");
    put(
        "delegate_request",
        "install",
        br#"{"schema":1,"version":"0:4.3-1","repository":"itl","pool":"p","on-hangup":"cancel"}"#,
    );
    put(
        "delegate_request",
        "search",
        br#"{"schema":1,"keywords":["debian 13"],"everything":true,"show":["installed"]}"#,
    );
    put(
        "grants",
        "two",
        b"version = 1\n[[grant]]\ncaller = \"help-desk\"\nverbs = [\"list\", \"install\"]\ntemplates = [\"debian-*\"]\n\
          repositories = [\"itl\"]\nmax-image-size = \"10 GiB\"\n[[grant]]\ncaller = \"@tag:t\"\nverbs = [\"remove\"]\n\
          templates = [\"*\"]\nwhose = \"shared\"\n",
    );
    put(
        "delegate_answer",
        "install",
        b"{\"event\":\"job\",\"state\":\"waiting\"}\n{\"event\":\"begin\",\"phase\":\"import\",\"template\":\"a\",\"total\":3}\n\
          {\"event\":\"message\",\"text\":\"x\"}\n{\"result\":\"done\",\"exit\":0}\n",
    );
    put("admin_reply", "data", b"0\0dom0 class=AdminVM state=Running\nx class=AppVM state=Halted\n");
    put("admin_reply", "exception", b"2\0QubesVMNotFoundError\0\0No such domain: %r\0x\0");
    put("admin_reply", "percent", b"2\0QubesException\0trace\0100%% %s of %d\0a\0b\0");
}
