//! dom0's `qrexec-client`: runs a command or a service in a qube, without asking the policy.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::{Result, bail};
use clap::Parser;

use super::script::{SOCKET, exchange};
use super::wire::{Opening, to_text, token};

/// The options that callers in dom0 use.
#[derive(Debug, Parser)]
#[command(name = "qrexec-client", disable_version_flag = true)]
struct Options {
    /// The qube
    #[arg(short = 'd', value_name = "QUBE")]
    domain: String,
    /// Do not wait for the command
    #[arg(short = 'e')]
    forget: bool,
    /// Exit with 0 whatever the command does
    #[arg(short = 'E', long)]
    no_exit_code: bool,
    /// Replace escape characters on standard output
    #[arg(short = 't')]
    filter_stdout: bool,
    /// Replace escape characters on standard error
    #[arg(short = 'T')]
    filter_stderr: bool,
    /// Seconds to wait for the connection
    #[arg(short = 'w', value_name = "SECONDS")]
    timeout: Option<u32>,
    /// USER:COMMAND or USER:QUBESRPC SERVICE+ARGUMENT SOURCE
    command: OsString,
}

/// Runs the program; `arguments` starts with its name.
pub fn run(arguments: Vec<OsString>) -> Result<u8> {
    let options = match Options::try_parse_from(arguments) {
        Ok(options) => options,
        Err(error) => {
            // Help is no error and goes to standard output.
            let _ = error.print();
            return Ok(u8::from(error.use_stderr()));
        }
    };
    if !options.command.as_bytes().contains(&b':') {
        bail!("the command must start with a user and a colon: DEFAULT:...");
    }
    let token = token();
    let opening = Opening::Run {
        token: token.clone(),
        target: options.domain,
        command: to_text(options.command.as_bytes()),
        forget: options.forget,
    };
    let status =
        exchange(&opening, &token, Path::new(SOCKET), (options.filter_stdout, options.filter_stderr))?;
    Ok(if options.no_exit_code { 0 } else { status.to_le_bytes()[0] })
}
