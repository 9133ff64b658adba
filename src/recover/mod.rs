//! `recover`: work on a template that was cut short, finished or undone.
//!
//! What was begun stands in a [`Journal`]; what became of it is found out from dom0.
//!
//! | the journal says | and then |
//! |---|---|
//! | a new template, not started yet | it is removed |
//! | a new template, at its first start or after it | it is completed, and marked as not finalized |
//! | an existing template | it goes back to what it was: root, private volume, features, properties |
//! | the same, and the pool has not kept the old content | it is completed, and marked as not finalized |
//! | all was done | what was only for the time of the work is taken back |
//! | nothing was done yet, or the template is gone | nothing |
//!
//! No qube is removed that is not what the journal tells of: it is a template that does not say yet what it is, or says it
//! in the step that the journal names, and its root volume is blank or has the size of the image. Where the journal is gone
//! or cannot be read any more, a template that does not say what it is may be somebody's own: whoever named it is asked.

mod complete;

use crate::admin::{QubeApi, system};
use crate::journal::{Entry, Journal, Step, Store, unfinished};
use crate::lock::Lock;
use crate::report::{Failure, Message};
use crate::state::Directory;
use crate::template::TemplateName;
use crate::template::installed::MARKER;
use crate::transaction::{Desk, Transaction, Undone};

pub use self::complete::{complete, complete_instead};

/// A root volume that takes no more than this many bytes has never been written to; some drivers count a little.
const BLANK: u64 = 1 << 20;

/// What became of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing had been changed.
    Nothing,
    /// It is what it was before.
    WentBack,
    /// It was new and is gone.
    Removed,
    /// It is the new one.
    Finished,
    /// It is the new one but for its first start.
    NotFinalized,
    /// It is not there any more.
    Gone,
    /// What is there is not ours to touch, and stays as it is.
    Left,
}

impl Outcome {
    /// The word for it in our JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Nothing => "nothing-changed",
            Self::WentBack => "went-back",
            Self::Removed => "removed",
            Self::Finished => "finished",
            Self::NotFinalized => "not-finalized",
            Self::Gone => "gone",
            Self::Left => "left",
        }
    }

    /// A sentence about a template of which this became.
    #[must_use]
    pub fn told(self, name: &str) -> String {
        match self {
            Self::Nothing => format!("{name}: nothing had been changed"),
            Self::WentBack => format!("{name}: is what it was before"),
            Self::Removed => format!("{name}: the unfinished template was removed"),
            Self::Finished => format!("{name}: is complete"),
            Self::NotFinalized => {
                format!("{name}: is installed; 'qvm-template finalize {name}' repeats its first start")
            }
            Self::Gone => format!("{name}: is not there any more; nothing to do"),
            Self::Left => format!("{name}: is left as it is"),
        }
    }
}

/// Finishes or undoes what was cut short, of these templates or of all.
///
/// # Errors
/// When a template is under work, has nothing to recover, or cannot be recovered now.
pub async fn run(
    desk: &Desk<'_>,
    state: &Directory,
    lock: &Lock,
    names: &[String],
    yes: bool,
) -> Result<Vec<(String, Outcome)>, Failure> {
    let named: Vec<String> = if names.is_empty() { unfinished(state) } else { names.to_vec() };
    let mut outcomes = Vec::new();
    for name in named {
        let name = TemplateName::new(&name).map_err(|error| Failure::Usage(error.to_string()))?;
        lock.template(name.as_str()).map_err(anyhow::Error::from)?;
        outcomes.push((
            name.to_string(),
            one(desk, state, &name, if yes { Nameless::Remove } else { Nameless::Ask }).await?,
        ));
    }
    Ok(outcomes)
}

/// What is done with a template of which neither a journal nor its features say what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nameless {
    /// It stays, and that is a failure.
    Leave,
    /// It is removed if the user says so.
    Ask,
    /// It is removed.
    Remove,
}

/// Finishes or undoes what was cut short of one template, whose lock the caller holds.
///
/// # Errors
/// When there is nothing to recover, or it cannot be done now. Then the journal stays.
pub async fn one(
    desk: &Desk<'_>,
    state: &Directory,
    name: &TemplateName,
    nameless: Nameless,
) -> Result<Outcome, Failure> {
    let store = Store::new(state);
    let entry = store.read(name.as_str());
    let qubes = system::list(desk.api).await?;
    let there = qubes.iter().find(|qube| qube.name == name.as_str());
    let none = || Failure::Usage(format!("There is no unfinished work on a template '{name}'."));
    let outcome = match (entry, there) {
        (None, None) => return Err(none()),
        (Some(_), None) => Outcome::Gone,
        (Some(Entry::Told(journal)), Some(qube)) => told(desk, name, *journal, qube).await?,
        (entry, Some(qube)) => {
            let says = QubeApi::new(desk.api, name.as_str()).feature(MARKER).await?;
            match (entry, says) {
                (_, None) if qube.is_template() && qube.is_halted() => remove(desk, name, nameless).await?,
                (None, _) => return Err(none()),
                (Some(_), _) => {
                    let text = format!(
                        "what was done to '{name}' cannot be told any more, since its journal is damaged; it is left \
                         as it is\nhelp: 'qvm-template reinstall {name}' makes it whole"
                    );
                    desk.reporter.say(&Message::Warning(&text));
                    Outcome::Left
                }
            }
        }
    };
    store.remove(name.as_str())?;
    Ok(outcome)
}

/// Goes by what a journal tells.
async fn told(
    desk: &Desk<'_>,
    name: &TemplateName,
    journal: Journal,
    qube: &system::Qube,
) -> Result<Outcome, Failure> {
    let (is_new, step, may_run) = (journal.is_new, journal.step, journal.may_run);
    if is_new && !is_ours(desk, name, &journal, qube).await? {
        let text = format!(
            "'{name}' was not made by the command that was cut short, and is left as it is\n\
             help: 'qvm-template remove {name}' removes it"
        );
        desk.reporter.say(&Message::Warning(&text));
        return Ok(Outcome::Left);
    }
    if !may_run && !qube.is_halted() && step != Step::Begun {
        return Err(Failure::new(format!(
            "Template '{name}' is not shut down (it is {}), and cannot be recovered now\n\
             help: 'qvm-shutdown --wait {name}' in dom0 shuts it down",
            qube.state.to_lowercase()
        )));
    }
    let transaction = Transaction::resume(*desk, name, journal);
    match step {
        Step::Begun => Ok(Outcome::Nothing),
        Step::Committed => {
            transaction.commit().await;
            Ok(Outcome::Finished)
        }
        _ if is_new && step >= Step::Starting => complete(transaction).await,
        _ => match transaction.undo().await {
            Undone::Complete if is_new => Ok(Outcome::Removed),
            Undone::Complete => Ok(Outcome::WentBack),
            Undone::NoWayBack(transaction) => complete(transaction).await,
            Undone::Partly(_) => Err(Failure::new(format!(
                "template '{name}' is not what it was\nhelp: mend the cause, then run 'qvm-template recover {name}' again"
            ))),
        },
    }
}

/// Whether a qube is the one that a journal tells of as new.
async fn is_ours(
    desk: &Desk<'_>,
    name: &TemplateName,
    journal: &Journal,
    qube: &system::Qube,
) -> Result<bool, Failure> {
    let api = QubeApi::new(desk.api, name.as_str());
    if !qube.is_template() {
        return Ok(false);
    }
    match api.feature(MARKER).await? {
        // The features that describe it are set last.
        Some(says) => return Ok(says == name.as_str() && journal.step >= Step::Describing),
        None if journal.step == Step::Committed => return Ok(false),
        None => {}
    }
    if !journal.may_run && !qube.is_halted() {
        return Ok(false);
    }
    let root = api.volume("root").await?;
    Ok(root.usage <= BLANK || journal.step > Step::Creating && journal.goal.size == Some(root.size))
}

/// Removes a template that does not say what it is.
async fn remove(desk: &Desk<'_>, name: &TemplateName, nameless: Nameless) -> Result<Outcome, Failure> {
    let names = [name.to_string()];
    let question =
        "This does not say what it is, as templates do that were never finished. It will be removed:";
    let goes = match nameless {
        Nameless::Leave => {
            return Err(Failure::new(format!(
                "what was done to '{name}' cannot be told any more, since its journal is damaged\n\
                 help: 'qvm-template recover {name}' removes it"
            )));
        }
        Nameless::Ask => desk.reporter.confirm(question, &names).await.map_err(Failure::new)?,
        Nameless::Remove => true,
    };
    if !goes {
        return Err(Failure::Declined);
    }
    QubeApi::new(desk.api, name.as_str()).remove().await?;
    Ok(Outcome::Removed)
}
