//! What the configured repositories offer, asked of the UpdateVM when somebody wants to know.
//!
//! Nothing is read, resolved or asked before the first search: a command that needs no repository works where there is
//! none. `--refresh` goes on the first request only. A specification that was asked before is not asked again.
//!
//! Answers are kept for a while, but only a listing is shown from what was kept ([`Catalogue::look`]).
//!
//! # Whose key counts
//!
//! The reply names a repository for each offer, and the UpdateVM writes the reply. So an offer may be taken only if it
//! names a repository that takes part in this call ([`Catalogue::candidates`]), and then needs a key of exactly that one.
//! The keys of a repository that is disabled here vouch for nothing, and no repository vouches for another's offers.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;

use crate::admin::AdminApi;
use crate::confine;
use crate::query_cache::{Key, QueryCache};
use crate::repo::choice::{self, RepoOption};
use crate::repo::file::{self, Repo};
use crate::repo::keys::{KeyDirectory, KeyFile};
use crate::repo::variables::Variables;
use crate::repo::wire::{self, Request, RequestError, SearchReply};
use crate::report::{Failure, Message, Phase, Reporter};
use crate::spelling;
use crate::template::fnmatch;
use crate::template::select::newest_of_each;
use crate::template::{Offer, PACKAGE_PREFIX, RepoId, TemplateSpec};
use crate::untrusted::displayable;
use crate::update_vm::{Bounds, Found, SearchError, UpdateQube, UpdateVm};

/// Where templates come from, as options and configuration say.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Patterns of repository files.
    pub repo_files: Vec<String>,
    /// Key for local files, and for repositories that name none.
    pub keyring: PathBuf,
    /// The UpdateVM; `None` for the system's, empty for this qube.
    pub updatevm: Option<String>,
    /// Repository options in command-line order.
    pub options: Vec<RepoOption>,
    /// Release of Qubes OS whose templates are wanted.
    pub releasever: String,
    /// Whether cached metadata must not be used.
    pub refresh: bool,
    /// How long is waited for the UpdateVM, and how much is taken from it.
    pub bounds: Bounds,
}

/// The specification of everything.
const EVERYTHING: &str = "*";

/// The repositories and the way to ask about them.
pub struct Catalogue<'a> {
    api: &'a dyn AdminApi,
    reporter: &'a dyn Reporter,
    sources: &'a Sources,
    repositories: OnceCell<Repositories>,
    update_vm: OnceCell<Box<dyn UpdateVm + 'a>>,
    refresh: Cell<bool>,
    answers: RefCell<HashMap<String, Found>>,
    proposes: bool,
    kept: Option<Kept>,
    age: Cell<Option<Duration>>,
}

/// Answers that were kept from one run to the next.
struct Kept {
    cache: QueryCache,
    /// Whether [`Catalogue::look`] shows them.
    shown: bool,
}

struct Repositories {
    all: Vec<Repo>,
    text: String,
    block: Vec<KeyFile>,
}

impl std::fmt::Debug for Catalogue<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalogue").field("sources", &self.sources).finish_non_exhaustive()
    }
}

impl<'a> Catalogue<'a> {
    /// The catalogue of these sources. Nothing is looked at yet.
    #[must_use]
    pub fn new(api: &'a dyn AdminApi, reporter: &'a dyn Reporter, sources: &'a Sources) -> Self {
        Self {
            api,
            reporter,
            sources,
            repositories: OnceCell::new(),
            update_vm: OnceCell::new(),
            refresh: Cell::new(sources.refresh),
            answers: RefCell::default(),
            proposes: false,
            kept: None,
            age: Cell::new(None),
        }
    }

    /// The same, for a person who waits: a name that no repository has is worth one more search, to propose another one.
    #[must_use]
    pub fn proposing(self, proposes: bool) -> Self {
        Self { proposes, ..self }
    }

    /// The same, keeping answers in `cache`; [`Catalogue::look`] shows those that are there if they may be `shown`. Whoever is
    /// not to see any leaves none behind either, but renews those that are there.
    #[must_use]
    pub fn keeping(self, cache: QueryCache, shown: bool) -> Self {
        Self { kept: Some(Kept { cache, shown }), ..self }
    }

    /// How old the answer is that [`Catalogue::look`] gave; `None` if it came just now.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        self.age.get()
    }

    /// The repository options of this call, in command-line order.
    #[must_use]
    pub fn options(&self) -> &'a [RepoOption] {
        &self.sources.options
    }

    /// The templates that `spec` means (`None` for all of them), for somebody who wants to see and not to take them: as of
    /// a short time ago, where an answer was kept and may be shown. Its age is said.
    ///
    /// # Errors
    /// As [`Catalogue::search`].
    pub async fn look(&self, spec: Option<&TemplateSpec>) -> Result<Found, Failure> {
        let Some((found, age)) = self.kept(spec).await? else { return self.search(spec).await };
        self.age.set(self.age.get().max(Some(age)));
        self.reporter
            .say(&Message::Note(&format!("Repositories as of {}; --refresh asks them again", ago(age))));
        self.say_skipped(&found.reply);
        Ok(found)
    }

    /// The answer from before, if there is one that may be shown, and its age.
    async fn kept(&self, spec: Option<&TemplateSpec>) -> Result<Option<(Found, Duration)>, Failure> {
        let Some(Kept { cache, shown: true }) = &self.kept else { return Ok(None) };
        if self.refresh.get() || self.answers.borrow().contains_key(&package_spec(spec)) {
            return Ok(None);
        }
        let request = self.request(package_spec(spec), false)?;
        let key = Key::new(self.update_vm().await?.name(), &request).map_err(malformed)?;
        let limits = wire::Limits { bytes: self.sources.bounds.reply, ..wire::Limits::default() };
        let Some((untrusted_bytes, age)) = cache.get(&key, SystemTime::now()) else { return Ok(None) };
        let reply = confine::run(|| SearchReply::parse(&untrusted_bytes, limits)).ok().and_then(Result::ok);
        Ok(reply.map(|reply| (Found { reply, ..Found::default() }, age)))
    }

    /// Asks for the templates that `spec` means; `None` for all of them.
    ///
    /// # Errors
    /// When there is nobody to ask, or no usable answer.
    pub async fn search(&self, spec: Option<&TemplateSpec>) -> Result<Found, Failure> {
        let subject = spec.map_or("templates", TemplateSpec::as_str);
        let spec = package_spec(spec);
        if let Some(found) = self.answers.borrow().get(&spec) {
            return Ok(found.clone());
        }
        let request = self.request(spec, self.refresh.take())?;
        // What cannot be sent is said before anybody is asked for the UpdateVM.
        request.encode().map_err(malformed)?;
        let update_vm = self.update_vm().await?;
        let meter = self.reporter.phase(Phase::Query, subject, None);
        let found = update_vm.search(&request).await.map_err(|error| match error {
            SearchError::Request(error) => malformed(error),
            other => Failure::Failed(other.into()),
        })?;
        meter.finish();
        if let Some(kept) = &self.kept
            && !found.reply.offers.is_empty()
            && let Ok(key) = Key::new(update_vm.name(), &request)
            && (kept.shown || kept.cache.has(&key))
        {
            kept.cache.put(&key, &found.untrusted_bytes, SystemTime::now());
        }
        self.say_skipped(&found.reply);
        self.answers.borrow_mut().insert(request.spec, found.clone());
        Ok(found)
    }

    /// Asks for the templates that `spec` means, to take one: only offers that name a repository which takes part in this
    /// call. The others are skipped with a warning each. Only when it is asked `alone` the repositories are asked for it and
    /// nothing else.
    ///
    /// # Errors
    /// As [`Catalogue::search`], and when what `spec` means is offered by other repositories only.
    pub async fn candidates(&self, spec: &TemplateSpec, alone: bool) -> Result<Found, Failure> {
        let mut found = self.search(Some(spec).filter(|_| alone)).await?;
        let all = &self.repositories()?.all;
        let asked: Vec<RepoId> =
            choice::enabled(all, &self.sources.options).into_iter().map(|repo| repo.id.clone()).collect();
        let (own, mut foreign) = std::mem::take(&mut found.reply).claiming(&asked);
        found.reply = own;
        let meant = |offer: &Offer| spec.matches(&offer.name, &offer.evr);
        foreign.retain(meant);
        let configured = |repo: &RepoId| all.iter().any(|known| known.id == *repo);
        if let Some(offer) = foreign.first()
            && !found.reply.offers.iter().any(meant)
        {
            return Err(not_asked(spec, &offer.repo, configured(&offer.repo)));
        }
        // Only what might have been taken is worth a word.
        for offer in newest_of_each(&foreign) {
            let better = |own: &Offer| own.name == offer.name && own.evr >= offer.evr;
            if !found.reply.offers.iter().any(better) {
                let Offer { name, evr, repo, .. } = offer;
                self.reporter.say(&Message::Warning(&format!(
                    "{name}-{evr} is passed over: it is said to be in repository '{repo}', which is {}",
                    state(configured(repo))
                )));
            }
        }
        Ok(found)
    }

    /// Templates of the repositories that may have been meant by `typed`, a name that they do not have. They are asked for
    /// that only where a person waits; what they answered in this call counts anyway.
    pub async fn alike(&self, typed: &str) -> Vec<String> {
        let mut offers: Vec<Offer> = Vec::new();
        if self.proposes && !fnmatch::is_pattern(typed) {
            // A proposal is no reason to fail.
            let found = match self.kept(None).await {
                Ok(Some((found, _))) => Ok(found),
                _ => self.search(None).await,
            };
            offers.extend(found.into_iter().flat_map(|found| found.reply.offers));
        }
        let answers = self.answers.borrow();
        let offers = offers.iter().chain(answers.values().flat_map(|found| &found.reply.offers));
        spelling::templates(typed, offers.map(|offer| offer.name.as_str()))
            .into_iter()
            .map(str::to_owned)
            .collect()
    }

    /// The request that downloads `offer`.
    ///
    /// # Errors
    /// When the repository files cannot be read.
    pub fn download_request(&self, offer: &Offer) -> Result<Request, Failure> {
        self.request(format!("{PACKAGE_PREFIX}{}-{}", offer.name, offer.evr), false)
    }

    /// The UpdateVM, found when it is first needed.
    ///
    /// # Errors
    /// When there is none.
    pub async fn update_vm(&self) -> Result<&dyn UpdateVm, Failure> {
        if let Some(update_vm) = self.update_vm.get() {
            return Ok(update_vm.as_ref());
        }
        let found = UpdateQube::resolve(self.api, self.reporter, self.sources.updatevm.as_deref()).await;
        let found = found.map_err(|error| Failure::Failed(error.into()))?.within(self.sources.bounds);
        Ok(self.update_vm.get_or_init(|| Box::new(found)).as_ref())
    }

    /// The key files that may vouch for `offer`: those of the repository that it names.
    ///
    /// # Errors
    /// When one cannot be read, or the repository does not take part in this call.
    pub fn keys_for(&self, offer: &Offer) -> Result<Vec<KeyFile>, Failure> {
        let repositories = self.repositories()?;
        let asked = choice::enabled(&repositories.all, &self.sources.options);
        let Some(repo) = asked.into_iter().find(|repo| repo.id == offer.repo) else {
            return Err(Failure::new(format!("repository '{}' was not asked in this call", offer.repo)));
        };
        let (directory, variables) = (KeyDirectory::default(), Variables::new(&self.sources.releasever));
        let own = directory.keys_of(repo, &variables).context("reading the keys of a repository")?;
        if own.is_empty() { Ok(vec![self.default_key()?]) } else { Ok(own) }
    }

    /// The key for local files.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn default_key(&self) -> Result<KeyFile, Failure> {
        Ok(local_key(&self.sources.keyring)?)
    }

    fn say_skipped(&self, reply: &SearchReply) {
        reply.skipped.iter().for_each(|line| self.reporter.say(&Message::Warning(line)));
    }

    fn request(&self, spec: String, refresh: bool) -> Result<Request, Failure> {
        let repositories = self.repositories()?;
        Ok(Request {
            options: self.sources.options.clone(),
            refresh,
            releasever: Some(self.sources.releasever.clone()),
            spec,
            repo_text: repositories.text.clone(),
            key_block: repositories.block.clone(),
        })
    }

    fn repositories(&self) -> Result<&Repositories, Failure> {
        if let Some(repositories) = self.repositories.get() {
            return Ok(repositories);
        }
        let loaded = file::load(&self.sources.repo_files)?;
        if loaded.files.is_empty() {
            let patterns = self.sources.repo_files.join("', '");
            return Err(Failure::new(format!(
                "no repository file matches '{patterns}'\n\
                 help: the package qubes-repo-templates brings them, '--repo-files' names others"
            )));
        }
        for pattern in &loaded.unmatched {
            self.reporter.say(&Message::Warning(&format!("no repository file matches '{pattern}'")));
        }
        let parsed = loaded.parse();
        for line in &parsed.warnings {
            self.reporter.say(&Message::Warning(line));
        }
        let variables = Variables::new(&self.sources.releasever);
        let block = KeyDirectory::default().request_block(&parsed.repos, &variables);
        Ok(self.repositories.get_or_init(|| Repositories {
            all: parsed.repos,
            text: loaded.request_text(),
            block,
        }))
    }
}

/// The key file for local packages (`--keyring`).
///
/// # Errors
/// When it cannot be read.
pub fn local_key(path: &Path) -> anyhow::Result<KeyFile> {
    let bytes = std::fs::read(path).with_context(|| format!("reading the key {}", path.display()))?;
    Ok(KeyFile { path: path.display().to_string(), bytes })
}

fn not_asked(spec: &TemplateSpec, repo: &RepoId, configured: bool) -> Failure {
    let help = match configured {
        true => format!("'--enablerepo={repo}' enables it for this call"),
        false => "'qvm-template repolist --all' shows the repositories that are configured here".to_owned(),
    };
    Failure::new(format!(
        "Template '{}' is only offered as one of repository '{repo}', which is {}\nhelp: {help}",
        displayable(spec.as_str(), false),
        state(configured)
    ))
}

fn state(configured: bool) -> &'static str {
    if configured { "not enabled" } else { "not configured here" }
}

fn package_spec(spec: Option<&TemplateSpec>) -> String {
    spec.map_or_else(|| EVERYTHING.to_owned(), TemplateSpec::package_spec)
}

/// How long ago that is, in words.
fn ago(age: Duration) -> String {
    let count =
        |number: u64, unit: &str| format!("{number} {unit}{} ago", if number == 1 { "" } else { "s" });
    match age.as_secs() {
        seconds @ 0..60 => count(seconds, "second"),
        seconds @ 60..7200 => count(seconds / 60, "minute"),
        seconds => count(seconds / 3600, "hour"),
    }
}

fn malformed(error: RequestError) -> Failure {
    Failure::Usage(error.to_string())
}
