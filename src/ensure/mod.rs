//! `ensure`: a template as it should be, for who keeps machines so and does not want to know how they are.
//!
//! What is installed is looked at first, and only in dom0: where it is as asked, no repository is asked. Otherwise the
//! build that would be taken is found and held against what was asked, before anything is fetched. What is there is replaced
//! only where that is allowed, because all changes inside a template are lost with it.

mod wants;

use std::time::SystemTime;

pub use wants::{Bound, Known, Wants};

use crate::admin::{AdminApi, QubeApi, system};
use crate::admission::{Admission, Demands, Wish};
use crate::cancel::Cancel;
use crate::catalogue::Catalogue;
use crate::census;
use crate::finalize;
use crate::install::{self, Order, Summary, Verb};
use crate::ledger::{Action, Build, Ending, Ledger};
use crate::lock::Lock;
use crate::post_install::Outcome;
use crate::remove;
use crate::report::{Failure, Reporter};
use crate::state::Directory;
use crate::template::installed::NOT_FINALIZED;
use crate::template::{Evr, Installed, Timestamp};
use crate::transaction::Desk;
use crate::untrusted::displayable;

/// What should be there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Name of the qube.
    pub name: String,
    /// What is asked of the build.
    pub wants: Wants,
    /// Whether it is to be the newest that the repositories have.
    pub newest: bool,
    /// Whether what is there may be replaced.
    pub overwrite: bool,
    /// Whether a template will do that this tool does not manage: one that was cloned or made otherwise.
    pub any: bool,
}

/// What is there under a name.
struct There {
    known: Known,
    build: Option<Build>,
}

/// Sees to it that the template is there. `order` says how; what it is for is set here.
///
/// # Errors
/// When something else than a template of this tool has the name, what is there may not be replaced, no build suits, or the
/// installation fails.
pub async fn present(
    api: &dyn AdminApi,
    catalogue: &Catalogue<'_>,
    reporter: &dyn Reporter,
    cancel: &Cancel,
    wanted: &Wanted,
    order: Order,
    ledger: &Ledger,
) -> Result<Summary, Failure> {
    let name = wanted.name.as_str();
    let admission = Admission::new(&order.demands, Wish::Newest, &[], catalogue.options(), reporter);
    let there = look(api, wanted, &admission).await?;
    let lacking = there.as_ref().map(|there| wanted.wants.lacking(&there.known, now())).unwrap_or_default();
    if let Some(there) = &there {
        if lacking.is_empty() && !wanted.newest {
            ledger.plan(name, Action::None, there.build.clone(), there.build.clone());
            ledger.skip(name, "it is as asked");
            return Ok(Summary::default());
        }
        if !lacking.is_empty() && !wanted.overwrite {
            return Err(kept(name, &lacking.join("; ")));
        }
    }
    let order = Order {
        verb: match &there {
            None => Verb::Install,
            Some(_) if lacking.is_empty() => Verb::Upgrade,
            Some(_) => Verb::Renew,
        },
        named: vec![match &wanted.wants.build {
            Some(build) => format!("{name}-{build}"),
            None => name.to_owned(),
        }],
        demands: Demands { signer: wanted.wants.signer.clone(), ..order.demands.clone() },
        yes: true,
        ..order
    };
    // Asked again below, the repositories answer from memory.
    let plan = Ledger::default();
    install::run(api, catalogue, reporter, cancel, &Order { dry_run: true, ..order.clone() }, &plan).await?;
    let entries = plan.entries();
    if let Some(other) = entries.iter().find(|entry| entry.name != name) {
        let message = format!("'{}' means {} as well as {name}", order.named[0], other.name);
        return Err(Failure::Told { cause: "ambiguous", message });
    }
    let Some(after) =
        entries.iter().find(|entry| entry.ending == Ending::Planned).and_then(|e| e.after.clone())
    else {
        let build = there.and_then(|there| there.build);
        ledger.plan(name, Action::None, build.clone(), build);
        ledger.skip(name, "no repository has a newer build");
        return Ok(Summary::default());
    };
    // Who signed it shows when it is here, still before anything is changed.
    let wants = Wants { signer: None, ..wanted.wants.clone() };
    let unsuitable = wants.lacking(&offered(&after), now());
    if !unsuitable.is_empty() {
        let message =
            format!("the best build of {name} that the repositories have {}", unsuitable.join("; "));
        return Err(Failure::Told { cause: "none-suits", message });
    }
    if there.is_some() && !wanted.overwrite {
        return Err(kept(name, &format!("is older than {}", after.evr)));
    }
    if order.dry_run {
        for entry in entries {
            ledger.plan(&entry.name, entry.action, entry.before, entry.after);
        }
        return Ok(Summary::default());
    }
    install::run(api, catalogue, reporter, cancel, &order, ledger).await
}

/// Sees to it that there is no such template.
///
/// # Errors
/// When it is no template, something uses it, or the removal fails.
pub async fn absent(
    api: &dyn AdminApi,
    reporter: &dyn Reporter,
    cancel: &Cancel,
    name: &str,
    options: remove::Options<'_>,
    ledger: &Ledger,
) -> Result<(), Failure> {
    if !system::list(api).await?.iter().any(|qube| qube.name == name) {
        ledger.plan(name, Action::None, None, None);
        ledger.skip(name, "there is no such qube");
        return Ok(());
    }
    let build = census::one(api, name).await?.as_ref().and_then(Build::of_installed);
    remove::run(api, reporter, cancel, &[name.to_owned()], options, ledger).await?;
    ledger.was(name, build);
    Ok(())
}

/// Sees to it that the first start of a template went as it should, and does not repeat one that did.
///
/// # Errors
/// When there is no such template of this tool, or the first start cannot be repeated.
pub async fn finalized(
    desk: &Desk<'_>,
    state: &Directory,
    name: &str,
    dry_run: bool,
    ledger: &Ledger,
) -> Result<Outcome, Failure> {
    // dom0 denies whatever is asked of a qube that is not there.
    let there = system::list(desk.api).await?.iter().any(|qube| qube.name == name && qube.is_template());
    let installed = if there { census::one(desk.api, name).await? } else { None };
    let Some(installed) = installed else {
        return Err(Failure::Usage(format!("Template '{name}' not already installed.")));
    };
    let build = Build::of_installed(&installed);
    let Some(why) = QubeApi::new(desk.api, name).feature(NOT_FINALIZED).await? else {
        ledger.plan(name, Action::None, build.clone(), build);
        ledger.skip(name, "its first start went as it should");
        return Ok(Outcome::Done);
    };
    ledger.plan(name, Action::Finalize, build.clone(), build.clone());
    if dry_run {
        return Ok(Outcome::Done);
    }
    let lock = Lock::take("finalize").map_err(anyhow::Error::from)?;
    let outcomes = finalize::run(desk, state, &lock, &[name.to_owned()]).await?;
    let done = outcomes.iter().all(|(_, outcome)| *outcome == Outcome::Done);
    let (outcome, ending) =
        if done { (Outcome::Done, Ending::Done) } else { (Outcome::Unfinished, Ending::NotFinalized) };
    ledger.done(name, ending, build);
    if !done {
        ledger.remark(name, &displayable(&format!("it failed before: {why}"), false));
    }
    Ok(outcome)
}

/// What is there; `None` when nothing is.
async fn look(
    api: &dyn AdminApi,
    wanted: &Wanted,
    admission: &Admission<'_>,
) -> Result<Option<There>, Failure> {
    let name = wanted.name.as_str();
    let qubes = system::list(api).await?;
    let Some(qube) = qubes.iter().find(|qube| qube.name == name) else { return Ok(None) };
    let installed = if qube.is_template() { census::one(api, name).await? } else { None };
    let Some(installed) = installed else {
        // Of what nobody recorded nothing can be asked, and it is not ours to replace.
        if qube.is_template() && wanted.any && wanted.wants == Wants::default() && !wanted.newest {
            return Ok(Some(There { known: Known::default(), build: None }));
        }
        let message = if qube.is_template() {
            format!("Template '{name}' is not managed by qvm-template.")
        } else {
            format!("'{name}' is no template but of class {}", qube.class)
        };
        return Err(Failure::Told { cause: "not-managed", message });
    };
    let signer = installed.evr().and_then(|evr| admission.signer_seen(name, &installed.repo, &evr));
    Ok(Some(There { known: known(&installed, signer), build: Build::of_installed(&installed) }))
}

fn known(installed: &Installed, signer: Option<String>) -> Known {
    Known {
        evr: installed.evr(),
        repo: installed.repo.clone(),
        built: Timestamp::parse(&installed.build_time),
        signer,
    }
}

/// What is known of a build before it is fetched.
fn offered(build: &Build) -> Known {
    let evr = || {
        let (epoch, rest) = build.evr.split_once(':')?;
        let (version, release) = rest.rsplit_once('-')?;
        Evr::new(epoch, version, release).ok()
    };
    Known { evr: evr(), repo: build.repo.clone(), built: Timestamp::parse(&build.build_time), signer: None }
}

fn kept(name: &str, why: &str) -> Failure {
    let message =
        format!("Template '{name}' {why}\nhelp: --overwrite replaces it; all changes inside it are lost");
    Failure::Told { cause: "would-overwrite", message }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
