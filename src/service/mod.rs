//! The UpdateVM's services: `qubes.TemplateSearch` and `qubes.TemplateDownload`, for the stock client and for ours.
//!
//! A request comes on standard input ([`Request`]), the reply goes to standard output: records for a search, the
//! package for a download. Repositories are read without dnf: `repomd.xml` and the list of packages it names, their
//! checksums checked, from folders and over HTTP.
//!
//! A repository that cannot be read is named on standard error with the reason; the others still answer. The exit
//! status is not zero only if no repository could be read at all, or, for a download, if the package did not leave
//! complete and as the metadata describes it.
//!
//! The caller is a management qube that may make this qube fetch any address (that is what the service is for), but
//! nothing it sends is an option, a command or a path to write to. Mirrors are hostile: sizes, times, numbers of
//! records and memory are bounded. Signatures are not judged here: the management qube does not believe this qube.

use std::io::{Read, Write};
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use self::cache::Cache;
use self::metadata::Package;
use self::proxy::ProxyChoice;
use self::repository::{Repository, Setting};
use crate::repo::choice;
use crate::repo::file::{self, Repo};
use crate::repo::variables::Variables;
use crate::repo::wire::{MAX_REQUEST, Request, SearchReply};
use crate::template::Offer;
use crate::untrusted::displayable;

pub mod address;
pub mod cache;
pub mod checksum;
pub mod client;
pub mod download;
pub mod metadata;
pub mod mirrors;
pub mod proxy;
pub mod repository;
pub mod spec;
pub mod xml;

/// How many repositories are asked at a time.
const PARALLEL: usize = 6;

/// Which service is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// `qubes.TemplateSearch`
    Search,
    /// `qubes.TemplateDownload`
    Download,
}

/// What the process has around it.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Folder for metadata; nothing is kept without it.
    pub cache: Option<PathBuf>,
    /// Proxy settings.
    pub proxy: ProxyChoice,
}

impl Service {
    /// The service of this name; a path before it is left aside.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name.rsplit('/').next().unwrap_or(name) {
            "qubes.TemplateSearch" => Some(Self::Search),
            "qubes.TemplateDownload" => Some(Self::Download),
            _ => None,
        }
    }

    /// Reads a request from `input` and answers it to `out`; what people should know goes to `err`, a line each.
    ///
    /// # Errors
    /// The request cannot be answered.
    pub fn run(
        self,
        surroundings: &Surroundings,
        input: impl Read,
        out: &mut dyn Write,
        err: &mut dyn Write,
    ) -> Result<()> {
        let mut bytes = Vec::new();
        input.take(MAX_REQUEST as u64 + 1).read_to_end(&mut bytes).context("reading the request")?;
        if bytes.len() > MAX_REQUEST {
            bail!("the request is larger than {MAX_REQUEST} bytes");
        }
        let request = Request::parse(&bytes);
        // A closed standard error keeps nobody from getting the answer.
        let mut tell = |line: String| drop(writeln!(err, "{}", displayable(&line, false)));
        let parsed = file::parse(&request.repo_text);
        for warning in &parsed.warnings {
            tell(format!("Warning: repository files: {warning}"));
        }
        choice::check(&parsed.repos, &request.options)?;
        let chosen = choice::enabled(&parsed.repos, &request.options);
        let mut call = Call {
            request: &request,
            surroundings,
            chosen: &chosen,
            refresh: request.refresh,
            tell: &mut tell,
        };
        match self {
            Self::Search => call.search(out),
            Self::Download => call.download(out),
        }
    }
}

/// One call, with the repositories that take part.
struct Call<'a> {
    request: &'a Request,
    surroundings: &'a Surroundings,
    chosen: &'a [&'a Repo],
    refresh: bool,
    tell: &'a mut dyn FnMut(String),
}

impl Call<'_> {
    fn search(&mut self, out: &mut dyn Write) -> Result<()> {
        let loaded = self.load()?;
        let all: Vec<&Package> = loaded.iter().flat_map(|repository| &repository.packages).collect();
        let found: Vec<Offer> =
            spec::select(&self.request.spec, &all).into_iter().map(|package| package.offer.clone()).collect();
        out.write_all(&SearchReply::write(&found)).and_then(|()| out.flush()).context("writing the reply")
    }

    fn download(&mut self, out: &mut dyn Write) -> Result<()> {
        let mut loaded = self.load()?;
        let mut chosen = download::choose(&self.request.spec, &loaded);
        // What is kept may be older than the package that is wanted.
        if chosen.is_err() && loaded.iter().any(|repository| repository.cached) {
            self.refresh = true;
            loaded = self.load()?;
            chosen = download::choose(&self.request.spec, &loaded);
        }
        download::send(&chosen?, out, self.tell)
    }

    /// Loads the repositories that take part. The one that fails is told of; all of them failing is an error.
    fn load(&mut self) -> Result<Vec<Repository>> {
        let cache = Cache::new(self.surroundings.cache.clone());
        let variables = Variables::new(self.request.releasever.as_deref().unwrap_or(""));
        let setting = Setting {
            request: self.request,
            variables: &variables,
            proxy: &self.surroundings.proxy,
            cache: &cache,
            refresh: self.refresh,
        };
        let mut loaded = Vec::new();
        let mut failed = 0_usize;
        for some in self.chosen.chunks(PARALLEL) {
            let results: Vec<Result<Repository>> = std::thread::scope(|scope| {
                let setting = &setting;
                let threads: Vec<_> =
                    some.iter().map(|repo| scope.spawn(move || Repository::load(repo, setting))).collect();
                threads
                    .into_iter()
                    .map(|thread| {
                        thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("it made the service fail")))
                    })
                    .collect()
            });
            for (repo, result) in some.iter().zip(results) {
                match result {
                    Ok(repository) => {
                        for warning in &repository.warnings {
                            (self.tell)(format!("Warning: repository '{}': {warning}", repo.id));
                        }
                        loaded.push(repository);
                    }
                    Err(error) => {
                        failed += 1;
                        (self.tell)(format!("Error: repository '{}' is left out: {error:#}", repo.id));
                    }
                }
            }
        }
        cache.prune();
        if loaded.is_empty() && failed > 0 {
            bail!("none of the {failed} repositories could be read");
        }
        Ok(loaded)
    }
}
