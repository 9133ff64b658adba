//! Repository metadata kept between calls: for each repository a folder with `repomd.xml`, the list of packages that it
//! names and the addresses of the mirrors. The age of `repomd.xml` is the age of the entry.
//!
//! The cache may be absent, unwritable or damaged: then the repository is asked. What is read from it is checked as if
//! it had just come from there. Files appear whole or not at all, `repomd.xml` last.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use super::address::Address;
use crate::repo::file::Repo;

/// Most repositories remembered.
const MAX_ENTRIES: usize = 32;

/// Most bytes kept over all repositories.
const MAX_BYTES: u64 = 512 << 20;

/// How long metadata is used where a repository does not say: two days, as dnf has it.
const DEFAULT_EXPIRE: u64 = 48 * 3600;

/// Where metadata is kept, if anywhere.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    folder: Option<PathBuf>,
}

/// The place of one repository in the cache.
#[derive(Clone, Debug)]
pub struct Entry {
    folder: Option<PathBuf>,
}

impl Cache {
    /// A cache in `folder`, which is made when it is first needed; none at all without it.
    #[must_use]
    pub fn new(folder: Option<PathBuf>) -> Self {
        Self { folder }
    }

    /// The place of `repo`, whose values are expanded: another address is another entry.
    #[must_use]
    pub fn entry(&self, repo: &Repo) -> Entry {
        let mut hasher = Sha256::new();
        let lists = [repo.mirrorlist.as_deref().unwrap_or(""), repo.metalink.as_deref().unwrap_or("")];
        for part in [repo.id.as_str()].into_iter().chain(lists).chain(repo.baseurl.iter().map(String::as_str))
        {
            hasher.update(part.as_bytes());
            hasher.update([0]);
        }
        let key: String = hasher.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        let folder = self.folder.as_ref().and_then(|folder| {
            let folder = folder.join(key);
            DirBuilder::new().recursive(true).mode(0o700).create(&folder).ok()?;
            Some(folder)
        });
        Entry { folder }
    }

    /// Drops the oldest entries over the bounds.
    pub fn prune(&self) {
        let Some(listing) = self.folder.as_ref().and_then(|folder| fs::read_dir(folder).ok()) else { return };
        let mut entries: Vec<(SystemTime, u64, PathBuf)> = listing
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let size = fs::read_dir(&path)
                    .ok()?
                    .filter_map(|file| file.ok()?.metadata().ok())
                    .map(|about| about.len())
                    .sum();
                Some((modified(&path.join("repomd.xml")).unwrap_or(SystemTime::UNIX_EPOCH), size, path))
            })
            .collect();
        entries.sort_by_key(|(time, ..)| std::cmp::Reverse(*time));
        let mut total = 0;
        for (number, (_, size, path)) in entries.into_iter().enumerate() {
            total += size;
            // An error leaves an entry too many; the next call tries again.
            if (number >= MAX_ENTRIES || total > MAX_BYTES) && fs::remove_dir_all(&path).is_err() {
                return;
            }
        }
    }
}

impl Entry {
    /// `repomd.xml` and the mirrors, if they are there and not older than `expire` (`None`: whatever their age).
    #[must_use]
    pub fn read(&self, expire: Option<Duration>) -> Option<(Vec<u8>, Vec<Address>)> {
        let folder = self.folder.as_ref()?;
        let repomd = folder.join("repomd.xml");
        // A time to come is no age.
        let age = modified(&repomd)?.elapsed().ok()?;
        if expire.is_some_and(|expire| age >= expire) {
            return None;
        }
        let mirrors = fs::read_to_string(folder.join("mirrors")).ok()?;
        let mirrors = mirrors.lines().map(Address::parse).collect::<Result<Vec<_>, _>>().ok()?;
        Some((fs::read(repomd).ok()?, mirrors))
    }

    /// The list of packages, if there is one. Not checked yet.
    #[must_use]
    pub fn primary(&self) -> Option<File> {
        File::open(self.folder.as_ref()?.join("primary")).ok()
    }

    /// An empty file for a list of packages that is coming in: in the cache, else among the temporary files.
    ///
    /// # Errors
    /// There is no room for it anywhere.
    pub fn incoming(&self) -> io::Result<NamedTempFile> {
        match self.folder.as_ref().map(NamedTempFile::new_in) {
            Some(Ok(file)) => Ok(file),
            _ => NamedTempFile::new(),
        }
    }

    /// Keeps what was read and checked; `primary` is `None` if the list is the one that is there already. A cache that
    /// cannot be written is no failure.
    pub fn keep(&self, repomd: &[u8], mirrors: &[Address], primary: Option<NamedTempFile>) {
        let Some(folder) = &self.folder else { return };
        let lines: String = mirrors.iter().map(|address| format!("{}\n", plain(address))).collect();
        let kept = primary.map_or(Ok(()), |file| {
            file.persist(folder.join("primary")).map(drop).map_err(|error| error.error)
        });
        let kept = kept
            .and_then(|()| write(folder, "mirrors", lines.as_bytes()))
            .and_then(|()| write(folder, "repomd.xml", repomd));
        if kept.is_err() {
            // Better nothing than an entry of two halves.
            fs::remove_file(folder.join("repomd.xml")).ok();
        }
    }
}

/// How long the metadata of `repo` may be used; `None`: for ever.
#[must_use]
pub fn expire(repo: &Repo) -> Option<Duration> {
    let text = repo.option("metadata_expire").unwrap_or("").trim().to_ascii_lowercase();
    if matches!(text.as_str(), "never" | "-1") {
        return None;
    }
    let (digits, unit) = match text.strip_suffix(['s', 'm', 'h', 'd']) {
        Some(digits) => (digits, text.as_bytes()[text.len() - 1]),
        None => (text.as_str(), b's'),
    };
    let factor = match unit {
        b'd' => 86_400.0,
        b'h' => 3600.0,
        b'm' => 60.0,
        _ => 1.0,
    };
    let seconds = digits.parse::<f64>().ok().map(|number| number * factor);
    Some(
        seconds
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .unwrap_or(Duration::from_secs(DEFAULT_EXPIRE)),
    )
}

fn plain(address: &Address) -> String {
    match address {
        Address::File(path) => path.display().to_string(),
        Address::Web(url) => url.clone(),
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut file = NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.persist(folder.join(name)).map(drop).map_err(|error| error.error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::file;

    #[test]
    fn an_entry_is_whole_or_absent() {
        let folder = tempfile::tempdir().unwrap();
        let repo = &file::parse("[a]\nbaseurl=http://x/\n").repos[0];
        let cache = Cache::new(Some(folder.path().join("deep/er")));
        let entry = cache.entry(repo);
        assert!(entry.read(None).is_none() && entry.primary().is_none());
        let mirrors = [Address::Web("http://x/".into()), Address::File("/y".into())];
        entry.keep(b"r", &mirrors, Some(entry.incoming().unwrap()));
        assert_eq!(cache.entry(repo).read(None), Some((b"r".to_vec(), mirrors.to_vec())));
        assert!(entry.primary().is_some());
        assert!(entry.read(Some(Duration::from_secs(60))).is_some());
        assert!(entry.read(Some(Duration::ZERO)).is_none());
        assert!(cache.entry(&file::parse("[a]\nbaseurl=http://z/\n").repos[0]).read(None).is_none());
        cache.prune();
        assert!(entry.read(None).is_some());
        for absent in [Cache::default(), Cache::new(Some("/proc/none".into()))] {
            let entry = absent.entry(repo);
            entry.keep(b"r", &mirrors, Some(entry.incoming().unwrap()));
            assert!(entry.read(None).is_none());
            absent.prune();
        }
    }

    #[test]
    fn ages_as_dnf_writes_them() {
        let of = |text: &str| {
            expire(&file::parse(&format!("[a]\nmetadata_expire={text}\n")).repos[0]).map(|age| age.as_secs())
        };
        assert_eq!(of("60"), Some(60));
        assert_eq!(of("1.5h"), Some(5400));
        assert_eq!(of("2D"), Some(172_800));
        assert_eq!((of("never"), of("-1")), (None, None));
        for odd in ["", "1w", "-5", "nan"] {
            assert_eq!(of(odd), Some(DEFAULT_EXPIRE), "{odd:?}");
        }
    }
}
