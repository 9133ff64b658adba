//! What is remembered of callers: whose a template is, what was planned, which jobs there are.
//!
//! ```text
//! delegate/lock                one change at a time, held while it lasts
//! delegate/pending.json        template -> caller, while that caller's installation lasts
//! delegate/plans/ID.json       a plan that nobody has carried out yet
//! delegate/jobs/ID.json        a job, written when it begins and when it ends
//! delegate/jobs/ID.lock        held by the process that does the job
//! delegate/jobs/ID.progress    its last line of progress
//! delegate/jobs/ID.cancel      somebody wants it to end
//! ```
//!
//! Whose a template is, its feature [`OWNER`] says; an administrator in dom0 can hand a template over by setting it. The
//! record of pending installations stands in for the feature where a power failure came before it was set.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Verb;
use super::request::Id;
use crate::state::Directory;

/// The feature that names the caller who had a template installed.
pub const OWNER: &str = "qvm-template-owner";

/// How long an ended job is remembered, in seconds.
const JOB_AGE: u64 = 7 * 24 * 3600;
/// How long a plan can be carried out, in seconds.
pub const PLAN_AGE: u64 = 24 * 3600;
/// Most plans that one caller can have at a time; the oldest go.
const MAX_PLANS: usize = 32;

/// A job as it is written down.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// Its identifier.
    pub id: String,
    /// Who asked.
    pub caller: String,
    /// What for.
    pub verb: Verb,
    /// The template.
    pub template: String,
    /// When it began, in seconds since 1970.
    pub started: u64,
    /// When it ended.
    pub ended: Option<u64>,
    /// The line that the caller got in the end.
    pub result: Option<Value>,
}

/// What a caller was told would be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Its identifier.
    pub id: String,
    /// Who asked.
    pub caller: String,
    /// The change.
    pub verb: Verb,
    /// The template.
    pub template: String,
    /// When it was made, in seconds since 1970.
    pub made: u64,
    /// The grant that it was made under, word for word.
    pub grant: String,
    /// The build that is installed; none when the template is not there.
    pub before: Option<String>,
    /// The repository's offer; none for a removal.
    pub offer: Option<Offered>,
    /// The pool of a new template.
    pub pool: Option<String>,
}

/// An offer, as far as a plan holds on to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offered {
    /// The repository.
    pub repository: String,
    /// The build, `epoch:version-release`.
    pub build: String,
    /// Length of the package, in bytes.
    pub download_size: u64,
    /// When it was built.
    pub build_time: String,
}

/// All records.
#[derive(Clone, Debug)]
pub struct Records {
    state: Directory,
}

/// Held while a job lasts.
#[derive(Debug)]
pub struct Held {
    _file: Flock<File>,
}

impl Records {
    /// The records in a state directory.
    #[must_use]
    pub fn new(state: Directory) -> Self {
        Self { state }
    }

    /// The audit log, where the grants name no other.
    #[must_use]
    pub fn audit_log(&self) -> PathBuf {
        self.state.path().join("audit.jsonl")
    }

    /// Tries to take the lock under which one change at a time is made.
    ///
    /// # Errors
    /// When the file cannot be used; that somebody else has the lock is `None`.
    pub fn try_lock(&self) -> anyhow::Result<Option<Held>> {
        self.flock("delegate/lock")
    }

    fn flock(&self, name: &str) -> anyhow::Result<Option<Held>> {
        let path = self.state.path().join(name);
        let work = || -> io::Result<Option<Held>> {
            let folder = path.parent().unwrap_or_else(|| self.state.path());
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path)?;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) => Ok(Some(Held { _file: file })),
                Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
                Err((_, errno)) => Err(errno.into()),
            }
        };
        work().with_context(|| format!("locking {}", path.display()))
    }

    /// Notes that `template` is being installed for `caller`, or no longer.
    ///
    /// # Errors
    /// When it cannot be written down.
    pub fn set_pending(&self, template: &str, caller: Option<&str>) -> anyhow::Result<()> {
        let mut all = self.all_pending();
        match caller {
            Some(caller) => drop(all.insert(template.to_owned(), caller.to_owned())),
            None if all.remove(template).is_none() => return Ok(()),
            None => {}
        }
        self.state.write("delegate/pending.json", &serde_json::to_vec(&all)?)
    }

    /// Who has `template` installed just now.
    #[must_use]
    pub fn pending(&self, template: &str) -> Option<String> {
        self.all_pending().remove(template)
    }

    fn all_pending(&self) -> BTreeMap<String, String> {
        self.read("delegate/pending.json").unwrap_or_default()
    }

    /// A damaged record counts as none: nothing is granted because of one.
    fn read<T: for<'de> Deserialize<'de>>(&self, name: &str) -> Option<T> {
        serde_json::from_slice(&self.state.read(name).ok()??).ok()
    }

    /// Remembers a plan.
    ///
    /// # Errors
    /// When it cannot be written down.
    pub fn keep_plan(&self, plan: &Plan) -> anyhow::Result<()> {
        let mut own: Vec<Plan> = self.plans().into_iter().filter(|have| have.caller == plan.caller).collect();
        own.sort_by_key(|plan| plan.made);
        for old in own.iter().take((own.len() + 1).saturating_sub(MAX_PLANS)) {
            self.state.remove(&plan_file(&old.id))?;
        }
        self.state.write(&plan_file(&plan.id), &serde_json::to_vec(plan)?)
    }

    /// A plan of this caller. Whose it is not, for him it is not there.
    #[must_use]
    pub fn plan(&self, id: &Id, caller: &str) -> Option<Plan> {
        let plan: Plan = self.read(&plan_file(id.as_str()))?;
        (plan.caller == caller && plan.id == id.as_str() && now().saturating_sub(plan.made) < PLAN_AGE)
            .then_some(plan)
    }

    /// Takes a plan away, so that it is carried out once. Says whether it was there.
    ///
    /// # Errors
    /// When it stays.
    pub fn use_up(&self, id: &Id) -> io::Result<bool> {
        let name = plan_file(id.as_str());
        let there = self.state.read(&name)?.is_some();
        self.state.remove(&name)?;
        Ok(there)
    }

    fn plans(&self) -> Vec<Plan> {
        self.all("delegate/plans")
    }

    fn all<T: for<'de> Deserialize<'de>>(&self, folder: &str) -> Vec<T> {
        let names = self.state.names(folder).unwrap_or_default();
        let records = names.iter().filter(|name| name.ends_with(".json"));
        records.filter_map(|name| self.read(&format!("{folder}/{name}"))).collect()
    }

    /// Writes a job down, and holds it: as long as the value lives, the job counts as running.
    ///
    /// # Errors
    /// When that is not possible.
    pub fn begin(&self, job: &Job) -> anyhow::Result<Held> {
        let held = self.flock(&job_file(&job.id, "lock"))?.context("taking a new job's lock")?;
        self.write_job(job)?;
        Ok(held)
    }

    /// Writes a job down as it is now.
    ///
    /// # Errors
    /// When that is not possible.
    pub fn write_job(&self, job: &Job) -> anyhow::Result<()> {
        self.state.write(&job_file(&job.id, "json"), &serde_json::to_vec(job)?)
    }

    /// All jobs that are remembered, the oldest first; of those of one second the ones that run are the last.
    #[must_use]
    pub fn jobs(&self) -> Vec<Job> {
        let mut jobs: Vec<Job> = self.all("delegate/jobs");
        let key = |job: &Job| (job.started, job.ended.unwrap_or(u64::MAX), job.id.clone());
        jobs.sort_by_cached_key(key);
        jobs
    }

    /// The job of this identifier.
    #[must_use]
    pub fn job(&self, id: &str) -> Option<Job> {
        self.read(&job_file(id, "json"))
    }

    /// Whether somebody still works at a job.
    #[must_use]
    pub fn is_running(&self, job: &Job) -> bool {
        job.ended.is_none() && matches!(self.flock(&job_file(&job.id, "lock")), Ok(None))
    }

    /// Asks that a job ends.
    ///
    /// # Errors
    /// When that cannot be written down.
    pub fn ask_to_end(&self, id: &str) -> anyhow::Result<()> {
        self.state.write(&job_file(id, "cancel"), b"")
    }

    /// Whether somebody asked that a job ends.
    #[must_use]
    pub fn is_to_end(&self, id: &str) -> bool {
        self.state.path().join(job_file(id, "cancel")).exists()
    }

    /// Leaves the last line of progress for whoever asks. A courtesy: nothing depends on it.
    pub fn note_progress(&self, id: &str, line: &str) {
        let path = self.state.path().join(job_file(id, "progress"));
        let new = path.with_extension("progress-new");
        let _ = fs::write(&new, line).and_then(|()| fs::rename(&new, &path));
    }

    /// The last line of progress of a job.
    #[must_use]
    pub fn progress(&self, id: &str) -> Option<Value> {
        self.read(&job_file(id, "progress"))
    }

    /// Changes that `caller` began within the last hour.
    #[must_use]
    pub fn changes_within_an_hour(&self, caller: &str) -> usize {
        let since = now().saturating_sub(3600);
        self.jobs().iter().filter(|job| job.caller == caller && job.started > since).count()
    }

    /// Forgets jobs that ended long ago, and plans that are void.
    pub fn forget_old(&self) {
        for job in self.jobs() {
            let last = job.ended.unwrap_or(job.started);
            if now().saturating_sub(last) > JOB_AGE && !self.is_running(&job) {
                for kind in ["json", "lock", "progress", "cancel"] {
                    let _ = self.state.remove(&job_file(&job.id, kind));
                }
            }
        }
        for plan in self.plans() {
            if now().saturating_sub(plan.made) > PLAN_AGE {
                let _ = self.state.remove(&plan_file(&plan.id));
            }
        }
    }
}

fn plan_file(id: &str) -> String {
    format!("delegate/plans/{id}.json")
}

fn job_file(id: &str, kind: &str) -> String {
    format!("delegate/jobs/{id}.{kind}")
}

/// Now, in seconds since 1970.
#[must_use]
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> (tempfile::TempDir, Records) {
        let place = tempfile::tempdir().unwrap();
        let records = Records::new(Directory::at(place.path()));
        (place, records)
    }

    fn plan(caller: &str, made: u64) -> Plan {
        Plan {
            id: Id::random().as_str().to_owned(),
            caller: caller.to_owned(),
            verb: Verb::Remove,
            template: "t".to_owned(),
            made,
            grant: String::new(),
            before: None,
            offer: None,
            pool: None,
        }
    }

    #[test]
    fn a_plan_is_its_callers_fresh_and_used_once() {
        let (_place, records) = records();
        let (own, old) = (plan("a", now()), plan("a", now() - PLAN_AGE - 1));
        records.keep_plan(&own).unwrap();
        records.keep_plan(&old).unwrap();
        let id = Id::parse(&own.id).unwrap();
        assert_eq!(records.plan(&id, "a"), Some(own));
        assert_eq!(records.plan(&id, "b"), None);
        assert_eq!(records.plan(&Id::parse(&old.id).unwrap(), "a"), None);
        assert!(records.use_up(&id).unwrap() && !records.use_up(&id).unwrap());
        assert_eq!(records.plan(&id, "a"), None);
        for made in 0..40 {
            records.keep_plan(&plan("a", now() - made)).unwrap();
        }
        records.keep_plan(&plan("b", 1)).unwrap();
        assert_eq!(records.plans().iter().filter(|plan| plan.caller == "a").count(), MAX_PLANS);
    }

    #[test]
    fn a_job_runs_as_long_as_somebody_holds_it() {
        let (_place, records) = records();
        let mut job = Job {
            id: Id::random().as_str().to_owned(),
            caller: "a".to_owned(),
            verb: Verb::Install,
            template: "t".to_owned(),
            started: now(),
            ended: None,
            result: None,
        };
        let held = records.begin(&job).unwrap();
        // The lock belongs to an open file, so this process meets it too.
        assert!(records.is_running(&job));
        drop(held);
        assert!(!records.is_running(&job));
        assert_eq!(records.changes_within_an_hour("a"), 1);
        assert_eq!(records.changes_within_an_hour("b"), 0);
        assert!(!records.is_to_end(&job.id));
        records.ask_to_end(&job.id).unwrap();
        assert!(records.is_to_end(&job.id));
        (job.started, job.ended) = (1, Some(2));
        records.write_job(&job).unwrap();
        records.forget_old();
        assert!(records.jobs().is_empty() && !records.is_to_end(&job.id));
    }

    #[test]
    fn damaged_records_count_as_none() {
        let (_place, records) = records();
        records.set_pending("t", Some("a")).unwrap();
        assert_eq!(records.pending("t").as_deref(), Some("a"));
        records.state.write("delegate/pending.json", b"{\"t\": 1").unwrap();
        assert_eq!(records.pending("t"), None);
        records.set_pending("t", Some("b")).unwrap();
        records.set_pending("t", None).unwrap();
        assert_eq!(records.pending("t"), None);
    }
}
