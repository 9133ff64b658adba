//! From arguments to an exit status: parse, gather settings, run the use case, show what came of it.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::args::{Stop, Typed};
use super::config::{Environment, Settings, directory};
use super::exit::Status;
use super::output::{self, Form};
use super::reporter::Terminal;
use super::table::{Command, Opt};
use super::{docs, help, marks};
use crate::admin;
use crate::cancel::Cancel;
use crate::catalogue::{Catalogue, Sources};
use crate::clean::{self, Cache};
use crate::download::{self, Fetcher, Rotten};
use crate::install::{self, Order, Verb};
use crate::list::{self, Wanted};
use crate::migrate;
use crate::remove::{self, Mode};
use crate::repo::file;
use crate::repo::variables::Variables;
use crate::repolist::{self, Filter};
use crate::report::{Failure, Message, Reporter as _};
use crate::search::{self, Scope};
use crate::template::TemplateSpec;
use crate::template::conf::AllowPv;

/// What a command leaves behind when it ends well.
#[derive(Debug, Default)]
struct Done {
    /// For standard output, in the original's form.
    text: String,
    /// The same in our own JSON.
    json: Value,
    /// What a person should know beside it.
    warnings: Vec<String>,
    /// Whether a template is there and its first start did not go as it should.
    unfinished: bool,
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
    let result = begin(&typed);
    let status = match &result {
        Ok(done) if done.unfinished => Status::Unfinished,
        Ok(_) => Status::Done,
        Err(failure) => Status::from(failure),
    };
    match result {
        Ok(done) if json => show(&output::envelope(name, &done.json, &done.warnings)),
        Ok(done) => show(&done.text),
        Err(failure) => {
            if json {
                show(&output::failure(name, status.word(), &shown(&failure, false), status.code()));
            }
            tell(&failure, typed.count(Opt::Verbose) > typed.count(Opt::Quiet), json);
        }
    }
    status.into()
}

fn begin(typed: &Typed) -> Result<Done, Failure> {
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
        let run = Run { typed, settings: &settings, terminal: &terminal, cancel: &cancel };
        run.command().await
    });
    // A question that nobody answered may still be waiting on a thread.
    runtime.shutdown_background();
    let done = result?;
    done.warnings.iter().for_each(|line| terminal.line(line));
    Ok(done)
}

/// A command line with everything that it needs.
struct Run<'a> {
    typed: &'a Typed,
    settings: &'a Settings,
    terminal: &'a Terminal,
    cancel: &'a Cancel,
}

impl Run<'_> {
    async fn command(&self) -> Result<Done, Failure> {
        match self.typed.command {
            Command::List => self.list(false).await,
            Command::Info => self.list(true).await,
            Command::Search => self.search().await,
            Command::Remove | Command::Purge => self.remove().await,
            Command::Clean => self.clean(),
            Command::Repolist => self.repolist(),
            Command::MigrateFromRpmdb => self.migrate().await,
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
            Command::Download => self.download().await,
        }
    }

    async fn list(&self, details: bool) -> Result<Done, Failure> {
        let has = |opt| self.typed.has(opt);
        let chosen = [Opt::Installed, Opt::Available, Opt::Extras, Opt::Upgrades].into_iter().any(has);
        let all = has(Opt::All) || !chosen;
        let machine = has(Opt::MachineReadable) || has(Opt::MachineReadableJson) || has(Opt::Json);
        let on_terminal = std::io::stdout().is_terminal() && !machine && !details;
        let wanted = Wanted {
            specs: self.specs()?,
            installed: all || has(Opt::Installed),
            available: all || has(Opt::Available),
            extras: has(Opt::Extras),
            upgrades: has(Opt::Upgrades),
            all_versions: has(Opt::AllVersions),
            details,
            end_of_life: on_terminal || has(Opt::Json),
        };
        let (api, sources) = (admin::connect(), self.sources());
        let catalogue = Catalogue::new(api.as_ref(), self.terminal, &sources);
        let listing = self.cancel.or(list::run(api.as_ref(), &catalogue, &wanted)).await?;
        if listing.groups.is_empty() {
            listing.warnings.iter().for_each(|line| self.terminal.line(line));
            return Err(Failure::Usage("No matching templates to list".to_owned()));
        }
        let form = if has(Opt::MachineReadable) {
            Form::Pipe
        } else if has(Opt::MachineReadableJson) {
            Form::Json
        } else {
            Form::Human
        };
        let text = if on_terminal {
            let today = jiff::Zoned::now().date().to_string();
            marks::listing(&listing, &today, marks::colored(self.settings.color.value))
        } else {
            output::listing(&listing, details, form)
        };
        Ok(Done {
            text,
            json: output::listing_json(&listing, details),
            warnings: listing.warnings,
            ..Done::default()
        })
    }

    async fn install(&self, verb: Verb) -> Result<Done, Failure> {
        if self.typed.has(Opt::DownloadDir) {
            self.terminal.say(&Message::Warning("--downloaddir has no effect on this command"));
        }
        let settings = self.settings;
        let order = Order {
            verb,
            named: self.typed.positionals.clone(),
            pool: settings.pool.value.clone(),
            allow_pv: if self.typed.has(Opt::AllowPv) { AllowPv::Yes } else { AllowPv::No },
            skip_start: self.typed.has(Opt::SkipStart),
            nogpgcheck: self.typed.has(Opt::NoGpgCheck),
            retries: settings.retries.value,
            keep_cache: settings.keep_cache.value,
            yes: self.typed.has(Opt::Yes),
            cache: settings.cachedir.value.clone(),
        };
        let (api, sources) = (admin::connect(), self.sources());
        let catalogue = Catalogue::new(api.as_ref(), self.terminal, &sources);
        let summary = install::run(api.as_ref(), &catalogue, self.terminal, self.cancel, &order).await?;
        Ok(Done {
            json: json!({"installed": summary.done, "unfinished": summary.unfinished}),
            unfinished: !summary.unfinished.is_empty(),
            ..Done::default()
        })
    }

    async fn download(&self) -> Result<Done, Failure> {
        let (api, sources) = (admin::connect(), self.sources());
        let catalogue = Catalogue::new(api.as_ref(), self.terminal, &sources);
        let fetcher = Fetcher {
            catalogue: &catalogue,
            reporter: self.terminal,
            cancel: self.cancel,
            retries: self.settings.retries.value,
            nogpgcheck: self.typed.has(Opt::NoGpgCheck),
            rotten: Rotten::Refuse,
        };
        // As ever, local packages count for nothing here.
        let mut specs = self.specs()?;
        specs.retain(|spec| !spec.as_str().ends_with(".rpm"));
        let directory = directory(self.typed.last(Opt::DownloadDir).unwrap_or_default());
        download::run(fetcher, &specs, &directory).await?;
        Ok(Done { json: json!({"directory": directory.display().to_string()}), ..Done::default() })
    }

    async fn search(&self) -> Result<Done, Failure> {
        let scope = if self.typed.has(Opt::All) { Scope::Everything } else { Scope::Main };
        let (api, sources) = (admin::connect(), self.sources());
        let catalogue = Catalogue::new(api.as_ref(), self.terminal, &sources);
        let work = search::run(api.as_ref(), &catalogue, &self.typed.positionals, scope);
        let hits = self.cancel.or(work).await?;
        Ok(Done {
            text: output::hits(&hits),
            json: output::hits_json(&hits),
            warnings: hits.warnings,
            ..Done::default()
        })
    }

    async fn remove(&self) -> Result<Done, Failure> {
        let own = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        let options = remove::Options {
            mode: match self.typed.command {
                Command::Purge => Mode::Purge,
                _ if self.typed.has(Opt::Disassoc) => Mode::Disassociate,
                _ => Mode::Plain,
            },
            force: self.typed.has(Opt::Force),
            ask: !self.typed.has(Opt::Yes),
            show_plan: std::io::stderr().is_terminal(),
            own: own.as_deref(),
        };
        let api = admin::connect();
        let names = &self.typed.positionals;
        let removed = remove::run(api.as_ref(), self.terminal, self.cancel, names, options).await?;
        Ok(Done { json: json!({"removed": removed}), ..Done::default() })
    }

    fn clean(&self) -> Result<Done, Failure> {
        let cache = if self.settings.own_cachedir { Cache::Own } else { Cache::Named };
        let deleted = clean::run(&self.settings.cachedir.value, cache)?;
        Ok(Done { json: json!({"deleted": deleted}), ..Done::default() })
    }

    fn repolist(&self) -> Result<Done, Failure> {
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

    async fn migrate(&self) -> Result<Done, Failure> {
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

    fn specs(&self) -> Result<Vec<TemplateSpec>, Failure> {
        let spec = |text: &String| TemplateSpec::new(text).map_err(|error| Failure::Usage(error.to_string()));
        self.typed.positionals.iter().map(spec).collect()
    }

    fn sources(&self) -> Sources {
        Sources {
            repo_files: self.settings.repo_files.value.clone(),
            keyring: self.settings.keyring.value.clone(),
            updatevm: self.settings.updatevm.value.clone(),
            options: self.settings.repo_options.clone(),
            releasever: self.settings.releasever.value.clone(),
            refresh: self.typed.has(Opt::Refresh),
        }
    }
}

impl Done {
    fn text(text: String) -> Self {
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
        Failure::Declined | Failure::Reported => {}
        Failure::Usage(message) => complain(&format!("qvm-template: error: {message}")),
        other => complain(&format!("ERROR: {}", shown(other, verbose))),
    }
}

/// The text of a failure with its causes; in full where somebody wants to know everything.
fn shown(failure: &Failure, verbose: bool) -> String {
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

fn show(text: &str) {
    if let Err(error) = output::print(text) {
        complain(&format!("ERROR: writing to standard output: {error}"));
    }
}
