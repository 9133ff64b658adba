//! One repository, loaded: what it has and where its files are.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};

use anyhow::{Context as _, Result, bail};

use super::address::Address;
use super::cache::{self, Cache, Entry};
use super::client::Client;
use super::metadata::{self, MAX_PRIMARY, MAX_REPOMD, Package, Primary};
use super::mirrors::Mirrors;
use super::proxy::ProxyChoice;
use super::{spec, xml::unpack};
use crate::repo::file::{self, Repo};
use crate::repo::variables::Variables;
use crate::repo::wire::Request;
use crate::template::RepoId;

/// How many mirrors are asked for metadata before a repository counts as out of reach.
const MAX_TRIES: usize = 8;

/// A repository whose metadata was read.
#[derive(Debug)]
pub struct Repository {
    /// Its name.
    pub id: RepoId,
    /// Its place among others that have the same package: less is better.
    pub rank: (i64, i64),
    /// Opens its files.
    pub client: Client,
    /// Where its files are.
    pub mirrors: Vec<Address>,
    /// Its templates.
    pub packages: Vec<Package>,
    /// What was left out.
    pub warnings: Vec<String>,
    /// Whether the metadata is older than this call.
    pub cached: bool,
}

/// What a process knows that loads repositories.
#[derive(Clone, Debug)]
pub struct Setting<'a> {
    /// What was asked, with the keys that came along.
    pub request: &'a Request,
    /// Values of variables.
    pub variables: &'a Variables,
    /// Proxy settings of the process.
    pub proxy: &'a ProxyChoice,
    /// Where metadata is kept.
    pub cache: &'a Cache,
    /// Whether what is kept must not be used.
    pub refresh: bool,
}

impl Repository {
    /// Loads `repo` from the cache or from its mirrors.
    ///
    /// # Errors
    /// No mirror has usable metadata: what each of them did.
    pub fn load(repo: &Repo, setting: &Setting<'_>) -> Result<Self> {
        let repo = &repo.expanded(setting.variables);
        let client = Client::new(repo, setting.request, setting.proxy)?;
        let entry = setting.cache.entry(repo);
        let rank =
            |key: &str, default| repo.option(key).and_then(|text| text.parse().ok()).unwrap_or(default);
        let mut loaded = Self {
            id: repo.id.clone(),
            rank: (rank("priority", 99), rank("cost", 1000)),
            client,
            mirrors: Vec::new(),
            packages: Vec::new(),
            warnings: Vec::new(),
            cached: true,
        };
        if setting.refresh || loaded.read_cache(repo, &entry).is_none() {
            loaded.cached = false;
            loaded.ask(repo, &entry, setting.variables)?;
        }
        loaded.leave_out(repo);
        Ok(loaded)
    }

    /// Applies `includepkgs` and `excludepkgs` (also called `exclude`).
    fn leave_out(&mut self, repo: &Repo) {
        let meant = |keys: &[&str], packages: &[Package]| -> Vec<Package> {
            let all: Vec<&Package> = packages.iter().collect();
            let specs = keys.iter().filter_map(|key| repo.option(key)).flat_map(file::words);
            specs.flat_map(|spec| spec::select(&spec, &all)).cloned().collect()
        };
        if repo.option("includepkgs").is_some() {
            let kept = meant(&["includepkgs"], &self.packages);
            self.packages.retain(|package| kept.contains(package));
        }
        let dropped = meant(&["excludepkgs", "exclude"], &self.packages);
        self.packages.retain(|package| !dropped.contains(package));
    }

    fn read_cache(&mut self, repo: &Repo, entry: &Entry) -> Option<()> {
        let (repomd, mirrors) = entry.read(cache::expire(repo))?;
        let primary = metadata::read_repomd(&repomd).ok()?;
        let file = checked(entry.primary()?, &primary)?;
        self.take_primary(file).ok()?;
        self.mirrors = mirrors;
        Some(())
    }

    fn ask(&mut self, repo: &Repo, entry: &Entry, variables: &Variables) -> Result<()> {
        let found = Mirrors::find(repo, &self.client, variables)?;
        let mut failures = Vec::new();
        for address in found.addresses.iter().take(MAX_TRIES) {
            match self.ask_mirror(address, &found, entry) {
                Ok(()) => {
                    self.mirrors = found.addresses;
                    return Ok(());
                }
                Err(error) => failures.push(format!("{}: {error:#}", address.shown())),
            }
        }
        bail!("{}", failures.join("; "))
    }

    fn ask_mirror(&mut self, address: &Address, found: &Mirrors, entry: &Entry) -> Result<()> {
        let repomd =
            self.client.read(&address.join("repodata/repomd.xml")?, MAX_REPOMD).context("repomd.xml")?;
        if !found.repomd.is_empty() && !found.repomd.iter().any(|sum| sum.fits(&repomd)) {
            bail!("repomd.xml: the checksum is not one that the metalink names");
        }
        let primary = metadata::read_repomd(&repomd)?;
        if let Some(file) = entry.primary().and_then(|file| checked(file, &primary)) {
            self.take_primary(file)?;
            entry.keep(&repomd, &found.addresses, None);
            return Ok(());
        }
        let limit = primary.size.unwrap_or(MAX_PRIMARY).min(MAX_PRIMARY);
        let mut incoming = entry.incoming().context("making room for the list of packages")?;
        self.client
            .fetch(&address.join(&primary.href)?, limit, &primary.checksum, &mut incoming)
            .context("list of packages")?;
        let mut file = incoming.reopen()?;
        file.seek(SeekFrom::Start(0))?;
        self.take_primary(file).context("list of packages")?;
        entry.keep(&repomd, &found.addresses, Some(incoming));
        Ok(())
    }

    fn take_primary(&mut self, file: File) -> Result<()> {
        (self.packages, self.warnings) = metadata::read_primary(unpack(file)?, &self.id)?;
        Ok(())
    }
}

/// `file` at its beginning, if its content has the checksum.
fn checked(mut file: File, primary: &Primary) -> Option<File> {
    let mut hasher = primary.checksum.hasher();
    let mut buffer = vec![0; 64 << 10];
    let mut left = MAX_PRIMARY;
    loop {
        let count = file.read(&mut buffer).ok()?;
        if count == 0 {
            break;
        }
        left = left.checked_sub(count as u64)?;
        hasher.update(&buffer[..count]);
    }
    if hasher.finish() != primary.checksum {
        return None;
    }
    file.seek(SeekFrom::Start(0)).ok()?;
    Some(file)
}
