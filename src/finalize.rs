//! `finalize`: the first start of a template again, and nothing else.

use crate::admin::{QubeApi, system};
use crate::install::must_be_off;
use crate::journal::{Journal, Step, Store};
use crate::lock::Lock;
use crate::post_install::{self, Outcome};
use crate::report::{Failure, Meter, Phase};
use crate::settings;
use crate::state::Directory;
use crate::template::TemplateName;
use crate::template::installed::MARKER;
use crate::transaction::{Desk, Transaction};

/// Repeats the first start of these templates, one after the other, and tells of each how it went.
///
/// # Errors
/// When a template is not there, is not managed, is not off, or cannot be dealt with. It is then as it was.
pub async fn run(
    desk: &Desk<'_>,
    state: &Directory,
    lock: &Lock,
    names: &[String],
) -> Result<Vec<(String, Outcome)>, Failure> {
    let mut outcomes = Vec::new();
    for name in names {
        let name = TemplateName::new(name).map_err(|error| Failure::Usage(error.to_string()))?;
        lock.template(name.as_str()).map_err(anyhow::Error::from)?;
        let outcome = one(desk, state, &name).await?;
        outcomes.push((name.to_string(), outcome));
    }
    Ok(outcomes)
}

async fn one(desk: &Desk<'_>, state: &Directory, name: &TemplateName) -> Result<Outcome, Failure> {
    let qubes = desk.cancel.or(async { Ok(system::list(desk.api).await?) }).await?;
    let Some(qube) = qubes.iter().find(|qube| qube.name == name.as_str() && qube.is_template()) else {
        return Err(Failure::Usage(format!("Template '{name}' not already installed.")));
    };
    if Store::new(state).read(name.as_str()).is_some() {
        return Err(Failure::new(format!(
            "template '{name}' was left in the middle of another command\n\
             help: 'qvm-template recover {name}' puts it right"
        )));
    }
    must_be_off(qube)?;
    let marker = QubeApi::new(desk.api, name.as_str()).feature(MARKER).await?;
    if marker.as_deref() != Some(name.as_str()) {
        return Err(Failure::Usage(format!("Template '{name}' is not managed by qvm-template.")));
    }
    let mut notes = Journal::new(name.as_str(), "finalize", false);
    notes.step = Step::Begun;
    let mut transaction = Transaction::replace(*desk, name, &settings::touched_features(), notes).await?;
    let meter = desk.reporter.phase(Phase::PostInstall, name.as_str(), None);
    match post_install::run(&mut transaction).await {
        Ok(outcome) => {
            Meter::finish(meter);
            transaction.commit().await;
            Ok(outcome)
        }
        Err(error) => {
            transaction.undo().await;
            Err(error)
        }
    }
}
