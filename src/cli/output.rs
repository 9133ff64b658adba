//! Results on standard output: the original's tables, pipes and JSON, and our own versioned JSON.

mod results;

use std::io::{self, Write as _};
use std::time::SystemTime;

use serde_json::{Map, Value, json};

pub(in crate::cli) use self::results::outcome;
pub use self::results::plan;
use super::config::Settings;
use super::exit;
use super::format::{ascii, python_json, size, table};
use crate::admission;
use crate::list::{Entry, Listing, Status};
use crate::repolist::Row;
use crate::report::Failure;
use crate::search::Hits;
use crate::template::Timestamp;
use crate::template::provenance::Provenance;

/// Version of what `--json` prints; `schema/output-v1.json` describes it.
pub const VERSION: u32 = 1;

/// The original's forms of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Tables for people.
    Human,
    /// Fields separated by `|`.
    Pipe,
    /// One line of JSON.
    Json,
}

/// Writes to standard output. A reader that went away is no error.
///
/// # Errors
/// Those of writing.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// A result in our own JSON: one object on one line.
#[must_use]
pub fn envelope(command: &str, result: &Value, warnings: &[String]) -> String {
    python_json(&json!({"version": VERSION, "command": command, "result": result, "warnings": warnings}))
        + "\n"
}

/// The failure of a command that only reads, in our own JSON.
#[must_use]
pub fn failure(command: &str, status: exit::Status, failure: &Failure) -> String {
    let error = results::error(status, failure);
    python_json(&json!({"version": VERSION, "command": command, "error": error})) + "\n"
}

/// A listing in one of the original's forms.
#[must_use]
pub fn listing(listing: &Listing, details: bool, form: Form) -> String {
    let mut text = String::new();
    match form {
        Form::Json => {
            let groups = listing.groups.iter().map(|(status, entries)| {
                let entries = entries.iter().map(|entry| original(entry, details)).collect();
                (status.word().to_owned(), Value::Array(entries))
            });
            text = python_json(&Value::Object(groups.collect::<Map<_, _>>())) + "\n";
        }
        Form::Pipe => {
            for (status, entry) in each(listing) {
                let line = if details { pipe_details(entry) } else { pipe(entry) };
                text.push_str(&format!("{}|{}\n", status.word(), ascii(&line)));
            }
        }
        Form::Human => {
            for (status, entries) in &listing.groups {
                text.push_str(status.title());
                text.push('\n');
                text.push_str(&table(&if details { details_rows(entries) } else { rows(entries) }));
            }
        }
    }
    text
}

/// A listing in our own JSON.
#[must_use]
pub fn listing_json(listing: &Listing, details: bool) -> Value {
    let entry = |(status, entry): (Status, &Entry)| {
        let template = &entry.template;
        let mut object = Map::new();
        let mut put = |key: &str, value: Value| drop(object.insert(key.to_owned(), value));
        put("status", json!(status.word()));
        put("name", json!(template.name));
        put("epoch", json!(template.epoch.parse::<u32>().unwrap_or(0)));
        put("version", json!(template.version));
        put("release", json!(template.release));
        put("repository", json!(template.repo));
        if !entry.not_finalized.is_empty() {
            put("not_finalized", json!(entry.not_finalized));
        }
        if !entry.end_of_life.is_empty() {
            put("end_of_life", json!(entry.end_of_life));
        }
        if let Some(known) = &entry.provenance {
            put("provenance", provenance(known));
        }
        if let Some(built) = Timestamp::parse(&template.build_time) {
            put("age_days", json!(admission::days(built, SystemTime::now())));
        }
        if details {
            put("size", json!(entry.size));
            for (key, value) in
                [("build_time", &template.build_time), ("install_time", &template.install_time)]
            {
                let time = if value.is_empty() {
                    Value::Null
                } else {
                    json!(format!("{}Z", value.replace(' ', "T")))
                };
                put(key, time);
            }
            put("license", json!(template.license));
            put("url", json!(template.url));
            put("summary", json!(template.summary));
            put("description", json!(template.description));
        }
        Value::Object(object)
    };
    let mut result = json!({"templates": each(listing).map(entry).collect::<Vec<Value>>()});
    if !listing.unmanaged.is_empty() {
        let one =
            |(name, known): &(String, Provenance)| json!({"name": name, "provenance": provenance(known)});
        result["unmanaged"] = listing.unmanaged.iter().map(one).collect::<Vec<Value>>().into();
    }
    result
}

fn provenance(known: &Provenance) -> Value {
    match known {
        Provenance::Clone { of } => json!({"kind": known.word(), "of": of}),
        Provenance::UpgradedInPlace { from, to } => json!({"kind": known.word(), "from": from, "to": to}),
        _ => json!({"kind": known.word()}),
    }
}

/// What a search found, in the original's form.
#[must_use]
pub fn hits(hits: &Hits) -> String {
    let mut text = String::new();
    for group in &hits.groups {
        text.push_str(&format!("{}\n", group.title()));
        for (name, summary) in &group.templates {
            text.push_str(&format!("{name} : {summary}\n"));
        }
    }
    text
}

/// What a search found, in our own JSON.
#[must_use]
pub fn hits_json(hits: &Hits) -> Value {
    let group = |group: &crate::search::HitGroup| {
        let template = |(name, summary): &(String, String)| json!({"name": name, "summary": summary});
        json!({
            "fields": group.fields,
            "exact": group.exact,
            "words": group.words,
            "templates": group.templates.iter().map(template).collect::<Vec<Value>>(),
        })
    };
    json!({"groups": hits.groups.iter().map(group).collect::<Vec<Value>>()})
}

/// Repositories in the original's form.
#[must_use]
pub fn repositories(rows: &[Row]) -> String {
    let state = |row: &Row| if row.enabled { "enabled" } else { "disabled" }.to_owned();
    table(&rows.iter().map(|row| vec![row.id.clone(), row.name.clone(), state(row)]).collect::<Vec<_>>())
}

/// Repositories in our own JSON.
#[must_use]
pub fn repositories_json(rows: &[Row]) -> Value {
    let row = |row: &Row| json!({"id": row.id, "name": row.name, "enabled": row.enabled});
    json!({"repositories": rows.iter().map(row).collect::<Vec<Value>>()})
}

/// The settings, for people.
#[must_use]
pub fn settings(settings: &Settings) -> String {
    let row = |[key, value, origin]: [String; 3]| vec![key, value, format!("({origin})")];
    table(&settings.rows().into_iter().map(row).collect::<Vec<_>>())
}

/// The settings in our own JSON.
#[must_use]
pub fn settings_json(settings: &Settings) -> Value {
    let row = |[key, value, origin]: [String; 3]| json!({"key": key, "value": value, "origin": origin});
    json!({"settings": settings.rows().into_iter().map(row).collect::<Vec<Value>>()})
}

fn each(listing: &Listing) -> impl Iterator<Item = (Status, &Entry)> {
    listing.groups.iter().flat_map(|(status, entries)| entries.iter().map(|entry| (*status, entry)))
}

fn rows(entries: &[Entry]) -> Vec<Vec<String>> {
    let row = |entry: &Entry| {
        vec![entry.template.name.clone(), entry.template.evr_text(), entry.template.repo.clone()]
    };
    entries.iter().map(row).collect()
}

fn details_rows(entries: &[Entry]) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for entry in entries {
        let template = &entry.template;
        let mut row =
            |label: &str, value: &str| rows.push(vec![label.to_owned(), ":".to_owned(), value.to_owned()]);
        row("Name", &template.name);
        row("Epoch", &template.epoch);
        row("Version", &template.version);
        row("Release", &template.release);
        row("Size", &size(entry.size));
        row("Repository", &template.repo);
        row("Buildtime", &template.build_time);
        if !template.install_time.is_empty() {
            row("Install time", &template.install_time);
        }
        row("URL", &template.url);
        row("License", &template.license);
        row("Summary", &template.summary);
        for (number, line) in template.description.lines().enumerate() {
            row(if number == 0 { "Description" } else { "" }, line);
        }
        rows.push(vec![" ".to_owned(); 3]);
    }
    rows
}

fn pipe(entry: &Entry) -> String {
    let template = &entry.template;
    [&template.name, &template.evr_text(), &template.repo].map(|field| field.replace('|', " ")).join("|")
}

/// Only the description may hold the separator: it stands for a line feed there.
fn pipe_details(entry: &Entry) -> String {
    let template = &entry.template;
    let size = entry.size.to_string();
    let fields = [
        &template.name,
        &template.epoch,
        &template.version,
        &template.release,
        &template.repo,
        &size,
        &template.build_time,
        &template.install_time,
        &template.license,
        &template.url,
        &template.summary,
    ];
    let fields = fields.map(|field| field.replace(['|', '\n'], " ")).join("|");
    format!("{fields}|{}", template.description.replace('\n', "|"))
}

fn original(entry: &Entry, details: bool) -> Value {
    let template = &entry.template;
    if !details {
        return json!({"name": template.name, "evr": template.evr_text(), "reponame": template.repo});
    }
    json!({
        "name": template.name,
        "epoch": template.epoch,
        "version": template.version,
        "release": template.release,
        "reponame": template.repo,
        "size": entry.size.to_string(),
        "buildtime": template.build_time,
        "installtime": template.install_time,
        "license": template.license,
        "url": template.url,
        "summary": template.summary,
        "description": template.description,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::Installed;

    fn one() -> Listing {
        let text = str::to_owned;
        let template = Installed {
            name: text("a"),
            epoch: text("0"),
            version: text("1"),
            release: text("2"),
            repo: text("r"),
            build_time: text("2023-11-20 10:00:00"),
            summary: text("s|t"),
            description: text("d\n\u{e9}"),
            ..Installed::default()
        };
        Listing {
            groups: vec![(Status::Installed, vec![Entry { template, size: 1536, ..Entry::default() }])],
            ..Listing::default()
        }
    }

    #[test]
    fn pipes_have_a_fixed_number_of_fields_before_the_description() {
        assert_eq!(listing(&one(), false, Form::Pipe), "installed|a|0:1-2|r\n");
        let details = "installed|a|0|1|2|r|1536|2023-11-20 10:00:00||||s t|d|_\n";
        assert_eq!(listing(&one(), true, Form::Pipe), details);
    }

    #[test]
    fn json_holds_texts_only() {
        assert_eq!(
            listing(&one(), true, Form::Json),
            "{\"installed\": [{\"name\": \"a\", \"epoch\": \"0\", \"version\": \"1\", \"release\": \"2\", \"reponame\": \"r\", \
             \"size\": \"1536\", \"buildtime\": \"2023-11-20 10:00:00\", \"installtime\": \"\", \"license\": \"\", \"url\": \"\", \
             \"summary\": \"s|t\", \"description\": \"d\\n\\u00e9\"}]}\n"
        );
    }

    #[test]
    fn tables_have_a_title() {
        assert_eq!(listing(&one(), false, Form::Human), "Installed Templates\na  0:1-2  r\n");
        let text = listing(&one(), true, Form::Human);
        assert!(
            text.contains("\nSize         :  1.5 KiB\n")
                && text.ends_with("\n             :  \u{e9}\n                 \n")
        );
    }
}
