//! `show`: the system as it is.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Context as _, Result};
use clap::Args;
use serde::Serialize;

use super::Dir;
use crate::sandbox::qubesd::Content;
use crate::sandbox::state::{Pool, Qube, Revision, System};
use crate::sandbox::store::Store;

/// `qubes-sandbox show`
#[derive(Debug, Args)]
pub(super) struct Show {
    #[command(flatten)]
    dir: Dir,
    /// As one JSON object
    #[arg(long)]
    json: bool,
    /// Only this qube
    #[arg(long, value_name = "NAME")]
    qube: Option<String>,
    /// Do not read the volumes
    #[arg(long)]
    no_digest: bool,
}

#[derive(Serialize)]
struct Shown {
    globals: BTreeMap<String, String>,
    pools: Vec<Pool>,
    qubes: BTreeMap<String, ShownQube>,
}

#[derive(Serialize)]
struct ShownQube {
    class: String,
    state: String,
    uuid: String,
    properties: BTreeMap<String, String>,
    features: BTreeMap<String, String>,
    tags: Vec<String>,
    volumes: BTreeMap<String, ShownVolume>,
}

#[derive(Serialize)]
struct ShownVolume {
    pool: String,
    size: u64,
    revisions: Vec<Revision>,
    commits: u64,
    /// None: nothing but zeros.
    sha256: Option<String>,
}

impl Show {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<()> {
        let System { qubes, globals, pools, .. } = Store::read(&self.dir.dir)?;
        if let Some(name) = &self.qube {
            anyhow::ensure!(qubes.contains_key(name), "there is no qube {name} in this sandbox");
        }
        let wanted = |name: &String| self.qube.as_ref().is_none_or(|wanted| wanted == name);
        let qubes = qubes.into_iter().filter(|(name, _)| wanted(name));
        let qubes = qubes.map(|(name, qube)| Ok((name, self.qube(qube)?))).collect::<Result<_>>()?;
        let shown = Shown { globals, pools, qubes };
        if self.json {
            return writeln!(out, "{}", serde_json::to_string_pretty(&shown)?).context("writing");
        }
        print(&shown, out).context("writing")
    }

    fn qube(&self, qube: Qube) -> Result<ShownQube> {
        let mut volumes = BTreeMap::new();
        for volume in qube.volumes {
            let content = Content::of(&self.dir.dir, &volume);
            let empty = self.no_digest || content.is_zero().context("reading a volume")?;
            let sha256 = if empty { None } else { Some(content.sha256().context("reading a volume")?) };
            let shown = ShownVolume {
                pool: volume.pool,
                size: volume.size,
                revisions: volume.revisions,
                commits: volume.commits,
                sha256,
            };
            volumes.insert(volume.name, shown);
        }
        Ok(ShownQube {
            class: qube.class.as_str().to_owned(),
            state: qube.state.as_str().to_owned(),
            uuid: qube.uuid,
            properties: qube.properties,
            features: qube.features.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            tags: qube.tags.into_iter().collect(),
            volumes,
        })
    }
}

fn print(shown: &Shown, out: &mut dyn Write) -> std::io::Result<()> {
    let clean = |text: &str| crate::untrusted::displayable(text, false);
    for (name, qube) in &shown.qubes {
        writeln!(out, "{name}  {} {}", qube.class, qube.state)?;
        for (key, value) in &qube.properties {
            writeln!(out, "  property {key}: {}", clean(value))?;
        }
        for (key, value) in &qube.features {
            writeln!(out, "  feature {key}: {}", clean(value))?;
        }
        if !qube.tags.is_empty() {
            writeln!(out, "  tags: {}", qube.tags.join(" "))?;
        }
        for (key, volume) in &qube.volumes {
            let revisions: Vec<&str> = volume.revisions.iter().map(|revision| revision.id.as_str()).collect();
            let revisions = if revisions.is_empty() { "none".to_owned() } else { revisions.join(" ") };
            let digest = volume.sha256.as_deref().unwrap_or("-");
            writeln!(
                out,
                "  volume {key}: {} bytes in {}, revisions {revisions}, SHA-256 {digest}",
                volume.size, volume.pool
            )?;
        }
    }
    for (key, value) in &shown.globals {
        writeln!(out, "property {key}: {}", clean(value))?;
    }
    for pool in &shown.pools {
        let limit = pool.limit.map(|limit| format!(", {limit} bytes at most")).unwrap_or_default();
        writeln!(out, "pool {}: {}{limit}", pool.name, pool.driver.as_str())?;
    }
    Ok(())
}
