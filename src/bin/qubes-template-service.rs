// SPDX-License-Identifier: GPL-2.0-or-later
//! The UpdateVM's side: `qubes.TemplateSearch` and `qubes.TemplateDownload`, chosen by the name that the program is
//! called with or by its first argument.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use qvm_template::service::proxy::ProxyChoice;
use qvm_template::service::{Service, Surroundings};
use qvm_template::untrusted::displayable;

fn main() -> ExitCode {
    let mut err = std::io::stderr();
    let mut words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let service = words
        .next()
        .as_deref()
        .and_then(Service::from_name)
        .or_else(|| words.next().as_deref().and_then(Service::from_name));
    let Some(service) = service else {
        drop(writeln!(
            err,
            "usage: qubes-template-service qubes.TemplateSearch|qubes.TemplateDownload < REQUEST"
        ));
        return ExitCode::from(2);
    };
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let surroundings = Surroundings { cache: cache_folder(), proxy: ProxyChoice::from_variables(variables) };
    match service.run(&surroundings, std::io::stdin().lock(), &mut std::io::stdout().lock(), &mut err) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(err, "Error: {}", displayable(&format!("{error:#}"), false)));
            ExitCode::FAILURE
        }
    }
}

/// Where metadata is kept: with the user's caches, for root with those of the system.
fn cache_folder() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let system = || nix::unistd::geteuid().is_root().then(|| PathBuf::from("/var/cache"));
    let caches =
        set("XDG_CACHE_HOME").or_else(system).or_else(|| set("HOME").map(|home| home.join(".cache")))?;
    Some(caches.join("qubes-template-service"))
}
