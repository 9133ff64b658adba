// SPDX-License-Identifier: GPL-2.0-or-later
//! The management qube's side of `template.Install` and the other services that it offers to other qubes, chosen by the
//! name that the program is called with or by its first argument.

use std::io::Write as _;
use std::process::ExitCode;

use qvm_template::delegate::{Verb, serve};

fn main() -> ExitCode {
    let mut words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let own = words.next().and_then(|path| path.rsplit('/').next().map(str::to_owned)).unwrap_or_default();
    let is_service = |name: &String| Verb::from_service(name).is_some();
    match Some(own).filter(is_service).or_else(|| words.next().filter(is_service)) {
        Some(service) => ExitCode::from(serve::run(&service)),
        None => {
            drop(writeln!(std::io::stderr(), "usage: qvm-template-delegate template.VERB < REQUEST"));
            ExitCode::from(2)
        }
    }
}
