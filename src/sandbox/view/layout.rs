//! The file tree of a qube: the host's, with some of it replaced.
//!
//! A directory in which nothing is replaced is the host's, mounted. One in which something is replaced is made anew in a
//! small file system in memory, with the host's other entries in it: mounted below `/`, `/etc`, `/usr` and the like,
//! and as symbolic links to `/.host/...` below those, where there are thousands (`/usr/bin`). Overlay file systems
//! would do the same, but cannot be stacked everywhere.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chroot, pivot_root};

use super::{PRIVATE, SPACE, View, accounts, namespaces};

/// Builds the view and makes it this process's root.
pub(super) fn build(view: &View, host: &Host) -> Result<()> {
    let tree = host.plan(view)?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(namespaces::forbidden)?;
    let options = Some("mode=0755");
    mount(Some("qube"), &view.stage, Some("tmpfs"), MsFlags::empty(), options)
        .map_err(namespaces::forbidden)?;
    host.switch_root(&view.stage)?;
    host.lay(&tree, Path::new("/"), 0)?;
    if let Some(size) = view.space {
        limit_space(size)?;
    }
    for (from, to) in &view.binds {
        let from = host.path(from);
        if from.is_dir() {
            fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
        }
        attach(&from, to)?;
    }
    Ok(())
}

/// Where the host's root is in the view.
#[derive(Debug)]
pub(super) struct Host(PathBuf);

impl Host {
    /// The place for a view that this process makes.
    pub(super) fn new() -> Self {
        Self(super::host())
    }

    /// Where a path of the host is in the view.
    pub(super) fn path(&self, path: &Path) -> PathBuf {
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }
}

/// What is at a place of the view instead of what the host has there.
#[derive(Debug)]
enum Place {
    /// A file or directory of the host, by its path in the view.
    Mounted(PathBuf),
    /// A symbolic link.
    Link(PathBuf),
    /// A file with this content, forgotten with the view.
    Content(Vec<u8>),
    /// A directory with something else in it.
    Open(BTreeMap<OsString, Self>),
}

impl Host {
    /// Everything that differs from the host.
    fn plan(&self, view: &View) -> Result<Place> {
        let mut tree = Place::Open(BTreeMap::new());
        if let Some(files) = &view.files {
            self.plan_qube(&mut tree, files, &view.qube)?;
        }
        for (path, program) in &view.programs {
            put(&mut tree, path, Place::Link(self.path(program)));
        }
        for (_, to) in &view.binds {
            if let Some(parent) = to.parent().filter(|parent| !parent.exists()) {
                put(&mut tree, parent, Place::Open(BTreeMap::new()));
            }
        }
        Ok(tree)
    }

    /// What makes a qube of it.
    fn plan_qube(&self, tree: &mut Place, files: &Path, qube: &str) -> Result<()> {
        self.overlay(tree, files, Path::new("/"))?;
        for path in PRIVATE {
            let own = files.join(path.trim_start_matches('/'));
            fs::create_dir_all(&own).with_context(|| format!("making {}", own.display()))?;
            put(tree, Path::new(path), Place::Mounted(self.path(&own)));
        }
        for (path, content) in [
            ("/etc/passwd", accounts::passwd()),
            ("/etc/group", accounts::group()),
            ("/etc/hostname", format!("{qube}\n").into_bytes()),
        ] {
            if !files.join(path.trim_start_matches('/')).exists() {
                put(tree, Path::new(path), Place::Content(content));
            }
        }
        put(tree, Path::new("/var/run"), Place::Link("/run".into()));
        Ok(())
    }

    /// Lays the files of a qube over the host's.
    fn overlay(&self, tree: &mut Place, own: &Path, inside: &Path) -> Result<()> {
        let entries = fs::read_dir(own).with_context(|| format!("reading {}", own.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("reading {}", own.display()))?;
            let (own, inside) = (entry.path(), inside.join(entry.file_name()));
            if inside.to_str().is_some_and(|path| PRIVATE.contains(&path)) {
                continue;
            }
            // A directory that the host has too keeps what the host has in it.
            if own.is_dir() && !own.is_symlink() && inside.is_dir() {
                self.overlay(tree, &own, &inside)?;
            } else if own.is_symlink() {
                put(tree, &inside, Place::Link(fs::read_link(&own).context("reading a link")?));
            } else {
                put(tree, &inside, Place::Mounted(self.path(&own)));
            }
        }
        Ok(())
    }

    /// Makes `stage` the root and puts the old one in it.
    fn switch_root(&self, stage: &Path) -> Result<()> {
        let host = stage.join(self.0.strip_prefix("/").unwrap_or(&self.0));
        fs::create_dir(&host).context("making a place for the host's root")?;
        if pivot_root(stage, &host).is_err() {
            // The root of a chroot or of an initramfs cannot be exchanged.
            let none: Option<&str> = None;
            mount(Some("/"), &host, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)
                .map_err(namespaces::forbidden)?;
            chroot(stage).context("changing the root")?;
        }
        std::env::set_current_dir("/").context("going to the new root")
    }

    fn lay(&self, place: &Place, at: &Path, depth: usize) -> Result<()> {
        match place {
            Place::Mounted(from) => {
                if from.is_dir() {
                    fs::create_dir_all(at).with_context(|| format!("making {}", at.display()))?;
                }
                attach(from, at)
            }
            Place::Link(to) => symlink(to, at).with_context(|| format!("linking {}", at.display())),
            Place::Content(bytes) => {
                fs::write(at, bytes).with_context(|| format!("writing {}", at.display()))
            }
            Place::Open(entries) => {
                if depth > 0 {
                    fs::create_dir_all(at).with_context(|| format!("making {}", at.display()))?;
                }
                self.take_over(entries, at, depth)?;
                entries.iter().try_for_each(|(name, place)| self.lay(place, &at.join(name), depth + 1))
            }
        }
    }

    /// Puts what the host has in an open directory there, but for what is replaced.
    fn take_over(&self, replaced: &BTreeMap<OsString, Place>, at: &Path, depth: usize) -> Result<()> {
        let host = self.path(at);
        // A directory that the host lacks, or that it does not show to this user, has nothing to take over.
        let Ok(entries) = fs::read_dir(&host) else { return Ok(()) };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if replaced.contains_key(&name) || at.join(&name) == self.0 {
                continue;
            }
            let (from, to) = (entry.path(), at.join(&name));
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_symlink() {
                let target = fs::read_link(&from).with_context(|| format!("reading {}", from.display()))?;
                symlink(target, &to).with_context(|| format!("linking {}", to.display()))?;
            } else if depth > 1 {
                symlink(&from, &to).with_context(|| format!("linking {}", to.display()))?;
            } else {
                if kind.is_dir() {
                    fs::create_dir(&to).with_context(|| format!("making {}", to.display()))?;
                }
                attach(&from, &to)?;
            }
        }
        Ok(())
    }
}

fn put(tree: &mut Place, path: &Path, place: Place) {
    let mut names: Vec<&OsStr> = path
        .components()
        .filter_map(|part| if let Component::Normal(name) = part { Some(name) } else { None })
        .collect();
    let Some(last) = names.pop() else { return };
    let mut at = tree;
    for name in names {
        let Place::Open(entries) = at else { return };
        at = entries.entry(name.to_owned()).or_insert_with(|| Place::Open(BTreeMap::new()));
    }
    if let Place::Open(entries) = at {
        entries.insert(last.to_owned(), place);
    }
}

/// Mounts a file or a directory, with what is mounted below it, at a place.
fn attach(from: &Path, to: &Path) -> Result<()> {
    if !to.exists() {
        fs::write(to, b"").with_context(|| format!("making {}", to.display()))?;
    }
    let none: Option<&str> = None;
    mount(Some(from), to, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)
        .with_context(|| format!("mounting {} at {}", from.display(), to.display()))
}

/// Replaces the places that grow by one file system of a limited size, with what is in them now.
fn limit_space(size: u64) -> Result<()> {
    let space = Path::new("/.space");
    fs::create_dir(space).context("making a place for the limited space")?;
    let options = format!("size={size},mode=0755");
    mount(Some("space"), space, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
        .map_err(namespaces::forbidden)?;
    for path in SPACE {
        let part = space.join(path.trim_start_matches('/').replace('/', "-"));
        copy(Path::new(path), &part)
            .with_context(|| format!("copying {path} into a space of {size} bytes"))?;
        attach(&part, Path::new(path))?;
    }
    // Only the places themselves are to be seen.
    umount2(space, MntFlags::MNT_DETACH).context("hiding the limited space")?;
    fs::remove_dir(space).context("hiding the limited space")
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let kind = from.symlink_metadata()?;
    if kind.is_symlink() {
        symlink(fs::read_link(from)?, to)?;
    } else if kind.is_dir() {
        fs::create_dir(to)?;
        fs::set_permissions(to, kind.permissions())?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
    } else if kind.is_file() {
        fs::copy(from, to)?;
        fs::set_permissions(to, fs::Permissions::from_mode(kind.permissions().mode()))?;
    }
    Ok(())
}
