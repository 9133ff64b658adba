//! Systems described by the head of a recording of the server: its `fixture`.
//!
//! | key | holds |
//! |---|---|
//! | `qubes` | list: `name`, `class`, `state`, `label`, `template`, `netvm`, flags, `features`, `tags`, `volumes` |
//! | `globals` | properties of the system |
//! | `pools` | name -> lines of `admin.pool.Info` |
//! | `labels`, `kernels` | name -> colour; names |
//!
//! All volumes are empty. A property of the system that is at its default, and a template's netvm of none, count as not
//! set. Qubes are numbered as they were made: first what was there, then what somebody made over the Admin API,
//! templates before what is based on them.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::fresh;
use super::qubesd::default_of_system;
use super::state::{Class, Driver, Features, Label, Pool, Power, Qube, System, Volume};

#[derive(Deserialize)]
struct Fixture {
    qubes: Vec<FixtureQube>,
    globals: BTreeMap<String, String>,
    pools: Map<String, Value>,
    labels: Map<String, Value>,
    kernels: Vec<String>,
}

#[derive(Deserialize)]
struct FixtureQube {
    name: String,
    class: Class,
    state: Power,
    #[serde(default)]
    features: Features,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    volumes: Map<String, Value>,
    /// Everything else is a property.
    #[serde(flatten)]
    properties: Map<String, Value>,
}

/// Makes the system that a `fixture` describes.
///
/// # Errors
/// When it is not of the form above.
pub fn read(fixture: &Value) -> anyhow::Result<System> {
    let fixture: Fixture = Fixture::deserialize(fixture).context("understanding the fixture")?;
    let mut system = System { kernels: fixture.kernels, next_xid: 1, ..System::default() };
    for (name, color) in fixture.labels {
        let color = color.as_str().with_context(|| format!("reading the colour of label {name}"))?.to_owned();
        system.labels.push(Label { name, color });
    }
    for (name, lines) in fixture.pools {
        system.pools.push(pool(&name, &lines).with_context(|| format!("reading pool {name}"))?);
    }
    let mut qubes = fixture.qubes;
    qubes.sort_by_key(|qube| {
        let made = qube.tags.iter().any(|tag| tag.starts_with("created-by-"));
        (qube.class != Class::AdminVM, made, made && qube.class.is_template_based(), qube.name.clone())
    });
    for (qid, described) in (0..).zip(qubes) {
        let name = described.name.clone();
        let qube = qube(&system, qid, described).with_context(|| format!("reading qube {name}"))?;
        system.qubes.insert(name, qube);
    }
    for (name, value) in fixture.globals {
        if default_of_system(&system, &name).as_deref() != Some(&value) {
            system.globals.insert(name, value);
        }
    }
    fresh::number_domains(&mut system);
    Ok(system)
}

fn pool(name: &str, lines: &Value) -> anyhow::Result<Pool> {
    let lines = lines.as_array().context("finding its lines")?;
    let mut config = Vec::new();
    for line in lines {
        let (key, value) = line.as_str().and_then(|line| line.split_once('=')).context("reading a line")?;
        config.push((key.to_owned(), value.to_owned()));
    }
    let driver = config.iter().find(|(key, _)| key == "driver").map(|(_, value)| value.as_str());
    let driver = driver.and_then(Driver::parse).context("finding its driver")?;
    Ok(Pool { name: name.to_owned(), driver, config, limit: None })
}

fn qube(system: &System, qid: u32, described: FixtureQube) -> anyhow::Result<Qube> {
    let mut qube = match described.class {
        Class::AdminVM => fresh::dom0(),
        class => fresh::qube(class, qid, "black"),
    };
    qube.state = described.state;
    qube.features = described.features;
    qube.tags = described.tags.into_iter().collect();
    for (name, value) in described.properties {
        let value = match value {
            Value::String(text) => text,
            Value::Bool(true) => "True".to_owned(),
            Value::Bool(false) => "False".to_owned(),
            Value::Number(number) => number.to_string(),
            other => bail!("property {name} is {other}"),
        };
        let no_network = qube.class == Class::TemplateVM && name == "netvm" && value.is_empty();
        if !no_network {
            qube.properties.insert(name, value);
        }
    }
    for (name, value) in described.volumes {
        let volume = volume(system, &qube, &described.name, &name, &value);
        qube.volumes.push(volume.with_context(|| format!("reading volume {name}"))?);
    }
    Ok(qube)
}

fn volume(system: &System, qube: &Qube, owner: &str, name: &str, value: &Value) -> anyhow::Result<Volume> {
    let text =
        |key: &str| value.get(key).and_then(Value::as_str).with_context(|| format!("finding its {key}"));
    let flag = |key: &str| text(key).map(|value| value == "True");
    let pool = system.pool(text("pool")?).context("finding its pool")?;
    let mut volume = fresh::volume(qube.class, owner, name, pool);
    volume.size = text("size")?.parse().context("reading its size")?;
    volume.rw = flag("rw")?;
    volume.save_on_stop = flag("save_on_stop")?;
    volume.snap_on_start = flag("snap_on_start")?;
    volume.revisions_to_keep = text("revisions_to_keep")?.parse().context("reading its revisions_to_keep")?;
    Ok(volume)
}
