//! `--via QUBE`: the same commands, carried out by a management qube for this one.

use serde_json::{Map, Value, json};

use crate::cli::format::table;
use crate::cli::output::{self, Form};
use crate::cli::run::{Done, Run};
use crate::cli::table::{Command, GLOBAL, Opt};
use crate::delegate::Verb;
use crate::delegate::answer::Refused;
use crate::delegate::client::Remote;
use crate::delegate::reads::Row;
use crate::delegate::request::Id;
use crate::ledger::{Action, Build, Ending, Trouble};
use crate::report::{Failure, Message, Reporter as _};
use crate::search::{HitGroup, Hits};
use crate::template::{RepoId, TemplateName, TemplateSpec, Timestamp, fnmatch};
use crate::untrusted::displayable;

/// Options that mean the same at a distance. What weakens a check or destroys other qubes cannot be asked for.
const CARRIED: [Opt; 25] = [
    Opt::Via,
    Opt::Json,
    Opt::Progress,
    Opt::Color,
    Opt::Yes,
    Opt::Verbose,
    Opt::Quiet,
    Opt::ForceRoot,
    Opt::Pool,
    Opt::RepoId,
    Opt::SkipStart,
    Opt::DryRun,
    Opt::FailFast,
    Opt::Plan,
    Opt::OnHangup,
    Opt::Job,
    Opt::Follow,
    Opt::All,
    Opt::Installed,
    Opt::Available,
    Opt::Extras,
    Opt::Upgrades,
    Opt::AllVersions,
    Opt::MachineReadable,
    Opt::MachineReadableJson,
];

/// A template, and the build of it where one is named.
struct Asked {
    name: String,
    version: Option<String>,
}

impl Run<'_> {
    pub(in crate::cli) async fn via(&self, qube: &str) -> Result<Done, Failure> {
        let command = self.typed.command.def();
        if TemplateName::new(qube).is_err() {
            return Err(Failure::Usage(format!("'{}' is no name of a qube", displayable(qube, false))));
        }
        if let Some((opt, _)) = self.typed.options.iter().find(|(opt, _)| !CARRIED.contains(opt)) {
            let mut all = GLOBAL.iter().chain(command.options.iter().copied());
            let name = all.find(|def| def.opt == *opt).map_or("option", |def| def.long);
            return Err(Failure::Usage(format!("--{name} cannot be asked of another qube with --via")));
        }
        let remote = Remote { qube, reporter: self.terminal };
        let ended = self.carry_out(&remote).await;
        if let Err(Failure::Told { message, .. }) = &ended {
            self.terminal.line(&format!("ERROR: {message}"));
        }
        ended
    }

    async fn carry_out(&self, remote: &Remote<'_>) -> Result<Done, Failure> {
        match self.typed.command {
            Command::List => self.list_via(remote, false).await,
            Command::Info => self.list_via(remote, true).await,
            Command::Search => self.search_via(remote).await,
            Command::Status => self.jobs_via(remote, Verb::Status).await,
            Command::Cancel => self.jobs_via(remote, Verb::Cancel).await,
            command => match verb_of(command.def().name) {
                Some(verb) => self.change_via(remote, verb).await,
                None => Err(Failure::Usage(format!("{} is not possible with --via", command.def().name))),
            },
        }
    }

    async fn change_via(&self, remote: &Remote<'_>, verb: Verb) -> Result<Done, Failure> {
        let names = self.asked(remote, verb).await?;
        if names.is_empty() {
            return Err(Failure::Usage("no template is named".to_owned()));
        }
        let plan = self.typed.last(Opt::Plan).map(|text| {
            Id::parse(text).ok_or_else(|| Failure::Usage(format!("'{text}' is no identifier of a plan")))
        });
        let plan = plan.transpose()?;
        if plan.is_some() && (names.len() > 1 || self.typed.has(Opt::DryRun)) {
            return Err(Failure::Usage("a plan is for one template, and is not planned again".to_owned()));
        }
        self.ask_before(verb, &names).await?;
        let mut request = self.request()?;
        if let Some(plan) = plan {
            request.insert("plan".to_owned(), json!(plan.as_str()));
        } else if let (true, Some(pool)) = (
            matches!(verb, Verb::Install),
            self.settings.pool.value.as_ref().filter(|_| self.typed.has(Opt::Pool)),
        ) {
            request.insert("pool".to_owned(), json!(pool));
        }
        let dry = self.typed.has(Opt::DryRun);
        let (mut done, mut failed) = (Done { json: json!({}), ..Done::default() }, Vec::new());
        for asked in &names {
            let mut request = request.clone();
            if let Some(version) = &asked.version {
                request.insert("version".to_owned(), json!(version));
            }
            let asking = if dry {
                request.insert("verb".to_owned(), json!(verb.to_string()));
                Verb::Plan
            } else {
                request.insert("on-hangup".to_owned(), json!(self.on_hangup()?));
                verb
            };
            let request = Value::Object(request);
            let asking = remote.ask(asking, Some(&asked.name), &request);
            let ended = match self.cancel.or(asking).await {
                Ok(result) => self.enter(verb, &asked.name, &result, &mut done),
                Err(failure) => Err(failure),
            };
            match ended {
                Ok(()) => {}
                Err(failure @ Failure::Interrupted(_)) => return Err(failure),
                Err(failure) => {
                    self.ledger.failed(&asked.name, Trouble::of(&failure));
                    failed.push((asked.name.clone(), failure));
                    if self.typed.has(Opt::FailFast) {
                        break;
                    }
                }
            }
        }
        if dry {
            done.text.insert_str(0, &output::plan(self.ledger));
        }
        match (failed.len(), names.len()) {
            (0, _) => Ok(done),
            (1, 1) => Err(failed.remove(0).1),
            _ => {
                let told: Vec<String> =
                    failed.iter().map(|(name, failure)| format!("{name}: {failure}")).collect();
                let cause = Trouble::of(&failed[0].1).cause;
                Err(Failure::Told { cause, message: told.join("\n") })
            }
        }
    }

    /// Enters what became of one template.
    fn enter(&self, verb: Verb, name: &str, result: &Value, done: &mut Done) -> Result<(), Failure> {
        if let Some(job) = result["job"].as_str().and_then(Id::parse) {
            done.json["job"] = json!(job.as_str());
        }
        refused(result)?;
        let entry = &result["templates"][0];
        let (before, after) = (build(&entry["before"]), build(&entry["after"]));
        match entry["outcome"].as_str().unwrap_or_default() {
            outcome @ ("done" | "not-finalized") => {
                self.ledger.plan(name, action(verb), before, after);
                let ending = if outcome == "done" { Ending::Done } else { Ending::NotFinalized };
                self.ledger.done(name, ending, None);
                done.unfinished |= outcome == "not-finalized";
            }
            "planned" if entry["action"] != "none" => {
                self.ledger.plan(name, action(verb), before, after);
                if let Some(plan) = result["plan"].as_str().and_then(Id::parse) {
                    done.text.push_str(&format!("{name}: exactly this with --plan {}\n", plan.as_str()));
                    done.json["plan"] = json!(plan.as_str());
                    done.json["expires"] = json!(result["expires"].as_u64());
                }
            }
            _ => {
                let state = match verb {
                    Verb::Upgrade => Message::Skipping(name, "of highest version"),
                    Verb::Downgrade => Message::Skipping(name, "of lowest version"),
                    _ => Message::AlreadyInstalled(name),
                };
                self.terminal.say(&state);
                self.ledger.plan(name, Action::None, before, after);
                self.ledger.skip(name, "nothing to do");
            }
        }
        Ok(())
    }

    /// The question that the command asks here too.
    async fn ask_before(&self, verb: Verb, names: &[Asked]) -> Result<(), Failure> {
        let text = match verb {
            _ if self.typed.has(Opt::Yes) || self.typed.has(Opt::DryRun) => return Ok(()),
            Verb::Remove => "This will completely remove the selected VM(s)...",
            Verb::Reinstall | Verb::Upgrade | Verb::Downgrade | Verb::Rollback => {
                "This will override changes made in the following VMs:"
            }
            _ => return Ok(()),
        };
        let names: Vec<String> = names.iter().map(|asked| asked.name.clone()).collect();
        let asked = async { self.terminal.confirm(text, &names).await.map_err(Failure::new) };
        if self.cancel.or(asked).await? { Ok(()) } else { Err(Failure::Declined) }
    }

    /// What is named on the command line. A pattern is looked up among what the caller may see.
    async fn asked(&self, remote: &Remote<'_>, verb: Verb) -> Result<Vec<Asked>, Failure> {
        let mut all: Vec<Asked> = Vec::new();
        let mut listed: Option<Vec<Row>> = None;
        for text in &self.typed.positionals {
            if text.ends_with(".rpm") {
                return Err(Failure::Usage("a local package cannot be handed over with --via".to_owned()));
            }
            if text.contains(['*', '?', '[']) {
                if listed.is_none() {
                    let show = if verb == Verb::Install { "available" } else { "installed" };
                    let request = json!({"schema": 1, "show": [show]});
                    let result = self.cancel.or(remote.ask(Verb::List, None, &request)).await?;
                    listed = Some(rows(&result)?);
                }
                let fits = |row: &&Row| fnmatch::matches(text, &row.name);
                let names = listed.iter().flatten().filter(fits).map(|row| row.name.clone());
                let found: Vec<String> = names.filter(|name| TemplateName::new(name).is_ok()).collect();
                if found.is_empty() {
                    return Err(Failure::Usage(format!("Template '{text}' not found.")));
                }
                for name in found {
                    if !all.iter().any(|asked| asked.name == name) {
                        all.push(Asked { name, version: None });
                    }
                }
                continue;
            }
            // Only a build with an epoch can be told from a name.
            let dash = text.find(':').and_then(|colon| text[..colon].rfind('-'));
            let (name, version) = match dash {
                Some(dash) => (&text[..dash], Some(text[dash + 1..].to_owned())),
                None => (text.as_str(), None),
            };
            TemplateName::new(name).map_err(|error| Failure::Usage(error.to_string()))?;
            all.push(Asked { name: name.to_owned(), version });
        }
        Ok(all)
    }

    /// What all requests of this command line have in common.
    fn request(&self) -> Result<Map<String, Value>, Failure> {
        let mut request = Map::new();
        request.insert("schema".to_owned(), json!(1));
        let repositories: Vec<&str> = self.typed.values(Opt::RepoId).collect();
        match repositories.as_slice() {
            [] => {}
            [one] if RepoId::new(one).is_some() => drop(request.insert("repository".to_owned(), json!(one))),
            _ => {
                return Err(Failure::Usage("--via takes one repository, by its identifier".to_owned()));
            }
        }
        if self.typed.has(Opt::SkipStart) {
            request.insert("skip-start".to_owned(), json!(true));
        }
        Ok(request)
    }

    /// As a local command that is interrupted leaves nothing behind, so does this, unless something else is wanted.
    fn on_hangup(&self) -> Result<&str, Failure> {
        match self.typed.last(Opt::OnHangup) {
            None => Ok("cancel"),
            Some(word @ ("continue" | "cancel")) => Ok(word),
            Some(_) => Err(Failure::Usage("--on-hangup is continue or cancel".to_owned())),
        }
    }

    async fn list_via(&self, remote: &Remote<'_>, details: bool) -> Result<Done, Failure> {
        let has = |opt| self.typed.has(opt);
        let mut show: Vec<&str> = [
            (Opt::Installed, "installed"),
            (Opt::Available, "available"),
            (Opt::Extras, "extras"),
            (Opt::Upgrades, "upgrades"),
        ]
        .into_iter()
        .filter(|(opt, _)| has(*opt))
        .map(|(_, word)| word)
        .collect();
        if show.is_empty() || has(Opt::All) {
            show = vec!["installed", "available"];
        }
        let verb = if details { Verb::Info } else { Verb::List };
        let mut request = json!({"schema": 1, "show": show});
        if has(Opt::AllVersions) {
            request["all-versions"] = json!(true);
        }
        // Info is about one template; a list is asked for once and sifted here, as patterns go.
        let names: Vec<Option<&str>> = match verb {
            Verb::Info => self.typed.positionals.iter().map(|name| Some(name.as_str())).collect(),
            _ => vec![None],
        };
        if names.is_empty() {
            return Err(Failure::Usage("with --via, info needs the name of a template".to_owned()));
        }
        let mut found = Vec::new();
        for name in names {
            if let Some(name) = name {
                TemplateName::new(name).map_err(|error| Failure::Usage(error.to_string()))?;
            }
            found.extend(rows(&self.cancel.or(remote.ask(verb, name, &request)).await?)?);
        }
        if verb == Verb::List && !self.typed.positionals.is_empty() {
            let specs = self.specs()?;
            found.retain(|row| specs.iter().any(|spec| fits(spec, row)));
        }
        let listing = Row::listing(found);
        if listing.groups.is_empty() {
            return Err(Failure::Usage("No matching templates to list".to_owned()));
        }
        let form = if has(Opt::MachineReadable) {
            Form::Pipe
        } else if has(Opt::MachineReadableJson) {
            Form::Json
        } else {
            Form::Human
        };
        let text = output::listing(&listing, details, form);
        Ok(Done { text, json: output::listing_json(&listing, details), ..Done::default() })
    }

    async fn search_via(&self, remote: &Remote<'_>) -> Result<Done, Failure> {
        let mut request = json!({"schema": 1, "keywords": self.typed.positionals});
        if self.typed.has(Opt::All) {
            request["everything"] = json!(true);
        }
        let result = self.cancel.or(remote.ask(Verb::Search, None, &request)).await?;
        refused(&result)?;
        let groups: Option<Vec<HitGroup>> =
            result["groups"].as_array().map(|groups| groups.iter().filter_map(group).collect());
        let hits = Hits { groups: groups.unwrap_or_default(), warnings: Vec::new() };
        Ok(Done { text: output::hits(&hits), json: output::hits_json(&hits), ..Done::default() })
    }

    async fn jobs_via(&self, remote: &Remote<'_>, verb: Verb) -> Result<Done, Failure> {
        let mut request = json!({"schema": 1});
        if let Some(job) = self.typed.last(Opt::Job) {
            let id =
                Id::parse(job).ok_or_else(|| Failure::Usage(format!("'{job}' is no identifier of a job")))?;
            request["job"] = json!(id.as_str());
        }
        if self.typed.has(Opt::Follow) {
            request["follow"] = json!(true);
        }
        let name = match self.typed.positionals.as_slice() {
            [] if verb == Verb::Status => None,
            [name] => Some(TemplateName::new(name).map_err(|error| Failure::Usage(error.to_string()))?),
            _ => return Err(Failure::Usage("one template is named".to_owned())),
        };
        let asking = remote.ask(verb, name.as_ref().map(TemplateName::as_str), &request);
        let result = self.cancel.or(asking).await?;
        refused(&result)?;
        Ok(jobs(result["jobs"].as_array().map(Vec::as_slice).unwrap_or_default()))
    }
}

/// Jobs as they are shown.
pub(super) fn jobs(jobs: &[Value]) -> Done {
    let text = |job: &Value, key: &str| displayable(job[key].as_str().unwrap_or("-"), false);
    let time = |job: &Value| {
        let seconds = job["started"].as_u64().and_then(|seconds| i64::try_from(seconds).ok());
        seconds.map_or_else(|| "-".to_owned(), |seconds| Timestamp(seconds).to_string())
    };
    let line = |job: &Value| {
        let mut line =
            vec![text(job, "job"), text(job, "verb"), text(job, "template"), text(job, "state"), time(job)];
        if job.get("caller").is_some() {
            line.push(text(job, "caller"));
        }
        line
    };
    let rows: Vec<Vec<String>> = jobs.iter().map(line).collect();
    Done { text: table(&rows), json: json!({"jobs": jobs}), ..Done::default() }
}

fn verb_of(command: &str) -> Option<Verb> {
    Verb::ALL.into_iter().find(|verb| verb.changes() && verb.to_string() == command)
}

fn action(verb: Verb) -> Action {
    match verb {
        Verb::Install => Action::Install,
        Verb::Reinstall => Action::Reinstall,
        Verb::Upgrade => Action::Upgrade,
        Verb::Downgrade => Action::Downgrade,
        Verb::Remove => Action::Remove,
        Verb::Rollback => Action::Rollback,
        Verb::Finalize => Action::Finalize,
        _ => Action::None,
    }
}

fn build(value: &Value) -> Option<Build> {
    let text = |key: &str| displayable(value[key].as_str().unwrap_or_default(), false);
    value.is_object().then(|| Build {
        evr: text("evr"),
        repo: text("reponame"),
        build_time: text("buildtime"),
        size: value["size"].as_u64().or_else(|| value["download_size"].as_u64()),
        signer: value["signer"].as_str().map(|signer| displayable(signer, false)),
    })
}

/// A result that is a refusal, as the local command would fail.
fn refused(result: &Value) -> Result<(), Failure> {
    let error = &result["error"];
    if error.is_null() && result["result"] != "failed" {
        return Ok(());
    }
    let text = |key: &str| error[key].as_str().map(|text| displayable(text, true));
    let help = text("help").map_or_else(String::new, |help| format!("\nhelp: {help}"));
    let message = format!("{}{help}", text("message").unwrap_or_else(|| "failed".to_owned()));
    let cause = Refused::known(error["cause"].as_str().unwrap_or_default());
    Err(match result["exit"].as_u64() {
        Some(2) => Failure::Usage(message),
        Some(143) => Failure::Interrupted(15),
        _ => Failure::Told { cause, message },
    })
}

fn rows(result: &Value) -> Result<Vec<Row>, Failure> {
    if result["error"]["cause"] == Refused::Nothing.cause() {
        return Ok(Vec::new());
    }
    refused(result)?;
    serde_json::from_value(result["listing"].clone())
        .map_err(|error| Failure::new(format!("the management qube's list makes no sense: {error}")))
}

fn fits(spec: &TemplateSpec, row: &Row) -> bool {
    crate::template::Evr::new(&row.epoch, &row.version, &row.release)
        .is_ok_and(|evr| spec.matches(&row.name, &evr))
}

fn group(value: &Value) -> Option<HitGroup> {
    let known = |field: &Value| HitGroup::FIELDS.into_iter().find(|name| field == name);
    let texts = |value: &Value| -> Vec<String> {
        let all = value.as_array().into_iter().flatten().filter_map(Value::as_str);
        all.map(|text| displayable(text, false)).collect()
    };
    Some(HitGroup {
        fields: value["fields"].as_array()?.iter().filter_map(known).collect(),
        exact: value["exact"].as_bool()?,
        words: texts(&value["words"]),
        templates: value["templates"]
            .as_array()?
            .iter()
            .map(texts)
            .filter_map(|pair| <[String; 2]>::try_from(pair).ok().map(|[name, summary]| (name, summary)))
            .collect(),
    })
}
