//! `List`, `Info`, `Search`: what a caller may see, and nothing that tells of others.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Verb;
use super::answer::{Lines, Refused};
use super::grants::Owner;
use super::request::Group;
use super::serve::{Desk, No};
use crate::catalogue::Catalogue;
use crate::census::{self, Fields};
use crate::list::{self, Entry, Listing, Status, Wanted};
use crate::search::{self, Scope};
use crate::template::{Installed, RepoId, TemplateSpec};

/// A line of a listing on its way to the caller.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Row {
    pub status: String,
    pub name: String,
    pub epoch: String,
    pub version: String,
    pub release: String,
    pub reponame: String,
    pub buildtime: String,
    pub installtime: String,
    pub license: String,
    pub url: String,
    pub summary: String,
    pub description: String,
    pub size: u64,
    pub end_of_life: String,
}

const STATUSES: [Status; 4] = [Status::Installed, Status::Available, Status::Extra, Status::Upgradable];

impl Row {
    fn new(status: Status, entry: &Entry) -> Self {
        let template = entry.template.clone();
        Self {
            status: status.word().to_owned(),
            name: template.name,
            epoch: template.epoch,
            version: template.version,
            release: template.release,
            reponame: template.repo,
            buildtime: template.build_time,
            installtime: template.install_time,
            license: template.license,
            url: template.url,
            summary: template.summary,
            description: template.description,
            size: entry.size,
            end_of_life: entry.end_of_life.clone(),
        }
    }

    /// The listing that rows stand for, at the caller's end. Texts are made fit to be shown again.
    #[must_use]
    pub fn listing(rows: Vec<Self>) -> Listing {
        let mut listing = Listing::default();
        let fit = |text: &str| crate::untrusted::displayable(text, true);
        for status in STATUSES {
            let own = rows.iter().filter(|row| row.status == status.word());
            let entry = |row: &Self| Entry {
                template: Installed {
                    name: fit(&row.name),
                    epoch: fit(&row.epoch),
                    version: fit(&row.version),
                    release: fit(&row.release),
                    repo: fit(&row.reponame),
                    build_time: fit(&row.buildtime),
                    install_time: fit(&row.installtime),
                    license: fit(&row.license),
                    url: fit(&row.url),
                    summary: fit(&row.summary),
                    description: fit(&row.description),
                    package: None,
                },
                size: row.size,
                end_of_life: fit(&row.end_of_life),
                provenance: None,
                not_finalized: String::new(),
            };
            let entries: Vec<Entry> = own.map(entry).collect();
            if !entries.is_empty() {
                listing.groups.push((status, entries));
            }
        }
        listing
    }
}

/// `List` and `Info`.
///
/// # Errors
/// When it is not granted, or cannot be found out.
pub async fn list(desk: &Desk<'_>) -> Result<Value, No> {
    let verb = desk.verb;
    let (number, grant) = desk.decide(verb, desk.name.as_ref(), Owner::Nobody)?;
    desk.granted((number, &grant), None, None)?;
    let show = match desk.request.show.as_slice() {
        [] => &[Group::Installed, Group::Available],
        some => some,
    };
    let repositories = desk.repositories(verb);
    let from_repositories = !repositories.is_empty();
    let specs = desk.name.iter().filter_map(|name| TemplateSpec::new(name.as_str()).ok()).collect();
    let wanted = Wanted {
        specs,
        installed: show.contains(&Group::Installed),
        available: from_repositories && show.contains(&Group::Available),
        extras: from_repositories && show.contains(&Group::Extras),
        upgrades: from_repositories && show.contains(&Group::Upgrades),
        all_versions: desk.request.all_versions,
        details: verb == Verb::Info,
        end_of_life: true,
        // Who asks for templates of others need not know where they come from.
        provenance: false,
    };
    let lines = Lines::new(desk.outbox, &desk.records, "", "");
    let sources = desk.sources(&repositories);
    let catalogue = Catalogue::new(desk.api, &lines, &sources);
    let listing = desk.cancel.or(list::run(desk.api, &catalogue, &wanted)).await?;
    let listing = visible(desk, listing).await;
    let rows: Vec<Row> = listing
        .groups
        .iter()
        .flat_map(|(status, entries)| entries.iter().map(|entry| Row::new(*status, entry)))
        .collect();
    desk.answered(None)?;
    if rows.is_empty() {
        return Ok(Refused::Nothing.line(&verb.to_string(), None));
    }
    Ok(done(verb, "listing", json!(rows)))
}

fn done(verb: Verb, key: &str, value: Value) -> Value {
    let mut line = json!({
        "schema": 1, "command": verb.to_string(), "result": "done", "exit": 0, "error": null, "warnings": [],
    });
    line[key] = value;
    line
}

/// What of a listing the caller may see.
async fn visible(desk: &Desk<'_>, listing: Listing) -> Listing {
    let here: Vec<String> = listing
        .groups
        .iter()
        .filter(|(status, _)| matches!(status, Status::Installed | Status::Extra | Status::Upgradable))
        .flat_map(|(_, entries)| entries.iter().map(|entry| entry.template.name.clone()))
        .collect();
    let owners = desk.owners(&here).await;
    let sees = |status: Status, entry: &Entry| {
        let (name, repo) = (entry.template.name.as_str(), RepoId::new(&entry.template.repo));
        let offered =
            || repo.as_ref().is_some_and(|repo| desk.may_see(desk.verb, name, Owner::Nobody, Some(repo)));
        match status {
            Status::Available => offered(),
            Status::Upgradable => sees_installed(desk, &owners, name) && offered(),
            Status::Installed | Status::Extra => sees_installed(desk, &owners, name),
        }
    };
    let groups = listing.groups.into_iter().map(|(status, entries)| {
        (status, entries.into_iter().filter(|entry| sees(status, entry)).collect::<Vec<_>>())
    });
    Listing { groups: groups.filter(|(_, entries)| !entries.is_empty()).collect(), ..Listing::default() }
}

fn sees_installed(desk: &Desk<'_>, owners: &HashMap<String, Owner>, name: &str) -> bool {
    owners.get(name).is_some_and(|owner| desk.may_see(desk.verb, name, *owner, None))
}

/// `Search`: among the offers of granted repositories and the caller's own templates.
///
/// # Errors
/// When it is not granted, or the repositories cannot be asked.
pub async fn search(desk: &Desk<'_>) -> Result<Value, No> {
    let (number, grant) = desk.decide(desk.verb, desk.name.as_ref(), Owner::Nobody)?;
    desk.granted((number, &grant), None, None)?;
    let mut words = desk.request.keywords.clone();
    words.extend(desk.name.iter().map(ToString::to_string));
    let scope = if desk.request.everything { Scope::Everything } else { Scope::Main };
    let lines = Lines::new(desk.outbox, &desk.records, "", "");
    let repositories = desk.repositories(desk.verb);
    let sources = desk.sources(&repositories);
    let catalogue = Catalogue::new(desk.api, &lines, &sources);
    let mut pool: Vec<Entry> = Vec::new();
    if !repositories.is_empty() {
        let found = desk.cancel.or(catalogue.search(None)).await?;
        let granted = found
            .reply
            .offers
            .iter()
            .filter(|o| desk.may_see(desk.verb, &o.name, Owner::Nobody, Some(&o.repo)));
        pool.extend(granted.map(Entry::from));
    }
    let census = census::take(desk.api, Fields::Texts).await?;
    let names: Vec<String> = census.templates.iter().map(|template| template.name.clone()).collect();
    let owners = desk.owners(&names).await;
    let own = census.templates.into_iter().filter(|t| sees_installed(desk, &owners, &t.name));
    pool.extend(own.map(|template| Entry { template, ..Entry::default() }));
    let groups = search::among(pool, &words, scope);
    desk.answered(None)?;
    let groups: Vec<Value> = groups
        .iter()
        .map(|group| {
            json!({
                "fields": group.fields, "exact": group.exact, "words": group.words, "templates": group.templates,
            })
        })
        .collect();
    Ok(done(desk.verb, "groups", json!(groups)))
}
