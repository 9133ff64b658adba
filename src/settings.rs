//! What a template package asks of its qube, carried out: menu entries, `template.conf`, and what describes the build.
//!
//! The order of the changes is the original's. On a template that existed before, features that an older
//! `template.conf` set and the new one does not are removed at the end of its turn; a value that is the same already is
//! set again, as the original does.

use crate::appmenus::AppMenus;
use crate::payload::TemplateFiles;
use crate::report::Failure;
use crate::template::conf::{AllowPv, MENU_LISTS, Setting, TemplateConf, menu_items};
use crate::template::installed::{FEATURES, Installed, NOT_FINALIZED};
use crate::template::provenance::RECORD;
use crate::template::{RepoId, Timestamp};
use crate::transaction::Transaction;
use crate::verify::PackageInfo;

/// All features that an installation may touch: read beforehand so that they can be put back.
#[must_use]
pub fn touched_features() -> Vec<&'static str> {
    let menus = MENU_LISTS.iter().map(|(_, feature)| *feature);
    FEATURES.into_iter().chain([NOT_FINALIZED, RECORD]).chain(menus).chain(TemplateConf::features()).collect()
}

/// Carries out the wishes of a package, but for the first start.
///
/// `directory` is where the lists lie, for messages and for the menu tool; `appmenus` is there when the menu tool is
/// to be told, because the template itself will not.
///
/// # Errors
/// When dom0 refuses a change.
pub async fn apply(
    transaction: &mut Transaction<'_>,
    files: &TemplateFiles,
    allow_pv: AllowPv,
    directory: &str,
    appmenus: Option<&AppMenus>,
) -> Result<(), Failure> {
    for ((file, feature), list) in MENU_LISTS.iter().zip(lists(files)) {
        match list {
            Some(bytes) => transaction.set_feature(feature, &menu_items(bytes)).await?,
            None => transaction.say(&format!("Cannot set {feature}, {directory}/{file} not found")),
        }
    }
    if let Some(appmenus) = appmenus {
        appmenus.set(transaction, directory).await?;
    }
    let conf = files.conf.as_deref().map(|bytes| TemplateConf::parse(bytes, allow_pv)).unwrap_or_default();
    for warning in &conf.warnings {
        transaction.say(warning);
    }
    for setting in &conf.settings {
        match setting {
            Setting::Feature(name, value) => transaction.set_feature(name, value).await?,
            Setting::VirtMode(mode) => transaction.set_property("virt_mode", mode).await?,
            Setting::OwnKernel => transaction.set_property("kernel", "").await?,
        }
    }
    remove_stale(transaction).await
}

/// The menu lists of a package, in the order of [`MENU_LISTS`].
#[must_use]
pub fn lists(files: &TemplateFiles) -> [Option<&[u8]>; 3] {
    [&files.default_menu_items, &files.menu_items, &files.netvm_menu_items].map(Option::as_deref)
}

/// Features that a template itself asks for when it runs: that nobody wrote them into `template.conf` says nothing.
const ASKED_BY_GUESTS: [&str; 3] = ["qrexec", "gui", "gui-emulated"];

/// Removes what an older `template.conf` left. Where policy does not grant that, it stays, and we say so.
async fn remove_stale(transaction: &mut Transaction<'_>) -> Result<(), Failure> {
    let stale: Vec<&str> = TemplateConf::features()
        .filter(|feature| !ASKED_BY_GUESTS.contains(feature))
        .filter(|feature| transaction.feature_before(feature).is_some() && !transaction.has_set(feature))
        .collect();
    for feature in stale {
        match transaction.remove_feature(feature).await {
            Ok(()) => {}
            Err(error) if error.is_denied() => {
                transaction.say(&format!("feature '{feature}' of the former version stays: {error}"));
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Writes down which build this is. The marker comes first, as in the original: a template that is left here is one
/// that every later command can replace or remove.
///
/// # Errors
/// When dom0 refuses a change.
pub async fn describe(transaction: &mut Transaction<'_>, installed: &Installed) -> Result<(), Failure> {
    for (feature, value) in installed.to_features() {
        transaction.set_feature(feature, &value).await?;
    }
    Ok(())
}

/// What the features shall say about a package that comes from `repo` and is installed at `now`.
#[must_use]
pub fn description(info: &PackageInfo, repo: &RepoId, now: Timestamp) -> Installed {
    let evr = &info.nevra.evr;
    Installed {
        name: info.name.to_string(),
        epoch: evr.epoch().to_string(),
        version: evr.version().to_owned(),
        release: evr.release().to_owned(),
        repo: repo.to_string(),
        build_time: info.build_time.to_string(),
        install_time: now.to_string(),
        license: info.license.clone(),
        url: info.url.clone().unwrap_or_default(),
        summary: info.summary.clone(),
        description: info.description.clone(),
        package: None,
    }
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

    fn applied(api: &Rc<FakeAdmin>, files: &TemplateFiles) -> (Vec<String>, Vec<String>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (heard, cancel, name) = (Heard::default(), Cancel::never(), TemplateName::new("t").unwrap());
        runtime.block_on(async {
            let features = touched_features();
            let extras = Extras::new(None);
            let desk = Desk { api, reporter: &heard, cancel: &cancel, extras: &extras, state: None };
            let notes = Journal::new("t", "upgrade", false);
            let mut own = Transaction::replace(desk, &name, &features, notes).await.unwrap();
            apply(&mut own, files, AllowPv::No, "/d", None).await.unwrap();
            own.commit().await;
        });
        (api.changed(), heard.lines())
    }

    #[test]
    fn wishes_are_carried_out_in_the_order_of_the_original() {
        let api = Rc::new(FakeAdmin::with(&[("t", "TemplateVM", "Halted")]));
        let list = |text: &str| Some(text.as_bytes().to_vec());
        let files = TemplateFiles {
            conf: list("kernel=\nvirt-mode=pv\nqrexec=1\ngui=1\n"),
            default_menu_items: list("a\nb\n"),
            menu_items: None,
            netvm_menu_items: list("n\n"),
        };
        let (calls, lines) = applied(&api, &files);
        assert_eq!(
            calls,
            [
                "admin.vm.feature.Set+default-menu-items t a b",
                "admin.vm.feature.Set+netvm-menu-items t n",
                "admin.vm.feature.Set+gui t 1",
                "admin.vm.feature.Set+qrexec t 1",
                "admin.vm.property.Set+kernel t",
            ]
        );
        assert_eq!(
            lines,
            [
                "t: Cannot set menu-items, /d/whitelisted-appmenus.list not found",
                "t: --allow-pv not set, ignoring request to change virt-mode",
            ]
        );
    }

    #[test]
    fn what_only_the_former_version_set_goes() {
        let api = Rc::new(FakeAdmin::with(&[("t", "TemplateVM", "Halted")]));
        for feature in ["gui", "qrexec", "selinux", "net.fake-ip", "mine", "menu-items"] {
            api.qubes.borrow_mut().get_mut("t").unwrap().features.insert(feature.into(), "1".into());
        }
        let files = TemplateFiles { conf: Some(b"gui=1".to_vec()), ..TemplateFiles::default() };
        let (calls, _) = applied(&api, &files);
        assert_eq!(
            calls,
            [
                "admin.vm.feature.Set+gui t 1",
                "admin.vm.feature.Remove+selinux t",
                "admin.vm.feature.Remove+net.fake-ip t"
            ]
        );
        api.fail("admin.vm.feature.Remove", "", Fault::Denied);
        api.qubes.borrow_mut().get_mut("t").unwrap().features.insert("selinux".into(), "1".into());
        let (_, lines) = applied(&api, &files);
        assert!(lines.last().unwrap().contains("feature 'selinux' of the former version stays"), "{lines:?}");
    }
}
