//! `remove` and `purge`.
//!
//! A plain `remove` asks dom0 to remove what was named and shows who uses it when dom0 refuses. With disassociation, and for `purge`,
//! the whole plan is worked out and checked first ([`plan`]), then carried out: running users are turned off, properties are changed,
//! what goes is killed and removed, users before what they use. Until the first qube is gone everything is undone when
//! something fails; afterwards what still can be.

pub mod dependencies;
pub mod plan;
mod steps;

use std::collections::BTreeSet;

use crate::admin::{AdminApi, CallError, QubeApi, system};
use crate::cancel::Cancel;
use crate::ledger::{Action, Ending, Ledger, Trouble};
use crate::lock::Lock;
use crate::report::{Failure, Message, Reporter};
use crate::spelling;
use dependencies::System;
use plan::{Plan, Reach};

/// What to do about the users of what goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing: dom0 refuses where there are users.
    Plain,
    /// Turn them over to a dummy or to nothing.
    Disassociate,
    /// Remove them too.
    Purge,
}

/// How to go about it.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// What to do about users.
    pub mode: Mode,
    /// Remove qubes that are no templates, too.
    pub force: bool,
    /// Ask before anything is changed.
    pub ask: bool,
    /// Show what is going to happen beyond the removal.
    pub show_plan: bool,
    /// The qube that this program runs in.
    pub own: Option<&'a str>,
    /// Work everything out and change nothing.
    pub dry_run: bool,
}

/// Removes the qubes called `names`, and writes down in `ledger` which are gone.
///
/// # Errors
/// When a name cannot be meant, the person says no, the plan has obstacles, or a step fails.
pub async fn run(
    api: &dyn AdminApi,
    reporter: &dyn Reporter,
    cancel: &Cancel,
    names: &[String],
    options: Options<'_>,
    ledger: &Ledger,
) -> Result<(), Failure> {
    if names.is_empty() && !options.ask && options.mode != Mode::Purge {
        return Err(Failure::Usage("one of the arguments --all VMNAME is required".to_owned()));
    }
    if names.is_empty() && options.mode == Mode::Purge {
        return Err(Failure::Usage("the following arguments are required: TEMPLATE".to_owned()));
    }
    let qubes = system::list(api).await?;
    check(names, &qubes, options)?;
    let lock = match options.dry_run {
        true => None,
        false => Some(Lock::take("remove").map_err(anyhow::Error::from)?),
    };
    if let Some(lock) = &lock {
        lock.templates(names.iter().map(String::as_str)).map_err(anyhow::Error::from)?;
    }
    if options.mode == Mode::Plain {
        names.iter().for_each(|name| ledger.plan(name, Action::Remove, None, None));
        if options.dry_run {
            return would_be_removed(api, reporter, names, options.own).await;
        }
        confirm(reporter, names, &qubes, options).await?;
        return cancel.or(remove_plainly(api, reporter, names, ledger)).await;
    }
    let system = System::read(api).await?;
    let reach = if options.mode == Mode::Purge { Reach::Users } else { Reach::Named };
    let mut plan = Plan::new(&system, names, reach, options.own);
    plan.obstacles.extend(rpm_owned(api, &plan.goes).await?);
    plan.goes.iter().for_each(|name| ledger.plan(name, Action::Remove, None, None));
    if options.show_plan || options.dry_run {
        steps::show(reporter, &system, &plan);
    }
    if !plan.obstacles.is_empty() && (!options.ask || options.dry_run) {
        return Err(refused(reporter, &plan));
    }
    if options.dry_run {
        return Ok(());
    }
    confirm(reporter, &plan.goes, &qubes, options).await?;
    if !plan.obstacles.is_empty() {
        return Err(refused(reporter, &plan));
    }
    steps::carry_out(api, reporter, cancel, &system, &plan, options.mode, ledger).await
}

/// What a plain removal would meet: dom0 refuses what is used, or what rpm installed.
async fn would_be_removed(
    api: &dyn AdminApi,
    reporter: &dyn Reporter,
    names: &[String],
    own: Option<&str>,
) -> Result<(), Failure> {
    let system = System::read(api).await?;
    let mut plan = Plan { goes: names.to_vec(), ..Plan::default() };
    for name in names {
        if system.uses(name).iter().any(|user| !user.holder.as_ref().is_some_and(|h| names.contains(h))) {
            steps::show_users(reporter, &system, name);
            plan.obstacles.push(format!("'{name}' is in use"));
        }
        if system.qube(name).is_some_and(|qube| !qube.is_halted()) {
            plan.obstacles.push(format!("'{name}' is not shut down"));
        }
        if own == Some(name) {
            plan.obstacles.push(format!("'{name}' is the qube that this command runs in"));
        }
    }
    plan.obstacles.extend(rpm_owned(api, names).await?);
    if plan.obstacles.is_empty() { Ok(()) } else { Err(refused(reporter, &plan)) }
}

/// Rules R27 and R38: every name once, of a qube that exists, and of a template.
fn check(names: &[String], qubes: &[system::Qube], options: Options<'_>) -> Result<(), Failure> {
    let mut seen = BTreeSet::new();
    for name in names {
        let Some(qube) = qubes.iter().find(|qube| qube.name == *name) else {
            let names = qubes.iter().filter(|qube| qube.is_template() || options.force);
            let alike = spelling::templates(name, names.map(|qube| qube.name.as_str()));
            return Err(Failure::Usage(format!("no such domain: '{name}'{}", spelling::question(&alike))));
        };
        if qube.class == "AdminVM" {
            return Err(Failure::Usage(format!("Domain '{name}' cannot be removed.")));
        }
        if !qube.is_template() && !options.force && options.mode == Mode::Plain {
            let class = &qube.class;
            return Err(Failure::Usage(format!(
                "'{name}' is no template but of class {class}; use --force to remove it"
            )));
        }
        if !seen.insert(name) {
            return Err(Failure::Usage(format!("'{name}' is named twice")));
        }
    }
    Ok(())
}

async fn confirm(
    reporter: &dyn Reporter,
    names: &[String],
    qubes: &[system::Qube],
    options: Options<'_>,
) -> Result<(), Failure> {
    const TEXT: &str = "This will completely remove the selected VM(s)";
    if !options.ask {
        return Ok(());
    }
    let times = if options.mode == Mode::Purge { 3 } else { 1 };
    // Rule R27: a person is told what is no template. Elsewhere the names stand alone, as ever.
    let class = |name: &String| {
        let qube = qubes.iter().find(|qube| qube.name == *name).filter(|qube| !qube.is_template());
        qube.filter(|_| options.show_plan)
            .map_or_else(|| name.clone(), |qube| format!("{name} ({})", qube.class))
    };
    let names: Vec<String> = names.iter().map(class).collect();
    for time in 1..=times {
        let text = if times == 1 {
            format!("{TEXT}...")
        } else {
            format!("{TEXT} (confirmation {time} of {times})...")
        };
        if !reporter.confirm(&text, &names).await.map_err(|e| Failure::new(e.to_string()))? {
            return Err(Failure::Declined);
        }
    }
    Ok(())
}

/// Rule R57: what rpm installed, dom0 does not let go.
pub(crate) async fn rpm_owned(api: &dyn AdminApi, names: &[String]) -> Result<Vec<String>, Failure> {
    let mut obstacles = Vec::new();
    for name in names {
        match QubeApi::new(api, name).property("installed_by_rpm").await {
            Ok(property) if property.value == "True" => {
                obstacles.push(format!("VM installed by package manager: {name}\n{}", steps::RPM_HELP));
            }
            Ok(_) | Err(CallError::Denied(_) | CallError::Api { .. } | CallError::Empty(_)) => {}
            Err(broken) => return Err(broken.into()),
        }
    }
    Ok(obstacles)
}

fn refused(reporter: &dyn Reporter, plan: &Plan) -> Failure {
    for obstacle in &plan.obstacles {
        reporter.say(&Message::Note(&format!("qvm-template: error: {obstacle}")));
    }
    Failure::Told { cause: "obstacles", message: plan.obstacles.join("\n") }
}

async fn remove_plainly(
    api: &dyn AdminApi,
    reporter: &dyn Reporter,
    names: &[String],
    ledger: &Ledger,
) -> Result<(), Failure> {
    for name in names {
        if let Err(error) = QubeApi::new(api, name).remove().await {
            if error.is("QubesVMInUseError") {
                let system = System::read(api).await?;
                steps::show_users(reporter, &system, name);
            }
            let failure = steps::not_removed(reporter, error);
            ledger.failed(name, Trouble::of(&failure));
            return Err(failure);
        }
        ledger.done(name, Ending::Done, None);
    }
    Ok(())
}
