//! `grants`: the file of grants, looked at by its author.

use std::path::Path;

use serde_json::{Value, json};

use crate::cli::format::table;
use crate::cli::run::{Done, Run};
use crate::cli::table::Opt;
use crate::delegate::Verb;
use crate::delegate::grants::{self, Grants, Owner};
use crate::delegate::review::{self, Explained, Row};
use crate::repo::file;
use crate::report::Failure;
use crate::template::{RepoId, TemplateName};

impl Run<'_> {
    pub(in crate::cli) fn grants(&self) -> Result<Done, Failure> {
        let path = self.typed.last(Opt::File).unwrap_or(grants::PATH);
        let words: Vec<&str> = self.typed.positionals.iter().map(String::as_str).collect();
        let forms = "grants needs `check [TEMPLATE]...` or `explain CALLER VERB TEMPLATE`";
        let read = || {
            if !Path::new(path).exists() {
                let help = "help: without it no other qube is served; the README shows one";
                return Err(Failure::new(format!("there is no file {path}\n{help}")));
            }
            Grants::read(Path::new(path)).map_err(|error| Failure::new(format!("{path}: {error}")))
        };
        match words.as_slice() {
            ["check", names @ ..] => {
                let names = names.iter().map(|name| template(name)).collect::<Result<Vec<_>, _>>()?;
                Ok(self.check(path, &read()?, &names))
            }
            ["explain", caller, verb, name] => {
                let verb = Verb::ALL.into_iter().find(|one| one.to_string() == *verb).ok_or_else(|| {
                    let all = Verb::ALL.map(|verb| verb.to_string()).join(", ");
                    Failure::Usage(format!("'{verb}' is no verb; there are {all}"))
                })?;
                Ok(self.explain(path, &read()?, caller, verb, &template(name)?))
            }
            _ => Err(Failure::Usage(forms.to_owned())),
        }
    }

    fn check(&self, path: &str, grants: &Grants, names: &[TemplateName]) -> Done {
        let rows = review::matrix(grants, names);
        let configured = file::load(&self.settings.repo_files.value).ok().map(|files| files.parse());
        let configured: Option<Vec<RepoId>> =
            configured.map(|parsed| parsed.repos.iter().map(|repo| repo.id.clone()).collect());
        let remarks = review::remarks(grants, configured.as_deref());
        let head = ["caller", "template"].map(str::to_owned).into_iter();
        let mut lines = vec![head.chain(Verb::ALL.map(|verb| verb.to_string())).collect::<Vec<_>>()];
        let cells = |row: &Row| row.cells.iter().map(|reach| reach.word().to_owned()).collect::<Vec<_>>();
        lines.extend(rows.iter().map(|row| {
            [row.caller.clone(), row.template.clone()].into_iter().chain(cells(row)).collect::<Vec<_>>()
        }));
        let legend = "own: the caller's own templates; all: those that nobody owns as well; -: nothing\n";
        let count = grants.all().len();
        let text = if count == 0 {
            format!("{path} grants nothing\n")
        } else {
            format!("{path}: {count} grants\n{}{legend}", table(&lines))
        };
        let matrix = |row: &Row| {
            let cells = Verb::ALL.iter().zip(&row.cells);
            let verbs = cells.map(|(verb, reach)| (verb.to_string(), json!(reach.word())));
            json!({
                "caller": row.caller, "template": row.template,
                "verbs": verbs.collect::<serde_json::Map<_, _>>(),
            })
        };
        let json = json!({
            "file": path, "grants": count, "matrix": rows.iter().map(matrix).collect::<Vec<Value>>(),
            "remarks": remarks.iter().map(|r| json!({"line": r.line, "text": r.text})).collect::<Vec<_>>(),
        });
        let warnings = remarks.iter().map(|r| format!("Warning: line {}: {}", r.line, r.text)).collect();
        Done { text, json, warnings, ..Done::default() }
    }

    fn explain(&self, path: &str, grants: &Grants, caller: &str, verb: Verb, name: &TemplateName) -> Done {
        let tags: Vec<String> = self.typed.values(Opt::Tag).map(str::to_owned).collect();
        let explained = review::explain(grants, caller, &tags, verb, name);
        let rows: Vec<Vec<String>> = explained
            .iter()
            .map(|(owner, said)| vec![whose(*owner).to_owned(), ":".to_owned(), sentence(said)])
            .collect();
        let text = format!("{caller}, {verb}, {name}, by {path}\n{}", table(&rows));
        let line = |(owner, said): &Explained| match said {
            Ok((number, grant)) => json!({
                "owner": whose(*owner), "granted": true, "grant": number, "lines": grant.deciding_lines(),
            }),
            Err(refusal) => {
                json!({"owner": whose(*owner), "granted": false, "reason": refusal.to_string()})
            }
        };
        let json = json!({
            "caller": caller, "verb": verb.to_string(), "template": name.to_string(),
            "decisions": explained.iter().map(line).collect::<Vec<Value>>(),
        });
        let mut warnings = Vec::new();
        if review::needs_tags(grants, caller, &tags) {
            warnings.push("Warning: grants for tags count only for the tags named with --tag".to_owned());
        }
        Done { text, json, warnings, ..Done::default() }
    }
}

fn template(name: &str) -> Result<TemplateName, Failure> {
    TemplateName::new(name).map_err(|error| Failure::Usage(error.to_string()))
}

fn whose(owner: Owner) -> &'static str {
    match owner {
        Owner::Nobody => "not there yet",
        Owner::Caller => "the caller's own",
        Owner::Unowned => "nobody's",
        Owner::Other => "another caller's",
    }
}

fn sentence(said: &Result<(usize, grants::Grant), grants::Refusal>) -> String {
    match said {
        Ok((number, grant)) => {
            let [caller, verbs, templates] = grant.deciding_lines();
            format!(
                "granted by grant {number}: caller line {caller}, verbs line {verbs}, templates line {templates}"
            )
        }
        Err(refusal) => format!("refused: {refusal}"),
    }
}
