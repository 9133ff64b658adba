//! `log`: every call.

use std::io::Write;

use anyhow::{Context as _, Result};
use clap::Args;

use super::Dir;
use crate::sandbox::server::log;

/// `qubes-sandbox log`
#[derive(Debug, Args)]
pub(super) struct LogCommand {
    #[command(flatten)]
    dir: Dir,
    /// One JSON object a line, with everything that is known of a call
    #[arg(long)]
    json: bool,
    /// Forget it
    #[arg(long, conflicts_with = "json")]
    clear: bool,
}

impl LogCommand {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<()> {
        if self.clear {
            return log::clear(&self.dir.dir);
        }
        for entry in log::read(&self.dir.dir)? {
            if self.json {
                writeln!(out, "{}", serde_json::to_string(&entry)?).context("writing")?;
                continue;
            }
            let arg = entry.arg.map(|arg| format!("+{arg}")).unwrap_or_default();
            let verdict = match (&entry.to, entry.allowed) {
                (Some(to), true) => format!("allowed to {to}"),
                _ => "DENIED".to_owned(),
            };
            let exit = entry.exit.map_or_else(|| "gone".to_owned(), |exit| format!("exit {exit}"));
            let error =
                entry.error.map(|(class, message)| format!(" {class}: {message}")).unwrap_or_default();
            let fault = entry.fault.map(|fault| format!(" fault {fault}")).unwrap_or_default();
            let (time, source, target, service) = (entry.time, entry.source, entry.target, entry.service);
            let (inward, outward) = (entry.bytes_in, entry.bytes_out);
            let line = format!(
                "{time} {source} -> {target} {service}{arg}: {verdict}, {inward} in, {outward} out, {exit}{error}{fault}"
            );
            writeln!(out, "{}", crate::untrusted::displayable(&line, false)).context("writing")?;
        }
        Ok(())
    }
}
