//! dom0's menu tool, `qvm-appmenus`, where there is one.
//!
//! A template that is started tells the menus itself. With `--skip-start` nobody does, so the tool is told which
//! entries the package lists. It exists in dom0 and wants files; as root it runs as the first member of group
//! `qubes`, whose menus are meant. That the tool, the group or the lists are missing never stops an installation.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::{Group, geteuid};

use crate::payload::TemplateFiles;
use crate::qrexec::{Limits, Program, RunError};
use crate::report::Failure;
use crate::settings::lists;
use crate::template::TemplateName;
use crate::template::conf::MENU_LISTS;
use crate::transaction::Transaction;

const TOOL: &str = "qvm-appmenus";
const GROUP: &str = "qubes";
const LIMITS: Limits = Limits {
    output: 1 << 20,
    errors: 4096,
    total: Some(Duration::from_secs(120)),
    first: None,
    idle: None,
    pace: None,
};

/// The menu tool, found.
#[derive(Clone, Debug)]
pub struct AppMenus {
    /// Whom it runs as, if not as us: an error says why there is nobody.
    user: Option<Result<String, String>>,
}

/// The lists of a package in a directory of their own, shaped like the package, as long as it lives.
#[derive(Debug)]
pub struct Scratch {
    directory: tempfile::TempDir,
    name: TemplateName,
}

impl AppMenus {
    /// The tool of this machine; `None` where there is none.
    #[must_use]
    pub fn find() -> Option<Self> {
        let path = std::env::var_os("PATH")?;
        let there = |directory: PathBuf| directory.join(TOOL).is_file();
        std::env::split_paths(&path).any(there).then(|| Self { user: geteuid().is_root().then(default_user) })
    }

    /// Tells the tool about the lists in `directory`.
    ///
    /// # Errors
    /// When a signal came. A tool that fails is only told about.
    pub async fn set(&self, transaction: &Transaction<'_>, directory: &str) -> Result<(), Failure> {
        let user = match &self.user {
            None => None,
            Some(Ok(user)) => Some(user.as_str()),
            Some(Err(why)) => {
                transaction.say(&format!("Default user not found, not importing appmenus: {why}"));
                return Ok(());
            }
        };
        let options = [("--set-default-whitelist", MENU_LISTS[0].0), ("--set-whitelist", MENU_LISTS[1].0)];
        for (option, file) in options {
            let wish = format!("{option}={directory}/{file}");
            let call = [TOOL, wish.as_str(), transaction.name().as_str()];
            let program = match user {
                None => Program::helper(TOOL, &call[1..]),
                Some(user) => {
                    let before = ["-u", user, "--", "env", "DISPLAY=:0"];
                    Program::helper("runuser", &[&before[..], &call[..]].concat())
                }
            };
            let failed = match transaction.unless_stopped(program.output(b"", LIMITS)).await? {
                Ok((_, ended)) if ended.status == 0 => continue,
                Ok((_, ended)) => format!("status {}", ended.status),
                Err(RunError::Missing(_)) => return Ok(()),
                Err(error) => error.to_string(),
            };
            transaction.say(&format!("Failed to set default application list: {TOOL} {option}: {failed}"));
        }
        Ok(())
    }
}

impl Scratch {
    /// Writes the lists of a package down where the original unpacks them: below `/var/tmp`.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn with(files: &TemplateFiles, name: &TemplateName) -> std::io::Result<Self> {
        let own = Self {
            directory: tempfile::Builder::new().prefix("tmp").tempdir_in("/var/tmp")?,
            name: name.clone(),
        };
        let place = own.path();
        std::fs::create_dir_all(&place)?;
        for ((file, _), list) in MENU_LISTS.iter().zip(lists(files)) {
            if let Some(bytes) = list {
                std::fs::write(Path::new(&place).join(file), bytes)?;
            }
        }
        Ok(own)
    }

    /// Where the lists lie.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}{}{}", self.directory.path().display(), crate::verify::TEMPLATES, self.name)
    }
}

/// The first member of group `qubes`: the user whose desktop this is.
fn default_user() -> Result<String, String> {
    match Group::from_name(GROUP) {
        Ok(Some(group)) => {
            group.mem.into_iter().next().ok_or_else(|| format!("group '{GROUP}' has no member"))
        }
        Ok(None) => Err(format!("\"getgrnam(): name not found: '{GROUP}'\"")),
        Err(error) => Err(error.to_string()),
    }
}
