//! The requests that command lines lead to: what our tool would send, built from the recorded `etc/`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use qvm_template::repo::choice::RepoOption;
use qvm_template::repo::file;
use qvm_template::repo::keys::KeyDirectory;
use qvm_template::repo::variables::Variables;
use qvm_template::repo::wire::{Limits, Request, SearchReply};
use qvm_template::template::TemplateSpec;
use serde_json::{Value, json};

use crate::recording::{to_latin1, word};

const REPO_FILES: &str = "/etc/qubes/repo-templates/*.repo";
const RELEASE: &str = "4.3";

/// What a command line of the recordings asks for.
#[derive(Debug, Default)]
struct CommandLine {
    options: Vec<RepoOption>,
    repo_files: Vec<String>,
    releasever: Option<String>,
    refresh: bool,
    command: String,
    extras: bool,
    words: Vec<String>,
}

/// In which order repository files of one pattern are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As the original happened to read them.
    Recorded,
    /// As we do.
    Sorted,
}

/// The request that our tool sends for a case.
///
/// # Errors
/// Our tool would send none: why.
pub fn build(folder: &Path, scratch: &Path, case: &Value, order: Order) -> Result<Vec<u8>> {
    let line = CommandLine::read(case)?;
    let recorded = Request::parse(word(case, "request").as_bytes());
    let root = lay_out(folder, scratch, case, &recorded)?;
    let shown = |pattern: &String| format!("{}{pattern}", root.display());
    let mut patterns: Vec<String> = line.repo_files.iter().map(shown).collect();
    if line.repo_files == [REPO_FILES] && order == Order::Recorded {
        patterns = in_recorded_order(&patterns[0], &recorded)?;
    }
    let loaded = file::load(&patterns)?;
    let parsed = loaded.parse();
    if parsed.repos.is_empty() && !parsed.warnings.is_empty() {
        bail!("{}", parsed.warnings.join("; "));
    }
    let releasever = line.releasever.clone().unwrap_or_else(|| RELEASE.to_owned());
    let request = Request {
        spec: line.spec(case, &recorded)?,
        refresh: line.refresh && !word(case, "part").starts_with("2 ") && line.command != "download",
        key_block: KeyDirectory::below(&root).request_block(&parsed.repos, &Variables::new(&releasever)),
        repo_text: loaded.request_text(),
        options: line.options,
        releasever: Some(releasever),
    };
    Ok(request.encode()?)
}

/// The same command line as a case of `cli.jsonl`, for the real program.
pub fn as_command_line(folder: &Path, scratch: &Path, case: &Value, reply: &str) -> Result<Value> {
    let recorded = Request::parse(word(case, "request").as_bytes());
    let root = lay_out(folder, scratch, case, &recorded)?;
    let mut files = serde_json::Map::new();
    let mut repo_files = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next)? {
            let path = entry?.path();
            let shown = format!("/{}", path.strip_prefix(&root)?.display());
            if path.is_dir() {
                folders.push(path);
            } else if shown.starts_with("/etc/qubes/repo-templates/") && shown.ends_with(".repo") {
                repo_files.push(shown.rsplit('/').next().unwrap_or_default().to_owned());
            } else {
                files.insert(shown, json!({ "text": to_latin1(&fs::read(&path)?) }));
            }
        }
    }
    let mut args = case["args"].as_array().context("no args")?.clone();
    // One attempt shows what is asked for; whether the package suits the recorded keys is for others to say.
    if let Some(at) =
        args.iter().position(|arg| arg == "download").filter(|_| !args.contains(&json!("--retries")))
    {
        args.insert(at + 1, json!("--retries=1"));
    }
    Ok(json!({
        "id": case["id"], "population": population(folder)?, "repo_reply": reply, "args": args, "stdin": null, "files": files,
        "repo_files": repo_files, "rc": 0, "stdout": "", "stderr": "", "calls": [], "requests": [], "files_after": [], "better": null,
    }))
}

/// A population in which nothing is refused and nothing fails, and that has an UpdateVM.
fn population(folder: &Path) -> Result<String> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder.join("populations"))?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    for path in paths {
        let value: Value = serde_json::from_slice(&fs::read(&path)?)?;
        let update_vm = value["globals"]["updatevm"].as_str().unwrap_or_default();
        let rules = |key: &str| value[key].as_array().is_some_and(|rules| !rules.is_empty());
        if value["qubes"].get(update_vm).is_some() && !rules("deny") && !rules("fail") {
            return Ok(path.file_stem().unwrap_or_default().to_string_lossy().into_owned());
        }
    }
    bail!("no population has an UpdateVM")
}

/// The recorded reply that makes the command line of a case choose the package that its request names; any one where the
/// request names none.
pub fn reply_for(folder: &Path, case: &Value) -> Result<String> {
    let line = CommandLine::read(case)?;
    let asked = Request::parse(word(case, "request").as_bytes()).spec;
    let mut replies: Vec<PathBuf> =
        fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    replies.sort();
    let mut last = None;
    for path in replies.iter().filter(|path| path.extension().is_some_and(|end| end == "stdout")) {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let Ok(reply) = SearchReply::parse(&fs::read(path)?, Limits::default()) else { continue };
        let spec = line.words.first().map(|word| TemplateSpec::new(word)).transpose()?;
        let meant = reply
            .offers
            .iter()
            .filter(|offer| spec.as_ref().is_none_or(|spec| spec.matches(&offer.name, &offer.evr)));
        let newest = meant
            .max_by(|a, b| a.evr.cmp(&b.evr))
            .map(|offer| format!("qubes-template-{}-{}", offer.name, offer.evr));
        if line.command != "download" && !reply.offers.is_empty() || newest.as_deref() == Some(&asked) {
            return Ok(name);
        }
        last = Some(name);
    }
    last.context("there is no reply")
}

/// The files of a pattern in the order that the original happened to read them in. (We sort them.)
fn in_recorded_order(pattern: &str, recorded: &Request) -> Result<Vec<String>> {
    let mut files = file::load(&[pattern])?.files;
    files.sort_by_key(|file| recorded.repo_text.find(&file.text));
    Ok(files.into_iter().map(|file| file.path.display().to_string()).collect())
}

/// Puts in place what the command line of a case found: the recorded `etc/`, and files of which only the request tells.
fn lay_out(folder: &Path, scratch: &Path, case: &Value, recorded: &Request) -> Result<PathBuf> {
    let root = scratch.join(word(case, "id"));
    let named = CommandLine::read(case)?.repo_files;
    copy(&folder.join("etc/qubes/repo-templates/keys"), &root.join("etc/qubes/repo-templates/keys"))?;
    for entry in fs::read_dir(folder.join("etc/qubes/repo-templates"))? {
        let path = entry?.path();
        let in_use = path.extension().is_some_and(|end| end == "repo") && in_use(&path, recorded, &named)?;
        if in_use {
            fs::copy(
                &path,
                root.join("etc/qubes/repo-templates").join(path.file_name().unwrap_or_default()),
            )?;
        }
    }
    for key in &recorded.key_block {
        let path = root.join(key.path.trim_start_matches('/'));
        if !path.exists() {
            fs::write(path, &key.bytes)?;
        }
    }
    for path in named.iter().filter(|path| path.starts_with("/home/")) {
        let text = match recorded.repo_text.strip_suffix('\n') {
            Some(text) if !word(case, "request").is_empty() => text.to_owned(),
            _ => told_by_error(word(case, "stderr"))?,
        };
        let path = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap_or(&root))?;
        fs::write(path, text)?;
    }
    Ok(root)
}

/// Whether a recorded file was there: its text is in the request, or the command line names it.
fn in_use(path: &Path, recorded: &Request, named: &[String]) -> Result<bool> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let text = fs::read_to_string(path)?;
    Ok(recorded.repo_text.contains(&text)
        || named.iter().any(|pattern| pattern.ends_with(&format!("/{name}"))))
}

/// A text that brings the original to an end with this message. (The recording does not have the file itself.)
fn told_by_error(message: &str) -> Result<String> {
    if let Some(quoted) = message.split("\n'").nth(1).and_then(|rest| rest.split("\\n'").next()) {
        return Ok(format!("{quoted}\n"));
    }
    let found = message.split("found: '").nth(1).and_then(|rest| rest.split('\'').next());
    let found = found.with_context(|| format!("guessing the file behind {message:?}"))?;
    Ok(format!(
        "[a]\nname=a\nbaseurl=https://repo.example.invalid/a\ngpgkey=file:///etc/qubes/repo-templates/keys/a{found}\n"
    ))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        fs::copy(&path, to.join(path.file_name().unwrap_or_default()))?;
    }
    Ok(())
}

impl CommandLine {
    fn read(case: &Value) -> Result<Self> {
        let mut line = Self::default();
        let args: Vec<&str> =
            case["args"].as_array().context("no args")?.iter().filter_map(Value::as_str).collect();
        let mut args = args.into_iter();
        let mut only_words = false;
        while let Some(arg) = args.next() {
            let option = arg.strip_prefix("--").and_then(|rest| rest.split_once('='));
            if only_words || !arg.starts_with('-') {
                if line.command.is_empty() {
                    arg.clone_into(&mut line.command);
                } else {
                    line.words.push(arg.to_owned());
                }
            } else if let Some((name, value)) = option {
                match (name, RepoOption::from_name(name, value)) {
                    (_, Some(option)) => line.options.push(option),
                    ("repo-files", _) => line.repo_files.push(value.to_owned()),
                    ("releasever", _) => line.releasever = Some(value.to_owned()),
                    _ => bail!("unknown option {arg}"),
                }
            } else {
                match arg {
                    "--" => only_words = true,
                    "--refresh" => line.refresh = true,
                    "--extras" => line.extras = true,
                    "--retries" => drop(args.next()),
                    _ => {}
                }
            }
        }
        if line.repo_files.is_empty() {
            line.repo_files.push(REPO_FILES.to_owned());
        }
        Ok(line)
    }

    fn spec(&self, case: &Value, recorded: &Request) -> Result<String> {
        let part =
            word(case, "part").split(' ').next().and_then(|number| number.parse::<usize>().ok()).unwrap_or(1);
        match self.command.as_str() {
            // Which build is downloaded is for the selection to say; here it has to be one that the words mean.
            "download" => {
                let spec = recorded.spec.clone();
                let bare = spec.strip_prefix("qubes-template-").context("no package is asked for")?;
                let meant = self
                    .words
                    .iter()
                    .any(|word| bare.starts_with(word) || bare.replace("0:", "").starts_with(word));
                if meant { Ok(spec) } else { bail!("{spec} is none of {:?}", self.words) }
            }
            // The original asks once more for everything, to refresh.
            "list" if self.refresh && part == 1 => Ok("*".to_owned()),
            "list" if !self.words.is_empty() => {
                let number = if self.refresh { 0 } else { part - 1 };
                Ok(TemplateSpec::new(self.words.get(number).context("no such part")?)?.package_spec())
            }
            _ => Ok("*".to_owned()),
        }
    }
}
