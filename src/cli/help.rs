//! Help, man pages and completions, made from the table of commands and options.

use clap::{Arg, ArgAction};

use super::table::{COMMANDS, Command, CommandDef, GLOBAL, Opt, OptDef};
use super::width;

/// Widest line of help.
const WIDTH: usize = 80;

const ABOUT: &str = "Template manager for Qubes OS";
const LONG: &str = "Finds templates in repositories, downloads and verifies them, and installs, upgrades and removes them \
     through the Admin API. It runs in dom0 or in a management qube; what it may do there, qrexec policy says.";
const AFTER: &str = "Long options can be abbreviated as long as they stay unambiguous, options may stand before and after \
     the command, and `--` ends them.\n\nExit status:\n  0    done, or nothing to do\n  1    something failed, or the \
     answer was no\n  2    the command line cannot be meant\n  3    installed, but the first start of a template failed\n  128+ a signal ended it\n\nFiles:\n  \
     /etc/qubes/repo-templates/*.repo\n  /etc/qubes/qvm-template.toml\n  ~/.config/qubes/qvm-template.toml";

/// The whole program as clap sees it. It is not what takes the command line apart.
#[must_use]
pub fn program() -> clap::Command {
    let commands = COMMANDS.iter().map(command);
    base("qvm-template")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .long_about(LONG)
        .after_help(AFTER)
        .override_usage("qvm-template [OPTIONS] COMMAND [OPTIONS] [ARGUMENTS]")
        .args(GLOBAL.iter().map(|def| argument(def).help_heading("Global options")))
        .subcommands(commands)
        .disable_help_subcommand(true)
        .subcommand_value_name("COMMAND")
}

/// Help on one command or on the whole.
#[must_use]
pub fn help(on: Option<Command>) -> String {
    let program = match on {
        None => program().about(LONG),
        Some(on) => {
            let globals = GLOBAL.iter().map(|def| argument(def).help_heading("Global options"));
            let def = on.def();
            command(def).about(format!("{}\n\n{}", def.about, def.long_about())).args(globals)
        }
    };
    // Where it does not go to a terminal it is as wide as ever.
    let columns = width::columns(std::io::stdout()).map_or(WIDTH, |columns| columns.min(WIDTH));
    // The line of usage is clap's one that never breaks.
    let text = width::fold(&program.term_width(columns).render_help().to_string(), columns);
    // clap leaves blanks behind some lines.
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n").trim_end().to_owned() + "\n"
}

/// The line that says how a command is used.
#[must_use]
pub fn usage(on: Option<Command>) -> String {
    let (name, rest) = match on {
        None => ("qvm-template".to_owned(), " [OPTIONS] COMMAND [OPTIONS] [ARGUMENTS]".to_owned()),
        Some(on) => (format!("qvm-template {}", on.def().name), arguments(on.def())),
    };
    format!("usage: {name}{rest}\nTry '{name} --help'.")
}

fn arguments(def: &CommandDef) -> String {
    let positional =
        if def.positional.is_empty() { String::new() } else { format!(" [{}...]", def.positional) };
    format!(" [OPTIONS]{positional}")
}

fn base(name: &'static str) -> clap::Command {
    clap::Command::new(name).term_width(WIDTH).disable_help_flag(true).disable_version_flag(true)
}

fn command(def: &'static CommandDef) -> clap::Command {
    let mut command = base(def.name)
        .bin_name(format!("qvm-template {}", def.name))
        .about(def.about)
        .long_about(format!("{}\n\n{}", def.about, def.long_about()))
        .override_usage(format!("qvm-template {}{}", def.name, arguments(def)))
        .hide(!def.visible)
        .args(def.options.iter().map(|def| argument(def)));
    if !def.positional.is_empty() {
        command = command
            .arg(Arg::new("arguments").value_name(def.positional).num_args(0..).action(ArgAction::Append));
    }
    command
}

fn argument(def: &'static OptDef) -> Arg {
    let arg = Arg::new(def.long).long(def.long).help(def.help).hide(!def.visible);
    let arg = if let Some(short) = def.short { arg.short(short) } else { arg };
    match def.value {
        Some(name) => arg.value_name(name).action(ArgAction::Append),
        None if matches!(def.opt, Opt::Verbose | Opt::Quiet) => arg.action(ArgAction::Count),
        None => arg.action(ArgAction::SetTrue),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_fits_into_80_columns_and_is_ascii() {
        let all = std::iter::once(None).chain(COMMANDS.iter().map(|def| Some(def.command)));
        for on in all {
            let text = help(on);
            for line in text.lines() {
                assert!(line.chars().count() <= WIDTH && line.is_ascii(), "{on:?}: {line}");
            }
            assert!(text.contains("--enablerepo <ID>") && text.contains("sage: qvm-template"), "{on:?}");
        }
    }

    #[test]
    fn clap_finds_nothing_wrong_with_the_table() {
        program().debug_assert();
    }
}
