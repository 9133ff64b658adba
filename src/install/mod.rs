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

mod choose;
mod put;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;

pub(crate) use self::put::{import, must_be_off, open};
use crate::admin::AdminApi;
use crate::admission::{Admission, Demands, Wish};
use crate::cancel::Cancel;
use crate::catalogue::Catalogue;
use crate::download::{Fetcher, Package, Rotten};
use crate::lock::Lock;
use crate::post_install;
use crate::report::{Failure, Reporter};
use crate::template::conf::AllowPv;
use crate::template::{Evr, Offer, RepoId, TemplateName, Timestamp};
use crate::verify::Verified;

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
    /// What is demanded of packages beyond the policy.
    pub demands: Demands,
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
    let wish = match order.verb {
        Verb::Install | Verb::Upgrade | Verb::Renew => Wish::Newest,
        Verb::Reinstall => Wish::Same,
        Verb::Downgrade => Wish::Older,
    };
    let admission = Admission::new(&order.demands, wish, &order.named, catalogue.options(), reporter);
    Run { api, catalogue, reporter, cancel, order, admission }.run().await
}

struct Run<'a, 'c> {
    api: &'a dyn AdminApi,
    catalogue: &'a Catalogue<'c>,
    reporter: &'a dyn Reporter,
    cancel: &'a Cancel,
    order: &'a Order,
    admission: Admission<'a>,
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
            admission: &self.admission,
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
}

fn local(verified: Verified) -> Package {
    Package { verified, repo: RepoId::command_line(), file: None }
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
