//! What the builder writes, judged by the programs that will read it.

use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};

use crate::support::programs::{BUILD, command, folder, success};

/// Moment that every package here carries: 2023-11-14 22:13:20.
const EPOCH: &str = "1700000000";

/// Runs a shell script with the folder as working directory.
fn shell(place: &Path, script: &str) -> Result<String> {
    success(place, "bash", ["-euo", "pipefail", "-c", script])
}

/// An image with data at its beginning, in its middle and at its end, and holes between.
fn image(place: &Path, mebibytes: u64) -> Result<PathBuf> {
    let path = place.join("root.img");
    let mut file = File::create(&path)?;
    file.set_len(mebibytes << 20)?;
    let mut block: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    for (number, at) in [0, (mebibytes << 19) + 4096, (mebibytes << 20) - 300_000].into_iter().enumerate() {
        block[7] = u8::try_from(number)?;
        file.seek(SeekFrom::Start(at))?;
        file.write_all(&block)?;
    }
    Ok(path)
}

fn recipe(place: &Path) -> Result<()> {
    fs::write(
        place.join("recipe.toml"),
        r#"
        name = "demo-1"
        version = "4.3.0"
        summary = "A template for tests"
        description = "First line\nsecond line"
        license = "GPLv3+"
        url = "https://example.invalid/"
        [conf]
        qrexec = "1"
        [menus]
        template = ["one.desktop", "two.desktop"]
        "#,
    )
    .context("writing the recipe")
}

fn build(place: &Path, arguments: &[&str]) -> Result<String> {
    let output = command(place, BUILD, arguments)
        .env("SOURCE_DATE_EPOCH", EPOCH)
        .stdin(Stdio::null())
        .output()
        .context("running the builder")?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "the builder ended with {}: {errors}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

fn keygen(place: &Path, algorithm: &str) -> Result<()> {
    let words = ["--seed", "test", "--algorithm", algorithm];
    build(place, &[&["keygen", "--secret", "key.sec", "--public", "key.pub"][..], &words].concat()).map(drop)
}

/// The line that the original's verification expects.
const STRICT: &str =
    "rpmkeys --dbpath $PWD/db --define '_pkgverify_level all' --define '_pkgverify_flags 0x0' --checksig -";

#[test]
fn real_rpm_accepts_signature_digests_and_contents() {
    let place = folder().unwrap();
    let at = place.path();
    image(at, 3).unwrap();
    recipe(at).unwrap();
    for algorithm in ["ed25519", "rsa3072"] {
        keygen(at, algorithm).unwrap();
        shell(at, "rm -rf db; mkdir db; rpmkeys --dbpath $PWD/db --import key.pub").unwrap();
        for (compression, level) in [("zstd", "3"), ("xz", "1"), ("gzip", "6")] {
            for rpmv3 in [&[][..], &["--rpmv3"]] {
                let words =
                    ["pack", "root.img", "--recipe", "recipe.toml", "--key", "key.sec", "-o", "out.rpm"];
                let payload = ["--compression", compression, "--level", level];
                build(at, &[&words[..], &payload, rpmv3].concat()).unwrap();
                let verdict = shell(at, &format!("{STRICT} < out.rpm")).unwrap();
                assert_eq!(verdict, "-: digests signatures OK\n", "{algorithm} {compression} {rpmv3:?}");
                unpacked_image_is_the_source(at).unwrap();
            }
        }
    }
}

/// Real rpm2cpio, cpio and tar give the image back.
fn unpacked_image_is_the_source(at: &Path) -> Result<()> {
    let script = "rm -rf out; mkdir out; cd out
        rpm2cpio ../out.rpm | cpio -idm --quiet --no-absolute-filenames
        cd var/lib/qubes/vm-templates/demo-1
        cat root.img.part.* | tar xSOf - | cmp - ../../../../../../root.img
        cat template.conf vm-whitelisted-appmenus.list
        head -c 512 root.img.part.00 | tar tvf - 2>/dev/null || true";
    let out = shell(at, script)?;
    let lines: Vec<&str> = out.lines().collect();
    ensure!(lines[..3] == ["qrexec=1", "one.desktop", "two.desktop"], "{out}");
    // What the original takes for the size of the image.
    let size = lines.get(3).and_then(|line| line.split_whitespace().nth(2)).context("tar shows no size")?;
    ensure!(size == (3 << 20).to_string(), "{out}");
    Ok(())
}

#[test]
fn the_package_has_the_shape_of_the_distributions() {
    let place = folder().unwrap();
    let at = place.path();
    image(at, 2).unwrap();
    recipe(at).unwrap();
    build(at, &["pack", "root.img", "--recipe", "recipe.toml", "-o", "out.rpm", "--level", "1"]).unwrap();
    let base = "/var/lib/qubes/vm-templates/demo-1";
    let listed = shell(at, "rpm -qp --qf '[%{FILEMODES:perms} %{FILEUSERNAME} %{FILEGROUPNAME} %{FILENAMES} %{FILEFLAGS:fflags}\n]' out.rpm").unwrap();
    for line in [
        format!("drwxrws--- root qubes {base} "),
        format!("drwxrwxr-x root qubes {base}/apps "),
        format!("drwxrwxr-x root qubes {base}/apps.templates "),
        format!("drwxrwxr-x root qubes {base}/apps.tempicons "),
        format!("-rw-rw---- root qubes {base}/root.img.part.00 "),
        format!("-rw-rw---- root qubes {base}/root.img g"),
        format!("-rw-rw---- root qubes {base}/private.img g"),
        format!("-rw-rw---- root qubes {base}/volatile.img g"),
    ] {
        assert!(listed.lines().any(|have| have == line), "{line:?} is not in\n{listed}");
    }
    let about = shell(at, "rpm -qp --qf '%{NAME} %{VERSION} %{RELEASE} %{ARCH} %{BUILDTIME} %{LICENSE}|[%{OBSOLETES} %{OBSOLETEFLAGS:depflags} %{OBSOLETEVERSION}]' out.rpm").unwrap();
    assert!(
        about.starts_with("qubes-template-demo-1 4.3.0 202311142213 noarch 1700000000 GPLv3+|"),
        "{about}"
    );
    assert!(about.contains("demo-1 >"), "{about}");
    // Installation by rpm is refused by the package itself.
    let scripts = shell(at, "rpm -qp --scripts out.rpm").unwrap();
    assert!(scripts.contains("preinstall") && scripts.contains("exit 1"), "{scripts}");
}

#[test]
fn the_same_input_gives_the_same_package_wherever_it_is_built() {
    let mut sums = Vec::new();
    for (threads, mask) in [("1", "022"), ("2", "077")] {
        let place = folder().unwrap();
        let at = place.path();
        image(at, 40).unwrap();
        recipe(at).unwrap();
        keygen(at, "ed25519").unwrap();
        let script = format!(
            "umask {mask}; SOURCE_DATE_EPOCH={EPOCH} TZ=Asia/Tokyo {BUILD} pack root.img --recipe recipe.toml \
             --key key.sec --level 1 --threads {threads} -o . | cut -c 1-64"
        );
        sums.push(shell(at, &script).unwrap());
        assert!(at.join("qubes-template-demo-1-4.3.0-202311142213.noarch.rpm").exists());
    }
    assert_eq!(sums[0], sums[1]);
}

#[test]
fn dnf_reads_our_metadata_as_it_reads_createrepos() {
    let place = folder().unwrap();
    let at = place.path();
    image(at, 2).unwrap();
    recipe(at).unwrap();
    fs::create_dir_all(at.join("ours/rpm")).unwrap();
    for version in ["4.3.0", "4.3.1~beta^2"] {
        build(
            at,
            &[
                "pack",
                "root.img",
                "--recipe",
                "recipe.toml",
                "--version",
                version,
                "--level",
                "1",
                "-o",
                "ours/rpm",
            ],
        )
        .unwrap();
    }
    build(
        at,
        &["pack", "root.img", "--name", "other", "--summary", "<&>\"'", "--level", "1", "-o", "ours/rpm"],
    )
    .unwrap();
    shell(at, "cp -r ours theirs; createrepo_c -q theirs").unwrap();
    let format = "%{name}|%{epoch}|%{version}|%{release}|%{downloadsize}|%{installsize}|%{buildtime}|%{license}|%{url}|%{summary}|%{description}";
    let query = |repo: &str, what: &str| {
        let script = format!(
            "dnf -q --repofrompath=r,file://$PWD/{repo} --repo=r --setopt=cachedir=$PWD/cache-{repo} \
             --setopt=keepcache=0 repoquery {what}"
        );
        shell(at, &script).unwrap()
    };
    let mut before = String::new();
    for compression in ["gzip", "xz", "zstd", "gzip"] {
        build(at, &["repo", "ours", "--compression", compression]).unwrap();
        shell(at, "rm -rf cache-ours").unwrap();
        for what in [
            format!("--qf '{format}'"),
            "--list".to_owned(),
            "--provides".to_owned(),
            "--obsoletes".to_owned(),
        ] {
            let (ours, theirs) = (query("ours", &what), query("theirs", &what));
            assert!(!ours.trim().is_empty() || what == "--obsoletes");
            assert_eq!(ours, theirs, "{compression} {what}");
        }
        let sums = shell(at, "sha256sum ours/repodata/*").unwrap();
        // Only what repomd.xml names is left, and the same packages give the same bytes.
        assert_eq!(sums.lines().count(), 4, "{sums}");
        if compression == "gzip" && !before.is_empty() {
            assert_eq!(sums, before);
        } else if compression == "gzip" {
            before = sums;
        }
    }
}

#[test]
fn gpg_accepts_the_signature_of_the_repository() {
    let place = folder().unwrap();
    let at = place.path();
    keygen(at, "ed25519").unwrap();
    fs::create_dir(at.join("r")).unwrap();
    build(at, &["repo", "r", "--key", "key.sec"]).unwrap();
    shell(
        at,
        "export GNUPGHOME=$PWD/gpg; mkdir -m 700 gpg; gpg -q --import key.pub
         gpg -q --verify r/repodata/repomd.xml.asc r/repodata/repomd.xml",
    )
    .unwrap();
    // Without a key no signature is left that would be about another file.
    build(at, &["repo", "r"]).unwrap();
    assert!(!at.join("r/repodata/repomd.xml.asc").exists());
}

#[test]
fn what_cannot_be_packed_leaves_nothing_behind() {
    let place = folder().unwrap();
    let at = place.path();
    recipe(at).unwrap();
    for arguments in [
        &["pack", "missing.img", "--recipe", "recipe.toml", "-o", "out.rpm"][..],
        &["pack", "recipe.toml", "--name", "a/b", "-o", "out.rpm"],
        &["pack", "recipe.toml", "-o", "out.rpm"],
        &["pack", "recipe.toml", "--name", "a", "--key", "recipe.toml", "-o", "out.rpm"],
    ] {
        assert!(build(at, arguments).is_err(), "{arguments:?}");
        let left: Vec<_> = fs::read_dir(at).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["recipe.toml"], "{arguments:?}");
    }
}

/// Highest amount of memory that a run of the builder held, in KiB.
fn peak(place: &Path, arguments: &[&str]) -> Result<u64> {
    let mut child = command(place, BUILD, arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let mut peak = 0;
    loop {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(peak);
        if let Some(status) = child.try_wait()? {
            ensure!(status.success(), "the builder ended with {status}");
            return Ok(peak);
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

#[test]
fn memory_does_not_follow_the_image() {
    let place = folder().unwrap();
    let at = place.path();
    let words = ["pack", "root.img", "--name", "demo", "-o", "out.rpm", "--level", "1", "--threads", "2"];
    let mut peaks = Vec::new();
    for mebibytes in [128, 512] {
        image(at, mebibytes).unwrap();
        // Data all over, and not only where the helper puts some.
        shell(
            at,
            "head -c $(stat -c %s root.img) /dev/zero | tr '\\0' 'x' > root.img2; mv root.img2 root.img",
        )
        .unwrap();
        peaks.push(peak(at, &words).unwrap());
    }
    assert!(peaks[0] > 0 && peaks[1] < peaks[0] + (8 << 10), "{peaks:?} KiB");
}

#[test]
fn a_disk_has_the_partitions_of_the_distributions() {
    let place = folder().unwrap();
    let at = place.path();
    shell(at, "truncate -s 20M root.ext4 && mkfs.ext4 -q -F root.ext4").unwrap();
    build(at, &["disk", "root.ext4", "-o", "disk.img", "--size", "512"]).unwrap();
    let table = shell(at, "sfdisk -d disk.img").unwrap();
    for part in [
        "label-id: F4796A2A-E377-45BD-B539-D6D49E569055",
        "start=        2048, size=      409600, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, \
         uuid=FA4D6529-56DA-47C7-AE88-E2DFECB72621, name=\"EFI System\"",
        "start=      411648, size=        4096, type=21686148-6449-6E6F-744E-656564454649, \
         uuid=1E6C9DB4-1E91-46C4-846A-2030DCB13B8C, name=\"BIOS boot partition\"",
        "start=      415744, size=      630784, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, \
         uuid=693244E6-3E07-47BF-AD79-ACADE4293FE7, name=\"Root filesystem\"",
    ] {
        assert!(table.contains(part), "{part}\n{table}");
    }
    let script =
        "dd if=disk.img of=back bs=1M skip=203 count=20 status=none && cmp back root.ext4 && e2fsck -fn back";
    shell(at, script).unwrap();
    assert!(build(at, &["disk", "root.ext4", "-o", "small.img", "--size", "210"]).is_err());
    assert!(!at.join("small.img").exists());
}
