// SPDX-License-Identifier: GPL-2.0-or-later
//! What is accepted and what is refused, beside Debian's `rpmkeys` in its strictest setting.

mod surgery;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

use qvm_template::payload::Payload;
use qvm_template::root_image::{CopyError, Limits, TemplateFiles};
use qvm_template::spool::Spooled;
use qvm_template::verify::{Keyring, Policy, Rejection, Verified, verify};

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
