//! Several templates, one after the other: the next package is fetched while the current one is put in place.

use super::{Job, Run, Source, Summary};
use crate::download::{Fetcher, Rotten};
use crate::ledger::{Build, Ending, Trouble};
use crate::post_install;
use crate::report::{Failure, Message};

impl<'c> Run<'_, 'c> {
    /// Fetches and installs what was planned. At most two packages are on the disk: the one being put in place, and the next.
    pub(super) async fn work_off(&self, jobs: Vec<Job>) -> Result<Summary, Failure> {
        let many = jobs.len() > 1;
        let mut summary = Summary::default();
        let mut waiting = jobs.into_iter();
        let mut current = self.fetch_next(&mut waiting).await;
        let ended = loop {
            let Some((name, fetched)) = current else { break Ok(()) };
            let (done, next) = match fetched {
                // Nothing to put in place: only the next one is left to be fetched.
                Err(failure) if self.goes_on(&failure, many) => {
                    (Err(failure), Some(self.fetch_next(&mut waiting).await))
                }
                Err(failure) => (Err(failure), None),
                Ok(job) => self.put_and_fetch(job, &mut waiting, many).await,
            };
            match done {
                Ok(outcome) => self.note_done(&mut summary, &name, outcome),
                Err(failure) => {
                    self.ledger.failed(&name, Trouble::of(&failure));
                    summary.failed.push(name.clone());
                    if !self.goes_on(&failure, many) {
                        break Err(failure);
                    }
                    self.say_failed(&name, &failure);
                }
            }
            current = next.flatten();
        };
        if many {
            self.ledger.close();
            self.sum_up();
        }
        ended?;
        match summary.failed.is_empty() {
            true => Ok(summary),
            false => Err(Failure::Told {
                cause: "some-failed",
                message: format!("not done: {}", summary.failed.join(", ")),
            }),
        }
    }

    /// Whether the others are begun although this failed: not with only one, and not when somebody wants us to stop.
    fn goes_on(&self, failure: &Failure, many: bool) -> bool {
        many && !self.order.fail_fast && !matches!(failure, Failure::Interrupted(_))
    }

    /// Puts one package in place and fetches the next one meanwhile. A failure after which nothing more is begun ends the
    /// fetching too.
    async fn put_and_fetch(
        &self,
        job: Job,
        waiting: &mut std::vec::IntoIter<Job>,
        many: bool,
    ) -> (Result<post_install::Outcome, Failure>, Option<Option<Fetched>>) {
        let putting = self.put(job);
        let fetching = self.fetch_next(waiting);
        tokio::pin!(putting, fetching);
        let mut next = None;
        let done = loop {
            tokio::select! {
                biased;
                done = &mut putting => break done,
                fetched = &mut fetching, if next.is_none() => next = Some(fetched),
            }
        };
        if done.as_ref().is_err_and(|failure| !self.goes_on(failure, many)) {
            return (done, None);
        }
        if next.is_none() {
            next = Some(fetching.await);
        }
        (done, next)
    }

    /// The next job with its package, or why that could not be had.
    async fn fetch_next(&self, waiting: &mut std::vec::IntoIter<Job>) -> Option<Fetched> {
        let job = waiting.next()?;
        Some((job.name.to_string(), self.fetch(job).await))
    }

    /// Says of each job whether it would be let in, as far as that shows before a download.
    pub(super) fn foresee(&self, jobs: &[Job]) -> Result<(), Failure> {
        jobs.iter().try_for_each(|job| match &job.source {
            Source::Offered(offer) => self.fetcher().foresee(offer).map(drop),
            Source::Local { .. } | Source::Fetched(_) => Ok(()),
        })
    }

    fn fetcher(&self) -> Fetcher<'_, 'c> {
        Fetcher {
            catalogue: self.catalogue,
            reporter: self.reporter,
            cancel: self.cancel,
            retries: self.order.retries,
            nogpgcheck: self.order.nogpgcheck,
            rotten: Rotten::Replace,
            admission: &self.admission,
        }
    }

    async fn fetch(&self, mut job: Job) -> Result<Job, Failure> {
        if let Source::Offered(offer) = &job.source {
            let package = self.fetcher().fetch(offer, &self.order.cache).await?;
            job.after = Build::of_package(&package.verified, package.repo.as_str());
            // Told at once: when it fails later on, the build and its signer are known.
            self.ledger.fetched(job.name.as_str(), job.after.clone());
            job.source = Source::Fetched(package);
        }
        Ok(job)
    }

    fn note_done(&self, summary: &mut Summary, name: &str, outcome: post_install::Outcome) {
        let mut ending = Ending::Done;
        if outcome == post_install::Outcome::Unfinished {
            summary.unfinished.push(name.to_owned());
            ending = Ending::NotFinalized;
        }
        self.ledger.done(name, ending, None);
        summary.done.push(name.to_owned());
    }

    /// Says a failure at once; the others go on.
    fn say_failed(&self, name: &str, failure: &Failure) {
        if !matches!(failure, Failure::Reported | Failure::Told { .. }) {
            let text = match failure {
                Failure::Failed(error) => format!("{error:#}"),
                other => other.to_string(),
            };
            self.reporter.say(&Message::Failed(name, &text));
        }
    }
}

/// A job's name, and the job with its package.
type Fetched = (String, Result<Job, Failure>);
