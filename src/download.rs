//! `download`, and the part of every installation that fetches packages.
//!
//! A package is spooled into a file without a name, verified there, and only then gets its name in the directory. So a
//! file of that name is either complete and verified, or came from somebody else and is verified again before it
//! is believed.
//!
//! What a passing fault can cause is tried again, with growing pauses: a service that failed, a stream that ended early
//! or stood still, bytes that do not match their digests or signature (another mirror may have better ones). A package
//! that is sound and is not the one that was chosen is refused at once, and so is a call that policy refuses.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;

use crate::admission::Admission;
use crate::cancel::Cancel;
use crate::catalogue::Catalogue;
use crate::repo::keys::KeyFile;
use crate::repo::wire::Request;
use crate::report::{Failure, Message, Phase, Reporter};
use crate::spelling;
use crate::spool::{Spool, Spooled, require_space};
use crate::template::select::{SelectError, Selector};
use crate::template::{Offer, PACKAGE_PREFIX, RepoId, TemplateName, TemplateSpec};
use crate::untrusted::displayable;
use crate::update_vm::{DownloadError, Found};
use crate::verify::{Keyring, Policy, Rejection, Verified, check_digests_only, verify};

/// First pause between attempts; each one is twice as long as the one before.
const PAUSE: Duration = Duration::from_millis(500);
/// Longest pause between attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Largest local package, in bytes: a hundred times the usual.
const MAX_LOCAL: u64 = 128 << 30;

/// A verified package and where it came from.
#[derive(Debug)]
pub struct Package {
    /// The package.
    pub verified: Verified,
    /// The repository that vouched for it.
    pub repo: RepoId,
    /// Where it lies under its name, if it does and is ours to remove.
    pub file: Option<PathBuf>,
}

/// What to do about a file that is there already and is not what its name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotten {
    /// Say so and stop: it is the user's.
    Refuse,
    /// Remove it and download again: it is in the cache.
    Replace,
}

/// Fetches packages.
#[derive(Clone, Copy)]
pub struct Fetcher<'a, 'c> {
    /// Where they come from.
    pub catalogue: &'a Catalogue<'c>,
    /// Who hears about it.
    pub reporter: &'a dyn Reporter,
    /// What stops it.
    pub cancel: &'a Cancel,
    /// How often a download is tried.
    pub retries: u32,
    /// `--nogpgcheck`, which does not apply to downloads: to be said.
    pub nogpgcheck: bool,
    /// What about files that are there.
    pub rotten: Rotten,
    /// Who says whether what is sound is let in.
    pub admission: &'a Admission<'a>,
}

impl std::fmt::Debug for Fetcher<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetcher").field("retries", &self.retries).finish_non_exhaustive()
    }
}

/// Downloads the newest build of each template that `specs` mean into `directory`.
///
/// # Errors
/// When a specification has no match or a download fails. What was downloaded before stays.
pub async fn run(fetcher: Fetcher<'_, '_>, specs: &[TemplateSpec], directory: &Path) -> Result<(), Failure> {
    let mut chosen: Vec<Offer> = Vec::new();
    for spec in specs {
        let found = fetcher.cancel.or(fetcher.catalogue.candidates(spec, true)).await?;
        let selection = Selector::Latest.select(&found.reply.offers, std::slice::from_ref(spec), |_| {
            crate::template::select::Presence::Absent
        });
        let selection = match selection {
            Ok(selection) => selection,
            Err(error) => return Err(not_selected(fetcher.catalogue, fetcher.reporter, &found, &error).await),
        };
        for offer in selection.chosen {
            merge(&mut chosen, offer);
        }
    }
    for offer in &chosen {
        fetcher.fetch(offer, directory).await?;
    }
    Ok(())
}

/// Adds an offer to those chosen so far; of one template the strictly newer build stays.
pub fn merge(chosen: &mut Vec<Offer>, offer: Offer) {
    match chosen.iter_mut().find(|have| have.name == offer.name) {
        Some(have) if have.evr < offer.evr => *have = offer,
        Some(_) => {}
        None => chosen.push(offer),
    }
}

/// What is said when nothing can be chosen: what the service remarked, what is there instead, and the original's words.
pub async fn not_selected(
    catalogue: &Catalogue<'_>,
    reporter: &dyn Reporter,
    found: &Found,
    error: &SelectError,
) -> Failure {
    if found.reply.offers.is_empty() {
        found.remarks.iter().for_each(|line| reporter.say(&Message::Remote(line)));
    }
    let mut text = error.to_string();
    if let SelectError::SameNotFound { spec, offered } = error
        && let Some(newest) =
            offered.iter().max_by(|a, b| a.evr.cmp(&b.evr)).filter(|o| o.name == spec.as_str())
    {
        let mut builds: Vec<String> = offered.iter().map(|offer| offer.evr.to_string()).collect();
        builds.dedup();
        text = format!(
            "{text}\nhelp: the enabled repositories have {}; 'qvm-template upgrade {}' takes the newest",
            builds.join(", "),
            newest.name
        );
    }
    if let SelectError::NotFound(spec) = error {
        text.push_str(&spelling::question(&catalogue.alike(spec.as_str()).await));
    }
    Failure::Usage(text)
}

impl Fetcher<'_, '_> {
    /// Whether `offer` would be let in, if it is what it claims to be: the certificates that may have signed it. Nothing is
    /// downloaded for this.
    ///
    /// # Errors
    /// Why it would not be let in, or what is wrong with the keys of its repository.
    pub fn foresee(&self, offer: &Offer) -> Result<Keyring, Failure> {
        self.admission.offer(offer)?;
        let keyring = keyring_of(&self.catalogue.keys_for(offer)?)?;
        self.admission.signable(&offer.name, &keyring)?;
        Ok(keyring)
    }

    /// Brings one package into `directory`, or finds it there.
    ///
    /// # Errors
    /// When it cannot be had, or is not what was offered.
    pub async fn fetch(&self, offer: &Offer, directory: &Path) -> Result<Package, Failure> {
        let name = qube_name(&offer.name)?;
        let keyring = self.foresee(offer)?;
        let policy = Policy::build(name, offer.evr.clone());
        let file = format!("{PACKAGE_PREFIX}{}-{}", offer.name, offer.evr);
        let path = directory.join(format!("{file}.rpm"));
        if path.symlink_metadata().is_ok() {
            self.reporter.say(&Message::AlreadyThere(&path.display().to_string()));
            match self.check_there(&path, &policy, &keyring).await {
                Ok(verified) => return self.package(verified, offer, path, &keyring),
                Err(error @ Failure::Interrupted(_)) => return Err(error),
                Err(error) if self.rotten == Rotten::Refuse => return Err(error),
                Err(error) => {
                    self.reporter
                        .say(&Message::Warning(&format!("'{}' is of no use: {error}", path.display())));
                    std::fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
                }
            }
        }
        require_space(directory, offer.download_size)
            .with_context(|| format!("keeping the package in {}", directory.display()))?;
        self.reporter.say(&Message::Downloading(&file));
        let verified = self.download(offer, &file, directory, &policy, &keyring).await?;
        let package = self.package(verified, offer, path, &keyring)?;
        if let Some(path) = &package.file {
            package.verified.persist(path).with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(package)
    }

    fn package(
        &self,
        verified: Verified,
        offer: &Offer,
        path: PathBuf,
        keyring: &Keyring,
    ) -> Result<Package, Failure> {
        self.admission.package(&verified, &offer.repo, Some(keyring))?;
        if self.nogpgcheck {
            self.reporter.say(&Message::CheckedAnyway);
        }
        Ok(Package { verified, repo: offer.repo.clone(), file: Some(path) })
    }

    async fn check_there(
        &self,
        path: &Path,
        policy: &Policy,
        keyring: &Keyring,
    ) -> Result<Verified, Failure> {
        let subject = path.display().to_string();
        let meter = self.reporter.phase(Phase::Verify, &subject, None);
        let (path, policy, keyring) = (path.to_owned(), policy.clone(), keyring.clone());
        let verified = self
            .cancel
            .or(blocking(move || {
                let spooled = spool_local(&path, path.parent().unwrap_or_else(|| Path::new(".")))?;
                verify(spooled, &policy, &keyring, SystemTime::now()).map_err(|why| refused(&why))
            }))
            .await?;
        meter.finish();
        Ok(verified)
    }

    async fn download(
        &self,
        offer: &Offer,
        file: &str,
        directory: &Path,
        policy: &Policy,
        keyring: &Keyring,
    ) -> Result<Verified, Failure> {
        let request = self.catalogue.download_request(offer)?;
        let mut pause = PAUSE;
        let mut cause = String::new();
        for attempt in 1..=self.retries {
            if attempt > 1 {
                self.reporter.say(&Message::Retrying { file, cause: &cause });
                let waiting = async {
                    tokio::time::sleep(pause).await;
                    Ok(())
                };
                self.cancel.or(waiting).await?;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            let attempted = self.attempt(offer, file, directory, &request).await?;
            let spooled = match attempted {
                Ok(spooled) => spooled,
                Err(error) => {
                    cause = chain(&error);
                    if error.is_passing() { continue } else { break }
                }
            };
            let meter = self.reporter.phase(Phase::Verify, file, None);
            match verify(spooled, policy, keyring, SystemTime::now()) {
                Ok(verified) => {
                    meter.finish();
                    return Ok(verified);
                }
                Err(why @ (Rejection::OtherTemplate { .. } | Rejection::OtherBuild { .. })) => {
                    return Err(refused(&why));
                }
                Err(why) => {
                    cause = format!("the package is refused: {}", displayable(&why.to_string(), false))
                }
            }
        }
        self.reporter.say(&Message::DownloadFailed { file, cause: &cause });
        let message = Message::DownloadFailed { file, cause: &cause }.to_string();
        Err(Failure::Told { cause: "download-failed", message })
    }

    async fn attempt(
        &self,
        offer: &Offer,
        file: &str,
        directory: &Path,
        request: &Request,
    ) -> Result<Result<Spooled, DownloadError>, Failure> {
        let size = offer.download_size;
        let mut spool = Spool::create(directory, size)
            .with_context(|| format!("keeping the package in {}", directory.display()))?;
        let update_vm = self.catalogue.update_vm().await?;
        let mut meter = self.reporter.phase(Phase::Download, file, Some(size));
        let mut done = 0;
        let mut take = |bytes: &[u8]| {
            spool.write_all(bytes)?;
            done += u64::try_from(bytes.len()).unwrap_or(0);
            meter.at(done);
            Ok(())
        };
        let fetched =
            self.cancel.or(async { Ok(update_vm.download(request, size, &mut take).await) }).await?;
        Ok(match fetched {
            Ok(()) => {
                meter.finish();
                spool.finish().map_err(DownloadError::Keep)
            }
            Err(error) => Err(error),
        })
    }
}

/// The name of a template that is to become the name of a qube (R36).
///
/// # Errors
/// When no qube can have it.
pub fn qube_name(name: &str) -> Result<TemplateName, Failure> {
    TemplateName::new(name)
        .map_err(|why| Failure::new(format!("Template '{}' cannot be used: {why}", displayable(name, false))))
}

/// Certificates from key files.
///
/// # Errors
/// When one of them holds no certificate that can be read.
pub fn keyring_of(keys: &[KeyFile]) -> Result<Keyring, Failure> {
    let mut keyring = Keyring::default();
    for key in keys {
        let own = Keyring::parse(&key.bytes).with_context(|| format!("reading the key {}", key.path))?;
        keyring.extend(own).with_context(|| format!("reading the key {}", key.path))?;
    }
    Ok(keyring)
}

/// A local file, copied so that it cannot change any more, and judged: by `keyring`, or by its digests alone.
///
/// # Errors
/// When it cannot be copied, or is refused.
pub fn check_local(path: &Path, directory: &Path, keyring: Option<&Keyring>) -> Result<Verified, Failure> {
    let spooled = spool_local(path, directory)?;
    let verified = match keyring {
        Some(keyring) => verify(spooled, &Policy::any(), keyring, SystemTime::now()),
        None => check_digests_only(spooled, &Policy::any()),
    };
    verified.map_err(|why| match why {
        Rejection::NotATemplate(_) => {
            Failure::Usage(format!("Illegal package name for package '{}'.", path.display()))
        }
        other => refused(&other),
    })
}

fn spool_local(path: &Path, directory: &Path) -> Result<Spooled, Failure> {
    let mut file = File::open(path).with_context(|| format!("opening '{}'", path.display()))?;
    Ok(Spooled::copy_of(&mut file, directory, MAX_LOCAL)
        .with_context(|| format!("copying '{}'", path.display()))?)
}

/// The original's words for a verdict (M13), with the reason behind them.
fn refused(why: &Rejection) -> Failure {
    let text = displayable(&why.to_string(), false);
    match why {
        Rejection::OtherTemplate { .. } => {
            Failure::new("Downloaded package does not match expected template name")
        }
        Rejection::OtherBuild { .. } => {
            Failure::new(format!("Downloaded package does not match expected template version: {text}"))
        }
        _ => Failure::new(format!("Signature verification failed: {text}")),
    }
}

/// Runs `work` on a thread where waiting is allowed.
///
/// # Errors
/// Those of `work`.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Failure::new(format!("a thread ended unexpectedly: {error}"))),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
