//! From arguments to an exit status: parse, gather settings, run the use case, show what came of it.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use serde_json::Value;

use super::args::{Stop, Typed};
use super::config::{Environment, Reuse, Settings};
use super::exit::Status;
use super::output;
use super::reporter::Terminal;
use super::table::{Command, Opt};
use super::{docs, help, width};
use crate::admin::AdminApi;
use crate::cancel::Cancel;
use crate::catalogue::{Catalogue, Sources};
use crate::install::Verb;
use crate::ledger::Ledger;
use crate::query_cache::QueryCache;
use crate::report::Failure;
use crate::template::TemplateSpec;

/// What a command leaves behind when it ends well.
#[derive(Debug, Default)]
pub(in crate::cli) struct Done {
    /// For standard output, in the original's form.
    pub text: String,
    /// The same in our own JSON.
    pub json: Value,
    /// What a person should know beside it.
    pub warnings: Vec<String>,
    /// Whether a template is there and its first start did not go as it should.
    pub unfinished: bool,
}

/// Runs the program with these arguments (without its name).
#[must_use]
pub fn run(args: &[String]) -> ExitCode {
    let typed = match Typed::parse(args) {
        Ok(typed) => typed,
        Err(stop) => return stopped(&stop).into(),
    };
    let json = typed.has(Opt::Json);
    let name = typed.command.def().name;
    let ledger = Ledger::default();
    let result = begin(&typed, &ledger);
    let status = match &result {
        Ok(done) if done.unfinished => Status::Unfinished,
        Ok(_) => Status::Done,
        Err(failure) => Status::from(failure),
    };
    if json && typed.command.changes() {
        let failure = result.as_ref().err();
        show(&output::outcome(name, status, failure, &ledger, result.as_ref().ok()));
    }
    match result {
        Ok(_) if json && typed.command.changes() => {}
        Ok(done) if json => show(&output::envelope(name, &done.json, &done.warnings)),
        Ok(done) => show(&fitted(&typed, done.text)),
        Err(failure) => {
            if json && !typed.command.changes() {
                show(&output::failure(name, status, &failure));
            }
            tell(&failure, typed.count(Opt::Verbose) > typed.count(Opt::Quiet), json);
        }
    }
    status.into()
}

/// A result as it goes to standard output: on a terminal no wider than that, unless it is for a program.
fn fitted(typed: &Typed, text: String) -> String {
    let machine = typed.has(Opt::MachineReadable) || typed.has(Opt::MachineReadableJson);
    match width::columns(std::io::stdout()) {
        Some(columns) if !machine && typed.command != Command::Docs => width::fold(&text, columns),
        _ => text,
    }
}

fn begin(typed: &Typed, ledger: &Ledger) -> Result<Done, Failure> {
    let settings = Settings::gather(typed, &Environment::of_process())?;
    let quiet = typed.has(Opt::Quiet);
    let terminal = Terminal::new(settings.progress.value, quiet)?;
    if typed.has(Opt::Json) {
        terminal.keep_stdout_clean();
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("starting: {error}")))?;
    let result = runtime.block_on(async {
        let cancel =
            Cancel::on_signals().map_err(|error| Failure::new(format!("listening for signals: {error}")))?;
        let run = Run { typed, settings: &settings, terminal: &terminal, cancel: &cancel, ledger };
        run.tell_unfinished();
        run.command().await
    });
    // A question that nobody answered may still be waiting on a thread.
    runtime.shutdown_background();
    terminal.warnings().into_iter().for_each(|text| ledger.warn(text));
    let done = result?;
    done.warnings.iter().for_each(|line| terminal.line(line));
    Ok(done)
}

/// A command line with everything that it needs.
pub(in crate::cli) struct Run<'a> {
    pub typed: &'a Typed,
    pub settings: &'a Settings,
    pub terminal: &'a Terminal,
    pub cancel: &'a Cancel,
    /// What becomes of each template; shown by `--json`, also when the command fails.
    pub ledger: &'a Ledger,
}

impl Run<'_> {
    async fn command(&self) -> Result<Done, Failure> {
        if let Some(qube) = self.typed.last(Opt::Via) {
            return self.via(qube).await;
        }
        if let Some(opt) =
            [(Opt::Plan, "plan"), (Opt::OnHangup, "on-hangup")].iter().find(|(o, _)| self.typed.has(*o))
        {
            return Err(Failure::Usage(format!("--{} is for --via", opt.1)));
        }
        match self.typed.command {
            Command::List => self.list(false).await,
            Command::Info => self.list(true).await,
            Command::Search => self.search().await,
            Command::Remove | Command::Purge => self.remove().await,
            Command::Clean => self.clean(),
            Command::Repolist => self.repolist(),
            Command::MigrateFromRpmdb => self.migrate().await,
            Command::Trust => self.trust(),
            Command::Grants => self.grants(),
            Command::CheckPolicy => self.check_policy(),
            Command::Status | Command::Cancel => self.jobs(),
            Command::Config => Ok(Done {
                text: output::settings(self.settings),
                json: output::settings_json(self.settings),
                ..Done::default()
            }),
            Command::Docs => docs::run(&self.typed.positionals).map(Done::text),
            Command::Install => self.install(Verb::Install).await,
            Command::Reinstall if self.typed.has(Opt::Newest) => self.install(Verb::Renew).await,
            Command::Reinstall => self.install(Verb::Reinstall).await,
            Command::Upgrade => self.install(Verb::Upgrade).await,
            Command::Downgrade => self.install(Verb::Downgrade).await,
            Command::Renew => self.install(Verb::Renew).await,
            Command::Ensure => self.ensure().await,
            Command::Default => self.default().await,
            Command::Download => self.download().await,
            Command::Recover => self.recover().await,
            Command::Finalize => self.finalize().await,
            Command::Switch => self.switch().await,
            Command::Retire => self.retire().await,
            Command::Adopt => self.adopt().await,
            Command::RefreshMetadata => self.refresh_metadata().await,
        }
    }

    pub fn specs(&self) -> Result<Vec<TemplateSpec>, Failure> {
        let spec = |text: &String| TemplateSpec::new(text).map_err(|error| Failure::Usage(error.to_string()));
        self.typed.positionals.iter().map(spec).collect()
    }

    pub fn sources(&self) -> Sources {
        Sources {
            repo_files: self.settings.repo_files.value.clone(),
            keyring: self.settings.keyring.value.clone(),
            updatevm: self.settings.updatevm.value.clone(),
            options: self.settings.repo_options.clone(),
            releasever: self.settings.releasever.value.clone(),
            refresh: self.typed.has(Opt::Refresh),
            bounds: self.settings.limits.bounds(),
        }
    }
}

impl<'a> Run<'a> {
    /// The catalogue of these sources, with what a person at a terminal is offered beside it.
    pub fn catalogue<'c>(&'c self, api: &'c dyn AdminApi, sources: &'c Sources) -> Catalogue<'c>
    where
        'a: 'c,
    {
        let catalogue =
            Catalogue::new(api, self.terminal, sources).proposing(std::io::stderr().is_terminal());
        let has = |opt| self.typed.has(opt);
        let machine = has(Opt::MachineReadable) || has(Opt::MachineReadableJson);
        let shown = match self.settings.query_cache.value {
            Reuse::Never => return catalogue,
            Reuse::Always => !machine,
            Reuse::Auto => !machine && !has(Opt::Json) && std::io::stdout().is_terminal(),
        };
        let age = self.settings.limits.query_age.value;
        catalogue.keeping(QueryCache::new(&self.settings.cachedir.value, age), shown)
    }
}

impl Done {
    pub fn text(text: String) -> Self {
        Self { text, ..Self::default() }
    }
}

fn stopped(stop: &Stop) -> Status {
    match stop {
        Stop::Help(on) => show(&help::help(*on)),
        Stop::Version => show(&format!("qvm-template {}\n", env!("CARGO_PKG_VERSION"))),
        Stop::Usage { command, message, hint } => {
            let name = command.map_or_else(String::new, |command| format!(" {}", command.def().name));
            let hint = hint.as_ref().map_or_else(String::new, |hint| format!("\nhelp: {hint}"));
            complain(&format!("{}{hint}\nqvm-template{name}: error: {message}", help::usage(*command)));
            return Status::Usage;
        }
    }
    Status::Done
}

/// Says why a command failed: the one place where errors are printed.
fn tell(failure: &Failure, verbose: bool, json: bool) {
    match failure {
        Failure::Declined if !json => show("command cancelled.\n"),
        Failure::Declined | Failure::Reported | Failure::Told { .. } => {}
        Failure::Usage(message) => complain(&format!("qvm-template: error: {message}")),
        other => complain(&format!("ERROR: {}", shown(other, verbose))),
    }
}

/// The text of a failure with its causes; in full where somebody wants to know everything.
pub(in crate::cli) fn shown(failure: &Failure, verbose: bool) -> String {
    match failure {
        Failure::Failed(error) if verbose => {
            let causes = error.chain().skip(1).map(|cause| format!("\n  because: {cause}"));
            format!("{error}{}", causes.collect::<String>())
        }
        Failure::Failed(error) => format!("{error:#}"),
        other => other.to_string(),
    }
}

fn complain(text: &str) {
    if let Ok(terminal) = Terminal::new(super::config::Progress::None, true) {
        terminal.line(text);
    }
}

pub(in crate::cli) fn show(text: &str) {
    if let Err(error) = output::print(text) {
        complain(&format!("ERROR: writing to standard output: {error}"));
    }
}
