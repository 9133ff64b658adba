//! The first start of a template: it runs `qubes.PostInstall`, tells dom0 what it can do, and goes down again.
//!
//! 1. netvm is taken away: a template that was never updated does not meet the network.
//! 2. feature `qrexec` is set, so that dom0 waits for the agent before it says that the qube runs.
//! 3. start, service, shutdown, each with a time limit.
//! 4. netvm is what it was.
//!
//! What goes wrong here leaves the template installed and not finalized: that is said, the caller learns of it, and the
//! feature [`NOT_FINALIZED`] tells it to everybody later, until `finalize` succeeds. After a failure to start `qrexec` is
//! what it was; after a success it stays, since the agent has just shown that it answers.
//!
//! A qube that does not go down is judged by its state, not by dom0's answer: after one shutdown that took too long
//! every later answer is empty although the qube obeys. It is killed only when it goes on running.

use std::time::Duration;

use tokio::time::timeout;

use crate::admin::CallError;
use crate::checkpoint;
use crate::qrexec::{Escapes, Limits, NO_SERVICE, Program, REFUSED, Side};
use crate::report::Failure;
use crate::template::installed::NOT_FINALIZED;
use crate::transaction::Transaction;

const SERVICE: &str = "qubes.PostInstall";
const QREXEC: &str = "qrexec";
/// Longer than dom0 waits for the agent, which an administrator may have raised.
const START_TIME: Duration = Duration::from_secs(15 * 60);
/// The service runs a handful of scripts that ask dom0 for features.
const SERVICE_TIME: Duration = Duration::from_secs(5 * 60);
/// Longer than dom0's own limit, which an administrator may have raised.
const SHUTDOWN_TIME: Duration = Duration::from_secs(5 * 60);
/// After dom0 gave up waiting: a last moment before the qube is killed.
const GRACE: Duration = Duration::from_secs(2);

/// How the first start went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It started, ran its service, and is off.
    Done,
    /// It did not start, its service failed, or it is not off.
    Unfinished,
}

/// Starts the template once.
///
/// # Errors
/// When a change is refused or a signal comes: what must be undone then is the transaction's to undo.
pub async fn run(transaction: &mut Transaction<'_>) -> Result<Outcome, Failure> {
    let had_qrexec = transaction.has_set(QREXEC) || transaction.feature_before(QREXEC).is_some();
    transaction.set_property("netvm", "").await?;
    transaction.set_feature(QREXEC, "1").await?;
    let started = match timeout(START_TIME, transaction.start()).await {
        Ok(started) => started?.map_err(|error| error.to_string()),
        Err(_) => {
            transaction.power_off_now().await;
            Err(format!("it was not up after {} minutes", START_TIME.as_secs() / 60))
        }
    };
    let trouble = match started {
        Ok(()) => {
            let served = call_service(transaction).await?;
            checkpoint::reach("post-install-done");
            let is_off = shut_down(transaction).await?;
            match (served, is_off) {
                (_, false) => Some("not-shut-down"),
                (false, true) => Some("service-failed"),
                (true, true) => None,
            }
        }
        Err(error) => {
            transaction.say(&format!("the template could not be started: {error}"));
            transaction.say("it is installed, but its own set-up has not run");
            if !had_qrexec && let Err(error) = transaction.remove_feature(QREXEC).await {
                transaction.say(&format!("feature '{QREXEC}' stays set: {error}"));
            }
            Some("not-started")
        }
    };
    if let Err(error) = transaction.restore_property("netvm").await {
        transaction.say(&format!("property 'netvm' could not be put back: {error}"));
    }
    note(transaction, trouble).await
}

/// Leaves a mark of what went wrong, or takes an older one away.
async fn note(transaction: &mut Transaction<'_>, trouble: Option<&str>) -> Result<Outcome, Failure> {
    if let Some(trouble) = trouble {
        transaction.set_feature(NOT_FINALIZED, trouble).await?;
        let name = transaction.name();
        transaction.say(&format!("not finalized; 'qvm-template finalize {name}' repeats the first start"));
        return Ok(Outcome::Unfinished);
    }
    if transaction.feature_before(NOT_FINALIZED).is_some() {
        transaction.remove_feature(NOT_FINALIZED).await?;
    }
    Ok(Outcome::Done)
}

/// Calls the template's own set-up: whether it ended well.
async fn call_service(transaction: &Transaction<'_>) -> Result<bool, Failure> {
    let program = Program::service(Side::here(), transaction.name().as_str(), SERVICE, None, Escapes::Raw);
    // What the template says is of no interest, and it may say a lot.
    let limits = Limits {
        output: u64::MAX,
        errors: 0,
        total: Some(SERVICE_TIME),
        first: None,
        idle: None,
        pace: None,
    };
    let ended = transaction.unless_stopped(program.stream(b"", limits, &mut |_| Ok(()))).await?;
    let why = match ended {
        Ok(ended) => match ended.status {
            0 => return Ok(true),
            REFUSED => format!("{SERVICE} service failed: no qrexec policy rule allows it"),
            NO_SERVICE => {
                transaction.say(&format!("{SERVICE} service failed: the template does not have it"));
                // Nothing is missing that could be made up for.
                return Ok(true);
            }
            _ => format!("{SERVICE} service failed"),
        },
        Err(error) => format!("{SERVICE} service failed: {error}"),
    };
    transaction.say(&why);
    Ok(false)
}

/// Shuts the template down: whether it is off.
async fn shut_down(transaction: &mut Transaction<'_>) -> Result<bool, Failure> {
    let qube = transaction.qube();
    let answer = transaction.unless_stopped(timeout(SHUTDOWN_TIME, qube.shutdown_and_wait())).await?;
    let is_off = match answer {
        Ok(Ok(())) => true,
        Ok(Err(error)) if was_off(&error) => true,
        _ => match transaction.unless_stopped(transaction.wait_until_off(GRACE)).await? {
            Some(true) => true,
            _ => transaction.unless_stopped(transaction.power_off_now()).await?,
        },
    };
    match is_off {
        true => transaction.note_off(),
        false => transaction.say("the template does not shut down; it is installed, and still running"),
    }
    Ok(is_off)
}

fn was_off(error: &CallError) -> bool {
    error.is("QubesVMNotStartedError")
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::admin::fake::{FakeAdmin, Fault};
    use crate::cancel::Cancel;
    use crate::extras::Extras;
    use crate::journal::Journal;
    use crate::report::fake::Heard;
    use crate::template::TemplateName;
    use crate::transaction::Desk;

    fn started(api: &Rc<FakeAdmin>) -> (Outcome, Vec<String>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (heard, cancel, name) = (Heard::default(), Cancel::never(), TemplateName::new("t").unwrap());
        let extras = Extras::new(None);
        let desk = Desk { api, reporter: &heard, cancel: &cancel, extras: &extras, state: None };
        let notes = Journal::new("t", "finalize", false);
        let outcome = runtime.block_on(async {
            let mut own = Transaction::replace(desk, &name, &[QREXEC, NOT_FINALIZED], notes).await.unwrap();
            run(&mut own).await.unwrap()
        });
        (outcome, heard.lines())
    }

    fn fake() -> Rc<FakeAdmin> {
        let api = Rc::new(FakeAdmin::with(&[("t", "TemplateVM", "Halted")]));
        api.qubes.borrow_mut().get_mut("t").unwrap().properties.insert("netvm".into(), "mine".into());
        api
    }

    #[test]
    fn netvm_is_off_meanwhile_and_what_it_was_afterwards() {
        let api = fake();
        // There is no qrexec here, so the service cannot be called.
        assert_eq!(started(&api).0, Outcome::Unfinished);
        assert_eq!(
            api.changed(),
            [
                "admin.vm.property.Set+netvm t",
                "admin.vm.feature.Set+qrexec t 1",
                "admin.vm.Start t",
                "admin.vm.Shutdown+wait t",
                "admin.vm.property.Set+netvm t mine",
                "admin.vm.feature.Set+qvm-template-not-finalized t service-failed",
            ]
        );
    }

    #[test]
    fn a_start_that_fails_leaves_no_trace() {
        let api = fake();
        api.fail("admin.vm.Start", "", Fault::Exception("QubesMemoryError", "Not enough memory"));
        let (outcome, lines) = started(&api);
        assert_eq!(outcome, Outcome::Unfinished);
        assert_eq!(lines[0], "t: the template could not be started: Not enough memory");
        let qube = api.qubes.borrow()["t"].clone();
        assert_eq!((qube.features.get(QREXEC), qube.properties["netvm"].as_str()), (None, "mine"));
        assert_eq!(qube.features[NOT_FINALIZED], "not-started");
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert_eq!(
            runtime.block_on(crate::census::not_finalized(&api, &["t", "other"])),
            ["not-started", ""]
        );
    }

    #[test]
    fn what_does_not_go_down_is_killed() {
        let api = fake();
        api.fail("admin.vm.Shutdown", "", Fault::Exception("QubesVMShutdownTimeoutError", "late"));
        assert_eq!(started(&api).0, Outcome::Unfinished);
        assert!(api.changed().contains(&"admin.vm.Kill t".to_owned()));
        assert_eq!(api.qubes.borrow()["t"].features[NOT_FINALIZED], "service-failed");
    }
}
