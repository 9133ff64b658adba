//! The command line of `qubes-sandbox`: one file a command.

mod demo;
mod exec;
mod fault;
mod log;
mod new;
mod record;
mod show;
mod size;
mod system;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// A whole Qubes system in one directory, for trying templates, tools and policies.
#[derive(Debug, Parser)]
#[command(name = "qubes-sandbox", version, help_expected = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Sub,
}

#[derive(Debug, Subcommand)]
enum Sub {
    /// Make a system: dom0, a management qube mgmt without network, and sys-net, which is the UpdateVM
    New(new::New),
    /// Make a template and install it in a new system, step by step
    Demo(demo::DemoCommand),
    /// Run a command as a qube sees the world
    Exec(exec::Exec),
    /// Show qubes, properties, features, tags, volumes and pools
    Show(show::Show),
    /// Show every qrexec call and every call at dom0's socket
    Log(log::LogCommand),
    /// Order faults, list them or take them back
    Fault(fault::FaultCommand),
    /// Say what is answered to questions of the policy
    Answer(system::AnswerCommand),
    /// Make a storage pool, or limit one
    Pool(system::PoolCommand),
    /// Make a qube, or change one as an administrator of dom0 does
    Qube(system::QubeCommand),
    /// Make a system from a population file
    Import(system::Import),
    /// Write a system as a population file
    Export(system::Export),
    /// Run a command and write down what it exchanged over qrexec, in the format of the recordings
    Record(record::Record),
}

/// Reads a command line and does what it says: the exit status.
pub fn run(arguments: Vec<OsString>, out: &mut dyn Write) -> Result<u8> {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help is no error and goes to standard output.
            let _ = error.print();
            return Ok(if error.use_stderr() { 2 } else { 0 });
        }
    };
    match cli.command {
        Sub::New(command) => command.run(out).map(|()| 0),
        Sub::Demo(command) => command.run(out).map(|()| 0),
        Sub::Exec(command) => command.run(),
        Sub::Show(command) => command.run(out).map(|()| 0),
        Sub::Log(command) => command.run(out).map(|()| 0),
        Sub::Fault(command) => command.run(out).map(|()| 0),
        Sub::Answer(command) => command.run(out).map(|()| 0),
        Sub::Pool(command) => command.run().map(|()| 0),
        Sub::Qube(command) => command.run().map(|()| 0),
        Sub::Import(command) => command.run().map(|()| 0),
        Sub::Export(command) => command.run(out).map(|()| 0),
        Sub::Record(command) => command.run(),
    }
}

/// The directory of a sandbox.
#[derive(Debug, clap::Args)]
struct Dir {
    /// The sandbox's directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}
