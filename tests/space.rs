// SPDX-License-Identifier: GPL-2.0-or-later
//! What an installation takes of the management qube's disk, and what is left of it.

use std::fs::{self, File};
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use qvm_template::build::compress::{Compression, Method};
use qvm_template::build::keys::SigningKey;
use qvm_template::build::package::{Making, Menus, PART, Package, pack};
use qvm_template::build::repodata;

use crate::support::packages;
use crate::support::sandbox::{Said, Sandbox};

/// Bytes of the image, and of those that do not compress in it.
const IMAGE: u64 = 96 << 20;
const DATA: usize = 6 << 20;

/// A system whose UpdateVM offers `big`, a package a little longer than [`DATA`].
struct World {
    sandbox: Sandbox,
    package: PathBuf,
    size: u64,
}

impl World {
    fn new() -> Result<Self> {
        let sandbox = Sandbox::new()?;
        let repository = sandbox.files("sys-net").join("srv/templates");
        fs::create_dir_all(&repository)?;
        let (package, key) = (repository.join("big.rpm"), packages::key("space")?);
        let size = make(&package, &key)?;
        let compression = Compression::new(Method::Gzip, None)?;
        repodata::write(
            &repository,
            &repodata::Options { compression, revision: 1_763_000_000, signer: None },
        )?;
        let known = sandbox.files("mgmt").join("etc/qubes/repo-templates");
        fs::create_dir_all(known.join("keys"))?;
        fs::write(known.join("keys/RPM-GPG-KEY-space"), key.certificate()?)?;
        let text = "[space]\nname=space\nbaseurl=file:///srv/templates\nenabled=1\ngpgcheck=1\n\
                    gpgkey=file:///etc/qubes/repo-templates/keys/RPM-GPG-KEY-space\n";
        fs::write(known.join("space.repo"), text)?;
        Ok(Self { sandbox, package, size })
    }

    /// Runs a script where everything that can be written to is so many bytes.
    fn with_space(&self, bytes: u64, script: &str) -> Result<Said> {
        let package = format!("{}:/srv/big.rpm", self.package.display());
        self.sandbox.exec(&["--space", &bytes.to_string(), "--bind", &package], &["sh", "-c", script])
    }

    /// Files of the management qube where temporary files could be, without what is remembered on purpose.
    fn left(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for folder in ["tmp", "var/tmp", "var/cache", "home/user", "root"] {
            files_below(&self.sandbox.files("mgmt").join(folder), &mut found)?;
        }
        found.retain(|path| !path.to_string_lossy().contains("/.local/state/qvm-template/"));
        Ok(found)
    }
}

const NOTHING: &[PathBuf] = &[];
const INSTALL: &str = "qvm-template --releasever=4.3 install -q --skip-start big";

fn make(path: &Path, key: &SigningKey) -> Result<u64> {
    let image = tempfile::tempfile()?;
    image.set_len(IMAGE)?;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .take(DATA / 8)
    .flatten()
    .collect();
    image.write_all_at(&noise, IMAGE / 2)?;
    let package = Package {
        name: "big".to_owned(),
        epoch: 0,
        version: "1".to_owned(),
        release: "1".to_owned(),
        summary: "Big".to_owned(),
        description: "Big".to_owned(),
        url: None,
        license: "GPL".to_owned(),
        conf: None,
        menus: Menus::default(),
        build_time: 1_763_000_000,
        build_host: "localhost".to_owned(),
        manifest: None,
    };
    let making = Making {
        compression: Compression::new(Method::Zstd, Some(1))?,
        threads: NonZeroUsize::MIN,
        part: PART,
        spool: path.parent().context("a package lies in a folder")?,
        signer: Some(key),
        rpmv3: true,
    };
    Ok(pack(&image, &package, &making, &mut File::create(path)?)?.size)
}

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry?.path();
        if path.is_dir() { files_below(&path, found)? } else { found.push(path) }
    }
    Ok(())
}

/// A disk that holds little more than the package suffices for an image of any size, here sixteen times as long.
#[test]
fn the_package_is_all_that_has_to_fit() -> Result<()> {
    let world = World::new()?;
    let said = world.with_space(world.size + (600 << 10), INSTALL)?;
    ensure!(said.status == 0, "{}{}", said.out, said.err);
    assert_eq!(world.left()?, NOTHING);
    Ok(())
}

#[test]
fn a_disk_that_is_too_small_is_told_before_the_download() -> Result<()> {
    let world = World::new()?;
    let said = world.with_space(world.size - (600 << 10), INSTALL)?;
    assert_eq!(said.status, 1, "{}{}", said.out, said.err);
    assert!(said.err.contains(&format!("needs {}", world.size)), "{}", said.err);
    assert!(said.err.contains("bytes free"), "{}", said.err);
    let downloads =
        world.sandbox.log()?.iter().filter(|call| call.service == "qubes.TemplateDownload").count();
    assert_eq!(downloads, 0);
    // The same of a local package, which is copied.
    let install = INSTALL.replace(
        "install -q --skip-start big",
        "install -q --skip-start --keyring=/etc/qubes/repo-templates/keys/RPM-GPG-KEY-space /srv/big.rpm",
    );
    let said = world.with_space(world.size - (600 << 10), &install)?;
    assert_eq!(said.status, 1, "{}{}", said.out, said.err);
    assert!(said.err.contains(&format!("needs {}", world.size)), "{}", said.err);
    Ok(())
}

#[test]
fn nothing_is_left_after_success_or_a_kill() -> Result<()> {
    let world = World::new()?;
    let said = world.sandbox.shell(INSTALL)?;
    ensure!(said.status == 0, "{}{}", said.out, said.err);
    assert_eq!(world.left()?, NOTHING, "after success");
    let said = world.sandbox.shell("qvm-template -q --yes remove big")?;
    ensure!(said.status == 0, "{}{}", said.out, said.err);
    // Killed in the middle of the download: what had come so far had no name.
    let script = format!("{INSTALL} & tool=$!; sleep 1.5; kill -KILL $tool; wait $tool; true");
    world.sandbox.service(
        "sys-net",
        "qubes.TemplateDownload",
        "/usr/lib/qubes/qubes-template-service qubes.TemplateDownload | { head -c 3000000; sleep 20; }",
    )?;
    let said = world.sandbox.shell(&script)?;
    assert_eq!(world.left()?, NOTHING, "after a kill: {}{}", said.out, said.err);
    Ok(())
}

/// A download that is not what it should be leaves nothing; a sound one whose import fails is kept, under its own name
/// and for the next attempt.
#[test]
fn a_failed_import_does_not_cost_the_download_again() -> Result<()> {
    let world = World::new()?;
    world.sandbox.tool(["fault"], &["cut", "admin.vm.volume.ImportWithSize", "in", "1000000"])?;
    let said = world.sandbox.shell(INSTALL)?;
    assert_eq!(said.status, 1, "{}{}", said.out, said.err);
    let left = world.left()?;
    assert!(matches!(&left[..], [file] if file.ends_with("qubes-template-big-0:1-1.rpm")), "{left:?}");
    world.sandbox.tool(["fault"], &["clear"])?;
    let said = world.sandbox.shell(INSTALL)?;
    assert_eq!(said.status, 0, "{}{}", said.out, said.err);
    let calls = world.sandbox.log()?;
    assert_eq!(calls.iter().filter(|call| call.service == "qubes.TemplateDownload").count(), 1);
    assert_eq!(world.left()?, NOTHING);
    // Damaged on the way, every time.
    world.sandbox.shell("qvm-template -q --yes remove big")?;
    world.sandbox.tool(["fault"], &["flip", "qubes.TemplateDownload", "out", "3000000", "--times", "9"])?;
    let said = world.sandbox.shell(&format!("{INSTALL} --retries=2"))?;
    assert_eq!(said.status, 1, "{}{}", said.out, said.err);
    assert_eq!(world.left()?, NOTHING);
    Ok(())
}
