//! The way forward: a template that has its new image gets all that belongs to it.

use super::Outcome;
use crate::cancel::Cancel;
use crate::journal::Step;
use crate::payload::TemplateFiles;
use crate::report::Failure;
use crate::settings;
use crate::template::conf::AllowPv;
use crate::template::installed::NOT_FINALIZED;
use crate::transaction::{Desk, Transaction};
use crate::verify::TEMPLATES;

/// Completes a template whose root volume has the new image, all but the first start. What was done already is done
/// again.
///
/// # Errors
/// When it cannot be done now. The journal stays, and tells how far it came.
pub async fn complete(mut transaction: Transaction<'_>) -> Result<Outcome, Failure> {
    let notes = transaction.notes().clone();
    let name = transaction.name().to_string();
    let again = |error: Failure| {
        Failure::new(format!(
            "template '{name}' has its new image, but not all that belongs to it: {error}\n\
             help: mend the cause, then run 'qvm-template recover {name}'"
        ))
    };
    let files = notes.goal.files.as_ref().filter(|_| !notes.goal.description.is_empty());
    let Some(files) = files.map(TemplateFiles::from) else {
        return Err(Failure::new(format!(
            "template '{name}' has a new image, and what belongs to it is not known\n\
             help: 'qvm-template reinstall {name}' makes it whole"
        )));
    };
    if notes.may_run {
        if transaction.qube().shutdown_and_wait().await.is_err() && !transaction.power_off_now().await {
            return Err(again(Failure::new("it does not shut down")));
        }
        transaction.note_off();
    }
    put(&mut transaction, &files).await.map_err(again)?;
    let finalized = notes.skip_start;
    transaction.commit().await;
    Ok(if finalized { Outcome::Finished } else { Outcome::NotFinalized })
}

/// As [`complete`], for who was stopped: what is left is done all the same.
///
/// # Errors
/// As [`complete`].
pub async fn complete_instead(transaction: Transaction<'_>) -> Result<Outcome, Failure> {
    let cancel = Cancel::never();
    let name = transaction.name().clone();
    let (desk, notes) = transaction.into_parts();
    complete(Transaction::resume(Desk { cancel: &cancel, ..desk }, &name, notes)).await
}

async fn put(transaction: &mut Transaction<'_>, files: &TemplateFiles) -> Result<(), Failure> {
    let notes = transaction.notes().clone();
    if !notes.is_new && !notes.private.replaced {
        transaction.clear_private().await?;
    }
    transaction.step(Step::Settings, "settings")?;
    transaction.set_property("installed_by_rpm", "False").await?;
    let allow_pv = if notes.goal.allow_pv { AllowPv::Yes } else { AllowPv::No };
    let directory = format!("{TEMPLATES}{}", transaction.name());
    settings::apply(transaction, files, allow_pv, &directory, None).await?;
    transaction.restore_property("netvm").await?;
    if !notes.skip_start {
        transaction.set_feature(NOT_FINALIZED, "interrupted").await?;
    }
    transaction.step(Step::Describing, "describing")?;
    for (feature, value) in &notes.goal.description {
        transaction.set_feature(feature, value).await?;
    }
    Ok(())
}
