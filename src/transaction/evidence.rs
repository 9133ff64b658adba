//! What became of a volume, told from what dom0 says about it.
//!
//! A pool that keeps revisions adds one at each commit (import, clear, the stop of a qube that ran): the content that
//! was replaced, under a new name. So after the one commit of ours the only name that was not there before is the way
//! back. Once that was seen it is written down, since later commits add names too.
//!
//! A pool that keeps none tells less: a volume whose size and usage are what they were counts as untouched. (The one
//! case in which that is wrong, an image of the same size that takes the same number of bytes, is that of the same
//! image again.)

use crate::admin::qube::VolumeInfo;
use crate::journal::Kept;

/// Drivers that keep what is replaced as a revision.
const KEEPS: [&str; 2] = ["lvm_thin", "file-reflink"];
/// Drivers that do not.
const KEEPS_NOT: [&str; 2] = ["zfs", "file"];

/// What became of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is as it was.
    Untouched,
    /// It was replaced, and this revision is what it was.
    Replaced(String),
    /// It was replaced, and what it was is gone.
    Gone,
    /// Nobody knows.
    Unknown,
}

impl Kept {
    /// Whether the pool keeps what is replaced; `None` where that is not known.
    #[must_use]
    pub fn keeps(&self) -> Option<bool> {
        let info = self.info.as_ref()?;
        if self.raised.unwrap_or(info.keep) < 1 {
            return Some(false);
        }
        let driver = info.driver.as_deref()?;
        if KEEPS.contains(&driver) {
            return Some(true);
        }
        KEEPS_NOT.contains(&driver).then_some(false)
    }

    /// Whether the pool would keep what is replaced if it were told to keep revisions.
    #[must_use]
    pub fn could_keep(&self) -> bool {
        let Some(info) = &self.info else { return false };
        info.keep >= 0 && info.driver.as_deref().is_some_and(|driver| KEEPS.contains(&driver))
    }

    /// What became of the volume, told from its revisions and from what dom0 says about it now.
    #[must_use]
    pub fn fate(&self, revisions: Option<&[String]>, info: Option<&VolumeInfo>) -> Fate {
        if !self.touched {
            return Fate::Untouched;
        }
        if self.replaced {
            return match (&self.old, revisions) {
                (Some(old), Some(now)) if now.contains(old) => Fate::Replaced(old.clone()),
                (Some(_), None) => Fate::Unknown,
                // Some drivers take the revision out of the list when they put it back.
                (Some(_), Some(_)) if self.reverting => Fate::Untouched,
                _ => Fate::Gone,
            };
        }
        if let (Some(before), Some(now)) = (&self.revisions, revisions) {
            if let Some(new) = now.iter().find(|id| !before.contains(id)) {
                return Fate::Replaced(new.clone());
            }
            if self.keeps() == Some(true) {
                return Fate::Untouched;
            }
            if before.iter().any(|id| !now.contains(id)) {
                return Fate::Gone;
            }
        }
        match (&self.info, info) {
            (Some(before), Some(now)) if (before.size, before.usage) == (now.size, now.usage) => {
                Fate::Untouched
            }
            (Some(_), Some(_)) => Fate::Gone,
            _ => Fate::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Info;

    fn kept(driver: &str, keep: i64, revisions: &[&str]) -> Kept {
        let driver = Some(driver.to_owned()).filter(|driver| !driver.is_empty());
        let info = Info { pool: "p".into(), driver, size: 10, usage: 5, keep };
        let revisions = Some(revisions.iter().map(|id| (*id).to_owned()).collect());
        Kept { revisions, info: Some(info), touched: true, ..Kept::default() }
    }

    fn fate(kept: &Kept, now: &[&str], usage: u64) -> Fate {
        let now: Vec<String> = now.iter().map(|id| (*id).to_owned()).collect();
        let info = VolumeInfo { size: 10, usage, ..VolumeInfo::default() };
        kept.fate(Some(&now), Some(&info))
    }

    #[test]
    fn one_new_revision_is_the_way_back() {
        for driver in ["lvm_thin", "file-reflink", ""] {
            assert_eq!(fate(&kept(driver, 1, &["1"]), &["2"], 7), Fate::Replaced("2".into()), "{driver}");
        }
        assert_eq!(fate(&kept("lvm_thin", 1, &["1"]), &["1"], 7), Fate::Untouched);
        assert_eq!(fate(&Kept { touched: false, ..kept("zfs", 1, &[]) }, &["9"], 7), Fate::Untouched);
    }

    #[test]
    fn what_was_seen_counts_and_must_still_be_there() {
        let seen = Kept { replaced: true, old: Some("2".into()), ..kept("lvm_thin", 1, &["1"]) };
        assert_eq!(fate(&seen, &["2", "3"], 7), Fate::Replaced("2".into()));
        assert_eq!(fate(&seen, &["3"], 7), Fate::Gone);
        assert_eq!(seen.fate(None, None), Fate::Unknown);
        let back = Kept { reverting: true, ..seen };
        assert_eq!(fate(&back, &["3"], 7), Fate::Untouched);
        assert_eq!(fate(&back, &["2"], 7), Fate::Replaced("2".into()));
        let none = Kept { replaced: true, ..kept("zfs", 1, &[]) };
        assert_eq!(fate(&none, &["3"], 5), Fate::Gone);
    }

    #[test]
    fn without_revisions_size_and_usage_tell() {
        for driver in ["zfs", "file", ""] {
            assert_eq!(fate(&kept(driver, 1, &[]), &[], 5), Fate::Untouched, "{driver}");
            assert_eq!(fate(&kept(driver, 1, &[]), &[], 6), Fate::Gone, "{driver}");
            assert_eq!(fate(&kept(driver, 1, &["a"]), &[], 5), Fate::Gone, "{driver}");
        }
        assert_eq!(fate(&kept("lvm_thin", 0, &[]), &[], 6), Fate::Gone);
        assert_eq!(kept("lvm_thin", 0, &[]).fate(None, None), Fate::Unknown);
    }

    #[test]
    fn keeping_depends_on_driver_and_number() {
        assert_eq!(kept("lvm_thin", 1, &[]).keeps(), Some(true));
        assert_eq!(kept("lvm_thin", 0, &[]).keeps(), Some(false));
        assert_eq!(Kept { raised: Some(3), ..kept("lvm_thin", 0, &[]) }.keeps(), Some(true));
        assert_eq!(kept("zfs", 3, &[]).keeps(), Some(false));
        assert_eq!((kept("", 3, &[]).keeps(), Kept::default().keeps()), (None, None));
        assert!(kept("lvm_thin", 0, &[]).could_keep() && !kept("lvm_thin", -1, &[]).could_keep());
        assert!(!kept("zfs", 1, &[]).could_keep() && !kept("", 1, &[]).could_keep());
    }
}
