// SPDX-License-Identifier: GPL-2.0-or-later
//! The sandbox's command line, and the programs that it puts into its qubes, chosen by the name it is called with.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};
use qvm_template::sandbox::{command, qrexec, server, view};

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let name = arguments.first().map(Path::new).and_then(Path::file_name).unwrap_or_default().to_owned();
    let done = match name.to_str().unwrap_or_default() {
        "qrexec-client-vm" => match std::env::var_os(qrexec::recorder::RECORD_TO) {
            Some(recording) => qrexec::recorder::run(&arguments, Path::new(&recording)),
            None => Ok(qrexec::client::run(arguments)),
        },
        "qrexec-client" => qrexec::dom0_client::run(arguments),
        service if service.starts_with("admin.vm.volume.Import") => qrexec::script::run(&arguments),
        "sudo" => stand_in_for_sudo(&arguments[1..]),
        _ => own(arguments),
    };
    done.map_or_else(
        |error| {
            eprintln!("{}: {error:#}", name.to_string_lossy());
            // As env(1) and timeout(1) do: the command's own status is any other.
            ExitCode::from(125)
        },
        ExitCode::from,
    )
}

fn own(arguments: Vec<OsString>) -> Result<u8> {
    let step = arguments.get(1).and_then(|word| word.to_str()).unwrap_or_default();
    let rest = arguments.get(2..).unwrap_or_default();
    match step {
        view::INSIDE => view::inside(rest),
        view::BECOME => view::become_user(rest),
        view::VIEW => view::step(rest),
        server::SERVE => {
            let dir = rest.first().context("the server needs a directory")?;
            server::serve(Path::new(dir)).map(|()| 0)
        }
        _ => command::run(arguments, &mut io::stdout()),
    }
}

/// In dom0 everybody may do everything already: runs the command, with the variables in front of it.
fn stand_in_for_sudo(words: &[OsString]) -> Result<u8> {
    let is_option = |word: &OsString| word.as_encoded_bytes().starts_with(b"-") && word != OsStr::new("--");
    let mut words = words.iter().skip_while(|word| is_option(word)).filter(|word| *word != OsStr::new("--"));
    let mut variables = Vec::new();
    for word in words.by_ref() {
        match word.to_str().and_then(|word| word.split_once('=')) {
            Some((key, value)) => variables.push((key.to_owned(), value.to_owned())),
            None => {
                let mut command = Command::new(word);
                command.args(words).envs(variables);
                let error = std::os::unix::process::CommandExt::exec(&mut command);
                return Err(error).with_context(|| format!("running {}", Path::new(word).display()));
            }
        }
    }
    bail!("there is no command")
}
