//! The files of each qube, and the view that they make.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::super::fresh::STOCK_POLICY;
use super::super::view::{PRIVATE, View};

/// Where the files of a qube are.
pub(super) fn files(dir: &Path, qube: &str) -> PathBuf {
    dir.join("qubes").join(qube).join("root")
}

/// How the world looks from a qube. Its files are made where they are missing.
pub(super) fn view(dir: &Path, qube: &str, uid: u32) -> Result<View> {
    let files = files(dir, qube);
    prepare(&files, qube == "dom0")?;
    let program = std::env::current_exe().context("finding this program")?;
    let mut programs: Vec<(PathBuf, PathBuf)> =
        own_programs(qube == "dom0").iter().map(|path| (PathBuf::from(path), program.clone())).collect();
    for place in SIBLINGS.map(Path::new) {
        let sibling = program.with_file_name(place.file_name().unwrap_or_default());
        if sibling.exists() {
            programs.push((place.to_owned(), sibling));
        }
    }
    let stage = dir.join("run/stage");
    let (qube, files) = (qube.to_owned(), Some(files));
    Ok(View { qube, files, programs, binds: Vec::new(), uid, space: None, directory: None, stage })
}

/// Where programs of this package are in a qube, as far as they lie beside this one.
const SIBLINGS: [&str; 4] = [
    "/usr/bin/qvm-template",
    "/usr/bin/qubes-template-build",
    "/usr/lib/qubes/qubes-template-service",
    "/usr/lib/qubes/qvm-template-delegate",
];

/// Places at which this program stands for one of Qubes'.
fn own_programs(is_dom0: bool) -> &'static [&'static str] {
    if is_dom0 {
        &["/usr/lib/qubes/qrexec-client", "/usr/lib/qubes/import-volume", "/usr/bin/sudo"]
    } else {
        &["/usr/bin/qrexec-client-vm"]
    }
}

/// Makes what every qube has.
fn prepare(files: &Path, is_dom0: bool) -> Result<()> {
    for path in PRIVATE {
        let path = files.join(path.trim_start_matches('/'));
        fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
    }
    for path in ["tmp", "var/tmp"] {
        let path = files.join(path);
        let permissions = fs::Permissions::from_mode(0o1777);
        fs::set_permissions(&path, permissions).with_context(|| format!("opening {}", path.display()))?;
    }
    if !is_dom0 {
        // The agent's version, which says what release the qube is made for.
        write_new(&files.join("usr/share/qubes/marker-vm"), MARKER)?;
        return write_new(&files.join("etc/os-release"), OS_RELEASE);
    }
    write_new(&files.join("etc/os-release"), OS_RELEASE)?;
    write_new(&files.join("etc/qubes-release"), "Qubes release 4.3 (R4.3)\n")?;
    fs::create_dir_all(files.join("etc/qubes/policy.d")).context("making dom0's policy directory")?;
    for (name, text) in STOCK_POLICY {
        write_new(&files.join("etc/qubes/policy.d").join(name), text)?;
    }
    for service in ["admin.vm.volume.Import", "admin.vm.volume.ImportWithSize"] {
        let path = files.join("etc/qubes-rpc").join(service);
        if path.symlink_metadata().is_err() {
            symlink("/usr/lib/qubes/import-volume", &path)
                .with_context(|| format!("making {}", path.display()))?;
        }
    }
    Ok(())
}

fn write_new(path: &Path, text: &str) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

const MARKER: &str =
    "# This file says that this is a qube, and for which release its agents are made.\n4.3\n";

const OS_RELEASE: &str = "NAME=\"Qubes OS\"\nVERSION=\"4.3 (R4.3)\"\nID=qubes\nID_LIKE=\"rhel fedora\"\n\
                          VERSION_ID=4.3\nPRETTY_NAME=\"Qubes OS 4.3 (R4.3)\"\n";
