//! The file of grants looked at by its author: what it comes to, what is odd in it, and which line decides.

use super::Verb;
use super::grants::{Caller, Grant, Grants, Owner, Refusal, Whose, Wish, matches};
use crate::template::{RepoId, TemplateName};

/// How far a caller's verb reaches among templates of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// Not at all.
    Nothing,
    /// The caller's own.
    Own,
    /// Those, and the ones that nobody owns.
    Shared,
}

impl Reach {
    /// As tables and JSON have it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Nothing => "-",
            Self::Own => "own",
            Self::Shared => "all",
        }
    }
}

/// A line of the matrix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The caller, as the file writes it.
    pub caller: String,
    /// A name, or a pattern of the file.
    pub template: String,
    /// For each verb, in the order of [`Verb::ALL`].
    pub cells: Vec<Reach>,
}

/// Something in the file that is allowed and probably not meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// The line, counted from 1.
    pub line: usize,
    /// What is odd.
    pub text: String,
}

/// A decision about a template of each possible owner.
pub type Explained = (Owner, Result<(usize, Grant), Refusal>);

/// Caller x verb x template: for these names, or else for the patterns that the file has for each caller.
#[must_use]
pub fn matrix(grants: &Grants, names: &[TemplateName]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for grant in grants.all() {
        let templates: Vec<String> = match names {
            [] => grant.templates().to_vec(),
            names => names.iter().map(ToString::to_string).collect(),
        };
        for template in templates {
            let caller = grant.caller().to_string();
            if rows.iter().any(|row| row.caller == caller && row.template == template) {
                continue;
            }
            let own = || grants.all().iter().filter(|other| other.caller() == grant.caller());
            let reach = |verb: Verb| {
                let covers = own().filter(|g| g.verbs().contains(&verb));
                let covers = covers.filter(|g| g.templates().iter().any(|glob| includes(glob, &template)));
                let reach = |g: &Grant| if g.whose() == Whose::Shared { Reach::Shared } else { Reach::Own };
                covers.map(reach).max().unwrap_or(Reach::Nothing)
            };
            let cells = Verb::ALL.map(reach).to_vec();
            rows.push(Row { caller, template, cells });
        }
    }
    rows
}

/// Whether every name that fits `pattern` fits `glob`. A star of `glob` takes the wildcards of `pattern` like other text;
/// a question mark would take a star for one letter, so it counts only where both are written alike.
fn includes(glob: &str, pattern: &str) -> bool {
    let is_name = !pattern.contains(['*', '?']);
    glob == pattern || ((is_name || !glob.contains('?')) && matches(glob, pattern))
}

/// What is odd. `configured`: the repositories of this qube, where they are known.
#[must_use]
pub fn remarks(grants: &Grants, configured: Option<&[RepoId]>) -> Vec<Remark> {
    let mut remarks = Vec::new();
    for (number, grant) in grants.all().iter().enumerate() {
        let mut remark = |text: String| remarks.push(Remark { line: grant.line(), text });
        let has = |verb| grant.verbs().contains(&verb);
        let fetches = [Verb::Install, Verb::Reinstall, Verb::Upgrade, Verb::Downgrade].into_iter().any(has);
        let limits = grant.limits();
        if grant.verbs().is_empty() {
            remark("no verb: it grants nothing".to_owned());
        }
        if grant.templates().is_empty() && grant.verbs().iter().any(|verb| !verb.is_without_name()) {
            remark("no template: verbs about one template are not granted".to_owned());
        }
        if fetches && grant.repositories().is_empty() {
            remark("no repository: nothing can be installed".to_owned());
        }
        if has(Verb::Plan) && !grant.verbs().iter().any(|verb| verb.changes()) {
            remark("plan without any change that could be planned".to_owned());
        }
        if grant.verbs().iter().any(|verb| verb.changes()) && !(has(Verb::Status) && has(Verb::Cancel)) {
            remark(
                "changes without status and cancel: a job cannot be found again after a lost connection"
                    .to_owned(),
            );
        }
        if grant.whose() == Whose::Shared && has(Verb::Remove) {
            remark("remove with whose = \"shared\": templates of the whole system can go".to_owned());
        }
        if fetches && (limits.max_changes_per_hour == 0 || (has(Verb::Install) && limits.max_templates == 0))
        {
            remark("a limit of 0: the change is granted and never carried out".to_owned());
        }
        if limits.max_total_size < limits.max_image_size {
            remark(
                "max-total-size is less than max-image-size, which can never be used to the full".to_owned(),
            );
        }
        for repo in grant.repositories() {
            if configured.is_some_and(|configured| !configured.contains(repo)) {
                remark(format!("the repository {repo} is not configured in this qube"));
            }
        }
        let earlier = &grants.all()[..number];
        if let Some(at) = earlier.iter().position(|before| before.text() == grant.text()) {
            remark(format!("the same as grant {}", at + 1));
        }
    }
    remarks
}

/// What is decided for a caller with these tags, and by which line. A caller `@tag:NAME` is any qube with that tag.
#[must_use]
pub fn explain(
    grants: &Grants,
    caller: &str,
    tags: &[String],
    verb: Verb,
    name: &TemplateName,
) -> Vec<Explained> {
    let mut tags = tags.to_vec();
    tags.extend(caller.strip_prefix("@tag:").map(str::to_owned));
    let owners = [Owner::Nobody, Owner::Caller, Owner::Unowned, Owner::Other];
    let decide = |owner| {
        let template = Some(name);
        let wish = Wish { caller, caller_tags: &tags, verb, template, owner, repository: None, pool: None };
        (owner, grants.decide(&wish).map(|(number, grant)| (number, grant.clone())))
    };
    owners.map(decide).to_vec()
}

/// Whether grants for tags are left out of account because nobody said which tags the caller has.
#[must_use]
pub fn needs_tags(grants: &Grants, caller: &str, tags: &[String]) -> bool {
    let by_tag = |grant: &Grant| matches!(grant.caller(), Caller::Tag(_));
    tags.is_empty() && !caller.starts_with("@tag:") && grants.all().iter().any(by_tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"version = 1
[[grant]]
caller = "desk"
verbs = ["list", "install"]
templates = ["debian-*"]
repositories = ["itl"]
[[grant]]
caller = "desk"
verbs = ["list", "remove"]
templates = ["debian-1?", "x"]
whose = "shared"
[[grant]]
caller = "@tag:audit"
verbs = ["plan"]
templates = ["*"]
"#;

    fn cell(rows: &[Row], caller: &str, template: &str, verb: Verb) -> Reach {
        let row = rows.iter().find(|row| row.caller == caller && row.template == template).unwrap();
        row.cells[Verb::ALL.iter().position(|one| *one == verb).unwrap()]
    }

    #[test]
    fn the_matrix_agrees_with_every_decision() {
        let grants = Grants::parse(FILE).unwrap();
        let patterns = matrix(&grants, &[]);
        assert_eq!(patterns.len(), 4);
        assert_eq!(cell(&patterns, "desk", "debian-*", Verb::List), Reach::Own);
        assert_eq!(cell(&patterns, "desk", "debian-1?", Verb::List), Reach::Shared);
        assert_eq!(cell(&patterns, "desk", "debian-1?", Verb::Install), Reach::Own);
        let names = ["debian-13", "debian-130", "x", "y"].map(|name| TemplateName::new(name).unwrap());
        let rows = matrix(&grants, &names);
        for (caller, name) in
            ["desk", "@tag:audit"].into_iter().flat_map(|c| names.iter().map(move |n| (c, n)))
        {
            for verb in Verb::ALL {
                let granted: Vec<bool> =
                    explain(&grants, caller, &[], verb, name).iter().map(|(_, said)| said.is_ok()).collect();
                let expected = match cell(&rows, caller, name.as_str(), verb) {
                    Reach::Nothing => [false; 4],
                    Reach::Own => [true, true, false, false],
                    Reach::Shared => [true, true, true, false],
                };
                assert_eq!(granted, expected, "{caller} {verb} {name}");
            }
        }
    }

    #[test]
    fn a_decision_names_its_line() {
        let grants = Grants::parse(FILE).unwrap();
        let name = TemplateName::new("debian-13").unwrap();
        let explained = explain(&grants, "desk", &[], Verb::Install, &name);
        assert_eq!(explained[0].1.as_ref().unwrap().1.deciding_lines(), [3, 4, 5]);
        assert!(explained[2].1.is_err());
        assert_eq!(explain(&grants, "x", &["audit".into()], Verb::Plan, &name)[0].1.as_ref().unwrap().0, 3);
        assert!(needs_tags(&grants, "x", &[]) && !needs_tags(&grants, "@tag:a", &[]));
    }

    #[test]
    fn odd_things_are_remarked() {
        let grants = Grants::parse(FILE).unwrap();
        let repos = [RepoId::new("other").unwrap()];
        let texts: Vec<(usize, String)> =
            remarks(&grants, Some(&repos)).into_iter().map(|remark| (remark.line, remark.text)).collect();
        for (line, part) in
            [(3, "itl is not configured"), (3, "status and cancel"), (8, "shared"), (13, "plan without")]
        {
            assert!(texts.iter().any(|(at, text)| *at == line && text.contains(part)), "{part}: {texts:?}");
        }
        let twice =
            format!("{FILE}{}", FILE.split_once("[[grant]]").map(|(_, t)| format!("[[grant]]{t}")).unwrap());
        let again = remarks(&Grants::parse(&twice).unwrap(), None);
        assert!(again.iter().any(|remark| remark.text == "the same as grant 1"), "{again:?}");
    }
}
