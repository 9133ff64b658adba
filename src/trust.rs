//! `trust list`: which certificates may sign for which repository, and whether they could today. Nobody is asked; it is
//! read as the commands that verify packages read it.

use std::path::Path;
use std::time::SystemTime;

use crate::catalogue::local_key;
use crate::repo::choice::{self, RepoOption};
use crate::repo::file::Repo;
use crate::repo::keys::{KeyDirectory, KeyFile};
use crate::repo::variables::Variables;
use crate::template::Timestamp;
use crate::untrusted::displayable;
use crate::verify::Keyring;

/// All that is trusted in a call with these options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// The repositories that take part, sorted by identifier.
    pub repositories: Vec<Vouching>,
    /// The keyring for local files.
    pub local: Key,
}

/// Who vouches for the packages of a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vouching {
    /// Identifier of the repository.
    pub id: String,
    /// Its name for people; the identifier where it has none.
    pub name: String,
    /// Whether it names no key, so that the keyring for local files counts.
    pub by_keyring: bool,
    /// Its key files, in its order.
    pub keys: Vec<Key>,
}

/// A key file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Key {
    /// As it is named, fit to be shown.
    pub path: String,
    /// What is in it.
    pub certificates: Vec<Certificate>,
    /// Why it cannot be used at all. One such file stops every package of its repository.
    pub error: Option<String>,
}

/// A certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Fingerprint of its primary key, in upper-case hexadecimal digits.
    pub fingerprint: String,
    /// Who it says it belongs to, fit to be shown.
    pub user_ids: Vec<String>,
    /// When it expires.
    pub expires: Option<Timestamp>,
    /// Why a signature made now would not count.
    pub unusable: Option<String>,
}

/// What is trusted when `options` choose among `repos` and `keyring` is for local files.
#[must_use]
pub fn run(
    repos: &[Repo],
    options: &[RepoOption],
    variables: &Variables,
    keyring: &Path,
    now: SystemTime,
) -> Trust {
    let directory = KeyDirectory::default();
    let local = match local_key(keyring) {
        Ok(file) => key(&file, now),
        Err(error) => unreadable(&keyring.display().to_string(), &format!("{:#}", error.root_cause())),
    };
    let mut repositories: Vec<Vouching> = choice::enabled(repos, options)
        .into_iter()
        .map(|repo| {
            let expanded = repo.expanded(variables);
            let read = |value: &String| match directory.read(value) {
                Ok(file) => key(&file, now),
                Err(error) => unreadable(value, &error.to_string()),
            };
            let id = repo.id.to_string();
            let name = expanded.name.unwrap_or_else(|| id.clone());
            let own: Vec<Key> = expanded.gpgkey.iter().map(read).collect();
            let by_keyring = own.is_empty();
            let keys = if by_keyring { vec![local.clone()] } else { own };
            Vouching { id, name: displayable(&name, false), by_keyring, keys }
        })
        .collect();
    repositories.sort_by(|a, b| a.id.cmp(&b.id));
    Trust { repositories, local }
}

impl Trust {
    /// Whether there is not one certificate that could be read.
    #[must_use]
    pub fn is_blind(&self) -> bool {
        let keys = self.repositories.iter().flat_map(|repo| &repo.keys).chain([&self.local]);
        keys.flat_map(|key| &key.certificates).next().is_none()
    }
}

fn key(file: &KeyFile, now: SystemTime) -> Key {
    let path = displayable(&file.path, false);
    match Keyring::parse(&file.bytes) {
        Err(error) => unreadable(&path, &error.to_string()),
        Ok(keyring) => {
            let certificates = keyring.certificates().iter().map(|one| Certificate {
                fingerprint: one.fingerprint(),
                user_ids: one.user_ids(),
                expires: one.expires(now),
                unusable: one.usable(now).err().map(|why| displayable(&why.to_string(), false)),
            });
            Key { path, certificates: certificates.collect(), error: None }
        }
    }
}

fn unreadable(path: &str, why: &str) -> Key {
    let path = displayable(path.strip_prefix("file://").unwrap_or(path), false);
    Key { path, certificates: Vec::new(), error: Some(displayable(why, false)) }
}
