//! `qvm-template-postprocess`: called by the scripts of old template packages and by the original tool. The same program
//! as `qvm-template`, under its other name.

use std::process::ExitCode;

use super::config::Progress;
use super::reporter::Terminal;
use crate::admin;
use crate::cancel::Cancel;
use crate::postprocess::{self, Order};
use crate::report::{Failure, Message, Reporter};
use crate::template::TemplateName;
use crate::template::conf::AllowPv;

/// Name of the program.
pub const NAME: &str = "qvm-template-postprocess";
const USAGE: &str = "\
usage: qvm-template-postprocess --really [--skip-start] [--keep-source]
                                [--no-installed-by-rpm] [--allow-pv]
                                [--pool POOL]
                                {post-install,pre-remove} NAME DIR";

/// What was typed.
#[derive(Debug, Default)]
struct Typed {
    really: bool,
    skip_start: bool,
    keep_source: bool,
    no_installed_by_rpm: bool,
    allow_pv: bool,
    pool: Option<String>,
    words: Vec<String>,
}

/// Runs the program with these arguments (without its name).
#[must_use]
pub fn run(args: &[String]) -> ExitCode {
    let Ok(terminal) = Terminal::new(Progress::None, true) else { return ExitCode::FAILURE };
    match carry_out(args, &terminal) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            match &failure {
                Failure::Usage(text) => {
                    terminal.line(USAGE);
                    terminal.line(&format!("{NAME}: error: {text}"));
                }
                Failure::Reported | Failure::Told { .. } | Failure::Declined => {}
                Failure::Failed(error) => terminal.line(&format!("ERROR: {error:#}")),
                Failure::Interrupted(_) => terminal.line("ERROR: interrupted"),
            }
            ExitCode::from(failure.status())
        }
    }
}

fn carry_out(args: &[String], terminal: &Terminal) -> Result<(), Failure> {
    let typed = Typed::parse(args).map_err(Failure::Usage)?;
    let [action, name, directory] = typed.words.as_slice() else {
        let missing = ["action", "name", "dir"].get(typed.words.len()..).unwrap_or_default();
        return Err(Failure::Usage(match typed.words.get(3) {
            None => format!("the following arguments are required: {}", missing.join(", ")),
            Some(_) => format!("unrecognized arguments: {}", typed.words[3..].join(" ")),
        }));
    };
    if !matches!(action.as_str(), "post-install" | "pre-remove") {
        return Err(Failure::Usage(format!(
            "argument action: invalid choice: '{action}' (choose from 'post-install', 'pre-remove')"
        )));
    }
    if !typed.really {
        return Err(Failure::Usage("Do not call this tool directly.".to_owned()));
    }
    if postprocess::in_chroot() {
        terminal.say(&Message::Note("Running in chroot, ignoring request. Import template with:"));
        terminal.say(&Message::Note(&format!("{NAME} {}", args.join(" "))));
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(format!("starting: {error}")))?;
    let result = runtime.block_on(async {
        let api = admin::connect();
        if action == "pre-remove" {
            return postprocess::pre_remove(api.as_ref(), terminal, name).await;
        }
        let cancel =
            Cancel::on_signals().map_err(|error| Failure::new(format!("listening for signals: {error}")))?;
        let order = Order {
            name: TemplateName::new(name).map_err(Failure::new)?,
            directory: directory.into(),
            keep_source: typed.keep_source,
            installed_by_rpm: !typed.no_installed_by_rpm,
            pool: typed.pool.clone(),
            allow_pv: if typed.allow_pv { AllowPv::Yes } else { AllowPv::No },
            skip_start: typed.skip_start,
        };
        postprocess::post_install(api.as_ref(), terminal, &cancel, &order).await.map(drop)
    });
    runtime.shutdown_background();
    result
}

impl Typed {
    fn parse(args: &[String]) -> Result<Self, String> {
        let mut own = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let place = match arg.as_str() {
                "--really" => &mut own.really,
                "--skip-start" => &mut own.skip_start,
                "--keep-source" => &mut own.keep_source,
                "--no-installed-by-rpm" => &mut own.no_installed_by_rpm,
                "--allow-pv" => &mut own.allow_pv,
                "--pool" => {
                    own.pool = Some(args.next().ok_or("argument --pool: expected one argument")?.clone());
                    continue;
                }
                "--" => {
                    own.words.extend(args.by_ref().cloned());
                    continue;
                }
                option => {
                    match option.strip_prefix("--pool=") {
                        Some(pool) => own.pool = Some(pool.to_owned()),
                        None if option.starts_with('-') && option.len() > 1 => {
                            return Err(format!("unrecognized arguments: {option}"));
                        }
                        None => own.words.push(arg.clone()),
                    }
                    continue;
                }
            };
            *place = true;
        }
        Ok(own)
    }
}
