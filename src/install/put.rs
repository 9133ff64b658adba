//! One verified package put in place: the template is the new one afterwards, or what it was.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;

use super::{Job, Run, Source, TICK, TooLarge, Verb, absent, local, now};
use crate::admin::system;
use crate::appmenus::{AppMenus, Scratch};
use crate::census;
use crate::checkpoint;
use crate::download::blocking;
use crate::journal::{Goal, Journal, Step};
use crate::payload::{Payload, TemplateFiles};
use crate::post_install;
use crate::recover;
use crate::report::{Failure, Message, Phase, Reporter};
use crate::root_image::{CopyError, Limits, RootImage};
use crate::settings;
use crate::template::conf::AllowPv;
use crate::template::provenance::{self, RECORD, Record};
use crate::template::{Installed, RepoId, TemplateName};
use crate::transaction::{Transaction, Undone};
use crate::verify::{PackageInfo, TEMPLATES, Verified};
use crate::volume::ImportError;

impl Run<'_, '_> {
    /// Installs one package: the template is the new one afterwards, or what it was.
    pub(super) async fn put(&self, job: Job) -> Result<post_install::Outcome, Failure> {
        let package = match job.source {
            Source::Fetched(package) => package,
            Source::Local { verified: Some(verified), .. } => local(verified),
            Source::Local { path, verified: None } => {
                let verified = self.open_local(&path).await?;
                if (&verified.info().name, &verified.info().nevra.evr) != (&job.package, &job.evr) {
                    return Err(Failure::new(format!("'{}' was replaced meanwhile", path.display())));
                }
                local(verified)
            }
            Source::Offered(_) => return Err(Failure::new("a package was not downloaded")),
        };
        self.reporter.say(&Message::Installing(job.name.as_str()));
        let info = package.verified.info().clone();
        let (verified, name) = (package.verified, job.package.clone());
        let most = self.order.demands.max_image_size;
        let opening = blocking(move || open(&verified, &name, most));
        let image = self.cancel.or(opening).await?;
        if let Some(limit) = self.order.max_image.filter(|limit| image.size() > *limit) {
            return Err(Failure::Failed(TooLarge { size: image.size(), limit }.into()));
        }
        let mut transaction = self.begin(&job.name, &info, &package.repo).await?;
        match self.steps(&mut transaction, image, &info).await {
            Ok(outcome) => {
                transaction.commit().await;
                if let Some(file) = package.file.filter(|_| !self.order.keep_cache) {
                    let _ = std::fs::remove_file(file);
                }
                Ok(outcome)
            }
            Err(error) => {
                go_back(transaction).await;
                Err(error)
            }
        }
    }

    pub(super) async fn begin<'n>(
        &'n self,
        name: &'n TemplateName,
        info: &PackageInfo,
        repo: &RepoId,
    ) -> Result<Transaction<'n>, Failure> {
        // Much time may have passed since the checks, and not everybody heeds the lock.
        let qubes = system::list(self.api).await?;
        let there = qubes.iter().find(|qube| qube.name == name.as_str());
        let mut notes = Journal::new(name.as_str(), self.verb_word(), self.order.verb == Verb::Install);
        notes.skip_start = self.order.skip_start;
        let time = now();
        let record = Record {
            adopted: false,
            package: info.name.to_string(),
            evr: info.nevra.evr.to_string(),
            time,
            uuid: None,
            os: None,
        };
        // The original takes a template for managed whose mark is the qube's name: so that is what it says, also where
        // the package has another one. That one stands in our record.
        let description = settings::description(info, repo, time);
        let description = Installed { name: name.to_string(), ..description }.to_features();
        let description = description.into_iter().chain([(RECORD, record.to_feature())]);
        notes.goal = Goal {
            allow_pv: self.order.allow_pv == AllowPv::Yes,
            description: description.map(|(name, value)| (name.to_owned(), value)).collect(),
            ..Goal::default()
        };
        match (self.order.verb, there) {
            (Verb::Install, None) => {
                Transaction::create(*self.desk, name, self.order.pool.as_deref(), notes).await
            }
            (Verb::Install, Some(_)) => Err(Failure::new(format!("a qube '{name}' has appeared meanwhile"))),
            (_, None) => Err(absent(name.as_str())),
            (_, Some(qube)) => {
                must_be_off(qube)?;
                let features = settings::touched_features();
                Transaction::replace(*self.desk, name, &features, notes).await
            }
        }
    }

    pub(super) async fn steps(
        &self,
        transaction: &mut Transaction<'_>,
        image: RootImage,
        info: &PackageInfo,
    ) -> Result<post_install::Outcome, Failure> {
        transaction.say("Importing data");
        let files = import(transaction, self.reporter, image).await?;
        transaction.imported().await?;
        if !transaction.is_new() {
            transaction.say("Clearing private volume");
            transaction.clear_private().await?;
        }
        transaction.step(Step::Settings, "settings")?;
        transaction.set_property("installed_by_rpm", "False").await?;
        let appmenus = if self.order.skip_start { AppMenus::find() } else { None };
        let scratch = match &appmenus {
            Some(_) => Some(Scratch::with(&files, &info.name).context("writing the menu lists down")?),
            None => None,
        };
        let directory = scratch.as_ref().map_or_else(|| format!("{TEMPLATES}{}", info.name), Scratch::path);
        let allow_pv = self.order.allow_pv;
        settings::apply(transaction, &files, allow_pv, &directory, appmenus.as_ref()).await?;
        checkpoint::reach("settings-done");
        let outcome = match self.order.skip_start {
            true => post_install::Outcome::Done,
            false => self.first_start(transaction).await?,
        };
        transaction.step(Step::Describing, "describing")?;
        for (feature, value) in transaction.notes().goal.description.clone() {
            // What the template announced at its first start is known only now.
            let value = match Record::parse(&value).filter(|_| feature == RECORD) {
                Some(record) => self.completed(record, transaction.name()).await.to_feature(),
                None => value,
            };
            transaction.set_feature(&feature, &value).await?;
        }
        checkpoint::reach("described");
        Ok(outcome)
    }

    /// A record with what dom0 and the template itself tell by now. What they do not tell stays out.
    async fn completed(&self, record: Record, name: &TemplateName) -> Record {
        let qubes = system::list(self.api).await.unwrap_or_default();
        let uuid = qubes.into_iter().find(|qube| qube.name == name.as_str()).and_then(|qube| qube.uuid);
        if self.order.skip_start {
            return Record { uuid, ..record };
        }
        let found = census::features(self.api, name.as_str(), &provenance::SYSTEM).await.unwrap_or_default();
        let os = provenance::system(|feature| found.get(feature).cloned());
        Record { uuid, os, ..record }
    }

    pub(super) async fn first_start(
        &self,
        transaction: &mut Transaction<'_>,
    ) -> Result<post_install::Outcome, Failure> {
        let meter = self.reporter.phase(Phase::PostInstall, transaction.name().as_str(), None);
        let outcome = post_install::run(transaction).await?;
        meter.finish();
        Ok(outcome)
    }
}

/// Undoes what was begun. Where the old content is gone, completes what is there as far as that goes; what is left to be
/// done then stands in the journal.
async fn go_back(transaction: Transaction<'_>) {
    let name = transaction.name();
    let (reporter, help) = (transaction.reporter(), format!("'qvm-template recover {name}' tries again"));
    match transaction.undo().await {
        Undone::Complete => {}
        Undone::Partly(_) => reporter.say(&Message::Warning(&format!("{name}: {help}"))),
        Undone::NoWayBack(transaction) => match recover::complete_instead(transaction).await {
            Ok(outcome) => reporter.say(&Message::Warning(&outcome.told(name.as_str()))),
            Err(error) => reporter.say(&Message::Warning(&error.to_string())),
        },
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
    let importing = transaction.import(image.size(), move |mut out, noter| {
        image.copy_and(&mut out, &mut |bytes| written.store(bytes, Ordering::Relaxed), noter)
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

/// The image in a verified package, of `most` bytes at most.
pub(crate) fn open(verified: &Verified, name: &TemplateName, most: u64) -> Result<RootImage, Failure> {
    let limits = Limits { image_size: most, ..Limits::default() };
    let opened = Payload::open(verified, name).and_then(|payload| payload.root_image(limits));
    opened.map_err(|why| Failure::new(format!("Failed to extract {name} template: {why}")))
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
