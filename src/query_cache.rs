//! Answers of the UpdateVM to searches, kept for a short time: for a person who looks at a list twice.
//!
//! What an UpdateVM says is worth no more for having been kept: it is read as strictly as when it came. Only listings are shown
//! from here, with the age of the answer; whatever is installed or downloaded is decided by an answer to a question of its own.
//!
//! One file an answer, in the cache directory. Its name is a digest of all that went into the question: the UpdateVM, the
//! options in their order, the release, the specification, the repository files and their keys. It begins with three
//! lines: the version of this form, the second since 1970 at which the answer came, the SHA-256 of the answer. A file that
//! is damaged, too long, too old, from the future or somebody else's is as good as none, and so is one that cannot be written.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::{Digest as _, Sha256};

use crate::repo::wire::{Request, RequestError};
use crate::state::{Directory, MAX_FILE};

/// What the names of the files begin with.
pub const PREFIX: &str = "qvm-template-query-";
/// First line of every file.
const FORM: &str = "qvm-template query 1";
/// How many answers are kept.
const MOST: usize = 16;

/// The answers in one directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryCache {
    directory: Directory,
    life: Duration,
}

/// What an answer is found by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// The key of a question to the UpdateVM of this name (empty: this qube). Whether it was to be answered from fresh
    /// metadata makes no other question of it.
    ///
    /// # Errors
    /// When the question cannot be written down.
    pub fn new(update_vm: &str, request: &Request) -> Result<Self, RequestError> {
        let request = Request { refresh: false, ..request.clone() };
        let mut digest = Sha256::new();
        digest.update(update_vm.as_bytes());
        digest.update([0]);
        digest.update(request.encode()?);
        Ok(Self(format!("{PREFIX}{}", hex(&digest.finalize()[..16]))))
    }
}

impl QueryCache {
    /// The answers in `directory`, each shown for as long as `life`.
    #[must_use]
    pub fn new(directory: &Path, life: Duration) -> Self {
        Self { directory: Directory::at(directory), life }
    }

    /// The answer of this key and its age, if it is young enough.
    #[must_use]
    pub fn get(&self, key: &Key, now: SystemTime) -> Option<(Vec<u8>, Duration)> {
        let path = self.directory.path().join(&key.0);
        let about = path.symlink_metadata().ok()?;
        let own =
            about.is_file() && about.uid() == nix::unistd::geteuid().as_raw() && about.mode() & 0o022 == 0;
        if !own {
            return None;
        }
        let bytes = self.directory.read(&key.0).ok()??;
        let mut parts = bytes.splitn(4, |byte| *byte == b'\n');
        let mut line = || std::str::from_utf8(parts.next()?).ok();
        let (form, second, digest) = (line()?, line()?, line()?);
        let answer = parts.next()?;
        let came = UNIX_EPOCH.checked_add(Duration::from_secs(second.parse().ok()?))?;
        let age = now.duration_since(came).ok()?;
        let sound = form == FORM && digest == hex(&Sha256::digest(answer)) && age < self.life;
        sound.then(|| (answer.to_owned(), age))
    }

    /// Keeps an answer that came just now, and of all answers only the newest.
    pub fn put(&self, key: &Key, answer: &[u8], now: SystemTime) {
        let second = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut bytes = format!("{FORM}\n{second}\n{}\n", hex(&Sha256::digest(answer))).into_bytes();
        bytes.extend_from_slice(answer);
        let fits = u64::try_from(bytes.len()).is_ok_and(|length| length <= MAX_FILE);
        if !fits || self.directory.write(&key.0, &bytes).is_err() {
            // What was there would be taken for the newest.
            let _ = self.directory.remove(&key.0);
            return;
        }
        self.keep_few(key);
    }

    /// Whether some answer of this key is kept, of whatever age.
    #[must_use]
    pub fn has(&self, key: &Key) -> bool {
        self.directory.path().join(&key.0).symlink_metadata().is_ok()
    }

    fn keep_few(&self, newest: &Key) {
        let Ok(entries) = self.directory.path().read_dir() else { return };
        let mut files: Vec<(SystemTime, String)> = entries
            .flatten()
            .filter_map(|entry| {
                let name = entry
                    .file_name()
                    .into_string()
                    .ok()
                    .filter(|name| name.starts_with(PREFIX) && *name != newest.0)?;
                Some((entry.metadata().ok()?.modified().ok()?, name))
            })
            .collect();
        files.sort();
        for (_, name) in files.iter().rev().skip(MOST - 1) {
            let _ = self.directory.remove(name);
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::repo::choice::RepoOption;
    use crate::repo::keys::KeyFile;

    const LIFE: Duration = Duration::from_secs(300);

    fn cache(directory: &Path) -> QueryCache {
        QueryCache::new(directory, LIFE)
    }

    fn key(spec: &str) -> Key {
        Key::new("sys-net", &Request { spec: spec.to_owned(), ..Request::default() }).unwrap()
    }

    #[test]
    fn an_answer_lives_for_a_short_time() {
        let place = tempfile::tempdir().unwrap();
        let cache = cache(&place.path().join("new/folder"));
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        assert_eq!(cache.get(&key("*"), now), None);
        cache.put(&key("*"), b"a|b\n\nc", now);
        assert_eq!(cache.get(&key("a"), now), None);
        for (later, found) in [(0, true), (299, true), (300, false)] {
            let later = Duration::from_secs(later);
            let expected = found.then(|| (b"a|b\n\nc".to_vec(), later));
            assert_eq!(cache.get(&key("*"), now + later), expected);
        }
        assert_eq!(cache.get(&key("*"), now - Duration::from_secs(1)), None, "a clock that was set back");
        cache.put(&key("*"), b"", now);
        assert_eq!(cache.get(&key("*"), now).unwrap().0, b"");
    }

    #[test]
    fn all_that_makes_the_question_makes_the_key() {
        let one = Request {
            options: vec![RepoOption::Enable("a".into()), RepoOption::Disable("b".into())],
            refresh: false,
            releasever: Some("4.2".into()),
            spec: "*".into(),
            repo_text: "[a]\n".into(),
            key_block: vec![KeyFile { path: "/k".into(), bytes: vec![1] }],
        };
        let of = |request: &Request| Key::new("sys-net", request).unwrap();
        let other = [
            Request { options: one.options.iter().rev().cloned().collect(), ..one.clone() },
            Request { releasever: Some("4.3".into()), ..one.clone() },
            Request { spec: "a".into(), ..one.clone() },
            Request { repo_text: "[a]\n\n".into(), ..one.clone() },
            Request { key_block: vec![KeyFile { path: "/k".into(), bytes: vec![2] }], ..one.clone() },
        ];
        assert!(other.iter().all(|other| of(other) != of(&one)));
        assert_ne!(Key::new("sys-whonix", &one), Key::new("sys-net", &one));
        assert_eq!(of(&Request { refresh: true, ..one.clone() }), of(&one));
        assert!(Key::new("", &Request { spec: "a\nb".into(), ..one }).is_err());
    }

    #[test]
    fn damage_and_strangers_files_are_as_good_as_none() {
        let place = tempfile::tempdir().unwrap();
        let (cache, now, key) = (cache(place.path()), SystemTime::now(), key("*"));
        let path = place.path().join(&key.0);
        cache.put(&key, b"answer", now);
        let good = std::fs::read(&path).unwrap();
        for length in 0..good.len() {
            std::fs::write(&path, &good[..length]).unwrap();
            assert_eq!(cache.get(&key, now), None, "cut to {length}");
            let mut bad = good.clone();
            bad[length] ^= 0x01;
            std::fs::write(&path, bad).unwrap();
            // One second more or less is still a time.
            assert!(
                cache.get(&key, now).is_none_or(|(answer, _)| answer == b"answer"),
                "changed at {length}"
            );
        }
        std::fs::write(&path, &good).unwrap();
        assert!(cache.get(&key, now).is_some());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(cache.get(&key, now), None);
        std::fs::remove_file(&path).unwrap();
        let elsewhere = place.path().join("elsewhere");
        std::fs::write(&elsewhere, &good).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        assert_eq!(cache.get(&key, now), None);
        cache.put(&key, b"new", now);
        assert_eq!(cache.get(&key, now).unwrap().0, b"new");
        assert_eq!(std::fs::read(&elsewhere).unwrap(), good, "a link is replaced, not followed");
    }

    #[test]
    fn few_are_kept_and_none_that_is_too_long() {
        let place = tempfile::tempdir().unwrap();
        let (cache, now) = (cache(place.path()), SystemTime::now());
        std::fs::write(place.path().join("a.rpm"), "x").unwrap();
        for number in 0..MOST + 3 {
            cache.put(&key(&format!("t{number}")), b"x", now);
        }
        assert_eq!(place.path().read_dir().unwrap().count(), MOST + 1);
        let last = key(&format!("t{}", MOST + 2));
        assert!(cache.get(&last, now).is_some() && place.path().join("a.rpm").exists());
        cache.put(&last, &vec![b'x'; usize::try_from(MAX_FILE).unwrap()], now);
        assert_eq!(cache.get(&last, now), None, "an answer that cannot be kept does not leave the old one");
    }
}
