//! `clean`, `repolist`, `migrate-from-rpmdb`: the cache, the repositories, and the templates of older releases.

use serde_json::json;

use crate::admin;
use crate::clean::{self, Cache};
use crate::cli::output;
use crate::cli::run::{Done, Run, show};
use crate::cli::table::Opt;
use crate::migrate;
use crate::repo::file;
use crate::repo::variables::Variables;
use crate::repolist::{self, Filter};
use crate::report::Failure;

impl Run<'_> {
    pub(in crate::cli) fn clean(&self) -> Result<Done, Failure> {
        let cache = if self.settings.own_cachedir { Cache::Own } else { Cache::Named };
        let deleted = clean::run(&self.settings.cachedir.value, cache)?;
        Ok(Done { json: json!({"deleted": deleted}), ..Done::default() })
    }

    pub(in crate::cli) fn repolist(&self) -> Result<Done, Failure> {
        let loaded = file::load(&self.settings.repo_files.value)?;
        if loaded.files.is_empty() {
            let patterns = self.settings.repo_files.value.join("', '");
            return Err(Failure::new(format!("no repository file matches '{patterns}'")));
        }
        let parsed = loaded.parse();
        let options = &self.settings.repo_options;
        let filter = match () {
            () if self.typed.has(Opt::All) => Filter::All,
            () if self.typed.has(Opt::Disabled) => Filter::Disabled,
            () => Filter::Enabled,
        };
        let variables = Variables::new(&self.settings.releasever.value);
        let rows = repolist::run(&parsed.repos, options, filter, &self.typed.positionals, &variables);
        let mut warnings: Vec<String> =
            parsed.warnings.iter().map(|line| format!("Warning: {line}")).collect();
        warnings.extend(
            loaded.unmatched.iter().map(|pattern| format!("Warning: no repository file matches '{pattern}'")),
        );
        if repolist::ignores_options(options) {
            warnings.push("Warning: Ignoring --enablerepo and --disablerepo options.".to_owned());
        }
        Ok(Done {
            text: output::repositories(&rows),
            json: output::repositories_json(&rows),
            warnings,
            ..Done::default()
        })
    }

    pub(in crate::cli) async fn migrate(&self) -> Result<Done, Failure> {
        if !nix::unistd::geteuid().is_root() {
            return Err(Failure::Usage("This command needs to be run as root".to_owned()));
        }
        let api = admin::connect();
        let migration = self.cancel.or(migrate::run(api.as_ref())).await?;
        let failed =
            |(name, why): &(String, String)| format!("Failed to set template {name} metadata: {why}\n");
        let text: String = migration.failed.iter().map(failed).collect();
        if migration.failed.is_empty() {
            return Ok(Done { json: json!({"taken_over": migration.taken_over}), ..Done::text(text) });
        }
        if !self.typed.has(Opt::Json) {
            show(&text);
        }
        let names: Vec<&str> = migration.failed.iter().map(|(name, _)| name.as_str()).collect();
        Err(Failure::new(format!("not taken over: {}", names.join(", "))))
    }
}
