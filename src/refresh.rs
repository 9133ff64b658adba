//! `refresh-metadata`: what a template's features say beside its build, taken anew from the signed header of its package.
//!
//! Only the package's head is fetched: the stream is stopped as soon as that is there. It has to be the head of the very build
//! that is installed, made at the very time that the features tell, and signed as for an installation; then description, summary,
//! address and licence are set where they differ. The build itself and where it came from are not touched.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::time::SystemTime;

use crate::admin::{AdminApi, QubeApi, system};
use crate::cancel::Cancel;
use crate::catalogue::Catalogue;
use crate::census;
use crate::download::{keyring_of, qube_name};
use crate::ledger::{Action, Build, Ending, Ledger, Trouble};
use crate::lock::Lock;
use crate::report::{Failure, Message, Reporter};
use crate::template::installed::{FEATURES, Installed, MARKER};
use crate::template::provenance::{RECORD, Record};
use crate::template::{Evr, Offer, TemplateName, TemplateSpec};
use crate::untrusted::displayable;
use crate::update_vm::DownloadError;
use crate::verify::Policy;
use crate::verify::head::{self, VerifiedHead};

/// What is taken from the header. The time of the build is there for templates that lost it.
const TAKEN: [&str; 5] =
    ["template-buildtime", "template-license", "template-url", "template-summary", "template-description"];

/// Everything that the work needs.
#[derive(Clone, Copy)]
pub struct Desk<'a, 'c> {
    /// dom0.
    pub api: &'a dyn AdminApi,
    /// Where packages come from.
    pub catalogue: &'a Catalogue<'c>,
    /// Who listens.
    pub reporter: &'a dyn Reporter,
    /// Whether somebody wants us to stop.
    pub cancel: &'a Cancel,
    /// What becomes of each template.
    pub ledger: &'a Ledger,
    /// Find the packages, fetch nothing and change nothing.
    pub dry_run: bool,
}

impl std::fmt::Debug for Desk<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").field("dry_run", &self.dry_run).finish_non_exhaustive()
    }
}

/// A template and the offer of its own build.
struct Job {
    name: TemplateName,
    before: BTreeMap<String, String>,
    installed: Installed,
    offer: Offer,
}

/// Refreshes what the features of the templates called `names` say.
///
/// # Errors
/// When a name cannot be meant, no repository has the installed build any more, its head cannot be had or is refused, or dom0
/// refuses a change. A template of which that is so is as it was; those before it are done.
pub async fn run(desk: Desk<'_, '_>, names: &[String]) -> Result<(), Failure> {
    if names.is_empty() {
        return Err(Failure::Usage("the following arguments are required: TEMPLATE".to_owned()));
    }
    let lock = match desk.dry_run {
        true => None,
        false => Some(Lock::take("refresh-metadata").map_err(anyhow::Error::from)?),
    };
    let mut jobs: Vec<Job> = Vec::new();
    for name in names {
        if jobs.iter().any(|job| job.name.as_str() == name) {
            return Err(Failure::Usage(format!("Template '{name}' is named more than once.")));
        }
        jobs.push(desk.job(name, names.len() == 1).await?);
    }
    for job in &jobs {
        if let Some(lock) = &lock {
            lock.template(job.name.as_str()).map_err(anyhow::Error::from)?;
        }
        let build = Build::of_installed(&job.installed);
        desk.ledger.plan(job.name.as_str(), Action::Describe, build.clone(), build);
    }
    if desk.dry_run {
        return Ok(());
    }
    for job in &jobs {
        if let Err(failure) = desk.refresh(job).await {
            desk.ledger.failed(job.name.as_str(), Trouble::of(&failure));
            return Err(failure);
        }
    }
    Ok(())
}

impl Desk<'_, '_> {
    /// Finds the offer of the build that is installed.
    async fn job(&self, name: &str, alone: bool) -> Result<Job, Failure> {
        let qubes = system::list(self.api).await?;
        let is_there = qubes.iter().any(|qube| qube.name == name && qube.is_template());
        let name = TemplateName::new(name)
            .ok()
            .filter(|_| is_there)
            .ok_or_else(|| Failure::Usage(format!("Template '{name}' not already installed.")))?;
        let wanted: Vec<&str> = FEATURES.into_iter().chain([RECORD]).collect();
        let before = census::features(self.api, name.as_str(), &wanted).await?;
        let installed = Installed::from_features(name.as_str(), |feature| before.get(feature).cloned());
        let installed = installed
            .ok_or_else(|| Failure::Usage(format!("Template '{name}' is not managed by qvm-template.")))?;
        let Some(evr) = installed.evr() else {
            return Err(Failure::new(format!(
                "nothing tells which build '{name}' is\nhelp: 'qvm-template upgrade {name}' installs the newest over it"
            )));
        };
        // A template that was taken over may have another name than its package.
        let record = before.get(RECORD).and_then(|text| Record::parse(text));
        let record = record.filter(|record| record.evr == evr.to_string());
        let package = record.map_or_else(|| name.to_string(), |record| record.package);
        let offer = self.offer(&package, &evr, &installed.repo, alone).await?;
        Ok(Job { name, before, installed, offer })
    }

    /// The offer of this build; of several the one of the repository that it came from.
    async fn offer(&self, package: &str, evr: &Evr, repo: &str, alone: bool) -> Result<Offer, Failure> {
        let spec = TemplateSpec::new(package).map_err(|error| Failure::Usage(error.to_string()))?;
        let found = self.cancel.or(self.catalogue.candidates(&spec, alone)).await?;
        let mut same: Vec<&Offer> =
            found.reply.offers.iter().filter(|offer| offer.name == package && offer.evr == *evr).collect();
        same.sort_by_key(|offer| offer.repo.as_str() != repo);
        let Some(offer) = same.first() else {
            found.remarks.iter().for_each(|line| self.reporter.say(&Message::Remote(line)));
            return Err(Failure::Usage(format!("Same version of template '{package}' not found.")));
        };
        Ok((*offer).clone())
    }

    async fn refresh(&self, job: &Job) -> Result<(), Failure> {
        let head = self.head(&job.offer).await?;
        let info = head.info();
        let built = info.build_time.to_string();
        let known = &job.installed.build_time;
        if !known.is_empty() && *known != built {
            return Err(Failure::new(format!(
                "the package of '{}' was built at {built}, and what is installed at {known}: they are not the same\n\
                 help: 'qvm-template reinstall {}' installs what the repository has",
                job.name, job.name
            )));
        }
        let new = Installed {
            build_time: built,
            license: info.license.clone(),
            url: info.url.clone().unwrap_or_default(),
            summary: info.summary.clone(),
            description: info.description.clone(),
            ..job.installed.clone()
        };
        let differs = |(feature, value): &(&'static str, String)| {
            TAKEN.contains(feature) && job.before.get(*feature) != Some(value)
        };
        let changes: Vec<(&'static str, String)> = new.to_features().into_iter().filter(differs).collect();
        debug_assert!(changes.iter().all(|(feature, _)| *feature != MARKER));
        let mut after = Build::of_installed(&new).unwrap_or_default();
        after.signer = Some(head.signer().certificate.clone());
        if changes.is_empty() {
            self.ledger.skip(job.name.as_str(), "it is as the package says");
            return Ok(());
        }
        self.set(job, &changes).await?;
        let words: Vec<&str> =
            changes.iter().map(|(feature, _)| feature.trim_start_matches("template-")).collect();
        self.ledger.done(job.name.as_str(), Ending::Done, Some(after));
        self.ledger.remark(job.name.as_str(), &words.join(", "));
        let text = format!("set {}", words.join(", "));
        self.reporter.say(&Message::Qube(job.name.as_str(), &text));
        Ok(())
    }

    /// Fetches and judges the head of a package, and no more of it than that.
    async fn head(&self, offer: &Offer) -> Result<VerifiedHead, Failure> {
        let keyring = keyring_of(&self.catalogue.keys_for(offer)?)?;
        let policy = Policy::build(qube_name(&offer.name)?, offer.evr.clone());
        let request = self.catalogue.download_request(offer)?;
        let update_vm = self.catalogue.update_vm().await?;
        let beginning: RefCell<Vec<u8>> = RefCell::default();
        let mut take = |bytes: &[u8]| {
            let mut beginning = beginning.borrow_mut();
            beginning.extend_from_slice(bytes);
            match head::whole(&beginning) {
                Ok(None) => Ok(()),
                // Nobody wants the rest: this ends the stream, and the service at its other end.
                Ok(Some(_)) | Err(_) => Err(io::Error::other("this is enough")),
            }
        };
        let fetching = async { Ok(update_vm.download(&request, offer.download_size, &mut take).await) };
        let fetched = self.cancel.or(fetching).await?;
        let mut bytes = beginning.take();
        let refused = |why: &dyn std::fmt::Display| {
            let why = displayable(&why.to_string(), false);
            Failure::new(format!("the package of '{}' is refused: {why}", offer.name))
        };
        match (head::whole(&bytes), fetched) {
            (Ok(Some(len)), _) => bytes.truncate(len),
            (Err(why), _) => return Err(refused(&why)),
            (Ok(None), Ok(())) => return Err(refused(&"it ends within its head")),
            (Ok(None), Err(error @ DownloadError::Keep(_))) => return Err(refused(&error)),
            (Ok(None), Err(error)) => return Err(anyhow::Error::from(error).into()),
        }
        head::judge(&bytes, &policy, &keyring, SystemTime::now()).map_err(|why| refused(&why))
    }

    /// Sets the features; on failure or a signal puts back what was there.
    async fn set(&self, job: &Job, changes: &[(&'static str, String)]) -> Result<(), Failure> {
        let qube = QubeApi::new(self.api, job.name.as_str());
        let begun = std::cell::Cell::new(0);
        let setting = async {
            for (feature, value) in changes {
                begun.set(begun.get() + 1);
                qube.set_feature(feature, value).await?;
            }
            Ok(())
        };
        let result = self.cancel.or(setting).await;
        if result.is_err() {
            for (feature, _) in changes.iter().take(begun.get()).rev() {
                let undone = match job.before.get(*feature) {
                    Some(value) => qube.set_feature(feature, value).await,
                    None => qube.remove_feature(feature).await,
                };
                if let Err(error) = undone {
                    let text = format!("'{feature}' of '{}' could not be put back: {error}", job.name);
                    self.reporter.say(&Message::Warning(&text));
                }
            }
        }
        result
    }
}
