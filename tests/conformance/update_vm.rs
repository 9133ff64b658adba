//! Replays `updatevm.jsonl`: the requests that command lines lead to, byte for byte, and what the services answer.
//!
//! The service runs as a program, with the request on its standard input; the repositories are those of
//! `packages.json`, on a web server that does wrong what the case says. Text on standard error is for people and is not
//! compared.
//!
//! Where a case belongs to a difference on purpose follows from what it is, never from its name.

mod repositories;
mod requests;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use qvm_template::repo::choice;
use qvm_template::repo::file;
use qvm_template::repo::wire::{Limits, Request, SearchReply};
use serde_json::Value;

use self::requests::Order;
use super::cli;
use super::differences::Differences;
use super::recording::{Folder, word};
use super::report::CaseResult;
use crate::support::packages::Description;
use crate::support::programs::{self, SERVICE};
use crate::support::web::{Fault, Files, Web};

/// Where the recorded repositories are.
const RECORDED: &str = "https://repo.example.invalid";

/// What every case needs.
struct Stage<'a> {
    world: cli::World,
    folder: &'a Path,
    scratch: tempfile::TempDir,
    packages: Vec<Description>,
    files: Arc<Files>,
}

/// What a service did.
struct Run {
    rc: Option<i32>,
    stdout: Vec<u8>,
    stderr: String,
    log: Vec<String>,
}

/// Replays every case.
pub fn run(folder: &Folder, _declared: &Differences) -> Result<Vec<CaseResult>> {
    let recording = folder.recording("updatevm")?;
    let packages: Vec<Description> =
        serde_json::from_value(folder.json("packages.json")?).context("understanding packages.json")?;
    let files = Arc::new(repositories::files(&packages));
    let world = cli::world(folder)?;
    let stage = Stage { world, folder: folder.path(), scratch: programs::folder()?, packages, files };
    recording
        .cases
        .iter()
        .map(|case| stage.replay(case).with_context(|| word(case, "id").to_owned()))
        .collect()
}

impl Stage<'_> {
    fn replay(&self, case: &Value) -> Result<CaseResult> {
        let id = word(case, "id");
        let build = |order| requests::build(self.folder, self.scratch.path(), case, order);
        let sent = (!case["args"].is_null()).then(|| build(Order::Recorded));
        if let Some(sent) = &sent
            && let Some(result) = self.request(id, case, sent)
        {
            return Ok(result);
        }
        let tool = if sent.is_some() { self.tool(id, case)? } else { None };
        if case["request"].is_null() {
            // Nothing is sent, by both.
            return Ok(tool.unwrap_or_else(|| CaseResult::plain(id, None)));
        }
        let run = self.serve(case)?;
        let service = match word(case, "service") {
            "qubes.TemplateSearch" => self.search(id, case, &run),
            _ => self.download(id, case, &run),
        };
        Ok(tool.filter(|_| service.difference.is_none()).unwrap_or(service))
    }

    /// Compares what would be sent; nothing if it is equal.
    fn request(&self, id: &str, case: &Value, sent: &Result<Vec<u8>>) -> Option<CaseResult> {
        let recorded = case["request"].as_str();
        let ours = sent.as_ref().ok().map(|bytes| String::from_utf8_lossy(bytes));
        if ours.as_deref() == recorded {
            return None;
        }
        let (rule, instead) = match (&ours, recorded) {
            (Some(ours), None) => ("R19", usable(ours)),
            (Some(ours), Some(recorded)) => ("R20", without_foreign_keys(ours, recorded)),
            (None, _) => ("R19", Err("nothing is sent".to_owned())),
        };
        let why = match sent {
            Ok(_) => format!("sent {ours:?}, recorded {recorded:?}"),
            Err(error) => format!("nothing is sent: {error:#}"),
        };
        Some(CaseResult {
            id: id.to_owned(),
            better: vec![rule.to_owned()],
            difference: Some(why),
            instead: Some(instead),
        })
    }

    /// Compares what the real program sends with what is built here, which is equal to the recording but for the order
    /// of the repository files; nothing if it is the same.
    fn tool(&self, id: &str, case: &Value) -> Result<Option<CaseResult>> {
        let build = requests::build(self.folder, self.scratch.path(), case, Order::Sorted);
        let wanted = build.as_ref().ok().map(|bytes| Request::parse(bytes));
        let reply = requests::reply_for(&self.folder.join("repo_replies"), case)?;
        let line = requests::as_command_line(self.folder, self.scratch.path(), case, &reply)?;
        let (rc, sent) = cli::requests(&self.world, line)?;
        let sent: Vec<String> = sent
            .into_iter()
            .filter(|(service, _)| *service == word(case, "service"))
            .map(|(_, text)| text)
            .collect();
        let built = build.ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        if sent.first() == built.as_ref() && sent.len() <= 1 {
            return Ok(None);
        }
        let (rule, good) = match (&wanted, sent.as_slice()) {
            (Some(wanted), []) if wanted.repo_text.is_empty() => ("R4", rc != 0),
            // What the reply says is in a repository that does not take part is not asked for.
            (Some(wanted), []) if self.is_of_no_enabled(wanted) => ("R13", rc != 0),
            (Some(wanted), [one]) => {
                let same =
                    |request: &Request| Request { spec: String::new(), refresh: false, ..request.clone() };
                let one = Request::parse(one.as_bytes());
                let refresh = case["args"].as_array().is_some_and(|args| args.contains(&"--refresh".into()));
                (if refresh { "R15" } else { "R16" }, same(&one) == same(wanted) && one.refresh == refresh)
            }
            _ => ("", false),
        };
        let difference = format!("the program ends with {rc} and sends {sent:?}, not {built:?}");
        let instead = Some(if good { Ok(()) } else { Err(difference.clone()) });
        Ok(Some(CaseResult {
            id: id.to_owned(),
            better: vec![rule.to_owned()],
            difference: Some(difference),
            instead,
        }))
    }

    /// Runs the service for a case.
    fn serve(&self, case: &Value) -> Result<Run> {
        let faults: Vec<Fault> = match case.get("faults") {
            Some(faults) => serde_json::from_value(faults.clone()).context("understanding the faults")?,
            None => Vec::new(),
        };
        let web = Web::start(Arc::clone(&self.files), faults, true)?;
        let home = programs::folder()?;
        let mut service = programs::command(home.path(), SERVICE, [word(case, "service")])
            .env("XDG_CACHE_HOME", home.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting the service")?;
        let request = word(case, "request").replace(RECORDED, &web.url);
        let mut input = service.stdin.take().context("no standard input")?;
        let writer = std::thread::spawn(move || input.write_all(request.as_bytes()));
        let output = service.wait_with_output().context("waiting for the service")?;
        // A service that has enough before the end of its input is no failure.
        drop(writer.join());
        Ok(Run {
            rc: output.status.code(),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).replace(&web.url, RECORDED),
            log: web.log(),
        })
    }

    fn search(&self, id: &str, case: &Value, run: &Run) -> CaseResult {
        let stdout = String::from_utf8_lossy(&run.stdout);
        let wanted = word(case, "stdout");
        let wanted = if wanted == "<HELP>\n" { "" } else { wanted };
        let request = Request::parse(word(case, "request").as_bytes());
        let rc = case["rc"].as_i64() == run.rc.map(i64::from);
        let help = word(case, "stdout") == "<HELP>\n" && case["rc"] == 0;
        if rc && stdout == wanted && !help {
            return CaseResult::plain(id, None);
        }
        let asked: Vec<&Description> = self.asked(&request);
        let (rule, instead) = if request.spec.starts_with('-') {
            ("spec-is-data", expect(run, 0, stdout.is_empty()))
        } else if case.get("faults").is_some() && word(case, "stdout").is_empty() {
            let named = run.stderr.lines().any(|line| line.starts_with("Error: repository '"));
            ("broken-repository", expect(run, 1, stdout.is_empty() && named))
        } else if request.spec.to_lowercase() != request.spec && stdout.is_empty() {
            ("exact-case", expect(run, 0, wanted.to_lowercase().contains(&request.spec.to_lowercase())))
        } else if asked.iter().any(|package| is_odd(package)) {
            ("R14", expect(run, 0, self.has_each(&asked, &run.stdout)))
        } else {
            ("", Err("no rule speaks of this".to_owned()))
        };
        let difference = format!(
            "rc {:?}, stdout {stdout:?}, stderr {:?}; recorded rc {}, stdout {wanted:?}",
            run.rc, run.stderr, case["rc"]
        );
        CaseResult {
            id: id.to_owned(),
            better: vec![rule.to_owned()],
            difference: Some(difference),
            instead: Some(instead),
        }
    }

    fn download(&self, id: &str, case: &Value, run: &Run) -> CaseResult {
        let size = case["stdout_size"].as_u64();
        let request = Request::parse(word(case, "request").as_bytes());
        let asked = self.asked(&request);
        let fits = |package: &&&Description| {
            let full = format!(
                "qubes-template-{}-{}:{}-{}",
                package.name, package.epoch, package.version, package.release
            );
            full == request.spec || format!("qubes-template-{}", package.name) == request.spec
        };
        // The latest of equal names is the last by date in the recordings' description.
        let package = asked.iter().filter(fits).max_by_key(|package| package.buildtime);
        let whole = package.map(|package| repositories::content(package));
        let got_whole = whole.as_ref().is_some_and(|whole| *whole == run.stdout);
        let recorded_whole = package.is_some_and(|package| Some(package.size) == size);
        let rc = case["rc"].as_i64() == run.rc.map(i64::from);
        let log: Vec<&str> =
            run.log.iter().map(String::as_str).filter(|line| line.contains(".rpm ")).collect();
        let recorded_log: Vec<&str> =
            case["http"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let difference = format!(
            "rc {:?}, {} bytes, {log:?}, stderr {:?}; recorded rc {}, {size:?} bytes, {recorded_log:?}",
            run.rc,
            run.stdout.len(),
            run.stderr,
            case["rc"]
        );
        let equal = rc
            && if recorded_whole {
                got_whole
            } else {
                run.stdout.len() as u64 == size.unwrap_or(0) && run.stdout.is_empty()
            };
        let same_requests = log == recorded_log;
        if equal && (same_requests || case.get("faults").is_some()) {
            return CaseResult::plain(id, None);
        }
        let several = asked.iter().map(|package| &package.name).collect::<BTreeSet<_>>().len() > 1;
        let (rule, instead) = if several && request.spec.contains('*') {
            ("one-package", expect(run, 1, run.stdout.is_empty() && run.stderr.contains("several packages")))
        } else if case.get("faults").is_some() && !recorded_whole {
            let good = got_whole && run.rc == Some(0)
                || run.rc == Some(1) && whole.is_some_and(|whole| run.stdout.len() < whole.len());
            ("whole-package", if good { Ok(()) } else { Err(difference.clone()) })
        } else {
            ("", Err("no rule speaks of this".to_owned()))
        };
        CaseResult {
            id: id.to_owned(),
            better: vec![rule.to_owned()],
            difference: Some(difference),
            instead: Some(instead),
        }
    }

    /// The packages of the repositories that take part in a request.
    fn asked(&self, request: &Request) -> Vec<&Description> {
        let repos = file::parse(&request.repo_text).repos;
        let enabled = choice::enabled(&repos, &request.options);
        let below = |package: &Description| {
            let end = format!("/{}", package.repo);
            enabled.iter().any(|repo| repo.baseurl.iter().any(|url| url.ends_with(&end)))
        };
        self.packages.iter().filter(|package| below(package)).collect()
    }

    /// Whether the package that a request names is in none of the repositories that take part in it.
    fn is_of_no_enabled(&self, request: &Request) -> bool {
        let label = |package: &Description| {
            let (name, epoch) = (&package.name, package.epoch);
            format!("qubes-template-{name}-{epoch}:{}-{}", package.version, package.release)
        };
        !self.asked(request).iter().any(|package| label(package) == request.spec)
    }

    /// Whether a reply has a record for each package and no other, and none of them claims another repository.
    fn has_each(&self, packages: &[&Description], reply: &[u8]) -> bool {
        let Ok(reply) = SearchReply::parse(reply, Limits::default()) else { return false };
        let found: BTreeSet<String> =
            reply.offers.iter().map(|o| format!("{} {} {}", o.name, o.evr, o.repo)).collect();
        let wanted: BTreeSet<String> = packages
            .iter()
            .map(|p| format!("{} {}:{}-{} {}", p.name, p.epoch, p.version, p.release, p.repo))
            .collect();
        let pipes = reply
            .offers
            .iter()
            .all(|offer| ![&offer.summary, &offer.description].iter().any(|text| text.contains('|')));
        found == wanted && reply.skipped.is_empty() && pipes
    }
}

/// Whether a record of this package cannot be told from others, or would act on a terminal.
fn is_odd(package: &Description) -> bool {
    let texts = [&package.summary, &package.description, &package.url, &package.license];
    texts.iter().any(|text| text.contains('|') || text.chars().any(|c| c.is_control() && c != '\n'))
        || package.description.starts_with('\n')
}

/// The exit status of a run, and what else is wanted of it.
fn expect(run: &Run, rc: i32, more: bool) -> Result<(), String> {
    if run.rc == Some(rc) && more {
        return Ok(());
    }
    Err(format!(
        "rc {:?}, stdout {:?}, stderr {:?}",
        run.rc,
        String::from_utf8_lossy(&run.stdout),
        run.stderr
    ))
}

/// Whether a request that the original does not send has repositories in it.
fn usable(request: &str) -> Result<(), String> {
    let repos = file::parse(&Request::parse(request.as_bytes()).repo_text).repos;
    if repos.is_empty() { Err("it names no repository".to_owned()) } else { Ok(()) }
}

/// Whether two requests differ only in key files that lie outside of the key directory.
fn without_foreign_keys(ours: &str, recorded: &str) -> Result<(), String> {
    let mut wanted = Request::parse(recorded.as_bytes());
    let before = wanted.key_block.len();
    wanted.key_block.retain(|key| !key.path.contains("/../"));
    let same = wanted.encode().is_ok_and(|bytes| bytes == ours.as_bytes());
    if same && wanted.key_block.len() < before {
        Ok(())
    } else {
        Err("the requests differ elsewhere".to_owned())
    }
}
