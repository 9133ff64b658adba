//! The key files of repositories: OpenPGP certificates, client certificates and their keys.
//!
//! A `.repo` file names them by path or by `file://` address. Only files that lie in the key directory are read: no
//! `..` in the name, and no symbolic link that leads out. Variables are `$releasever` and `${releasever}` and whatever
//! else [`Variables`] knows; a repository may name several keys.

use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

use super::file::Repo;
use super::variables::Variables;
use crate::untrusted::displayable;

/// Where key files have to lie.
pub const KEY_DIRECTORY: &str = "/etc/qubes/repo-templates/keys";

/// Largest key file read, in bytes.
pub const MAX_KEY: u64 = 1 << 20;

/// The key directory, below the root of some file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyDirectory {
    root: PathBuf,
}

/// A key file that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFile {
    /// The path as the repository names it, without `file://`.
    pub path: String,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// Why a key was not read.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Not a path and not a `file://` address.
    #[error("the key '{}' is not a local file", displayable(.0, false))]
    NotLocal(String),
    /// Not in the key directory.
    #[error("the key '{}' does not lie in {KEY_DIRECTORY}", displayable(.0, false))]
    Outside(String),
    /// Larger than [`MAX_KEY`].
    #[error("the key '{}' is larger than {MAX_KEY} bytes", displayable(.0, false))]
    TooLarge(String),
    /// The file system refused.
    #[error("the key '{}' cannot be read: {source}", displayable(path, false))]
    Read {
        /// The path as written.
        path: String,
        /// What it said.
        source: std::io::Error,
    },
}

impl Default for KeyDirectory {
    fn default() -> Self {
        Self::below("/")
    }
}

impl KeyDirectory {
    /// [`KEY_DIRECTORY`] below `root`.
    #[must_use]
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The OpenPGP keys that may sign for `repo`, in the order of its `gpgkey`. Empty where it names none.
    ///
    /// # Errors
    /// The first key that is not a readable file of the key directory.
    pub fn keys_of(&self, repo: &Repo, variables: &Variables) -> Result<Vec<KeyFile>, KeyError> {
        repo.expanded(variables).gpgkey.iter().map(|value| self.read(value)).collect()
    }

    /// Reads one file, named by its path or `file://` address.
    ///
    /// # Errors
    /// It is elsewhere, too large or not readable.
    pub fn read(&self, value: &str) -> Result<KeyFile, KeyError> {
        let path = value.strip_prefix("file://").unwrap_or(value);
        if !path.starts_with('/') {
            return Err(KeyError::NotLocal(value.to_owned()));
        }
        let outside = || KeyError::Outside(path.to_owned());
        let failed = |source| KeyError::Read { path: path.to_owned(), source };
        let inside = Path::new(path).strip_prefix(KEY_DIRECTORY).map_err(|_| outside())?;
        if inside.as_os_str().is_empty()
            || !inside.components().all(|part| matches!(part, Component::Normal(_)))
        {
            return Err(outside());
        }
        let directory =
            self.root.join(KEY_DIRECTORY.trim_start_matches('/')).canonicalize().map_err(failed)?;
        let real = directory.join(inside).canonicalize().map_err(failed)?;
        if !real.starts_with(&directory) {
            return Err(outside());
        }
        if !real.is_file() {
            return Err(failed(std::io::Error::from(std::io::ErrorKind::InvalidInput)));
        }
        let mut bytes = Vec::new();
        std::fs::File::open(&real)
            .and_then(|file| file.take(MAX_KEY + 1).read_to_end(&mut bytes))
            .map_err(failed)?;
        if bytes.len() as u64 > MAX_KEY {
            return Err(KeyError::TooLarge(path.to_owned()));
        }
        Ok(KeyFile { path: path.to_owned(), bytes })
    }

    /// The files that a request carries along: `gpgkey`, `sslclientcert` and `sslclientkey` of every repository,
    /// whatever of them is a file of the key directory. (A value with several addresses counts as one name, as the
    /// stock client has it: the UpdateVM has no use for the OpenPGP keys.)
    #[must_use]
    pub fn request_block(&self, repos: &[Repo], variables: &Variables) -> Vec<KeyFile> {
        let mut values: Vec<String> = repos
            .iter()
            .flat_map(|repo| {
                ["gpgkey", "sslclientcert", "sslclientkey"]
                    .into_iter()
                    .filter_map(|key| repo.options.get(key))
            })
            .map(|value| variables.expand(value))
            .collect();
        values.sort();
        values.dedup();
        values.iter().filter_map(|value| self.read(value).ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::file;

    fn directory() -> (tempfile::TempDir, KeyDirectory) {
        let root = tempfile::tempdir().unwrap();
        let keys = root.path().join("etc/qubes/repo-templates/keys");
        std::fs::create_dir_all(keys.join("more")).unwrap();
        for name in ["a-4.3", "b", "more/c"] {
            std::fs::write(keys.join(name), name).unwrap();
        }
        std::fs::write(root.path().join("etc/secret"), "secret").unwrap();
        std::os::unix::fs::symlink("../../../secret", keys.join("out")).unwrap();
        std::os::unix::fs::symlink("b", keys.join("in")).unwrap();
        let directory = KeyDirectory::below(root.path());
        (root, directory)
    }

    #[test]
    fn only_files_of_the_key_directory_are_read() {
        let (_root, keys) = directory();
        for good in ["a-4.3", "b", "more/c", "in"] {
            assert!(keys.read(&format!("file://{KEY_DIRECTORY}/{good}")).is_ok(), "{good}");
        }
        for bad in ["../../../secret", "more/../b", "out", "", "none", "more", "./../keys/b"] {
            assert!(keys.read(&format!("{KEY_DIRECTORY}/{bad}")).is_err(), "{bad}");
        }
        for bad in [
            "/etc/secret",
            "https://x/etc/qubes/repo-templates/keys/b",
            "b",
            "file://etc",
            "/etc/qubes/repo-templates/keysx/b",
        ] {
            assert!(keys.read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_repository_may_name_several_keys() {
        let (_root, keys) = directory();
        let text = format!(
            "[r]\ngpgkey = file://{KEY_DIRECTORY}/a-${{releasever}}\n   file://{KEY_DIRECTORY}/b\n[s]\n"
        );
        let repos = file::parse(&text).repos;
        let found = keys.keys_of(&repos[0], &Variables::new("4.3")).unwrap();
        assert_eq!(
            found.iter().map(|key| key.bytes.as_slice()).collect::<Vec<_>>(),
            [b"a-4.3".as_slice(), b"b"]
        );
        assert!(keys.keys_of(&repos[1], &Variables::new("4.3")).unwrap().is_empty());
        assert!(keys.keys_of(&repos[0], &Variables::new("4.2")).is_err());
    }

    #[test]
    fn the_block_of_a_request_is_sorted_with_its_prefixes() {
        let (_root, keys) = directory();
        let text = format!(
            "[r]\ngpgkey=file://{KEY_DIRECTORY}/a-$releasever\nsslclientkey={KEY_DIRECTORY}/b\n[s]\ngpgkey=file://{KEY_DIRECTORY}/a-4.3\n\
             [t]\ngpgkey=file:///etc/secret\n"
        );
        let block = keys.request_block(&file::parse(&text).repos, &Variables::new("4.3"));
        assert_eq!(
            block.iter().map(|key| key.path.rsplit('/').next().unwrap()).collect::<Vec<_>>(),
            ["b", "a-4.3"]
        );
    }
}
