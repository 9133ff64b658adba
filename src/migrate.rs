//! `migrate-from-rpmdb`: templates that rpm installed in dom0 become ours.
//!
//! What the package's header in the RPM database says is written into the qube's features, and rpm forgets the package. A package whose
//! qube is gone, or is managed already, is only forgotten. When writing fails, what was written is taken back and the
//! package stays known to rpm, so that the next run tries again.

use crate::admin::{AdminApi, CallError, QubeApi, system};
use crate::qrexec::{Ended, Limits, Program};
use crate::report::Failure;
use crate::template::installed::{FEATURES, MARKER};
use crate::template::{Installed, PACKAGE_PREFIX, RepoId, Timestamp};

const FIELD: char = '\u{1f}';
const RECORD: char = '\u{1e}';
/// Tags that are asked for, in the order of [`read`].
const TAGS: [&str; 11] = [
    "NAME",
    "EPOCHNUM",
    "VERSION",
    "RELEASE",
    "BUILDTIME",
    "INSTALLTIME",
    "LICENSE",
    "URL",
    "SUMMARY",
    "DESCRIPTION",
    "ARCH",
];
const LIMITS: Limits =
    Limits { output: 16 << 20, errors: 64 << 10, total: None, first: None, idle: None, pace: None };

/// What became of the templates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Migration {
    /// Templates that are managed now.
    pub taken_over: Vec<String>,
    /// Templates that are not, with the reason.
    pub failed: Vec<(String, String)>,
}

/// Takes over what the RPM database has. `failed` of the result is for the caller to show.
///
/// # Errors
/// When the database or the qubes cannot be read, or rpm does not forget the packages.
pub async fn run(api: &dyn AdminApi) -> Result<Migration, Failure> {
    let format: String = TAGS.map(|tag| format!("%{{{tag}}}")).join(&FIELD.to_string()) + &RECORD.to_string();
    let pattern = format!("{PACKAGE_PREFIX}*");
    let output = rpm(&["-qa", "--queryformat", &format, &pattern]).await?;
    let packages = read(&String::from_utf8_lossy(&output));
    let qubes = system::list(api).await?;
    let mut migration = Migration::default();
    let mut handled = Vec::new();
    for template in packages {
        let name = template.name.clone();
        if qubes.iter().any(|qube| qube.name == name) {
            match take_over(api, &template).await {
                Ok(true) => migration.taken_over.push(name.clone()),
                Ok(false) => {}
                Err(error) => {
                    migration.failed.push((name, error.to_string()));
                    continue;
                }
            }
        }
        handled.push(format!("{PACKAGE_PREFIX}{name}"));
    }
    if !handled.is_empty() {
        let mut args = vec!["-e", "--justdb"];
        args.extend(handled.iter().map(String::as_str));
        rpm(&args).await?;
    }
    Ok(migration)
}

/// Makes the qube a managed template; says whether it was not one already.
async fn take_over(api: &dyn AdminApi, template: &Installed) -> Result<bool, CallError> {
    let qube = QubeApi::new(api, &template.name);
    let old = qube.feature(MARKER).await?;
    if old.as_deref() == Some(template.name.as_str()) {
        return Ok(false);
    }
    let mut result = Ok(());
    for (feature, value) in template.to_features() {
        result = qube.set_feature(feature, &value).await;
        if result.is_err() {
            break;
        }
    }
    if result.is_ok() {
        result = qube.set_property("installed_by_rpm", "False").await;
    }
    if result.is_err() {
        for feature in FEATURES {
            // The first error is the one to tell.
            let _ = match old.as_deref().filter(|_| feature == MARKER) {
                Some(old) => qube.set_feature(MARKER, old).await,
                None => qube.remove_feature(feature).await,
            };
        }
    }
    result.map(|()| true)
}

fn read(output: &str) -> Vec<Installed> {
    output
        .split(RECORD)
        .filter_map(|record| {
            let fields: Vec<&str> = record.split(FIELD).collect();
            let [name, epoch, version, release, build, install, license, url, summary, description, _] =
                fields[..]
            else {
                return None;
            };
            let time =
                |text: &str| text.parse().map(|seconds| Timestamp(seconds).to_string()).unwrap_or_default();
            let text = |text: &str| if text == "(none)" { String::new() } else { text.to_owned() };
            Some(Installed {
                name: name.strip_prefix(PACKAGE_PREFIX)?.to_owned(),
                epoch: epoch.to_owned(),
                version: version.to_owned(),
                release: release.to_owned(),
                repo: RepoId::COMMAND_LINE.to_owned(),
                build_time: time(build),
                install_time: time(install),
                license: text(license),
                url: text(url),
                summary: text(summary),
                description: text(description),
                package: None,
            })
        })
        .collect()
}

async fn rpm(args: &[&str]) -> Result<Vec<u8>, Failure> {
    let ran = Program::helper("rpm", args).output(b"", LIMITS).await;
    let (output, Ended { status, errors }) =
        ran.map_err(|error| Failure::new(format!("running rpm: {error}")))?;
    if status == 0 {
        return Ok(output);
    }
    let said = crate::untrusted::displayable(String::from_utf8_lossy(&errors).trim_end(), true);
    Err(Failure::new(format!("rpm failed with status {status}: {said}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    use crate::admin::fake::{FakeAdmin, Fault};

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
    }

    fn template() -> Installed {
        let record = "qubes-template-t\u{1f}2\u{1f}1.0\u{1f}1\u{1f}1700000000\u{1f}1700000060\u{1f}GPL\u{1f}(none)\u{1f}S\
                      \u{1f}a|b\nc\u{1f}noarch\u{1e}";
        read(record).remove(0)
    }

    #[test]
    fn headers_are_read() {
        let template = template();
        assert_eq!((template.name.as_str(), template.evr_text().as_str()), ("t", "2:1.0-1"));
        assert_eq!((template.url.as_str(), template.build_time.as_str()), ("", "2023-11-14 22:13:20"));
        assert_eq!(template.description, "a|b\nc");
        assert_eq!(read("other\u{1f}x\u{1e}"), []);
    }

    #[test]
    fn a_failure_leaves_no_marker() {
        let api = Rc::new(FakeAdmin::with(&[("t", "TemplateVM", "Halted")]));
        api.fail("admin.vm.feature.Set", "template-summary", Fault::Exception("ProtocolError", "no"));
        assert!(block_on(take_over(&api, &template())).is_err());
        assert!(api.qubes.borrow()["t"].features.is_empty());
    }

    #[test]
    fn what_is_managed_is_left_alone() {
        let api = Rc::new(FakeAdmin::with(&[("t", "TemplateVM", "Halted")]));
        assert!(block_on(take_over(&api, &template())).unwrap());
        let changes = api.changed().len();
        assert!(!block_on(take_over(&api, &template())).unwrap());
        assert_eq!(api.changed().len(), changes);
    }
}
