//! What a command did to each template, or would do: written down while it works, so that it can be told also when the
//! command fails half way.
//!
//! A use case makes an entry as soon as it knows what it is going to do ([`Ledger::plan`]) and says how that ended
//! ([`Ledger::done`], [`Ledger::failed`], ...). What is only planned when a failure ends the command was not begun, and
//! [`Ledger::close`] says so.

use std::cell::RefCell;

use serde_json::{Map, Value};

use crate::admin::CallError;
use crate::lock::LockError;
use crate::report::Failure;
use crate::template::Installed;
use crate::update_vm::{DownloadError, SearchError};
use crate::verify::{Rejection, Verified};

/// A build of a template, as it is shown. All texts are fit for that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Build {
    /// `epoch:version-release`.
    pub evr: String,
    /// Repository that it comes from, or `@commandline`; empty where nobody knows.
    pub repo: String,
    /// When it was built, `YYYY-MM-DD HH:MM:SS` in UTC; empty where nobody knows.
    pub build_time: String,
    /// Bytes of the package; known of packages and offers only.
    pub size: Option<u64>,
    /// Fingerprint of the certificate that signed it; known once the package was verified.
    pub signer: Option<String>,
}

/// What is done to a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Action {
    Install,
    Reinstall,
    Upgrade,
    Downgrade,
    Renew,
    Download,
    Remove,
    Switch,
    Adopt,
    Describe,
    Rollback,
    Finalize,
    None,
}

/// How that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was done.
    Done,
    /// It would be done, or was to be done and not begun yet.
    Planned,
    /// There was nothing to do, or it was left out; the reason says why.
    Skipped,
    /// It failed; the template is as it was unless the error says otherwise.
    Failed,
    /// It was done, but for the first start.
    NotFinalized,
}

/// Why something failed, for programs and for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trouble {
    /// A word that stays the same in all versions.
    pub cause: &'static str,
    /// The text, without what to do about it.
    pub message: String,
    /// What to do about it, where that is known.
    pub help: Option<String>,
}

/// What became of one template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Name of the qube.
    pub name: String,
    /// What was to be done.
    pub action: Action,
    /// How it ended.
    pub ending: Ending,
    /// The build from before, where there was one.
    pub before: Option<Build>,
    /// The build that is there afterwards, or would be.
    pub after: Option<Build>,
    /// Why it was skipped or left, or a remark.
    pub reason: Option<String>,
    /// Why it failed.
    pub trouble: Option<Trouble>,
}

/// The entries of one command, in the order in which they were planned.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: RefCell<Vec<Entry>>,
    warnings: RefCell<Vec<String>>,
    more: RefCell<Map<String, Value>>,
}

impl Action {
    /// As programs read it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Install => "install",
            Self::Reinstall => "reinstall",
            Self::Upgrade => "upgrade",
            Self::Downgrade => "downgrade",
            Self::Renew => "renew",
            Self::Download => "download",
            Self::Remove => "remove",
            Self::Switch => "switch",
            Self::Adopt => "adopt",
            Self::Describe => "refresh-metadata",
            Self::Rollback => "rollback",
            Self::Finalize => "finalize",
            Self::None => "none",
        }
    }
}

impl Ending {
    /// As programs read it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Planned => "planned",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
            Self::NotFinalized => "not-finalized",
        }
    }
}

impl Ledger {
    /// Writes down that this is going to happen. A second plan for the same name takes the place of the first.
    pub fn plan(&self, name: &str, action: Action, before: Option<Build>, after: Option<Build>) {
        let entry = Entry {
            name: name.to_owned(),
            action,
            ending: Ending::Planned,
            before,
            after,
            reason: None,
            trouble: None,
        };
        let mut entries = self.entries.borrow_mut();
        match entries.iter_mut().find(|have| have.name == name) {
            Some(have) => *have = entry,
            None => entries.push(entry),
        }
    }

    /// Writes down that nothing is done to a template, and why.
    pub fn skip(&self, name: &str, reason: &str) {
        self.change(name, |entry| {
            entry.ending = Ending::Skipped;
            entry.reason = Some(reason.to_owned());
        });
    }

    /// Writes down that it was done, with what is there now.
    pub fn done(&self, name: &str, ending: Ending, after: Option<Build>) {
        self.change(name, |entry| {
            entry.ending = ending;
            if after.is_some() {
                entry.after = after;
            }
        });
    }

    /// Writes down which build is going to be there, once its package is known.
    pub fn fetched(&self, name: &str, after: Build) {
        self.change(name, |entry| entry.after = Some(after));
    }

    /// Writes down which build was there before.
    pub fn was(&self, name: &str, before: Option<Build>) {
        self.change(name, |entry| entry.before = before);
    }

    /// Adds a remark.
    pub fn remark(&self, name: &str, reason: &str) {
        self.change(name, |entry| entry.reason = Some(reason.to_owned()));
    }

    /// Writes down that it failed.
    pub fn failed(&self, name: &str, trouble: Trouble) {
        self.change(name, |entry| {
            entry.ending = Ending::Failed;
            entry.trouble = Some(trouble);
        });
    }

    /// Says of all that is still only planned that it was not begun, because of a failure elsewhere.
    pub fn close(&self) {
        for entry in self.entries.borrow_mut().iter_mut().filter(|entry| entry.ending == Ending::Planned) {
            entry.ending = Ending::Skipped;
            entry.reason.get_or_insert_with(|| "not begun".to_owned());
        }
    }

    /// Remembers a warning that was said.
    pub fn warn(&self, text: String) {
        self.warnings.borrow_mut().push(text);
    }

    /// The warnings so far.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.borrow().clone()
    }

    /// Adds what only this command has to tell, under a key of its own; a second value takes the place of the first.
    pub fn tell(&self, key: &str, value: Value) {
        self.more.borrow_mut().insert(key.to_owned(), value);
    }

    /// What was told so.
    #[must_use]
    pub fn told(&self) -> Map<String, Value> {
        self.more.borrow().clone()
    }

    /// The entries so far.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.entries.borrow().clone()
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Entry)) {
        if !self.entries.borrow().iter().any(|entry| entry.name == name) {
            self.plan(name, Action::None, None, None);
        }
        if let Some(entry) = self.entries.borrow_mut().iter_mut().find(|entry| entry.name == name) {
            change(entry);
        }
    }
}

impl Build {
    /// The build that features tell; `None` where they tell none.
    #[must_use]
    pub fn of_installed(installed: &Installed) -> Option<Self> {
        let evr = installed.evr()?;
        let (repo, build_time) = (installed.repo.clone(), installed.build_time.clone());
        Some(Self { evr: evr.to_string(), repo, build_time, ..Self::default() })
    }

    /// The build in a package that `repo` vouched for.
    #[must_use]
    pub fn of_package(package: &Verified, repo: &str) -> Self {
        Self {
            evr: package.info().nevra.evr.to_string(),
            repo: repo.to_owned(),
            build_time: package.info().build_time.to_string(),
            size: Some(package.size()),
            signer: package.signer().map(|signer| signer.certificate.clone()),
        }
    }

    /// The build that a repository offers.
    #[must_use]
    pub fn of_offer(offer: &crate::template::Offer) -> Self {
        Self {
            evr: offer.evr.to_string(),
            repo: offer.repo.to_string(),
            build_time: offer.build_time.to_string(),
            size: Some(offer.download_size),
            signer: None,
        }
    }
}

impl Trouble {
    /// What there is to say of a failure: its text with all causes, and what to do about it.
    #[must_use]
    pub fn of(failure: &Failure) -> Self {
        let text = match failure {
            Failure::Failed(error) => format!("{error:#}"),
            other => other.to_string(),
        };
        let mut lines = text.lines();
        let mut message: Vec<&str> = Vec::new();
        let mut help: Vec<&str> = Vec::new();
        for line in &mut lines {
            match line.strip_prefix("help: ") {
                Some(line) => help.push(line),
                None if help.is_empty() => message.push(line),
                None => help.push(line),
            }
        }
        let help = Some(help.join("\n")).filter(|help| !help.is_empty());
        Self { cause: cause(failure), message: message.join("\n"), help }
    }
}

/// A word for the cause of a failure that stays the same in all versions.
fn cause(failure: &Failure) -> &'static str {
    let error = match failure {
        Failure::Usage(_) => return "usage",
        Failure::Declined => return "declined",
        Failure::Interrupted(_) => return "interrupted",
        Failure::Told { cause, .. } => return cause,
        Failure::Reported => return "failed",
        Failure::Failed(error) => error,
    };
    for cause in error.chain() {
        if let Some(call) = cause.downcast_ref::<CallError>() {
            return if call.is_denied() { "denied" } else { "admin-call-failed" };
        }
        if let Some(lock) = cause.downcast_ref::<LockError>() {
            let taken = matches!(lock, LockError::Busy { .. } | LockError::Changing { .. });
            return if taken { "locked" } else { "lock-failed" };
        }
        if cause.is::<SearchError>() {
            return "search-failed";
        }
        if cause.is::<DownloadError>() {
            return "download-failed";
        }
        if cause.is::<Rejection>() {
            return "package-refused";
        }
        if cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::StorageFull)
        {
            return "no-space";
        }
    }
    "failed"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::CallName;

    #[test]
    fn what_was_only_planned_was_not_begun() {
        let ledger = Ledger::default();
        ledger.plan("a", Action::Install, None, Some(Build { evr: "0:1-1".into(), ..Build::default() }));
        ledger.plan("b", Action::Install, None, None);
        ledger.plan("c", Action::Install, None, None);
        ledger.done("a", Ending::Done, None);
        ledger.failed("b", Trouble::of(&Failure::new("it broke\nhelp: mend it")));
        ledger.skip("d", "it is there");
        ledger.close();
        let shown: Vec<String> = ledger
            .entries()
            .iter()
            .map(|e| format!("{} {} {} {:?}", e.name, e.action.word(), e.ending.word(), e.reason))
            .collect();
        assert_eq!(
            shown,
            [
                "a install done None",
                "b install failed None",
                "c install skipped Some(\"not begun\")",
                "d none skipped Some(\"it is there\")"
            ]
        );
        assert_eq!(ledger.entries()[0].after.as_ref().map(|build| build.evr.as_str()), Some("0:1-1"));
        let trouble = ledger.entries()[1].trouble.clone().unwrap();
        assert_eq!((trouble.message.as_str(), trouble.help.as_deref()), ("it broke", Some("mend it")));
    }

    #[test]
    fn causes_have_words() {
        let denied = CallError::Denied(CallName::new("t", "admin.vm.Remove", None));
        assert_eq!(Trouble::of(&denied.into()).cause, "denied");
        let nested = anyhow::Error::from(CallError::Empty(CallName::new("t", "x", None))).context("doing");
        assert_eq!(Trouble::of(&nested.into()).cause, "admin-call-failed");
        assert_eq!(Trouble::of(&Failure::Usage("x".into())).cause, "usage");
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        assert_eq!(Trouble::of(&anyhow::Error::from(full).into()).cause, "no-space");
    }
}
