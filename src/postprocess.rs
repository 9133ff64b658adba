//! `qvm-template-postprocess`: what a template package's scripts, and the original tool, call once files are unpacked.
//!
//! `post-install NAME DIR` makes the template NAME of what lies in DIR; `pre-remove NAME DIR` removes a template of which
//! the package manager takes the package away. The steps are those of [`crate::install`] without the build's
//! description, which is the caller's to write. The caller has verified what lies in DIR, and holds the lock.
//!
//! The image is `root.img.part.NN`, `root.img.tar` or `root.img`; where the original left only the beginning of the
//! first part and a link `template.rpm` to the package, the package is read. In dom0 the directory of a package,
//! `/var/lib/qubes/vm-templates/NAME`, moves out of the way of the new qube's own directory first.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use crate::admin::{AdminApi, CallError, Pending, QubeApi, bounded, system};
use crate::appmenus::AppMenus;
use crate::cancel::Cancel;
use crate::download::{blocking, check_local};
use crate::extras::Extras;
use crate::install::{import, must_be_off, open};
use crate::journal::Journal;
use crate::post_install::{self, Outcome};
use crate::qrexec::{Limits as RunLimits, Program, Side};
use crate::report::{Failure, Message, Reporter};
use crate::root_image::{Limits, RootImage};
use crate::settings;
use crate::template::TemplateName;
use crate::template::conf::AllowPv;
use crate::transaction::{Desk, Transaction};
use crate::verify::TEMPLATES;

/// How many reading calls are under way at a time.
const READS: usize = 8;
/// For helper programs after the work is done.
const HELPER: RunLimits = RunLimits {
    output: 1 << 20,
    errors: 4096,
    total: Some(Duration::from_secs(300)),
    first: None,
    idle: None,
    pace: None,
};

/// What is asked for after files were unpacked.
#[derive(Clone, Debug)]
pub struct Order {
    /// The template.
    pub name: TemplateName,
    /// Where its files lie.
    pub directory: PathBuf,
    /// Whether the files stay.
    pub keep_source: bool,
    /// Whether the qube belongs to the package manager.
    pub installed_by_rpm: bool,
    /// Storage pool for a new template.
    pub pool: Option<String>,
    /// Whether the template may ask for para-virtualisation.
    pub allow_pv: AllowPv,
    /// Whether the first start is left out.
    pub skip_start: bool,
}

/// Makes a template of unpacked files.
///
/// # Errors
/// When something goes wrong. Then the template is what it was, and the files are still there.
pub async fn post_install(
    api: &dyn AdminApi,
    reporter: &dyn Reporter,
    cancel: &Cancel,
    order: &Order,
) -> Result<Outcome, Failure> {
    let qubes = system::list(api).await?;
    let (name, pool) = (&order.name, order.pool.as_deref());
    let mut source = Source::of(order);
    let extras = Extras::new(None);
    // The caller began this and knows what to do when it is cut short: nothing is written down.
    let desk = Desk { api, reporter, cancel, extras: &extras, state: None };
    let mut notes = Journal::new(name.as_str(), "post-install", false);
    let mut transaction = match qubes.iter().find(|qube| qube.name == name.as_str()) {
        Some(qube) => {
            must_be_off(qube)?;
            let features = settings::touched_features();
            Transaction::replace(desk, name, &features, notes).await?
        }
        None => {
            source.move_aside(name)?;
            notes.is_new = true;
            Transaction::create(desk, name, pool, notes).await?
        }
    };
    match steps(&mut transaction, reporter, order, &source.directory).await {
        Ok(outcome) => {
            let is_new = transaction.is_new();
            transaction.commit().await;
            if !order.keep_source {
                source.remove(is_new).await?;
            }
            Ok(outcome)
        }
        Err(error) => {
            transaction.undo().await;
            Err(error)
        }
    }
}

async fn steps(
    transaction: &mut Transaction<'_>,
    reporter: &dyn Reporter,
    order: &Order,
    directory: &Path,
) -> Result<Outcome, Failure> {
    transaction.say("Importing data");
    let (from, name) = (directory.to_owned(), order.name.clone());
    let image = blocking(move || image_in(&from, &name)).await?;
    let files = import(transaction, reporter, image).await?;
    if !transaction.is_new() {
        transaction.say("Clearing private volume");
        transaction.clear_private().await?;
    }
    let owner = if order.installed_by_rpm { "True" } else { "False" };
    transaction.set_property("installed_by_rpm", owner).await?;
    let appmenus = if order.skip_start { AppMenus::find() } else { None };
    let place = directory.display().to_string();
    settings::apply(transaction, &files, order.allow_pv, &place, appmenus.as_ref()).await?;
    match order.skip_start {
        true => Ok(Outcome::Done),
        false => post_install::run(transaction).await,
    }
}

fn image_in(directory: &Path, name: &TemplateName) -> Result<RootImage, Failure> {
    let package = directory.join("template.rpm");
    if package.exists() {
        let verified = check_local(&package, Path::new("/var/tmp"), None)?;
        return open(&verified, name, Limits::default().image_size);
    }
    RootImage::from_directory(directory, Limits::default()).map_err(Failure::new)
}

/// The directory with the files.
struct Source {
    directory: PathBuf,
    /// Whether it is the one where dom0's package manager unpacks the package.
    is_packages: bool,
}

impl Source {
    fn of(order: &Order) -> Self {
        let own = format!("{TEMPLATES}{}", order.name);
        let is_packages = Side::here() == Side::Dom0 && order.directory == Path::new(&own);
        Self { directory: order.directory.clone(), is_packages }
    }

    /// A pool of plain files keeps a new qube's volumes in that very directory.
    fn move_aside(&mut self, name: &TemplateName) -> Result<(), Failure> {
        if self.is_packages {
            let aside = PathBuf::from(format!("{TEMPLATES}tmp-{name}"));
            std::fs::rename(&self.directory, &aside)
                .with_context(|| format!("moving {} aside", self.directory.display()))?;
            self.directory = aside;
        }
        Ok(())
    }

    /// Removes the files; of a directory that a qube's volumes may share, only the parts of the image.
    async fn remove(&self, is_new: bool) -> Result<(), Failure> {
        let what = || format!("removing {}", self.directory.display());
        if self.is_packages && !is_new {
            for entry in std::fs::read_dir(&self.directory).with_context(what)? {
                let path = entry.with_context(what)?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                if name.starts_with("root.img.part.") {
                    std::fs::remove_file(&path).with_context(what)?;
                }
            }
        } else {
            std::fs::remove_dir_all(&self.directory).with_context(what)?;
        }
        if nix::unistd::geteuid().is_root()
            && let Some(parent) = self.directory.parent()
        {
            // Gives the pool back what the files took; neither helper is needed for anything.
            let parent = parent.display().to_string();
            let _ = Program::helper("sync", &["-f", &parent]).output(b"", HELPER).await;
            let _ = Program::helper("fstrim", &[&parent]).output(b"", HELPER).await;
        }
        Ok(())
    }
}

/// Removes a template whose package goes.
///
/// # Errors
/// When there is no such qube, others use it, or dom0 refuses.
pub async fn pre_remove(api: &dyn AdminApi, reporter: &dyn Reporter, name: &str) -> Result<(), Failure> {
    let qubes = system::list(api).await?;
    if !qubes.iter().any(|qube| qube.name == name) {
        return Err(Failure::Usage("No Qube with this name exists".to_owned()));
    }
    let candidates: Vec<&str> = qubes
        .iter()
        .filter(|qube| matches!(qube.class.as_str(), "AppVM" | "DispVM"))
        .map(|qube| qube.name.as_str())
        .collect();
    let reads = candidates
        .iter()
        .map(|qube| -> Pending<'_, Result<system::Property, CallError>> {
            Box::pin(async move { QubeApi::new(api, qube).property("template").await })
        })
        .collect();
    let mut used = false;
    for (qube, template) in candidates.iter().zip(bounded(READS, reads).await) {
        if template?.value == name {
            used = true;
            let line = format!("qvm-template-postprocess: ERROR! Qube \"{qube}\" uses this template");
            reporter.say(&Message::Note(&line));
        }
    }
    if used {
        for line in [
            "qvm-template-postprocess: WARNING! Do not use dnf to uninstall templates!",
            "qvm-template-postprocess: Info: Use qvm-template(1) or Qubes Template Manager GUI to uninstall templates\n",
        ] {
            reporter.say(&Message::Note(line));
        }
        return Err(Failure::Reported);
    }
    let qube = QubeApi::new(api, name);
    qube.set_property("installed_by_rpm", "False").await?;
    Ok(qube.remove().await?)
}

/// Whether the file system that we see is not that of the machine: an image of another system is being built.
#[must_use]
pub fn in_chroot() -> bool {
    let same = |a: nix::sys::stat::FileStat, b: nix::sys::stat::FileStat| {
        (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
    };
    match (nix::sys::stat::stat("/"), nix::sys::stat::stat("/proc/1/root/.")) {
        (Ok(own), Ok(init)) => !same(own, init),
        _ => false,
    }
}
