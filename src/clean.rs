//! `clean`: deletes packages and answers to searches that are kept in the cache directory.
//!
//! Only regular files of ours go, no directory is entered, nothing is followed. In a directory of our own every package goes; in another
//! one, which somebody may keep other things in, only packages of templates and the answers. A directory that is then empty and our own
//! goes too. A directory that is not there is clean.

use std::io;
use std::path::Path;

use anyhow::Context as _;

use crate::query_cache;
use crate::template::PACKAGE_PREFIX;

/// What the cache directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// The default one: nobody else has anything in it.
    Own,
    /// One that was named.
    Named,
}

/// Deletes what is ours in `directory`; returns how many files that were.
///
/// # Errors
/// When the directory cannot be read or a file cannot be deleted.
pub fn run(directory: &Path, cache: Cache) -> anyhow::Result<usize> {
    let entries = match directory.read_dir() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        other => other.with_context(|| format!("reading {}", directory.display()))?,
    };
    let mut deleted = 0;
    for entry in entries {
        let entry = entry.with_context(|| format!("reading {}", directory.display()))?;
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if is_file && entry.file_name().to_str().is_some_and(|name| is_ours(name, cache)) {
            let path = entry.path();
            std::fs::remove_file(&path).with_context(|| format!("deleting {}", path.display()))?;
            deleted += 1;
        }
    }
    if cache == Cache::Own {
        // Something of somebody else may be in it after all: then it stays.
        let _ = std::fs::remove_dir(directory);
    }
    Ok(deleted)
}

fn is_ours(name: &str, cache: Cache) -> bool {
    if name.starts_with(query_cache::PREFIX) {
        return true;
    }
    let package = name.strip_suffix(".UNTRUSTED").unwrap_or(name).ends_with(".rpm");
    package && (cache == Cache::Own || name.starts_with(PACKAGE_PREFIX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(cache: Cache) -> Vec<String> {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("c");
        std::fs::create_dir_all(directory.join("sub.rpm")).unwrap();
        let outside = place.path().join("outside.rpm");
        for path in [directory.join("a.rpm"), directory.join("letter"), outside.clone()] {
            std::fs::write(path, "x").unwrap();
        }
        std::fs::write(directory.join("qubes-template-x-0:1-1.rpm"), "x").unwrap();
        std::fs::write(directory.join("qvm-template-query-00"), "x").unwrap();
        std::fs::write(directory.join("qubes-template-x-0:1-1.rpm.UNTRUSTED"), "x").unwrap();
        std::os::unix::fs::symlink(&outside, directory.join("link.rpm")).unwrap();
        run(&directory, cache).unwrap();
        assert!(outside.exists());
        let names = directory.read_dir().unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn only_packages_go() {
        assert_eq!(left(Cache::Own), ["letter", "link.rpm", "sub.rpm"]);
        assert_eq!(left(Cache::Named), ["a.rpm", "letter", "link.rpm", "sub.rpm"]);
    }

    #[test]
    fn an_absent_directory_is_clean() {
        let place = tempfile::tempdir().unwrap();
        assert_eq!(run(&place.path().join("none"), Cache::Own).unwrap(), 0);
        assert_eq!(run(place.path(), Cache::Own).unwrap(), 0);
        assert!(!place.path().exists());
    }
}
