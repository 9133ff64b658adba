//! Before the first change: what the template has, and that dom0 keeps it.

use super::{READS, Transaction};
use crate::admin::{CallError, Pending, bounded, system};
use crate::journal::{Info, Step};
use crate::report::Failure;

/// How many revisions are kept for the time of the work beyond what was asked for: one for each commit that there can
/// be (import, first start, going back), so that none of them pushes the old content out.
const SPARE: i64 = 3;

impl Transaction<'_> {
    /// Reads what may be changed; where the template is going to run, all that there is, since it has features set for
    /// itself then.
    pub(super) async fn read_features(&mut self, features: &[&str]) -> Result<(), Failure> {
        let qube = self.qube();
        let mut names: Vec<String> = features.iter().map(|name| (*name).to_owned()).collect();
        if self.desk.state.is_some() && !self.notes.skip_start {
            let without =
                "features that the template sets for itself at its first start stay when going back";
            let listing =
                self.desk.extras.call(self.desk.reporter, without, "admin.vm.feature.List", qube.features());
            if let Some(listed) = self.desk.cancel.or(async { Ok(listing.await?) }).await? {
                names.extend(listed);
                self.notes.all_features = true;
            }
        }
        names.sort_unstable();
        names.dedup();
        let reads = names
            .iter()
            .map(|name| Box::pin(async move { qube.feature(name).await }) as Pending<'_, _>)
            .collect();
        let values = self.desk.cancel.or(async { Ok(bounded(READS, reads).await) }).await?;
        for (name, value) in names.into_iter().zip(values) {
            self.notes.features.insert(name, value?);
        }
        Ok(())
    }

    /// Reads what its volumes have, and says so where there will be no way back.
    pub(super) async fn read_volumes(&mut self) -> Result<(), Failure> {
        for volume in ["root", "private"] {
            let reading = self.read_volume(volume);
            let (revisions, info) = self.desk.cancel.or(async { Ok(reading.await?) }).await?;
            let kept = self.notes.volume(volume);
            (kept.revisions, kept.info) = (revisions, info);
        }
        Ok(())
    }

    async fn read_volume(&self, volume: &str) -> Result<(Option<Vec<String>>, Option<Info>), CallError> {
        let (qube, extras, reporter) = (self.qube(), self.desk.extras, self.desk.reporter);
        let Some(revisions) = self.unless_denied(qube.revisions(volume).await)? else {
            return Ok((None, None));
        };
        let revisions = Some(revisions);
        let Some(info) = self.unless_denied(qube.volume(volume).await)? else { return Ok((revisions, None)) };
        let without = "nobody knows beforehand whether the storage pool keeps a way back";
        let reading = system::pool(self.desk.api, &info.pool);
        let pool = extras.call(reporter, without, "admin.pool.Info", reading).await;
        let pool = match pool {
            Ok(pool) => pool,
            Err(CallError::Api { .. } | CallError::Empty(_)) => None,
            Err(error) => return Err(error),
        };
        let driver =
            pool.and_then(|pairs| pairs.into_iter().find(|(key, _)| key == "driver").map(|(_, value)| value));
        let info = Info {
            pool: info.pool,
            driver,
            size: info.size,
            usage: info.usage,
            keep: info.revisions_to_keep,
        };
        Ok((revisions, Some(info)))
    }

    fn unless_denied<T>(&self, answer: Result<T, CallError>) -> Result<Option<T>, CallError> {
        match answer {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_denied() => {
                self.warn(&format!("there will be no way back: {error}"));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Has dom0 keep the old content also through the first start, where it would not.
    pub(super) async fn keep_more(&mut self) -> Result<(), Failure> {
        let needed = if self.notes.skip_start { 1 } else { 2 };
        for volume in ["root", "private"] {
            let kept = self.notes.volume(volume);
            let Some(keep) = kept.info.as_ref().map(|info| info.keep) else { continue };
            if !kept.could_keep() || keep >= needed {
                continue;
            }
            kept.raised = Some(keep + SPARE);
            self.step(Step::KeepingMore, "keeping-more")?;
            let (qube, extras) = (self.qube(), self.desk.extras);
            let without = "there is no way back once the template has run for the first time";
            let call = format!("admin.vm.volume.Set.revisions_to_keep+{volume}");
            let raising =
                extras.call(self.desk.reporter, without, &call, qube.keep_revisions(volume, keep + SPARE));
            let done = self.desk.cancel.or(async { Ok(raising.await?) }).await?;
            if done.is_none() {
                self.notes.volume(volume).raised = None;
            }
        }
        self.say_no_way_back();
        Ok(())
    }

    fn say_no_way_back(&self) {
        let without =
            [&self.notes.root, &self.notes.private].into_iter().find(|kept| kept.keeps() == Some(false));
        let Some(info) = without.and_then(|kept| kept.info.as_ref()) else { return };
        let driver = info.driver.as_deref().unwrap_or("unknown");
        self.say(&format!(
            "storage pool '{}' (driver {driver}) keeps no earlier content of this template: once the new image is in, \
             there is no way back; what is cut short after that is completed instead",
            info.pool
        ));
    }

    /// After a commit of `volume`: which revision has the content from before.
    pub(super) async fn note_old(&mut self, volume: &str) {
        let qube = self.qube();
        let Some(before) = self.notes.volume(volume).revisions.clone() else {
            self.notes.volume(volume).replaced = true;
            return;
        };
        let Ok(now) = qube.revisions(volume).await else { return };
        let kept = self.notes.volume(volume);
        (kept.old, kept.replaced) = (now.into_iter().find(|id| !before.contains(id)), true);
    }
}
