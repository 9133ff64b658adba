//! `repolist`: the configured repositories. Nobody is asked.

use crate::repo::choice::{self, RepoOption};
use crate::repo::file::Repo;
use crate::repo::variables::Variables;
use crate::template::fnmatch;

/// Which repositories are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Those that take part in calls.
    Enabled,
    /// Those that do not.
    Disabled,
    /// All.
    All,
}

/// A repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its identifier.
    pub id: String,
    /// Its name for people; the identifier where it has none.
    pub name: String,
    /// Whether it takes part in calls.
    pub enabled: bool,
}

/// The repositories that `filter` and `names` (identifiers or patterns; none: all) leave, sorted by identifier.
///
/// With `--repoid` only what it names is looked at and the other options count for nothing.
#[must_use]
pub fn run(
    repos: &[Repo],
    options: &[RepoOption],
    filter: Filter,
    names: &[String],
    variables: &Variables,
) -> Vec<Row> {
    let only: Vec<RepoOption> =
        options.iter().filter(|option| matches!(option, RepoOption::Only(_))).cloned().collect();
    let options = if only.is_empty() { options } else { &only };
    let enabled: Vec<&str> = choice::enabled(repos, options).iter().map(|repo| repo.id.as_str()).collect();
    let mut rows: Vec<Row> = repos
        .iter()
        .map(|repo| {
            let id = repo.id.to_string();
            let name = repo.expanded(variables).name.unwrap_or_else(|| id.clone());
            let name = crate::untrusted::displayable(&name, false);
            Row { enabled: enabled.contains(&id.as_str()), id, name }
        })
        .filter(|row| only.is_empty() || row.enabled)
        .filter(|row| match filter {
            Filter::Enabled => row.enabled,
            Filter::Disabled => !row.enabled,
            Filter::All => true,
        })
        .filter(|row| names.is_empty() || names.iter().any(|name| fnmatch::matches(name, &row.id)))
        .collect();
    rows.sort_by(|a, b| a.id.cmp(&b.id));
    rows
}

/// Whether options stand beside `--repoid` that count for nothing.
#[must_use]
pub fn ignores_options(options: &[RepoOption]) -> bool {
    let only = |option: &RepoOption| matches!(option, RepoOption::Only(_));
    options.iter().any(only) && !options.iter().all(only)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::file;

    fn shown(options: &[RepoOption], filter: Filter, names: &[&str]) -> String {
        let text = "[b]\nname=B $releasever\n[a]\nenabled=0\n[a-testing]\nname=T\nenabled=0\n";
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let rows = run(&file::parse(text).repos, options, filter, &names, &Variables::new("4.3"));
        let row = |row: &Row| format!("{}={}{}", row.id, row.name, if row.enabled { "+" } else { "-" });
        rows.iter().map(row).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn options_count_in_their_order() {
        let on = |text: &str| RepoOption::Enable(text.to_owned());
        let off = |text: &str| RepoOption::Disable(text.to_owned());
        let only = |text: &str| RepoOption::Only(text.to_owned());
        assert_eq!(shown(&[], Filter::All, &[]), "a=a- a-testing=T- b=B 4.3+");
        assert_eq!(shown(&[], Filter::Enabled, &[]), "b=B 4.3+");
        assert_eq!(shown(&[on("a*"), off("b")], Filter::Enabled, &[]), "a=a+ a-testing=T+");
        assert_eq!(shown(&[on("a*")], Filter::Disabled, &[]), "");
        assert_eq!(shown(&[only("*testing"), on("a")], Filter::All, &[]), "a-testing=T+");
        assert_eq!(shown(&[only("*testing")], Filter::Disabled, &[]), "");
        assert_eq!(shown(&[], Filter::All, &["a*"]), "a=a- a-testing=T-");
        assert!(ignores_options(&[only("a"), on("b")]) && !ignores_options(&[on("b")]));
    }
}
