//! `trust list`: who may sign what.

use std::time::SystemTime;

use serde_json::{Value, json};

use crate::cli::run::{Done, Run, show};
use crate::cli::table::Opt;
use crate::repo::file;
use crate::repo::variables::Variables;
use crate::report::Failure;
use crate::template::Timestamp;
use crate::trust::{self, Certificate, Key, Trust, Vouching};

/// Columns of the text.
const WIDTH: usize = 80;

impl Run<'_> {
    pub(in crate::cli) fn trust(&self) -> Result<Done, Failure> {
        match self.typed.positionals.as_slice() {
            [action] if action == "list" => {}
            [] => return Err(Failure::Usage("trust needs an action: list".to_owned())),
            [action, ..] => {
                return Err(Failure::Usage(format!("trust knows no action '{action}', only 'list'")));
            }
        }
        let loaded = file::load(&self.settings.repo_files.value)?;
        let parsed = loaded.parse();
        let mut warnings: Vec<String> =
            parsed.warnings.iter().map(|line| format!("Warning: {line}")).collect();
        warnings.extend(
            loaded.unmatched.iter().map(|pattern| format!("Warning: no repository file matches '{pattern}'")),
        );
        let settings = self.settings;
        let variables = Variables::new(&settings.releasever.value);
        let keyring = &settings.keyring.value;
        let trust = trust::run(&parsed.repos, &settings.repo_options, &variables, keyring, SystemTime::now());
        let done = Done { text: text(&trust), json: result(&trust), warnings, ..Done::default() };
        if !trust.is_blind() {
            return Ok(done);
        }
        if !self.typed.has(Opt::Json) {
            show(&done.text);
        }
        Err(Failure::new("not one certificate can be read: no package can be verified"))
    }
}

fn text(trust: &Trust) -> String {
    let mut text = String::new();
    for repo in &trust.repositories {
        let name = if repo.name == repo.id { String::new() } else { format!(": {}", repo.name) };
        line(&mut text, 0, &format!("{}{name}", repo.id));
        if repo.by_keyring {
            line(&mut text, 2, "names no key; the keyring for local files counts");
        } else {
            repo.keys.iter().for_each(|key| key_text(&mut text, key));
        }
    }
    line(&mut text, 0, "local files");
    key_text(&mut text, &trust.local);
    text
}

fn key_text(text: &mut String, key: &Key) {
    // A path that is cut is of no use.
    text.push_str(&format!("  {}\n", key.path));
    if let Some(error) = &key.error {
        line(text, 4, &format!("NOT USABLE: {}", bare(error, &key.path)));
    }
    for certificate in &key.certificates {
        line(text, 4, &certificate.fingerprint);
        for user in &certificate.user_ids {
            line(text, 6, user);
        }
        line(text, 6, &state(certificate));
    }
}

/// An error without the path that stands above it.
fn bare(error: &str, path: &str) -> String {
    error.replace(&format!("the key '{path}' "), "").replace(&format!("the key {path}: "), "")
}

fn state(certificate: &Certificate) -> String {
    let expiry = match certificate.expires {
        Some(moment) => format!("expires {moment} UTC"),
        None => "does not expire".to_owned(),
    };
    match &certificate.unusable {
        None => format!("usable, {expiry}"),
        Some(why) => format!("NOT USABLE: {}; {expiry}", why.replace(&certificate.fingerprint, "it")),
    }
}

/// Adds a line, indented and broken between words to fit the width; a word that is longer than a line is cut.
fn line(text: &mut String, indent: usize, content: &str) {
    let mut column = 0;
    for word in content.split_whitespace() {
        let word: String = word.chars().take(WIDTH - indent - 2).collect();
        let length = word.chars().count();
        if column == 0 {
            text.push_str(&" ".repeat(indent));
            column = indent;
        } else if column + 1 + length > WIDTH {
            text.push('\n');
            text.push_str(&" ".repeat(indent + 2));
            column = indent + 2;
        } else {
            text.push(' ');
            column += 1;
        }
        text.push_str(&word);
        column += length;
    }
    text.push('\n');
}

fn result(trust: &Trust) -> Value {
    let repo = |repo: &Vouching| {
        json!({
            "id": repo.id,
            "name": repo.name,
            "by_keyring": repo.by_keyring,
            "keys": repo.keys.iter().map(key_json).collect::<Vec<Value>>(),
        })
    };
    json!({
        "trust": {
            "repositories": trust.repositories.iter().map(repo).collect::<Vec<Value>>(),
            "local": key_json(&trust.local),
        }
    })
}

fn key_json(key: &Key) -> Value {
    let moment = |moment: Timestamp| format!("{}Z", moment.to_string().replace(' ', "T"));
    let certificate = |one: &Certificate| {
        json!({
            "fingerprint": one.fingerprint,
            "user_ids": one.user_ids,
            "expires": one.expires.map(moment),
            "usable": one.unusable.is_none(),
            "reason": one.unusable,
        })
    };
    json!({
        "path": key.path,
        "error": key.error,
        "certificates": key.certificates.iter().map(certificate).collect::<Vec<Value>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_fit() {
        let mut text = String::new();
        line(&mut text, 4, &"word ".repeat(40));
        line(&mut text, 6, &"x".repeat(300));
        line(&mut text, 0, &"ab".repeat(39));
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(text.starts_with("    word word ") && text.contains("\n      word"));
        assert_eq!(text.lines().last().map(str::len), Some(78));
    }
}
