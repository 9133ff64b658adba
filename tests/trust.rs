// SPDX-License-Identifier: GPL-2.0-or-later
//! What is accepted and what is refused, beside Debian's `rpmkeys` in its strictest setting.

mod cases;
mod certificates;
pub mod payloads;
pub mod surgery;
pub mod table;

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
pub fn fixtures() -> &'static Path {
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

pub fn case(name: &str) -> Vec<u8> {
    fs::read(case_folder().join(format!("{name}.rpm"))).unwrap_or_else(|e| panic!("{name}: {e}"))
}

pub fn package(name: &str) -> PathBuf {
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

pub fn judge(bytes: &[u8], keys: &[&str]) -> Result<Verified, Rejection> {
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

pub const ALL_KEYS: [&str; 9] = [
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
    for at in (0..header)
        .chain((header..payload).step_by(5))
        .chain((payload..good.len()).step_by(17))
        .chain([good.len() - 1])
    {
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
