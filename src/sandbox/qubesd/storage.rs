//! Volumes as sparse files, and how each driver commits, keeps and goes back.
//!
//! ```text
//! DIR/pools/POOL/VID.img           what the volume holds
//! DIR/pools/POOL/VID-dirty.img     what it held when its qube started: the qube writes there, and stopping commits it
//! DIR/pools/POOL/VID-import.img    an open import
//! DIR/pools/POOL/VID.img.ID        a revision
//! ```
//!
//! A file may be missing or shorter than its volume: what is not there is zeros. Contents are never copied: a commit
//! renames, a revision is a second name of the same file. Only a volume that becomes shorter while a revision has the
//! same file gets a file of its own first.
//!
//! | driver | after a commit | a leftover import |
//! |---|---|---|
//! | file-reflink | the old content is revision `<n>` | goes at the next start or import |
//! | lvm_thin | the old content is revision `<unixtime>-back` | blocks both |
//! | zfs | the old content and all revisions are gone | blocks both |
//! | file | the old content is gone | the next import fails without a reply |

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest as _, Sha256};

use super::Failure;
use crate::sandbox::state::{Driver, Pool, Revision, Volume};

/// What a volume holds at one moment.
#[derive(Clone, Debug)]
pub struct Content {
    path: PathBuf,
    /// The volume's length.
    pub size: u64,
}

impl Content {
    /// What a volume of the sandbox in a directory holds.
    #[must_use]
    pub fn of(dir: &Path, volume: &Volume) -> Self {
        Self { path: clean(dir, volume), size: volume.size }
    }

    /// A reader over the whole volume.
    ///
    /// # Errors
    /// When the file that holds it cannot be opened.
    pub fn reader(&self) -> io::Result<impl Read + use<>> {
        let file: Box<dyn Read> = match File::open(&self.path) {
            Ok(file) => Box::new(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Box::new(io::empty()),
            Err(error) => return Err(error),
        };
        Ok(file.chain(io::repeat(0)).take(self.size))
    }

    /// The first bytes of the volume, fewer than asked for where it is shorter or cannot be read.
    #[must_use]
    pub fn beginning(&self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Ok(reader) = self.reader() {
            // What cannot be read is an empty disk for a guest.
            let _ = reader.take(length as u64).read_to_end(&mut bytes);
        }
        bytes
    }

    /// Whether there is nothing but zeros in it. Holes are not read.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn is_zero(&self) -> io::Result<bool> {
        if fs::metadata(&self.path).map(|meta| meta.blocks()).unwrap_or(0) == 0 {
            return Ok(true);
        }
        let mut file = File::open(&self.path)?.take(self.size);
        let mut block = vec![0; BLOCK];
        loop {
            let length = file.read(&mut block)?;
            if length == 0 {
                return Ok(true);
            }
            if !is_zero(&block[..length]) {
                return Ok(false);
            }
        }
    }

    /// The digest of the volume, in hex digits.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn sha256(&self) -> io::Result<String> {
        let mut reader = self.reader()?;
        let mut digest = Sha256::new();
        let mut block = vec![0; 8 * BLOCK];
        loop {
            let length = reader.read(&mut block)?;
            if length == 0 {
                return Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
            }
            digest.update(&block[..length]);
        }
    }
}

/// Whether these bytes are all zero. Comparing is faster than looking at each, in unoptimised programs above all.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    static ZEROS: [u8; BLOCK] = [0; BLOCK];
    bytes.chunks(BLOCK).all(|part| part == &ZEROS[..part.len()])
}

/// How much data is looked at and written at once, as the import service's `dd` does.
pub(super) const BLOCK: usize = 128 * 1024;

fn clean(dir: &Path, volume: &Volume) -> PathBuf {
    named(dir, volume, ".img")
}

fn dirty(dir: &Path, volume: &Volume) -> PathBuf {
    named(dir, volume, "-dirty.img")
}

fn import(dir: &Path, volume: &Volume) -> PathBuf {
    named(dir, volume, "-import.img")
}

fn revision(dir: &Path, volume: &Volume, id: &str) -> PathBuf {
    named(dir, volume, &format!(".img.{id}"))
}

fn named(dir: &Path, volume: &Volume, suffix: &str) -> PathBuf {
    dir.join("pools").join(&volume.pool).join(format!("{}{suffix}", volume.vid))
}

/// Bytes that a volume takes in its pool.
pub(super) fn usage(dir: &Path, volume: &Volume) -> u64 {
    let blocks = |path: PathBuf| fs::metadata(path).map(|meta| meta.blocks() * 512).unwrap_or(0);
    volume.usage.unwrap_or_else(|| blocks(clean(dir, volume)))
}

/// Size and usage of a pool in bytes. None for pools without data of their own.
pub(super) fn pool_usage(dir: &Path, pool: &Pool) -> Option<(u64, u64)> {
    if pool.driver == Driver::LinuxKernel {
        return None;
    }
    if let Some(limit) = pool.limit {
        return Some((limit, allocated(&dir.join("pools").join(&pool.name))));
    }
    let stat = nix::sys::statvfs::statvfs(dir).ok()?;
    let unit = stat.fragment_size();
    Some((unit * stat.blocks(), unit * (stat.blocks() - stat.blocks_free())))
}

/// Bytes that the files under a folder take, each file once.
pub(super) fn allocated(folder: &Path) -> u64 {
    let mut seen = std::collections::HashSet::new();
    let mut folders = vec![folder.to_owned()];
    let mut sum = 0;
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => folders.push(entry.path()),
                Ok(meta) if seen.insert(meta.ino()) => sum += meta.blocks() * 512,
                _ => {}
            }
        }
    }
    sum
}

/// Opens an import of this size.
pub(super) fn begin_import(dir: &Path, pool: &Pool, volume: &Volume, size: u64) -> Result<File, Failure> {
    if !volume.save_on_stop || i64::try_from(size).is_err() {
        return Err(Failure::Untold);
    }
    let path = import(dir, volume);
    match pool.driver {
        Driver::LvmThin | Driver::Zfs if volume.dirty => {
            return Err(Failure::storage(format_args!(
                "Cannot import data to dirty volume {}, stop the qube first",
                volume.vid
            )));
        }
        Driver::LvmThin | Driver::Zfs if path.exists() => return Err(import_in_progress(volume)),
        Driver::File if path.exists() => return Err(Failure::Untold),
        _ => {}
    }
    let open = || -> io::Result<File> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        // A new file, not the old one emptied: whoever has that open goes on with it alone.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        // What the file system cannot make so long stays short: what is not there is zeros.
        let _ = file.set_len(size);
        Ok(file)
    };
    open().map_err(|_| Failure::Untold)
}

/// Makes an import the volume's content.
pub(super) fn commit_import(dir: &Path, pool: &Pool, volume: &mut Volume, size: u64) -> Result<(), Failure> {
    let path = import(dir, volume);
    if pool.driver.import_blocks() && !path.exists() {
        return Err(Failure::storage(format_args!("No import operation in progress on {}", volume.vid)));
    }
    if pool.driver == Driver::Zfs {
        prune(dir, volume, 0);
    }
    commit(dir, pool, volume, &path)?;
    volume.size = size;
    Ok(())
}

/// Makes a volume hold what another one holds.
pub(super) fn copy(dir: &Path, pool: &Pool, from: &Volume, to: &mut Volume) -> Result<(), Failure> {
    drop(begin_import(dir, pool, to, from.size)?);
    let path = import(dir, to);
    let copied = fs::copy(clean(dir, from), &path);
    match copied {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            drop_import(dir, to);
            return Err(Failure::Untold);
        }
        _ => {}
    }
    commit_import(dir, pool, to, from.size)
}

/// Throws an import away.
pub(super) fn drop_import(dir: &Path, volume: &Volume) {
    // It may have gone at a start meanwhile.
    let _ = fs::remove_file(import(dir, volume));
}

/// The old content becomes a revision, then the file takes its place. The revision is there even when the file is not.
fn commit(dir: &Path, pool: &Pool, volume: &mut Volume, file: &Path) -> Result<(), Failure> {
    if matches!(pool.driver, Driver::FileReflink | Driver::LvmThin) {
        add_revision(dir, pool, volume)?;
        prune(dir, volume, volume.revisions_to_keep);
    }
    volume.usage = None;
    volume.commits += 1;
    fs::rename(file, clean(dir, volume)).map_err(|_| Failure::Untold)
}

fn add_revision(dir: &Path, pool: &Pool, volume: &mut Volume) -> Result<(), Failure> {
    if volume.revisions_to_keep == 0 {
        return Ok(());
    }
    let id = match pool.driver {
        Driver::FileReflink => {
            let last = volume.revisions.last().and_then(|last| last.id.parse::<u64>().ok()).unwrap_or(0);
            (last + 1).to_string()
        }
        _ => {
            let mut now =
                SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or(0);
            while volume.revisions.iter().any(|revision| revision.id == format!("{now}-back")) {
                now += 1;
            }
            format!("{now}-back")
        }
    };
    match fs::hard_link(clean(dir, volume), revision(dir, volume, &id)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Failure::Untold),
        _ => {}
    }
    volume.revisions.push(Revision { id, size: volume.size });
    Ok(())
}

/// Removes the oldest revisions. With -1 the one just added goes: no snapshots are kept.
fn prune(dir: &Path, volume: &mut Volume, keep: i64) {
    let keep = usize::try_from(keep).unwrap_or(0);
    let surplus = volume.revisions.len().saturating_sub(keep);
    for old in volume.revisions.drain(..surplus).collect::<Vec<_>>() {
        let _ = fs::remove_file(revision(dir, volume, &old.id));
    }
}

/// Goes back to a revision.
pub(super) fn revert(dir: &Path, pool: &Pool, volume: &mut Volume, id: &str) -> Result<(), Failure> {
    let found = volume.revisions.iter().find(|revision| revision.id == id).ok_or(Failure::Untold)?;
    let size = found.size;
    let vid = &volume.vid;
    if volume.dirty {
        return Err(match pool.driver {
            Driver::FileReflink => {
                Failure::storage(format_args!("Cannot revert: {vid} is not cleanly stopped"))
            }
            _ => Failure::storage(format_args!("Cannot revert dirty volume {vid}, stop the qube first")),
        });
    }
    let path = revision(dir, volume, id);
    if pool.driver == Driver::FileReflink {
        // The revision itself takes the place of the content, and the content becomes the newest revision.
        add_revision(dir, pool, volume)?;
        volume.revisions.retain(|revision| revision.id != id);
    } else if import(dir, volume).exists() {
        return Err(import_in_progress(volume));
    }
    replace(&path, &clean(dir, volume), pool.driver == Driver::FileReflink).map_err(|_| Failure::Untold)?;
    volume.size = size;
    volume.usage = None;
    volume.commits += 1;
    Ok(())
}

/// Puts one file, or its being missing, in the place of another; the first may keep its name.
fn replace(from: &Path, to: &Path, whole: bool) -> io::Result<()> {
    match fs::remove_file(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let done = if whole { fs::rename(from, to) } else { fs::hard_link(from, to) };
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Changes a volume's length.
pub(super) fn resize(dir: &Path, volume: &mut Volume, size: u64) -> Result<(), Failure> {
    if !volume.rw || i64::try_from(size).is_err() {
        return Err(Failure::Untold);
    }
    if size < volume.size {
        for path in [clean(dir, volume), dirty(dir, volume)] {
            shorten(&path, size).map_err(|_| Failure::Untold)?;
        }
    }
    volume.size = size;
    Ok(())
}

fn shorten(path: &Path, size: u64) -> io::Result<()> {
    let file = match File::options().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let meta = file.metadata()?;
    if meta.len() <= size {
        return Ok(());
    }
    if meta.nlink() == 1 {
        return file.set_len(size);
    }
    let own = path.with_extension("shorter");
    io::copy(&mut file.take(size), &mut File::create(&own)?)?;
    fs::rename(own, path)
}

/// What a driver does with a volume when its qube starts.
pub(super) fn start(dir: &Path, pool: &Pool, volume: &mut Volume) -> Result<(), Failure> {
    if pool.driver.import_blocks() && import(dir, volume).exists() {
        return Err(import_in_progress(volume));
    }
    if pool.driver == Driver::FileReflink {
        drop_import(dir, volume);
    }
    if volume.save_on_stop && !volume.dirty {
        replace(&clean(dir, volume), &dirty(dir, volume), false).map_err(|_| Failure::Untold)?;
        volume.dirty = true;
    }
    Ok(())
}

/// What a driver does with a volume when its qube has stopped: what the qube had becomes the content.
pub(super) fn stop(dir: &Path, pool: &Pool, volume: &mut Volume) {
    if !std::mem::take(&mut volume.dirty) {
        return;
    }
    let file = dirty(dir, volume);
    if !file.exists() && File::create(&file).is_err() {
        return;
    }
    if pool.driver == Driver::Zfs {
        // Unlike an import, a stop keeps the snapshot that was made at the start.
        let _ = add_revision(dir, pool, volume);
        prune(dir, volume, volume.revisions_to_keep);
    }
    let told_usage = volume.usage;
    // A qube is off even when its disk could not be kept.
    let _ = commit(dir, pool, volume, &file);
    volume.usage = told_usage;
}

/// Removes everything that a volume has.
pub(super) fn remove(dir: &Path, volume: &Volume) {
    let revisions = volume.revisions.iter().map(|kept| revision(dir, volume, &kept.id));
    for path in [clean(dir, volume), dirty(dir, volume), import(dir, volume)].into_iter().chain(revisions) {
        let _ = fs::remove_file(path);
    }
    if let Some(folder) = clean(dir, volume).parent() {
        // It goes with the last volume in it.
        let _ = fs::remove_dir(folder);
    }
}

fn import_in_progress(volume: &Volume) -> Failure {
    Failure::storage(format_args!("Import operation in progress on {}", volume.vid))
}
