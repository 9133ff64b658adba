//! `install`, `reinstall`, `upgrade`, `downgrade`: templates from repositories and from local packages.
//!
//! ```text
//! lock -> local packages verified -> offers chosen -> names and states checked -> confirmation
//!      -> downloads verified -> for each: open, create or keep, import, describe, first start
//! ```
//!
//! Nothing in dom0 is changed before everything that can be known beforehand was checked: that the names can be those
//! of qubes, that no name comes twice, that an existing template is managed, halted and of the build that the command is
//! for, that every package is signed by a key of a repository that takes part, that its archive begins as it should.
//! From then on each template is one [`Transaction`]: it ends as the new one, or as what was there before.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;

use crate::admin::{AdminApi, CallError, Pending, QubeApi, bounded, system};
use crate::appmenus::{AppMenus, Scratch};
use crate::cancel::Cancel;
use crate::catalogue::Catalogue;
use crate::download::{
    Fetcher, Package, Rotten, blocking, check_local, keyring_of, merge, not_selected, qube_name,
};
use crate::lock::Lock;
use crate::payload::{Payload, TemplateFiles};
use crate::post_install;
use crate::report::{Failure, Message, Phase, Reporter};
use crate::root_image::{CopyError, Limits, RootImage};
use crate::settings;
use crate::template::conf::AllowPv;
use crate::template::installed::{FEATURES, Installed, MARKER};
use crate::template::select::{Presence, Selector, names};
use crate::template::{Evr, Offer, RepoId, TemplateName, TemplateSpec, Timestamp};
use crate::transaction::Transaction;
use crate::verify::{PackageInfo, TEMPLATES, Verified};
use crate::volume::ImportError;

/// How many reading calls are under way at a time.
const READS: usize = 8;
/// How often progress is looked at.
const TICK: Duration = Duration::from_millis(100);

/// Which build of a template a command is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// One that is not there.
    Install,
    /// The installed one again.
    Reinstall,
    /// The newest, whether or not it is the installed one.
    Renew,
    /// A newer one.
    Upgrade,
    /// An older one.
    Downgrade,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Order {
    /// Which command.
    pub verb: Verb,
    /// What was named: specifications, and local packages, whose names end in `.rpm`.
    pub named: Vec<String>,
    /// Storage pool for a new template.
    pub pool: Option<String>,
    /// Whether a template may ask for para-virtualisation.
    pub allow_pv: AllowPv,
    /// Whether the first start is left out.
    pub skip_start: bool,
    /// Whether signatures of local packages are not looked at.
    pub nogpgcheck: bool,
    /// How often a download is tried.
    pub retries: u32,
    /// Whether a downloaded package stays in the cache.
    pub keep_cache: bool,
    /// Whether nobody is asked.
    pub yes: bool,
    /// Where packages are kept.
    pub cache: PathBuf,
}

/// How it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Templates that have their new build, in order.
    pub done: Vec<String>,
    /// Those of them whose first start did not go as it should.
    pub unfinished: Vec<String>,
}

/// Carries out an order.
///
/// # Errors
/// The first thing that goes wrong. Templates that were done before stay; the one that failed is as it was.
pub async fn run(
    api: &dyn AdminApi,
    catalogue: &Catalogue<'_>,
    reporter: &dyn Reporter,
    cancel: &Cancel,
    order: &Order,
) -> Result<Summary, Failure> {
    Run { api, catalogue, reporter, cancel, order }.run().await
}

struct Run<'a, 'c> {
    api: &'a dyn AdminApi,
    catalogue: &'a Catalogue<'c>,
    reporter: &'a dyn Reporter,
    cancel: &'a Cancel,
    order: &'a Order,
}

/// A package that is to be installed, and how to get at it.
enum Source {
    /// A local file: verified, and kept when it is the only one, so that several do not fill the disk.
    Local { path: PathBuf, verified: Option<Verified> },
    /// One that is still to be downloaded.
    Offered(Offer),
    /// One that was downloaded.
    Fetched(Package),
}

struct Job {
    name: TemplateName,
    evr: Evr,
    source: Source,
    /// Whether it was named, and not only meant by a pattern among others.
    named: bool,
}

impl Run<'_, '_> {
    async fn run(&self) -> Result<Summary, Failure> {
        let _lock = Lock::take(self.verb_word()).map_err(anyhow::Error::from)?;
        let (files, specs) = self.sort_named()?;
        make_private(&self.order.cache)?;
        let locals = self.local_packages(&files).await?;
        let offers = self.choose(&specs).await?;
        let jobs = self.check(locals, offers).await?;
        self.confirm(&jobs).await?;
        let jobs = self.fetch(jobs).await?;
        let mut summary = Summary::default();
        for job in jobs {
            let name = job.name.to_string();
            if self.put(job).await? == post_install::Outcome::Unfinished {
                summary.unfinished.push(name.clone());
            }
            summary.done.push(name);
        }
        Ok(summary)
    }

    fn verb_word(&self) -> &'static str {
        match self.order.verb {
            Verb::Install => "install",
            Verb::Reinstall | Verb::Renew => "reinstall",
            Verb::Upgrade => "upgrade",
            Verb::Downgrade => "downgrade",
        }
    }

    /// What was named, taken apart into files and specifications.
    fn sort_named(&self) -> Result<(Vec<PathBuf>, Vec<TemplateSpec>), Failure> {
        let (files, specs): (Vec<&String>, Vec<&String>) =
            self.order.named.iter().partition(|named| named.ends_with(".rpm"));
        let files: Vec<PathBuf> = files.into_iter().map(PathBuf::from).collect();
        if let Some(missing) = files.iter().find(|path| !path.exists()) {
            return Err(Failure::Usage(format!("RPM file '{}' not found.", missing.display())));
        }
        let specs = specs.into_iter().map(|text| TemplateSpec::new(text)).collect::<Result<_, _>>();
        Ok((files, specs.map_err(|error| Failure::Usage(error.to_string()))?))
    }

    async fn local_packages(&self, files: &[PathBuf]) -> Result<Vec<Job>, Failure> {
        let mut jobs = Vec::new();
        for path in files {
            let verified = self.open_local(path).await?;
            let (name, evr) = (verified.info().name.clone(), verified.info().nevra.evr.clone());
            let verified = (files.len() == 1).then_some(verified);
            jobs.push(Job { name, evr, source: Source::Local { path: path.clone(), verified }, named: true });
        }
        Ok(jobs)
    }

    async fn open_local(&self, path: &Path) -> Result<Verified, Failure> {
        let keyring = match self.order.nogpgcheck {
            true => None,
            false => Some(keyring_of(&[self.catalogue.default_key()?])?),
        };
        let (path, cache) = (path.to_owned(), self.order.cache.clone());
        self.cancel.or(blocking(move || check_local(&path, &cache, keyring.as_ref()))).await
    }

    /// One search for each specification, and of what it brings the build that the command is for.
    async fn choose(&self, specs: &[TemplateSpec]) -> Result<Vec<Job>, Failure> {
        let selector = match self.order.verb {
            Verb::Install => Selector::Latest,
            Verb::Reinstall => Selector::Same,
            Verb::Renew => Selector::Newest,
            Verb::Upgrade => Selector::Higher,
            Verb::Downgrade => Selector::Lower,
        };
        let mut chosen: Vec<Offer> = Vec::new();
        let mut literal: HashSet<String> = HashSet::new();
        for spec in specs {
            let found = self.cancel.or(self.catalogue.search(Some(spec))).await?;
            let one = std::slice::from_ref(spec);
            let there = match selector.needs_installed() {
                true => self.presence(names(&found.reply.offers, one).into_iter()).await?,
                false => HashMap::new(),
            };
            let selection = selector
                .select(&found.reply.offers, one, |name| there.get(name).cloned().unwrap_or(Presence::Absent))
                .map_err(|error| not_selected(self.reporter, &found, &error))?;
            let state = match self.order.verb {
                Verb::Downgrade => "of lowest version",
                _ => "of highest version",
            };
            for spec in &selection.nothing {
                self.reporter.say(&Message::Skipping(spec.as_str(), state));
            }
            for offer in selection.chosen {
                if !spec.is_pattern() && !literal.insert(offer.name.clone()) {
                    return Err(twice(&offer.name));
                }
                merge(&mut chosen, offer);
            }
        }
        let mut jobs = Vec::new();
        for offer in chosen {
            let (name, evr) = (qube_name(&offer.name)?, offer.evr.clone());
            let named = literal.contains(&offer.name);
            jobs.push(Job { name, evr, source: Source::Offered(offer), named });
        }
        Ok(jobs)
    }

    /// What there is under these names.
    async fn presence<'n>(
        &self,
        names: impl Iterator<Item = &'n str>,
    ) -> Result<HashMap<String, Presence>, Failure> {
        let qubes = system::list(self.api).await?;
        let mut there = HashMap::new();
        for name in names {
            let presence = match qubes.iter().find(|qube| qube.name == name) {
                None => Presence::Absent,
                Some(qube) if !qube.is_template() => Presence::Unmanaged,
                Some(_) => self.managed(name).await?,
            };
            there.insert(name.to_owned(), presence);
        }
        Ok(there)
    }

    async fn managed(&self, name: &str) -> Result<Presence, Failure> {
        let qube = QubeApi::new(self.api, name);
        let wanted = &FEATURES[..4];
        let reads = wanted
            .iter()
            .map(|feature| -> Pending<'_, Result<Option<String>, CallError>> {
                Box::pin(async move { qube.feature(feature).await })
            })
            .collect();
        let mut values = HashMap::new();
        for (feature, value) in wanted.iter().zip(bounded(READS, reads).await) {
            match value {
                Ok(Some(value)) => drop(values.insert(*feature, value)),
                Ok(None) => {}
                Err(error) if error.is_denied() => {
                    self.reporter.say(&Message::Warning(&format!("'{name}' counts as not managed: {error}")));
                    return Ok(Presence::Unmanaged);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(match Installed::from_features(name, |feature| values.get(feature).cloned()) {
            Some(installed) => Presence::Managed(installed.evr()),
            None => Presence::Unmanaged,
        })
    }

    /// What of it is to be done, in order, once everything that can be known beforehand was looked at.
    async fn check(&self, locals: Vec<Job>, offered: Vec<Job>) -> Result<Vec<Job>, Failure> {
        if locals.is_empty() && offered.is_empty() {
            return Ok(Vec::new());
        }
        let mut jobs = Vec::new();
        let local_names: Vec<String> = locals.iter().map(|job| job.name.to_string()).collect();
        let there = match self.order.verb {
            Verb::Install => HashMap::new(),
            _ => self.presence(local_names.iter().map(String::as_str)).await?,
        };
        for job in locals {
            if self.order.verb == Verb::Install || self.suits(&job, there.get(job.name.as_str()))? {
                jobs.push(job);
            }
        }
        jobs.extend(offered);
        let mut seen = HashSet::new();
        if let Some(job) = jobs.iter().find(|job| !seen.insert(job.name.clone())) {
            return Err(twice(job.name.as_str()));
        }
        let qubes = system::list(self.api).await?;
        let mut wanted = Vec::new();
        for job in jobs {
            match (self.order.verb, qubes.iter().find(|qube| qube.name == job.name.as_str())) {
                (Verb::Install, None) => wanted.push(job),
                (Verb::Install, Some(qube)) => self.say_there(qube).await?,
                (_, None) => return Err(absent(job.name.as_str())),
                (_, Some(qube)) if !job.named && !qube.is_halted() => {
                    let text = format!("Template '{}' is not shut down, skipping...", qube.name);
                    self.reporter.say(&Message::Note(&text));
                }
                (_, Some(qube)) => {
                    must_be_off(qube)?;
                    wanted.push(job);
                }
            }
        }
        Ok(wanted)
    }

    /// Whether a local package is of a build that the command is for.
    fn suits(&self, job: &Job, there: Option<&Presence>) -> Result<bool, Failure> {
        let name = job.name.as_str();
        let installed = match there {
            None | Some(Presence::Absent) => return Err(absent(name)),
            Some(Presence::Unmanaged) => {
                return Err(Failure::Usage(format!("Template '{name}' is not managed by qvm-template.")));
            }
            Some(Presence::Managed(evr)) => evr.as_ref(),
        };
        let order = job.evr.partial_cmp_to(installed);
        let skip = |state| {
            self.reporter.say(&Message::Skipping(name, state));
            Ok(false)
        };
        match self.order.verb {
            Verb::Reinstall if order.is_ne() => {
                Err(Failure::Usage(format!("Same version of template '{name}' not found.")))
            }
            Verb::Upgrade if order.is_le() => skip("of higher version"),
            Verb::Downgrade if order.is_ge() => skip("of lower version"),
            _ => Ok(true),
        }
    }

    async fn say_there(&self, qube: &system::Qube) -> Result<(), Failure> {
        if !qube.is_template() {
            let text = format!("'{}' is skipped: a qube of that name exists, and is no template", qube.name);
            self.reporter.say(&Message::Note(&text));
            return Ok(());
        }
        self.reporter.say(&Message::AlreadyInstalled(&qube.name));
        Ok(())
    }

    async fn confirm(&self, jobs: &[Job]) -> Result<(), Failure> {
        if self.order.yes || jobs.is_empty() || self.order.verb == Verb::Install {
            return Ok(());
        }
        let names: Vec<String> = jobs.iter().map(|job| job.name.to_string()).collect();
        let question = "This will override changes made in the following VMs:";
        let asked = async { self.reporter.confirm(question, &names).await.map_err(Failure::new) };
        if self.cancel.or(asked).await? { Ok(()) } else { Err(Failure::Declined) }
    }

    async fn fetch(&self, jobs: Vec<Job>) -> Result<Vec<Job>, Failure> {
        let fetcher = Fetcher {
            catalogue: self.catalogue,
            reporter: self.reporter,
            cancel: self.cancel,
            retries: self.order.retries,
            nogpgcheck: self.order.nogpgcheck,
            rotten: Rotten::Replace,
        };
        let mut fetched = Vec::new();
        for mut job in jobs {
            if let Source::Offered(offer) = &job.source {
                job.source = Source::Fetched(fetcher.fetch(offer, &self.order.cache).await?);
            }
            fetched.push(job);
        }
        Ok(fetched)
    }

    /// Installs one package: the template is the new one afterwards, or what it was.
    async fn put(&self, job: Job) -> Result<post_install::Outcome, Failure> {
        let package = match job.source {
            Source::Fetched(package) => package,
            Source::Local { verified: Some(verified), .. } => local(verified),
            Source::Local { path, verified: None } => {
                let verified = self.open_local(&path).await?;
                if (&verified.info().name, &verified.info().nevra.evr) != (&job.name, &job.evr) {
                    return Err(Failure::new(format!("'{}' was replaced meanwhile", path.display())));
                }
                local(verified)
            }
            Source::Offered(_) => return Err(Failure::new("a package was not downloaded")),
        };
        self.reporter.say(&Message::Installing(job.name.as_str()));
        let info = package.verified.info().clone();
        let (verified, name) = (package.verified, job.name.clone());
        let opening = blocking(move || open(&verified, &name));
        let image = self.cancel.or(opening).await?;
        let mut transaction = self.begin(&job.name).await?;
        match self.steps(&mut transaction, image, &info, &package.repo).await {
            Ok(outcome) => {
                transaction.commit();
                if let Some(file) = package.file.filter(|_| !self.order.keep_cache) {
                    let _ = std::fs::remove_file(file);
                }
                Ok(outcome)
            }
            Err(error) => {
                self.go_back(transaction, &info, &package.repo).await;
                Err(error)
            }
        }
    }

    async fn begin<'n>(&'n self, name: &'n TemplateName) -> Result<Transaction<'n>, Failure> {
        // Much time may have passed since the checks, and not everybody heeds the lock.
        let qubes = system::list(self.api).await?;
        let there = qubes.iter().find(|qube| qube.name == name.as_str());
        match (self.order.verb, there) {
            (Verb::Install, None) => {
                let pool = self.order.pool.as_deref();
                Transaction::create(self.api, self.reporter, self.cancel, name, pool).await
            }
            (Verb::Install, Some(_)) => Err(Failure::new(format!("a qube '{name}' has appeared meanwhile"))),
            (_, None) => Err(absent(name.as_str())),
            (_, Some(qube)) => {
                must_be_off(qube)?;
                let features = settings::touched_features();
                Transaction::replace(self.api, self.reporter, self.cancel, name, &features).await
            }
        }
    }

    async fn steps(
        &self,
        transaction: &mut Transaction<'_>,
        image: RootImage,
        info: &PackageInfo,
        repo: &RepoId,
    ) -> Result<post_install::Outcome, Failure> {
        transaction.say("Importing data");
        let files = import(transaction, self.reporter, image).await?;
        if !transaction.is_new() {
            transaction.say("Clearing private volume");
            transaction.clear_private().await?;
        }
        transaction.set_property("installed_by_rpm", "False").await?;
        let appmenus = if self.order.skip_start { AppMenus::find() } else { None };
        let scratch = match &appmenus {
            Some(_) => Some(Scratch::with(&files, &info.name).context("writing the menu lists down")?),
            None => None,
        };
        let directory = scratch.as_ref().map_or_else(|| format!("{TEMPLATES}{}", info.name), Scratch::path);
        let allow_pv = self.order.allow_pv;
        settings::apply(transaction, &files, allow_pv, &directory, appmenus.as_ref()).await?;
        let outcome = match self.order.skip_start {
            true => post_install::Outcome::Done,
            false => self.first_start(transaction).await?,
        };
        settings::describe(transaction, &settings::description(info, repo, now())).await?;
        Ok(outcome)
    }

    async fn first_start(&self, transaction: &mut Transaction<'_>) -> Result<post_install::Outcome, Failure> {
        let meter = self.reporter.phase(Phase::PostInstall, transaction.name().as_str(), None);
        let outcome = post_install::run(transaction).await?;
        meter.finish();
        Ok(outcome)
    }

    /// Undoes what was begun. Where that is not possible, leaves a template that every later command can deal with.
    async fn go_back(&self, transaction: Transaction<'_>, info: &PackageInfo, repo: &RepoId) {
        let (name, is_new) = (transaction.name(), transaction.is_new());
        let undone = transaction.undo().await;
        if undone.complete {
            return;
        }
        let qube = QubeApi::new(self.api, name.as_str());
        if is_new {
            // Without this mark it could be neither installed (it exists) nor reinstalled (it is not managed).
            let _ = qube.set_feature(MARKER, name.as_str()).await;
            let text = format!("{name}: left unfinished; 'qvm-template upgrade {name}' installs it again");
            self.reporter.say(&Message::Warning(&text));
        } else if undone.new_content {
            for (feature, value) in settings::description(info, repo, now()).to_features() {
                let _ = qube.set_feature(feature, &value).await;
            }
            let text = format!(
                "{name}: has the new root volume, but not all of its settings; \
                 'qvm-template reinstall {name}' sets them"
            );
            self.reporter.say(&Message::Warning(&text));
        }
    }
}

/// Imports an image with its progress shown.
pub(crate) async fn import(
    transaction: &mut Transaction<'_>,
    reporter: &dyn Reporter,
    image: RootImage,
) -> Result<TemplateFiles, Failure> {
    let name = transaction.name();
    let mut meter = reporter.phase(Phase::Import, name.as_str(), Some(image.size()));
    let done = Arc::new(AtomicU64::new(0));
    let written = done.clone();
    let importing = transaction.import(image.size(), move |mut out| {
        image.copy_to(&mut out, &mut |bytes| written.store(bytes, Ordering::Relaxed))
    });
    tokio::pin!(importing);
    let mut ticks = tokio::time::interval(TICK);
    let imported = loop {
        tokio::select! {
            imported = &mut importing => break imported,
            _ = ticks.tick() => meter.at(done.load(Ordering::Relaxed)),
        }
    };
    let files = imported.map_err(|error| match error {
        ImportError::Interrupted(signal) => Failure::Interrupted(signal),
        ImportError::Data(error @ CopyError::Rejected(_)) => {
            Failure::Failed(anyhow::Error::from(error).context("the package is not what was verified"))
        }
        other => Failure::Failed(other.into()),
    })?;
    meter.at(done.load(Ordering::Relaxed));
    meter.finish();
    Ok(files)
}

/// The image in a verified package.
pub(crate) fn open(verified: &Verified, name: &TemplateName) -> Result<RootImage, Failure> {
    let opened = Payload::open(verified, name).and_then(|payload| payload.root_image(Limits::default()));
    opened.map_err(|why| Failure::new(format!("Failed to extract {name} template: {why}")))
}

fn local(verified: Verified) -> Package {
    Package { verified, repo: RepoId::command_line(), file: None }
}

/// Refuses a template that runs: its volumes cannot be replaced.
pub(crate) fn must_be_off(qube: &system::Qube) -> Result<(), Failure> {
    if qube.is_halted() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "Template '{0}' is not shut down (it is {1}), and its volumes cannot be replaced\n\
         help: 'qvm-shutdown --wait {0}' in dom0 shuts it down",
        qube.name,
        qube.state.to_lowercase()
    )))
}

fn absent(name: &str) -> Failure {
    Failure::Usage(format!("Template '{name}' not already installed."))
}

fn twice(name: &str) -> Failure {
    Failure::Usage(format!("Template '{name}' is named more than once."))
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// The cache, made where it is missing, for us alone.
fn make_private(directory: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    Ok(made.with_context(|| format!("making the cache directory {}", directory.display()))?)
}
