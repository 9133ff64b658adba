//! A service from its environment to its exit status.
//!
//! qrexec says who calls (`QREXEC_REMOTE_DOMAIN`) and with which argument (`QREXEC_SERVICE_ARGUMENT`); the rest of the
//! request is on standard input. What is decided is written down before anything is done, and how it ended afterwards.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use serde_json::{Value, json};

use super::answer::{Outbox, Refused};
use super::audit::{AuditLog, Event, Line};
use super::grants::{self, Grant, Grants, Missing, Owner, Refusal, Wish};
use super::records::{OWNER, Records, now};
use super::request::{MAX_REQUEST, Request};
use super::{Verb, change, jobs, plan, reads};
use crate::admin::{self, AdminApi, Pending, QubeApi, bounded, system};
use crate::cancel::Cancel;
use crate::catalogue::Sources;
use crate::cli::args::Typed;
use crate::cli::config::{Environment, Settings};
use crate::cli::format::python_json;
use crate::cli::table::Command;
use crate::repo::choice::RepoOption;
use crate::report::Failure;
use crate::state::Directory;
use crate::template::installed::FEATURES;
use crate::template::{Installed, RepoId, TemplateName, Timestamp};

/// How long a caller may take for its request.
const REQUEST_TIME: Duration = Duration::from_secs(30);
/// How many reading calls are under way at a time.
const READS: usize = 8;

/// A request that is not carried out: what the caller is told, and the reason, which stays here.
#[derive(Debug)]
pub struct No {
    /// For the caller.
    pub refused: Refused,
    /// For the audit log.
    pub reason: String,
}

impl No {
    /// With this reason.
    pub fn because(refused: Refused, reason: impl Into<String>) -> Self {
        Self { refused, reason: reason.into() }
    }

    /// A use case that failed.
    #[must_use]
    pub fn failed(failure: &Failure) -> Self {
        let refused = match failure {
            Failure::Interrupted(_) => Refused::Cancelled,
            Failure::Failed(error) if error.chain().any(|cause| cause.is::<crate::install::TooLarge>()) => {
                Refused::Quota
            }
            Failure::Failed(error)
                if error.chain().any(|cause| {
                    matches!(cause.downcast_ref(), Some(crate::lock::LockError::Busy { .. }))
                }) =>
            {
                Refused::Busy
            }
            _ => Refused::Failed,
        };
        let reason = match failure {
            Failure::Failed(error) => format!("{error:#}"),
            other => other.to_string(),
        };
        Self { refused, reason }
    }
}

impl From<anyhow::Error> for No {
    fn from(error: anyhow::Error) -> Self {
        Self::because(Refused::Failed, format!("{error:#}"))
    }
}

impl From<Failure> for No {
    fn from(failure: Failure) -> Self {
        Self::failed(&failure)
    }
}

impl From<admin::CallError> for No {
    fn from(error: admin::CallError) -> Self {
        Self::because(Refused::Failed, error.to_string())
    }
}

/// One request and everything that is needed to carry it out.
pub struct Desk<'a> {
    /// Who asks.
    pub caller: String,
    /// What is asked.
    pub verb: Verb,
    /// The template that it is about.
    pub name: Option<TemplateName>,
    /// The rest of the request.
    pub request: Request,
    /// The way to dom0.
    pub api: &'a dyn AdminApi,
    /// The settings of this qube.
    pub settings: &'a Settings,
    /// What is remembered.
    pub records: Records,
    /// What stops it.
    pub cancel: &'a Cancel,
    /// The way back.
    pub outbox: &'a Outbox,
    tags: Option<Vec<String>>,
    qubes: RefCell<Option<Vec<system::Qube>>>,
    grants: Grants,
    audit: AuditLog,
    begun: Instant,
}

impl std::fmt::Debug for Desk<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").field("caller", &self.caller).field("verb", &self.verb).finish_non_exhaustive()
    }
}

/// Serves the service of this name for the caller that the environment names, and returns the exit status.
#[must_use]
pub fn run(service: &str) -> u8 {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return 1 };
    // A session of its own: what ends the connection's programs does not end a job that is to go on.
    let _ = nix::unistd::setsid();
    let result = runtime.block_on(async {
        let cancel = Cancel::on_signals().ok();
        let _ = SigSet::from_iter([Signal::SIGHUP]).thread_block();
        let outbox = Outbox::new(std::io::stdout());
        let result = answer(service, cancel.unwrap_or_else(Cancel::never), &outbox).await;
        outbox.finish(&result);
        result
    });
    runtime.shutdown_background();
    result["exit"].as_u64().and_then(|status| u8::try_from(status).ok()).unwrap_or(1)
}

async fn answer(service: &str, cancel: Cancel, outbox: &Outbox) -> Value {
    let Some(verb) = Verb::from_service(service) else {
        return Refused::Malformed("there is no such service").line("", None);
    };
    let command = verb.to_string();
    let serving = serve(verb, &cancel, outbox).await;
    serving.unwrap_or_else(|no| {
        // It never came to a decision that could be written down: the journal of the service has the reason.
        let reason = crate::untrusted::displayable(&no.reason, false);
        let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("{reason}\n").as_bytes());
        no.refused.line(&command, None)
    })
}

async fn serve(verb: Verb, cancel: &Cancel, outbox: &Outbox) -> Result<Value, No> {
    let typed = Typed { command: Command::Install, options: Vec::new(), positionals: Vec::new() };
    let settings = Settings::gather(&typed, &Environment::of_process())?;
    let records = Records::new(Directory::open(settings.state_dir.value.as_deref())?);
    let variable = |name| std::env::var(name).unwrap_or_default();
    let (caller, argument) = (variable("QREXEC_REMOTE_DOMAIN"), variable("QREXEC_SERVICE_ARGUMENT"));
    let read = Grants::read(Path::new(grants::PATH));
    let (grants, broken) = match read {
        Ok(grants) => (grants, None),
        Err(error) => (Grants::default(), Some(error.to_string())),
    };
    let audit = AuditLog::at(grants.audit_log().map_or_else(|| records.audit_log(), PathBuf::from));
    let api = admin::connect();
    let request = read_request();
    let name = TemplateName::new(&argument).ok();
    let mut desk = Desk {
        caller,
        verb,
        request: Request::default(),
        api: api.as_ref(),
        settings: &settings,
        records,
        cancel,
        outbox,
        tags: None,
        qubes: RefCell::default(),
        grants,
        audit,
        begun: Instant::now(),
        name,
    };
    let handled = async {
        if TemplateName::new(&desk.caller).is_err() {
            return Err(No::because(Refused::Grants, "qrexec names no caller"));
        }
        if let Some(broken) = broken {
            return Err(No::because(Refused::Grants, format!("the file of grants is not usable: {broken}")));
        }
        desk.request = request?;
        // Before dom0 is asked anything: the caller knows that it is heard, and a link that lives shows that it does.
        desk.outbox
            .send(python_json(&json!({"version": 1, "event": "job", "job": null, "state": "received"})));
        if desk.name.is_none() && !(argument.is_empty() && verb.is_without_name()) {
            return Err(No::because(
                Refused::Malformed("the service's argument is no name of a template"),
                "the argument is no name",
            ));
        }
        desk.look().await?;
        match verb {
            Verb::List | Verb::Info => reads::list(&desk).await,
            Verb::Search => reads::search(&desk).await,
            Verb::Plan => plan::make(&desk).await,
            Verb::Status => jobs::status(&desk).await,
            Verb::Cancel => jobs::cancel(&desk),
            _ => change::run(&desk).await,
        }
    };
    let handled = handled.await;
    match handled {
        Ok(value) => Ok(value),
        Err(no) => {
            desk.log(None, None, Event::Refused { reason: &no.reason })?;
            Ok(no.refused.line(&verb.to_string(), None))
        }
    }
}

/// The request, as far as it is short and comes in time.
fn read_request() -> Result<Request, No> {
    let (send, receive) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let limit = u64::try_from(MAX_REQUEST).unwrap_or(u64::MAX).saturating_add(1);
        let read = std::io::stdin().lock().take(limit).read_to_end(&mut bytes);
        let _ = send.send(read.map(|_| bytes));
    });
    let Ok(Ok(bytes)) = receive.recv_timeout(REQUEST_TIME) else {
        return Err(No::because(Refused::Malformed("the request did not end"), "no end of the request"));
    };
    Request::parse(&bytes).map_err(|error| {
        let text = error.text();
        No::because(Refused::Malformed(text), text)
    })
}

impl Desk<'_> {
    /// Asks dom0 at once what the decision needs: the tags of the caller, only where a grant is for one, and the qubes
    /// there are, for verbs about one of them.
    async fn look(&mut self) -> Result<(), No> {
        let tags = async {
            match self.grants.need_tags() {
                true => QubeApi::new(self.api, &self.caller).tags().await.map(Some),
                false => Ok(None),
            }
        };
        let qubes = async {
            match self.verb.changes() || self.verb == Verb::Plan {
                true => system::list(self.api).await.map(Some),
                false => Ok(None),
            }
        };
        let (tags, qubes) = tokio::join!(tags, qubes);
        self.tags = tags.map_err(|error| {
            No::because(Refused::Grants, format!("the caller's tags cannot be read: {error}"))
        })?;
        self.qubes.replace(qubes?);
        Ok(())
    }

    /// The grants as they are now, for a job that waited.
    ///
    /// # Errors
    /// When the file is not usable any more.
    pub async fn renewed(&self) -> Result<Grants, No> {
        let grants = Grants::read(Path::new(grants::PATH));
        let grants = grants.map_err(|error| {
            No::because(Refused::Grants, format!("the file of grants is not usable: {error}"))
        })?;
        if grants.need_tags() && self.tags.is_none() {
            return Err(No::because(Refused::Grants, "grants for tags appeared while the job waited"));
        }
        Ok(grants)
    }

    /// The name, where the verb needs one.
    ///
    /// # Errors
    /// Never, for verbs that need one: a request without was refused.
    pub fn named(&self) -> Result<&TemplateName, No> {
        let no = || No::because(Refused::Malformed("the service needs the name of a template"), "no name");
        self.name.as_ref().ok_or_else(no)
    }

    /// The grant that covers what is asked about a template of `owner`.
    ///
    /// # Errors
    /// What a caller may be told, and what is missing.
    pub fn decide(
        &self,
        verb: Verb,
        name: Option<&TemplateName>,
        owner: Owner,
    ) -> Result<(usize, Grant), No> {
        self.decide_by(&self.grants, verb, name, owner)
    }

    /// The same by other grants.
    ///
    /// # Errors
    /// As above.
    pub fn decide_by(
        &self,
        grants: &Grants,
        verb: Verb,
        name: Option<&TemplateName>,
        owner: Owner,
    ) -> Result<(usize, Grant), No> {
        let (repository, pool) = (self.request.repository.as_ref(), self.request.pool.as_deref());
        let wish = self.wish(verb, name, owner, repository, pool);
        match grants.decide(&wish) {
            Ok((number, grant)) => Ok((number, grant.clone())),
            Err(refusal) => {
                let told = match refusal {
                    Refusal::Lacks { what: Missing::Owner, .. } if verb == Verb::Install => {
                        Refused::NotAvailable
                    }
                    Refusal::Lacks { what: Missing::Owner, .. } => Refused::NoTemplate,
                    _ => Refused::Grants,
                };
                Err(No::because(told, refusal.to_string()))
            }
        }
    }

    /// Whether the caller may see a template of `owner`, or an offer of `repository`, by this verb.
    #[must_use]
    pub fn may_see(&self, verb: Verb, name: &str, owner: Owner, repository: Option<&RepoId>) -> bool {
        let Ok(name) = TemplateName::new(name) else { return false };
        self.grants.decide(&self.wish(verb, Some(&name), owner, repository, None)).is_ok()
    }

    fn wish<'w>(
        &'w self,
        verb: Verb,
        template: Option<&'w TemplateName>,
        owner: Owner,
        repository: Option<&'w RepoId>,
        pool: Option<&'w str>,
    ) -> Wish<'w> {
        let caller_tags = self.tags.as_deref().unwrap_or_default();
        Wish { caller: &self.caller, caller_tags, verb, template, owner, repository, pool }
    }

    /// Repositories that some grant of the caller has for this verb.
    #[must_use]
    pub fn repositories(&self, verb: Verb) -> Vec<RepoId> {
        let own = self.grants.all().iter().filter(|grant| grant.verbs().contains(&verb));
        let mut all: Vec<RepoId> = Vec::new();
        for repo in own.filter(|grant| grant.is_for(&self.caller, self.tags.as_deref().unwrap_or_default())) {
            all.extend(
                repo.repositories().iter().filter(|repo| !all.contains(repo)).cloned().collect::<Vec<_>>(),
            );
        }
        all
    }

    /// Where templates come from, when only these repositories take part.
    #[must_use]
    pub fn sources(&self, repositories: &[RepoId]) -> Sources {
        let settings = self.settings;
        Sources {
            repo_files: settings.repo_files.value.clone(),
            keyring: settings.keyring.value.clone(),
            updatevm: settings.updatevm.value.clone(),
            options: repositories.iter().map(|repo| RepoOption::Only(repo.to_string())).collect(),
            releasever: settings.releasever.value.clone(),
            refresh: false,
            bounds: settings.limits.bounds(),
        }
    }

    /// Whose the template of this name is, and whether it is shut down.
    ///
    /// # Errors
    /// When dom0 does not tell.
    pub async fn standing(&self, name: &TemplateName) -> Result<(Owner, bool), No> {
        // What was looked at before the decision counts for it; whoever asks again wants to know what is there now.
        let seen = self.qubes.take();
        let qubes = match seen {
            Some(qubes) => qubes,
            None => system::list(self.api).await?,
        };
        let Some(qube) = qubes.iter().find(|qube| qube.name == name.as_str()) else {
            return Ok((Owner::Nobody, true));
        };
        if !qube.is_template() {
            return Ok((Owner::Other, false));
        }
        let owner = QubeApi::new(self.api, name.as_str()).feature(OWNER).await;
        Ok((self.owner_of(name.as_str(), owner.ok()), qube.is_halted()))
    }

    /// The owners of these templates, and only what can be read.
    pub async fn owners(&self, names: &[String]) -> HashMap<String, Owner> {
        let reads = names.iter().map(|name| -> Pending<'_, _> {
            Box::pin(async move { QubeApi::new(self.api, name).feature(OWNER).await })
        });
        let values = bounded(READS, reads.collect()).await;
        let owner = |(name, value): (&String, Result<Option<String>, _>)| {
            (name.clone(), self.owner_of(name, value.ok()))
        };
        names.iter().zip(values).map(owner).collect()
    }

    /// `feature`: the outer none where it cannot be read, which counts as somebody else's.
    fn owner_of(&self, name: &str, feature: Option<Option<String>>) -> Owner {
        let whose = |owner: &str| if owner == self.caller { Owner::Caller } else { Owner::Other };
        match feature {
            None => Owner::Other,
            Some(Some(owner)) if !owner.is_empty() => whose(&owner),
            Some(_) => self.records.pending(name).map_or(Owner::Unowned, |owner| whose(&owner)),
        }
    }

    /// What is installed under a name.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn installed(&self, name: &TemplateName) -> Result<Option<Installed>, No> {
        let qube = QubeApi::new(self.api, name.as_str());
        let reads = FEATURES[..7]
            .iter()
            .map(|feature| -> Pending<'_, _> { Box::pin(async move { qube.feature(feature).await }) });
        let mut values = HashMap::new();
        for (feature, value) in FEATURES.iter().zip(bounded(READS, reads.collect()).await) {
            values.insert(*feature, value?);
        }
        Ok(Installed::from_features(name.as_str(), |feature| values.get(feature).cloned().flatten()))
    }

    /// Writes a line into the audit log. What cannot be written down is not done.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn log(&self, job: Option<&str>, plan: Option<&str>, event: Event<'_>) -> Result<(), No> {
        let time = Timestamp(i64::try_from(now()).unwrap_or(i64::MAX)).to_string().replace(' ', "T") + "Z";
        let template = self.name.as_ref().map(TemplateName::as_str);
        let line = Line { time, caller: &self.caller, verb: self.verb, template, job, plan, event };
        self.audit
            .append(&line)
            .map_err(|error| No::because(Refused::Failed, format!("writing the audit log: {error}")))
    }

    /// Notes that a request was granted.
    ///
    /// # Errors
    /// When it cannot be written down.
    pub fn granted(
        &self,
        (grant, by): (usize, &Grant),
        job: Option<&str>,
        plan: Option<&str>,
    ) -> Result<(), No> {
        self.log(job, plan, Event::Granted { grant, line: by.line() })
    }

    /// Notes that a request that changes nothing was answered.
    ///
    /// # Errors
    /// When it cannot be written down.
    pub fn answered(&self, plan: Option<&str>) -> Result<(), No> {
        let ended = Event::Ended {
            result: "done",
            reason: None,
            build: None,
            repository: None,
            signer: None,
            bytes: 0,
            milliseconds: self.milliseconds(),
        };
        self.log(None, plan, ended)
    }

    /// Time since the request came, in milliseconds.
    #[must_use]
    pub fn milliseconds(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// A build as results have it.
#[must_use]
pub fn build(installed: Option<&Installed>) -> Value {
    installed.map_or(
        Value::Null,
        |it| json!({"evr": it.evr_text(), "reponame": it.repo, "buildtime": it.build_time}),
    )
}
