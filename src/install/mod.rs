//! `install`, `reinstall`, `upgrade`, `downgrade`: templates from repositories and from local packages.
//!
//! ```text
//! lock -> local packages verified -> offers chosen -> names and states checked -> confirmation
//!      -> for each: download, verify, open, create or keep, import, describe, first start
//! ```
//!
//! Nothing in dom0 is changed before the whole plan was checked: that the names can be those of qubes, that no name
//! comes twice, that an existing template is managed, halted and of the build that the command is for, that every
//! *local* package is signed by a key that counts for it. What a repository has is judged when it arrives, each package
//! before the first change to *its* template: the next one is fetched while the current one is imported, so that at most
//! two packages lie on the disk, and a package that turns out to be bad is refused with its own template untouched while
//! the others go on. (The original fetches all before it begins with the first, and stops at the first failure.)
//!
//! Each template is one [`Transaction`](crate::transaction::Transaction): it ends as the new one, or as what was there before.
//! A failure ends the command only with `fail_fast`; with more than one template a summary says what became of each.

mod choose;
mod line;
mod put;
mod recover_first;
mod rename;
mod summary;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;

pub(crate) use self::put::{import, must_be_off, open};
use crate::admin::AdminApi;
use crate::admission::{Admission, Demands, Wish};
use crate::cancel::Cancel;
use crate::catalogue::Catalogue;
use crate::download::Package;
use crate::extras::Extras;
use crate::ledger::{Action, Build, Ledger};
use crate::lock::Lock;
use crate::report::{Failure, Reporter};
use crate::state::Directory;
use crate::template::conf::AllowPv;
use crate::template::{Evr, Offer, RepoId, TemplateName, Timestamp};
use crate::transaction::Desk;
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
    /// Name for the one new template, where it shall not be its package's.
    pub name: Option<TemplateName>,
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
    /// Whether everything is checked and nothing done: no package is fetched and nothing changed.
    pub dry_run: bool,
    /// Whether the first failure ends the command, with the templates that were not begun left as they are.
    pub fail_fast: bool,
    /// Whether the ledger shall tell the former builds in full, which takes two more questions for each template.
    pub detailed: bool,
    /// Where packages are kept.
    pub cache: PathBuf,
    /// What is demanded of packages beyond the policy.
    pub demands: Demands,
    /// What is remembered between runs.
    pub state: Directory,
    /// Largest root image, in bytes, where somebody else's quota says so.
    pub max_image: Option<u64>,
}

/// The image is larger than the order allows.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the image has {size} bytes, and {limit} are allowed")]
pub struct TooLarge {
    /// Length of the image, in bytes.
    pub size: u64,
    /// What is allowed.
    pub limit: u64,
}

/// How it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Templates that have their new build, in order.
    pub done: Vec<String>,
    /// Those of them whose first start did not go as it should.
    pub unfinished: Vec<String>,
    /// Templates that failed.
    pub failed: Vec<String>,
}

/// Carries out an order, and writes down in `ledger` what becomes of each template.
///
/// # Errors
/// What goes wrong before the first template is begun, and what goes wrong with one; of several templates all are tried, unless
/// the order says otherwise, and the failure sums up. Templates that were done stay; those that failed are as they were.
pub async fn run(
    api: &dyn AdminApi,
    catalogue: &Catalogue<'_>,
    reporter: &dyn Reporter,
    cancel: &Cancel,
    order: &Order,
    ledger: &Ledger,
) -> Result<Summary, Failure> {
    let wish = match order.verb {
        Verb::Install | Verb::Upgrade | Verb::Renew => Wish::Newest,
        Verb::Reinstall => Wish::Same,
        Verb::Downgrade => Wish::Older,
    };
    let admission = Admission::new(&order.demands, wish, &order.named, catalogue.options(), reporter);
    let extras = Extras::new(Some(&order.state));
    let desk = Desk { api, reporter, cancel, extras: &extras, state: Some(&order.state) };
    Run { api, catalogue, reporter, cancel, order, admission, ledger, desk: &desk }.run().await
}

struct Run<'a, 'c> {
    api: &'a dyn AdminApi,
    catalogue: &'a Catalogue<'c>,
    reporter: &'a dyn Reporter,
    cancel: &'a Cancel,
    order: &'a Order,
    admission: Admission<'a>,
    ledger: &'a Ledger,
    desk: &'a Desk<'a>,
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
    /// Name of the qube.
    name: TemplateName,
    /// Name of the template in its package.
    package: TemplateName,
    evr: Evr,
    source: Source,
    /// What is going to be there.
    after: Build,
    /// Whether it was named, and not only meant by a pattern among others.
    named: bool,
}

impl Run<'_, '_> {
    async fn run(&self) -> Result<Summary, Failure> {
        let lock = match self.order.dry_run {
            true => None,
            false => Some(Lock::take(self.verb_word()).map_err(anyhow::Error::from)?),
        };
        let (files, specs) = self.sort_named()?;
        if !self.order.dry_run || !files.is_empty() {
            make_private(&self.order.cache)?;
        }
        let locals = self.local_packages(&files).await?;
        if let Some(lock) = &lock {
            self.recover_first(lock, &specs, &locals).await?;
        }
        let offers = self.choose(&specs).await?;
        let (locals, offers) = self.renamed(locals, offers)?;
        let jobs = self.check(locals, offers).await?;
        if let Some(lock) = &lock {
            lock.templates(jobs.iter().map(|job| job.name.as_str())).map_err(anyhow::Error::from)?;
        }
        for job in &jobs {
            let before = self.before(job).await?;
            self.ledger.plan(job.name.as_str(), self.action(), before, Some(job.after.clone()));
        }
        if self.order.dry_run {
            self.foresee(&jobs)?;
            return Ok(Summary::default());
        }
        self.confirm(&jobs).await?;
        self.work_off(jobs).await
    }

    fn action(&self) -> Action {
        match self.order.verb {
            Verb::Install => Action::Install,
            Verb::Reinstall => Action::Reinstall,
            Verb::Renew => Action::Renew,
            Verb::Upgrade => Action::Upgrade,
            Verb::Downgrade => Action::Downgrade,
        }
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
