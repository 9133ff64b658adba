// SPDX-License-Identifier: GPL-2.0-or-later
//! What is accepted and what is refused, beside Debian's `rpmkeys` in its strictest setting.

mod cases;
mod certificates;
mod payloads;
mod surgery;
mod table;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use qvm_template::payload::Payload;
use qvm_template::root_image::{CopyError, Limits, TemplateFiles};
use qvm_template::spool::Spooled;
use qvm_template::template::{Evr, TemplateName};
use qvm_template::verify::policy::CLOCK_SKEW;
use qvm_template::verify::{Keyring, Policy, Rejection, Verified, check_digests_only, verify};

/// The folder with keys and packages, made once for each state of the script that makes them.
fn fixtures() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/trust/make.sh");
        let state = surgery::digest("sha256sum", &fs::read(&script).unwrap());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("trust-{}", &state[..16]));
        if !folder.join("complete").exists() {
            drop(fs::remove_dir_all(&folder));
            let output = Command::new(&script).arg(&folder).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "making the packages needs gpg, rpmbuild, rpmsign, tar: {said}");
        }
        folder
    })
}

/// The folder with one package for each case.
fn case_folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let sources = [include_str!("trust/cases.rs"), include_str!("trust/surgery.rs")].concat();
        let state = surgery::digest("sha256sum", sources.as_bytes());
        let folder = fixtures().join(format!("cases-{}", &state[..16]));
        if !folder.join("complete").exists() {
            cases::make(fixtures(), &folder);
            fs::write(folder.join("complete"), "").unwrap();
        }
        folder
    })
}

fn case(name: &str) -> Vec<u8> {
    fs::read(case_folder().join(format!("{name}.rpm"))).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn package(name: &str) -> PathBuf {
    fixtures().join(format!("{name}.rpm"))
}

fn keyring(names: &[&str]) -> Keyring {
    let paths: Vec<_> = names.iter().map(|n| fixtures().join("keys").join(n)).collect();
    Keyring::from_files(&paths).unwrap()
}

fn spool(bytes: &[u8]) -> Spooled {
    let mut spool =
        qvm_template::spool::Spool::create(Path::new(env!("CARGO_TARGET_TMPDIR")), 1 << 30).unwrap();
    std::io::Write::write_all(&mut spool, bytes).unwrap();
    spool.finish().unwrap()
}

fn judge(bytes: &[u8], keys: &[&str]) -> Result<Verified, Rejection> {
    verify(spool(bytes), &Policy::any(), &keyring(keys), SystemTime::now())
}

fn image(verified: &Verified) -> Result<(Vec<u8>, TemplateFiles), CopyError> {
    let image = Payload::open(verified, &verified.info().name)?.root_image(Limits::default())?;
    let mut out = Vec::new();
    let (size, mut seen) = (image.size(), 0);
    let files = image.copy_to(&mut out, &mut |n| seen = n)?;
    assert_eq!((out.len() as u64, seen), (size, size));
    Ok((out, files))
}

#[test]
fn good_packages_become_the_image_that_was_packed() {
    let wanted = fs::read(fixtures().join("root.img")).unwrap();
    for name in ["good-rsa", "good-rsa-v3", "good-rsa-xz", "good-rsa-gzip", "good-ed", "good-ed-v3"] {
        let mut file = File::open(package(name)).unwrap();
        let spooled = Spooled::copy_of(&mut file, Path::new(env!("CARGO_TARGET_TMPDIR")), 1 << 30).unwrap();
        let verified = verify(spooled, &Policy::any(), &keyring(&["both.asc"]), SystemTime::now())
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(verified.info().name.as_str(), "test");
        assert_eq!(verified.info().nevra.to_string(), "qubes-template-test-0:4.3.0-202511051200.noarch");
        assert_eq!(verified.info().license, "GPL-2.0-or-later AND MIT");
        assert_eq!(verified.info().description, "First line.\nSecond line.");
        let signer = verified.signer().unwrap();
        assert!(
            signer.user_ids[0].contains(if name.contains("ed") { "<ed@" } else { "<rsa@" }),
            "{signer:?}"
        );
        let (image, files) = image(&verified).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        assert!(image == wanted, "{name}: the image differs");
        assert_eq!(files.conf.as_deref(), Some(&b"gui=1\nqrexec=1\n"[..]));
        assert_eq!(files.menu_items.as_deref(), Some(&b"whitelisted-appmenus.list.desktop\n"[..]));
        assert!(files.default_menu_items.is_some() && files.netvm_menu_items.is_some());
    }
}

/// Asks rpmkeys in its strictest setting, with all keys of the fixtures imported.
struct Rpmkeys {
    database: tempfile::TempDir,
}

impl Rpmkeys {
    fn new() -> Self {
        let rpmkeys = Self { database: tempfile::tempdir().unwrap() };
        for key in [
            "rsa",
            "ed",
            "p256",
            "dsa",
            "weakrsa1024",
            "subrsa",
            "subed",
            "expired",
            "revoked",
            "subrevoked-before",
        ] {
            let key = fixtures().join(format!("keys/{key}.gpg"));
            let armored =
                surgery::pipe(Command::new("gpg").args(["--batch", "--enarmor"]), &fs::read(&key).unwrap());
            let armored =
                String::from_utf8(armored).unwrap().replace("PGP ARMORED FILE", "PGP PUBLIC KEY BLOCK");
            let file = rpmkeys.database.path().join("key.asc");
            fs::write(&file, armored).unwrap();
            // Some are refused, as the table says; the packages that they signed are then refused as well.
            drop(rpmkeys.command().arg("--import").arg(&file).output().unwrap());
        }
        rpmkeys
    }

    fn command(&self) -> Command {
        let mut command = Command::new("rpmkeys");
        command.env("LC_ALL", "C").arg("--dbpath").arg(self.database.path().join("db"));
        command
    }

    fn accepts(&self, package: &[u8]) -> bool {
        let mut child = self
            .command()
            .args(["--define=_pkgverify_level all", "--define=_pkgverify_flags 0x0", "--checksig", "-"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let output = std::thread::scope(|scope| {
            scope.spawn(move || drop(std::io::Write::write_all(&mut stdin, package)));
            child.wait_with_output().unwrap()
        });
        String::from_utf8_lossy(&output.stdout) == "-: digests signatures OK\n"
    }
}

const ALL_KEYS: [&str; 9] = [
    "rsa.gpg",
    "ed.gpg",
    "dsa.gpg",
    "weakrsa1024.gpg",
    "subrsa.gpg",
    "subed.gpg",
    "expired.gpg",
    "revoked.gpg",
    "subrevoked.gpg",
];

#[test]
fn never_more_lenient_than_rpmkeys_or_rpmcanon() {
    let rpmkeys = Rpmkeys::new();
    let mut wrong = Vec::new();
    for (name, theirs, rpmcanon, ours, why) in table::TABLE {
        let bytes = case(name);
        let verdict = judge(&bytes, &ALL_KEYS);
        let code = verdict.as_ref().map_or_else(Rejection::code, |_| "ok");
        let said = verdict.as_ref().map_or_else(ToString::to_string, |_| String::new());
        let accepts = rpmkeys.accepts(&bytes);
        if code != *ours {
            wrong.push(format!("{name}: we say {code} ({said}), the table says {ours}"));
        }
        if accepts != (*theirs == table::Peer::Ok) {
            wrong.push(format!("{name}: rpmkeys accepts: {accepts}, the table says {theirs:?}"));
        }
        if code == "ok" && (!accepts || *rpmcanon == table::Peer::No) {
            wrong.push(format!("{name}: we are more lenient"));
        }
        let stricter = code != "ok" && accepts && *rpmcanon != table::Peer::No;
        if stricter == why.is_empty() {
            wrong.push(format!("{name}: stricter than both: {stricter}, but the reason is {why:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let files = fs::read_dir(case_folder())
        .unwrap()
        .filter(|f| f.as_ref().unwrap().path().extension().is_some_and(|e| e == "rpm"));
    // `p256` and `young` have tests of their own.
    assert_eq!(files.count(), table::TABLE.len() + 2, "cases without a row");
}

/// Seconds since 1970 at the beginning of a year.
fn year(year: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs((year - 1970) * 31_556_952)
}

fn code(verdict: Result<Verified, Rejection>) -> &'static str {
    verdict.as_ref().map_or_else(Rejection::code, |_| "ok")
}

#[test]
fn keys_count_only_in_their_time() {
    let at = |name: &str, keys: &[&str], now| {
        code(verify(spool(&case(name)), &Policy::any(), &keyring(keys), now))
    };
    let now = SystemTime::now();
    assert_eq!(at("p256", &["p256.gpg"], now), "ok", "rpm 4.18 knows no ECDSA, the rpm of Qubes does");
    assert_eq!(at("expired", &["expired.gpg"], year(2020) + Duration::from_secs(200 * 86400)), "ok");
    assert_eq!(at("expired", &["expired.gpg"], year(2022)), "key-expired");
    assert_eq!(at("young", &["young.gpg"], year(2045)), "key-not-yet-valid");
    assert_eq!(at("young", &["young.gpg"], now), "from-the-future");
    assert_eq!(at("revoked", &["revoked-before.gpg"], now), "ok");
    assert_eq!(at("revoked", &["revoked-before.gpg", "revoked.gpg"], now), "revoked");
    assert_eq!(at("subrevoked", &["subrevoked-before.gpg"], now), "ok");
    let signed = judge(&case("good-ed"), &["ed.gpg"]).unwrap().signer().unwrap().time.0;
    let signed = SystemTime::UNIX_EPOCH + Duration::from_secs(signed.try_into().unwrap());
    assert_eq!(at("good-ed", &["ed.gpg"], signed - CLOCK_SKEW), "ok");
    assert_eq!(at("good-ed", &["ed.gpg"], signed - CLOCK_SKEW - Duration::from_secs(1)), "from-the-future");
    let empty = verify(spool(&case("good-ed")), &Policy::any(), &Keyring::default(), now);
    assert_eq!(code(empty), "empty-keyring");
}

#[test]
fn only_what_was_asked_for_is_accepted() {
    let ask = |name: &str, version: &str, release: &str| {
        let policy =
            Policy::build(TemplateName::new(name).unwrap(), Evr::new("0", version, release).unwrap());
        code(verify(spool(&case("good-ed")), &policy, &keyring(&["ed.gpg"]), SystemTime::now()))
    };
    assert_eq!(ask("test", "4.3.0", "202511051200"), "ok");
    assert_eq!(ask("test", "4.3.0", "202512051200"), "other-build");
    assert_eq!(ask("test", "4.2.0", "202511051200"), "other-build");
    assert_eq!(ask("other", "4.3.0", "202511051200"), "other-template");
}

#[test]
fn without_signatures_digests_still_count() {
    for (name, wanted) in [
        ("unsigned", "ok"),
        ("wrongkey", "ok"),
        ("good-rsa-v3", "ok"),
        ("t-payload", "payload-wrong"),
        ("t-header", "header-digest"),
        ("t-truncated", "truncated"),
        ("n-nopaydigest-signed", "no-payload-digest"),
        ("ordinary", "not-a-template"),
        ("d-md5-wrong", "older-value"),
        ("h-dribble-origsig", "header"),
    ] {
        let verdict = check_digests_only(spool(&case(name)), &Policy::any());
        assert!(verdict.as_ref().map_or(true, |v| v.signer().is_none()));
        assert_eq!(code(verdict), wanted, "{name}");
    }
}

/// Every byte of the lead and of the signature header, which are not signed, so that each needs a rule of its own; and
/// samples of the rest.
#[test]
fn any_single_changed_byte_is_refused() {
    let (keyring, now) = (keyring(&["ed.gpg"]), SystemTime::now());
    let good = fs::read(package("tiny-v3")).unwrap();
    assert_eq!(code(verify(spool(&good), &Policy::any(), &keyring, now)), "ok");
    let parts = surgery::Rpm::read(&package("tiny-v3"));
    let header = (96 + parts.signature.bytes().len()).next_multiple_of(8);
    let payload = good.len() - parts.payload.len();
    for at in (0..header).chain((header..payload).step_by(5)).chain((payload..good.len()).step_by(17)) {
        let mut bytes = good.clone();
        // The lead's number of the architecture has several right values, but none with this bit.
        bytes[at] ^= if at == 9 { 0x80 } else { 1 << (at % 8) };
        let verdict = verify(spool(&bytes), &Policy::any(), &keyring, now);
        assert!(verdict.is_err(), "a change of byte {at} was accepted");
    }
    for at in (0..good.len()).step_by(97) {
        assert!(
            verify(spool(&good[..at]), &Policy::any(), &keyring, now).is_err(),
            "cut at {at} was accepted"
        );
    }
}

#[test]
fn any_chunking_gives_the_same_verdict() {
    let good = fs::read(package("tiny-v3")).unwrap();
    for size in [1, 2, 3, 7, 95, 96, 97, 112, 1000, 4096, good.len()] {
        let mut spool =
            qvm_template::spool::Spool::create(Path::new(env!("CARGO_TARGET_TMPDIR")), 1 << 30).unwrap();
        good.chunks(size).for_each(|piece| std::io::Write::write_all(&mut spool, piece).unwrap());
        let verdict =
            verify(spool.finish().unwrap(), &Policy::any(), &keyring(&["ed.gpg"]), SystemTime::now());
        assert_eq!(code(verdict), "ok", "pieces of {size}");
    }
}

/// What becomes of a package with these files: the code of its rejection, wherever on the line that happens.
fn fate(rpm: &surgery::Rpm) -> &'static str {
    let verified = match check_digests_only(spool(&rpm.bytes()), &Policy::any()) {
        Ok(verified) => verified,
        Err(rejection) => return rejection.code(),
    };
    let limits = Limits { image_size: 1 << 30, ..Limits::default() };
    let opened = Payload::open(&verified, &verified.info().name).and_then(|p| p.root_image(limits));
    let image = match opened {
        Ok(image) => image,
        Err(rejection) => return rejection.code(),
    };
    let size = image.size();
    let mut out = Vec::new();
    match image.copy_to(&mut out, &mut |_| {}) {
        Ok(_) => {
            assert_eq!(out.len() as u64, size);
            "ok"
        }
        Err(CopyError::Rejected(rejection)) => {
            assert!((out.len() as u64) < size, "{rejection}: all bytes were written");
            rejection.code()
        }
        Err(CopyError::Write(e)) => panic!("{e}"),
    }
}

#[test]
fn every_attack_by_payload_ends_in_its_own_rejection() {
    use payloads::{File, cpio, dir, file, pack, tar, template, with_archive, with_payload};
    let base = surgery::Rpm::read(&package("tiny"));
    let image = tar(b'0', &[7; 5000], |_| {});
    let good = || template(&image, 3000);
    let with = |more: File| fate(&pack(&base, &[good(), vec![more]].concat()));
    let changed = |at: usize, how: &dyn Fn(&mut File)| {
        let mut files = good();
        how(&mut files[at]);
        fate(&pack(&base, &files))
    };
    let root = |tar: &[u8]| fate(&pack(&base, &template(tar, 3000)));
    let mut seen = Vec::new();
    let mut check =
        |what: &str, fate: &'static str, wanted: &str| seen.push((what.to_owned(), fate, wanted.to_owned()));

    check("nothing wrong", fate(&pack(&base, &good())), "ok");
    check("an ignored file", with(file("/readme", b"text")), "ok");
    check("an ignored directory", with(dir("/apps")), "ok");
    // The list of files.
    check("symlink", with(File { mode: 0o120_777, ..file("/link", b"/etc/passwd") }), "file-kind");
    check("device", with(File { mode: 0o060_660, ..file("/disk", b"") }), "file-kind");
    check("pipe", with(File { mode: 0o010_660, ..file("/pipe", b"") }), "file-kind");
    check("dot dot", with(file("/../../../../../etc/cron.d/x", b"x")), "file-path");
    check("double slash", with(file("//x", b"x")), "file-path");
    check("control character", with(file("/a\x1b[2J", b"x")), "file-path");
    check("outside", with(File { path: "/etc/cron.d/x".into(), ..file("", b"x") }), "file-outside");
    check(
        "a neighbour",
        with(File { path: "/var/lib/qubes/vm-templates/test2/x".into(), ..file("", b"x") }),
        "file-outside",
    );
    check("directory as a file", changed(0, &|f| f.mode = 0o100_660), "file-outside");
    check("listed twice", with(file("/template.conf", b"x")), "file-twice");
    check("second image", with(file("/root.img", b"x")), "second-image");
    check("second image in tar", with(file("/root.img.tar", b"x")), "second-image");
    check("no image", fate(&pack(&base, &[dir(""), file("/template.conf", b"gui=1\n")])), "no-root-image");
    check("first part missing", changed(1, &|f| f.path = f.path.replace(".00", ".09")), "parts");
    check("middle part missing", changed(2, &|f| f.path = f.path.replace(".01", ".09")), "parts");
    check("odd number", with(file("/root.img.part.3", b"x")), "parts");
    check("empty part", with(file("/root.img.part.03", b"")), "parts");
    check("large template.conf", changed(4, &|f| f.data = vec![b'#'; 70_000]), "template-file");
    check(
        "many files",
        fate(&pack(&base, &[good(), (0..5000).map(|i| file(&format!("/{i}"), b"")).collect()].concat())),
        "file-list",
    );
    // The archive against the list.
    check(
        "parts swapped",
        {
            let mut f = good();
            f.swap(1, 2);
            fate(&pack(&base, &f))
        },
        "parts",
    );
    check("entry twice", changed(4, &|f| f.times = 2), "older-value");
    check(
        "entry twice, no size named",
        {
            let mut f = good();
            f[4].times = 2;
            fate(&with_payload(&base, &f, zstd::encode_all(&cpio(&f)[..], 1).unwrap(), None))
        },
        "archive-entry",
    );
    let odd = |how: &dyn Fn(&mut File)| {
        let mut files = good();
        how(&mut files[4]);
        fate(&with_payload(&base, &files, zstd::encode_all(&cpio(&files)[..], 1).unwrap(), None))
    };
    check("entry missing", odd(&|f| f.times = 0), "archive-entry");
    check("entry of another name", odd(&|f| f.entry_path = Some("./etc/passwd".into())), "archive-entry");
    check("entry is a symlink", odd(&|f| f.entry_mode = Some(0o120_777)), "archive-entry");
    check("entry of another size", odd(&|f| f.entry_size = Some(1 << 31)), "archive-entry");
    check("hard link", odd(&|f| f.links = 2), "archive-entry");
    check(
        "ghost in the archive",
        odd(&|f| {
            f.path.push('x');
            f.entry_path = Some("./x".into());
        }),
        "archive-entry",
    );
    check(
        "unlisted entry",
        {
            let files = good();
            let more = [files.clone(), vec![file("/more", b"x")]].concat();
            fate(&with_archive(&base, &files, &cpio(&more)))
        },
        "older-value",
    );
    let archive = cpio(&good());
    check(
        "archive cut",
        fate(&with_payload(
            &base,
            &good(),
            zstd::encode_all(&archive[..archive.len() - 4], 1).unwrap(),
            None,
        )),
        "archive",
    );
    check(
        "archive goes on",
        fate(&with_payload(
            &base,
            &good(),
            zstd::encode_all(&[&archive[..], b"0707"].concat()[..], 1).unwrap(),
            None,
        )),
        "trailing-data",
    );
    check(
        "padding used",
        {
            let mut odd = archive.clone();
            let at = odd.windows(8).position(|w| w == b"vm-templ").unwrap() - 1;
            assert_eq!(odd[at], b'/');
            let at = odd[..].windows(5).position(|w| w == b"gui=1").unwrap() + 6;
            odd[at] = 1;
            fate(&with_payload(&base, &good(), zstd::encode_all(&odd[..], 1).unwrap(), None))
        },
        "archive",
    );
    // The compressed stream.
    let packed = zstd::encode_all(&archive[..], 1).unwrap();
    check(
        "stream cut",
        fate(&with_payload(&base, &good(), packed[..packed.len() - 3].to_vec(), None)),
        "compression",
    );
    check(
        "stream goes on",
        fate(&with_payload(&base, &good(), [&packed[..], b"more"].concat(), None)),
        "compression",
    );
    check("not compressed", fate(&with_payload(&base, &good(), archive.clone(), None)), "compression");
    check(
        "other compression",
        {
            let mut r = pack(&base, &good());
            r.header.set(1125, 6, b"bzip2\0");
            fate(&r.fix_digests())
        },
        "compressor",
    );
    check(
        "named as xz",
        {
            let mut r = pack(&base, &good());
            r.header.set(1125, 6, b"xz\0");
            fate(&r.fix_digests())
        },
        "compression",
    );
    check(
        "a frame of zeros without end",
        {
            // 4 GiB of zeros in some hundred KiB, where the list says 5 KB.
            let bomb = zstd::encode_all(std::io::Read::take(std::io::repeat(0), 256 << 20), 1).unwrap();
            fate(&with_payload(&base, &good(), bomb, None))
        },
        "archive",
    );
    check(
        "huge window",
        {
            let mut e = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
            e.window_log(30).unwrap();
            std::io::Write::write_all(&mut e, &archive).unwrap();
            fate(&with_payload(&base, &good(), e.finish().unwrap(), None))
        },
        "window",
    );
    // The tar archive.
    check("two members", root(&[&image[..image.len() - 1024], &image[..]].concat()), "second-image");
    check("a member behind the end", root(&[&image[..], &image[..]].concat()), "trailing-data");
    check("symlink in tar", root(&tar(b'2', b"", |_| {})), "tar");
    check("PAX", root(&tar(b'x', b"30 GNU.sparse.major=1\n", |_| {})), "tar-format");
    check("no end", root(&image[..image.len() - 1024]), "tar");
    check("only an end", root(&[0; 10240]), "tar");
    check("cut in data", root(&image[..3000]), "tar");
    check("empty image", root(&tar(b'0', b"", |_| {})), "empty-image");
    check(
        "huge image",
        root(&tar(b'S', b"", |h| payloads::sparse(h, b"77777777777\0", &[]))),
        "image-too-large",
    );
    check(
        "overlap",
        root(&tar(b'S', &[1; 1024], |h| {
            payloads::sparse(
                h,
                b"00000010000\0",
                &[(b"00000000000\0", b"00000001000\0"), (b"00000000000\0", b"00000001000\0")],
            )
        })),
        "sparse-map",
    );
    check(
        "endless map",
        root(&tar(b'S', &[0; 4096], |h| {
            payloads::sparse(h, b"00000010000\0", &[]);
            h[482] = 1;
        })),
        "sparse-map",
    );
    let wrong: Vec<_> = seen.iter().filter(|(_, fate, wanted)| fate != wanted).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The spool has no name, but this very process can still reach it: nothing may get through that way either.
#[test]
fn a_byte_changed_after_the_verdict_ends_the_import() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = File::open(package("good-ed")).unwrap();
    let spooled = Spooled::copy_of(&mut file, dir.path(), 1 << 30).unwrap();
    let verified = verify(spooled, &Policy::any(), &keyring(&["ed.gpg"]), SystemTime::now()).unwrap();
    let inside = |link: &Path| link.starts_with(dir.path());
    let link = fs::read_dir("/proc/self/fd").unwrap().map(|e| e.unwrap().path());
    let spool = link
        .into_iter()
        .find(|l| fs::read_link(l).is_ok_and(|to| inside(&to)))
        .expect("the spool's descriptor");
    let bytes = fs::read(package("good-ed")).unwrap();
    for at in [bytes.len() - 1, bytes.len() - 70_000, bytes.len() / 2] {
        let write = |byte: u8| {
            let file = fs::OpenOptions::new().write(true).open(&spool).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, &[byte], at as u64).unwrap();
        };
        write(bytes[at] ^ 0x10);
        let mut out = Vec::new();
        let outcome = Payload::open(&verified, &verified.info().name).unwrap().root_image(Limits::default());
        let (size, outcome) = match outcome {
            Ok(image) => (image.size(), image.copy_to(&mut out, &mut |_| {}).map(drop)),
            Err(rejection) => (u64::MAX, Err(rejection.into())),
        };
        assert!(
            matches!(outcome, Err(CopyError::Rejected(Rejection::ChangedOnDisk))),
            "byte {at}: {outcome:?}"
        );
        assert!((out.len() as u64) < size, "byte {at}: dom0 would have committed");
        write(bytes[at]);
    }
    assert!(image(&verified).is_ok());
}

/// Certificates as gpg does not write them. Each signs the same header; only what stands around the key differs.
#[test]
fn a_key_must_be_bound_flagged_and_alive() {
    use certificates::{Key, SHA1, SHA256, flags, packet, subpacket, time};
    const MADE: u32 = 1_700_000_000;
    const SIGNED: u32 = 1_710_000_000;
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_720_000_000);
    let (primary, sub) = (Key::new(1, MADE), Key::new(2, MADE));
    let base = surgery::Rpm::read(&package("tiny"));
    let header = base.header.bytes();
    let signed_by = |key: &Key, signed: &[Vec<u8>], unsigned: &[Vec<u8>]| {
        let mut rpm = base.clone().unsigned();
        rpm.signature.insert(267, 7, &packet(2, &key.sign(0, SHA256, signed, unsigned, &header)));
        rpm.bytes()
    };
    let by_primary = signed_by(&primary, &[time(SIGNED), primary.issuer()], &[]);
    let by_sub = signed_by(&sub, &[time(SIGNED), sub.issuer()], &[]);
    let judged = |package: &[u8], certificate: &[Vec<u8>]| {
        code(verify(spool(package), &Policy::any(), &Keyring::parse(&certificate.concat()).unwrap(), now))
    };
    let user = packet(13, b"somebody");
    let certificate = |subpackets: &[Vec<u8>]| {
        vec![primary.packet(6), user.clone(), primary.certify("somebody", SHA256, subpackets)]
    };
    let fine = certificate(&[time(MADE), flags(3), primary.issuer()]);
    let short = |seconds: u32| subpacket(9, &seconds.to_be_bytes());

    assert_eq!(judged(&by_primary, &fine), "ok");
    assert_eq!(judged(&by_primary, &[primary.packet(6)]), "not-bound");
    assert_eq!(judged(&by_primary, &[primary.packet(6), user.clone()]), "not-bound");
    assert_eq!(judged(&by_primary, &certificate(&[time(MADE), flags(1)])), "not-for-signing");
    assert_eq!(judged(&by_primary, &certificate(&[time(MADE), flags(12)])), "not-for-signing");
    assert_eq!(judged(&by_primary, &certificate(&[time(MADE)])), "not-for-signing");
    assert_eq!(judged(&by_primary, &certificate(&[time(MADE), flags(3), short(1000)])), "key-expired");
    assert_eq!(
        judged(&by_primary, &certificate(&[time(MADE), flags(3), short(15_000_000)])),
        "key-expired",
        "since"
    );
    assert_eq!(judged(&by_primary, &certificate(&[time(MADE), flags(3), short(25_000_000)])), "ok");
    assert_eq!(
        judged(&by_primary, &certificate(&[time(1_730_000_000), flags(3)])),
        "not-bound",
        "bound in the future"
    );
    let weak =
        vec![primary.packet(6), user.clone(), primary.certify("somebody", SHA1, &[time(MADE), flags(3)])];
    assert_eq!(judged(&by_primary, &weak), "not-bound", "bound with SHA-1");
    let other = vec![
        primary.packet(6),
        user.clone(),
        Key::new(3, MADE).certify("somebody", SHA256, &[time(MADE), flags(3)]),
    ];
    assert_eq!(judged(&by_primary, &other), "not-bound", "bound by another key");
    for hash in [SHA1, SHA256] {
        let revoked =
            [vec![primary.packet(6), primary.revoke(hash, 1_715_000_000)], fine[1..].to_vec()].concat();
        assert_eq!(judged(&by_primary, &revoked), "revoked", "also after it signed, and with a weak hash");
    }
    let odd = packet(2, &[6, 0x20, 27, 8, 0, 0]);
    let unreadable = [vec![primary.packet(6), odd], fine[1..].to_vec()].concat();
    assert_eq!(judged(&by_primary, &unreadable), "revoked", "by a signature of a kind that is not known");

    // Subkeys.
    let back =
        |hash| subpacket(32, &sub.sign(0x19, hash, &[time(MADE), sub.issuer()], &[], &primary.with(&sub)));
    let bind = |subpackets: &[Vec<u8>], unsigned: &[Vec<u8>]| {
        packet(2, &primary.sign(0x18, SHA256, subpackets, unsigned, &primary.with(&sub)))
    };
    let with_sub = |binding: &[Vec<u8>]| [fine.clone(), vec![sub.packet(14)], binding.to_vec()].concat();
    let bound = bind(&[time(MADE), flags(2), back(SHA256)], &[]);
    assert_eq!(judged(&by_sub, &with_sub(&[bound.clone()])), "ok");
    assert_eq!(
        judged(&by_sub, &with_sub(&[bind(&[time(MADE), flags(2)], &[back(SHA256)])])),
        "ok",
        "unsigned back signature"
    );
    assert_eq!(judged(&by_sub, &with_sub(&[])), "not-bound");
    assert_eq!(
        judged(&by_sub, &with_sub(&[bind(&[time(MADE), flags(2)], &[])])),
        "not-bound",
        "no back signature"
    );
    assert_eq!(judged(&by_sub, &with_sub(&[bind(&[time(MADE), flags(2), back(SHA1)], &[])])), "not-bound");
    let stolen =
        subpacket(32, &Key::new(3, MADE).sign(0x19, SHA256, &[time(MADE)], &[], &primary.with(&sub)));
    assert_eq!(judged(&by_sub, &with_sub(&[bind(&[time(MADE), flags(2), stolen], &[])])), "not-bound");
    assert_eq!(
        judged(&by_sub, &with_sub(&[bind(&[time(MADE), flags(12), back(SHA256)], &[])])),
        "not-for-signing"
    );
    assert_eq!(judged(&by_sub, &with_sub(&[bind(&[time(MADE), back(SHA256)], &[])])), "not-for-signing");
    assert_eq!(
        judged(&by_sub, &with_sub(&[bind(&[time(MADE), flags(2), back(SHA256), short(1000)], &[])])),
        "key-expired"
    );
    let revocation = packet(2, &primary.sign(0x28, SHA256, &[time(1_715_000_000)], &[], &primary.with(&sub)));
    assert_eq!(judged(&by_sub, &with_sub(&[revocation.clone()])), "revoked", "a revocation is no binding");
    assert_eq!(judged(&by_sub, &with_sub(&[bound.clone(), revocation])), "revoked");
    let foreign = packet(2, &Key::new(3, MADE).sign(0x28, SHA256, &[time(MADE)], &[], &primary.with(&sub)));
    assert_eq!(judged(&by_sub, &with_sub(&[bound.clone(), foreign])), "ok", "nobody else can revoke");
    let newer = bind(&[time(1_712_000_000), flags(2), back(SHA256), short(1000)], &[]);
    assert_eq!(
        judged(&by_sub, &with_sub(&[bound.clone(), newer])),
        "key-expired",
        "the newest binding counts"
    );
    let expired =
        [certificate(&[time(MADE), flags(1), short(1000)]), vec![sub.packet(14), bound.clone()]].concat();
    assert_eq!(judged(&by_sub, &expired), "key-expired", "with its primary key");

    // Signatures.
    let odd =
        |signed: &[Vec<u8>], unsigned: &[Vec<u8>]| judged(&signed_by(&primary, signed, unsigned), &fine);
    let issuer = || primary.issuer();
    assert_eq!(odd(&[issuer()], &[]), "signature-malformed", "no time");
    assert_eq!(odd(&[issuer()], &[time(SIGNED)]), "signature-malformed", "time not signed");
    assert_eq!(odd(&[time(SIGNED)], &[issuer()]), "ok");
    assert_eq!(odd(&[time(SIGNED)], &[]), "signature-malformed", "no issuer");
    let two = signed_by(&primary, &[time(SIGNED), issuer()], &[sub.issuer()]);
    assert_eq!(judged(&two, &with_sub(std::slice::from_ref(&bound))), "signature-malformed", "two issuers");
    assert_eq!(odd(&[time(SIGNED), issuer()], &[flags(2)]), "signature-malformed", "unsigned parts");
    assert_eq!(
        odd(&[time(SIGNED), issuer(), subpacket(0x80 | 99, b"")], &[]),
        "signature-malformed",
        "critical"
    );
    assert_eq!(odd(&[time(SIGNED), issuer(), back(SHA256)], &[]), "signature-malformed", "embedded");
    assert_eq!(odd(&[time(SIGNED), issuer(), subpacket(3, &[0, 0, 0, 9])], &[]), "signature-expired");
    assert_eq!(odd(&[time(SIGNED), time(SIGNED), issuer()], &[]), "signature-malformed", "two times");
    assert_eq!(odd(&[time(1_600_000_000), issuer()], &[]), "key-not-yet-valid");
}
