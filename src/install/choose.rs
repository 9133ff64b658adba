//! What was named, made into jobs: local packages verified, the build that the command is for chosen from the offers, and
//! everything looked at that can be known before the first change.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::{Job, READS, Run, Source, Verb, absent, must_be_off, twice};
use crate::admin::{CallError, Pending, QubeApi, bounded, system};
use crate::census;
use crate::download::{blocking, check_local, keyring_of, not_selected, qube_name};
use crate::ledger::Build;
use crate::report::{Failure, Message, Phase};
use crate::template::installed::{FEATURES, Installed};
use crate::template::select::{Presence, Selector, names};
use crate::template::{Offer, RepoId, TemplateSpec};
use crate::verify::Verified;

impl Run<'_, '_> {
    /// What was named, taken apart into files and specifications.
    pub(super) fn sort_named(&self) -> Result<(Vec<PathBuf>, Vec<TemplateSpec>), Failure> {
        let (files, specs): (Vec<&String>, Vec<&String>) =
            self.order.named.iter().partition(|named| named.ends_with(".rpm"));
        let files: Vec<PathBuf> = files.into_iter().map(PathBuf::from).collect();
        if let Some(missing) = files.iter().find(|path| !path.exists()) {
            return Err(Failure::Usage(format!("RPM file '{}' not found.", missing.display())));
        }
        let specs = specs.into_iter().map(|text| TemplateSpec::new(text)).collect::<Result<_, _>>();
        Ok((files, specs.map_err(|error| Failure::Usage(error.to_string()))?))
    }

    pub(super) async fn local_packages(&self, files: &[PathBuf]) -> Result<Vec<Job>, Failure> {
        let mut jobs = Vec::new();
        for path in files {
            let verified = self.open_local(path).await?;
            if self.order.nogpgcheck {
                self.reporter.say(&Message::Unsigned(&path.display().to_string()));
            }
            let (package, evr) = (verified.info().name.clone(), verified.info().nevra.evr.clone());
            let after = Build::of_package(&verified, RepoId::COMMAND_LINE);
            let verified = (files.len() == 1).then_some(verified);
            let source = Source::Local { path: path.clone(), verified };
            jobs.push(Job { name: package.clone(), package, evr, source, after, named: true });
        }
        Ok(jobs)
    }

    pub(super) async fn open_local(&self, path: &Path) -> Result<Verified, Failure> {
        let keyring = match self.order.nogpgcheck {
            true => None,
            false => Some(keyring_of(&[self.catalogue.default_key()?])?),
        };
        let subject = path.display().to_string();
        let meter = self.reporter.phase(Phase::Verify, &subject, None);
        let (path, cache, certificates) = (path.to_owned(), self.order.cache.clone(), keyring.clone());
        let checked = blocking(move || check_local(&path, &cache, certificates.as_ref()));
        let verified = self.cancel.or(checked).await?;
        meter.finish();
        self.admission.package(&verified, &RepoId::command_line(), keyring.as_ref())?;
        Ok(verified)
    }

    /// One search for each specification, and of what it brings the build that the command is for.
    pub(super) async fn choose(&self, specs: &[TemplateSpec]) -> Result<Vec<Job>, Failure> {
        let selector = match self.order.verb {
            Verb::Install => Selector::Latest,
            Verb::Reinstall => Selector::Same,
            Verb::Renew => Selector::Newest,
            Verb::Upgrade => Selector::Higher,
            Verb::Downgrade => Selector::Lower,
        };
        let mut chosen: Vec<(String, Offer)> = Vec::new();
        let mut literal: HashSet<String> = HashSet::new();
        for (spec, renamed) in &self.expanded(specs).await? {
            // A request has room for one specification: for several everything is asked for, once (R16).
            let found = self.cancel.or(self.catalogue.candidates(spec, specs.len() == 1)).await?;
            let one = std::slice::from_ref(spec);
            let there = match selector.needs_installed() {
                true if renamed.is_some() => self.presence_of_renamed(renamed.as_ref()).await?,
                true => self.presence(names(&found.reply.offers, one).into_iter()).await?,
                false => HashMap::new(),
            };
            let selected = selector.select(&found.reply.offers, one, |name| {
                there.get(name).cloned().unwrap_or(Presence::Absent)
            });
            let selection = match selected {
                // One that a pattern means, and that no repository has any more.
                Err(_) if renamed.as_ref().is_some_and(|renamed| !renamed.literal) => continue,
                Ok(selection) => selection,
                Err(error) => {
                    return Err(not_selected(self.catalogue, self.reporter, &found, &error).await);
                }
            };
            let state = match self.order.verb {
                Verb::Downgrade => "of lowest version",
                _ => "of highest version",
            };
            for spec in &selection.nothing {
                if !spec.is_pattern() {
                    self.ledger.skip(spec.as_str(), &format!("{state} already installed"));
                }
                self.reporter.say(&Message::Skipping(spec.as_str(), state));
            }
            for offer in selection.chosen {
                let qube = renamed.as_ref().map_or(&offer.name, |renamed| &renamed.qube).clone();
                let is_literal =
                    renamed.as_ref().map_or_else(|| !spec.is_pattern(), |renamed| renamed.literal);
                if is_literal && !literal.insert(qube.clone()) {
                    return Err(twice(&qube));
                }
                match chosen.iter_mut().find(|(have, _)| *have == qube) {
                    Some((_, have)) if have.evr < offer.evr => *have = offer,
                    Some(_) => {}
                    None => chosen.push((qube, offer)),
                }
            }
        }
        let mut jobs = Vec::new();
        for (qube, offer) in chosen {
            let (name, package) = (qube_name(&qube)?, qube_name(&offer.name)?);
            let (named, after, evr) = (literal.contains(&qube), Build::of_offer(&offer), offer.evr.clone());
            jobs.push(Job { name, package, evr, source: Source::Offered(offer), after, named });
        }
        Ok(jobs)
    }

    /// What there is under these names.
    pub(super) async fn presence<'n>(
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

    pub(super) async fn managed(&self, name: &str) -> Result<Presence, Failure> {
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

    /// The build that a job replaces, where somebody wants to know it.
    pub(super) async fn before(&self, job: &Job) -> Result<Option<Build>, Failure> {
        if self.order.verb == Verb::Install || !self.order.detailed {
            return Ok(None);
        }
        let installed = census::one(self.api, job.name.as_str()).await?;
        Ok(installed.as_ref().and_then(Build::of_installed))
    }

    /// What of it is to be done, in order, once everything that can be known beforehand was looked at.
    pub(super) async fn check(&self, locals: Vec<Job>, offered: Vec<Job>) -> Result<Vec<Job>, Failure> {
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
                    self.ledger.skip(&qube.name, "not shut down");
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
    pub(super) fn suits(&self, job: &Job, there: Option<&Presence>) -> Result<bool, Failure> {
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
            self.ledger.skip(name, &format!("{state} already installed"));
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

    pub(super) async fn say_there(&self, qube: &system::Qube) -> Result<(), Failure> {
        if !qube.is_template() {
            self.ledger.skip(&qube.name, "a qube of that name exists, and is no template");
            let text = format!("'{}' is skipped: a qube of that name exists, and is no template", qube.name);
            self.reporter.say(&Message::Note(&text));
            return Ok(());
        }
        self.ledger.skip(&qube.name, "already installed");
        self.reporter.say(&Message::AlreadyInstalled(&qube.name));
        Ok(())
    }
}
