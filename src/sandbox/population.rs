//! Systems described by a population file: `populations/NAME.json` of the recordings, and what a bug report carries.
//!
//! | key | holds |
//! |---|---|
//! | `globals` | properties of the system; null is none |
//! | `pools` | names of pools, the first is the default; or objects `name`, `driver`, `limit` |
//! | `qubes` | name -> `class`, `label`, `state`, `template`, `netvm` (absent: default, null: none), `installed_by_rpm`, `features`, `tags`, `volumes` (name -> `size`, `usage`), `properties` |
//! | `deny`, `fail` | calls that policy refuses, calls that fail; see [`Rule`] |
//!
//! Every qube but dom0 has the volumes root, private, volatile and kernel, whether they are named or not. What volumes
//! hold is no part of a population.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::fresh;
use super::qubesd::default_of_system;
use super::state::{Class, Driver, Features, Pool, Power, Qube, Rule, System};

/// The file.
#[derive(Debug, Deserialize, Serialize)]
struct Population {
    globals: Map<String, Value>,
    pools: Vec<PoolEntry>,
    qubes: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    deny: Vec<Rule>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    fail: Vec<Rule>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(untagged)]
enum PoolEntry {
    Name(String),
    Whole {
        name: String,
        driver: Driver,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<u64>,
    },
}

#[derive(Debug, Deserialize, Serialize)]
struct QubeEntry {
    class: Class,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    #[serde(default)]
    state: Power,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    template: Option<String>,
    /// The outer none where the key is absent.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    netvm: Option<Option<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    installed_by_rpm: Option<bool>,
    #[serde(default)]
    features: Features,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    volumes: BTreeMap<String, VolumeEntry>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    properties: Map<String, Value>,
}

#[derive(Debug, Deserialize, Serialize)]
struct VolumeEntry {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    usage: Option<u64>,
}

fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// Makes the system that a population describes.
///
/// # Errors
/// When it is not of the form above.
pub fn read(text: &[u8]) -> anyhow::Result<System> {
    let population: Population = serde_json::from_slice(text).context("understanding the population")?;
    let mut system = fresh::bare();
    system.pools = population.pools.into_iter().map(pool).collect();
    system.pools.push(Pool::new("linux-kernel", Driver::LinuxKernel));
    (system.deny, system.fail) = (population.deny, population.fail);
    system.qubes.clear();
    for (name, value) in population.qubes {
        let entry = QubeEntry::deserialize(value).with_context(|| format!("understanding qube {name}"))?;
        add(&mut system, &name, entry).with_context(|| format!("reading qube {name}"))?;
    }
    system.qubes.entry("dom0".to_owned()).or_insert_with(fresh::dom0);
    for (name, value) in population.globals {
        let value = property(&value).with_context(|| format!("reading property {name} of the system"))?;
        if default_of_system(&system, &name).unwrap_or_default() != value {
            system.globals.insert(name, value);
        }
    }
    fresh::number_domains(&mut system);
    Ok(system)
}

fn pool(entry: PoolEntry) -> Pool {
    match entry {
        PoolEntry::Name(name) => Pool::new(&name, Driver::FileReflink),
        PoolEntry::Whole { name, driver, limit } => Pool { limit, ..Pool::new(&name, driver) },
    }
}

fn add(system: &mut System, name: &str, entry: QubeEntry) -> anyhow::Result<()> {
    if entry.class == Class::AdminVM {
        system.qubes.insert(name.to_owned(), fresh::dom0());
    } else {
        fresh::add_qube(system, name, entry.class, "black");
    }
    let kernels: Vec<String> = entry
        .properties
        .get("kernel")
        .and_then(Value::as_str)
        .filter(|kernel| !kernel.is_empty())
        .into_iter()
        .map(str::to_owned)
        .collect();
    let new = kernels.into_iter().filter(|kernel| !system.kernels.contains(kernel)).collect::<Vec<_>>();
    system.kernels.extend(new);
    let qube = system.qubes.get_mut(name).context("finding what was just added")?;
    qube.state = if entry.class == Class::AdminVM { Power::Running } else { entry.state };
    qube.features = entry.features;
    qube.tags = entry.tags.into_iter().collect();
    let mut set = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            qube.properties.insert(key.to_owned(), value);
        }
    };
    set("label", entry.label);
    set("template", entry.template);
    set("netvm", entry.netvm.map(Option::unwrap_or_default));
    set("installed_by_rpm", entry.installed_by_rpm.filter(|by_rpm| *by_rpm).map(|_| "True".to_owned()));
    for (key, value) in entry.properties {
        set(&key, Some(property(&value).with_context(|| format!("reading property {key}"))?));
    }
    for (key, described) in entry.volumes {
        let volume = qube.volume_mut(&key).with_context(|| format!("finding volume {key}"))?;
        volume.size = described.size.unwrap_or(volume.size);
        volume.usage = described.usage;
    }
    Ok(())
}

/// A property as the server keeps it.
fn property(value: &Value) -> anyhow::Result<String> {
    Ok(match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) => number.to_string(),
        other => bail!("{other} is no value"),
    })
}

/// Describes a system.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn write(system: &System) -> anyhow::Result<Vec<u8>> {
    let mut pools: Vec<&Pool> =
        system.pools.iter().filter(|pool| pool.driver != Driver::LinuxKernel).collect();
    let first =
        system.globals.get("default_pool").cloned().or_else(|| default_of_system(system, "default_pool"));
    pools.sort_by_key(|pool| Some(&pool.name) != first.as_ref());
    let globals = GLOBALS.iter().map(|name| {
        let set = system.globals.get(*name).cloned();
        let value = set.or_else(|| default_of_system(system, name)).filter(|value| !value.is_empty());
        ((*name).to_owned(), value.map_or(Value::Null, Value::String))
    });
    let mut qubes = Map::new();
    let mut names: Vec<(&String, &Qube)> = system.qubes.iter().collect();
    names.sort_by_key(|(_, qube)| qube.qid);
    for (name, qube) in names {
        let entry =
            serde_json::to_value(describe(qube)).with_context(|| format!("describing qube {name}"))?;
        qubes.insert(name.clone(), entry);
    }
    let population = Population {
        globals: globals.collect(),
        pools: pools.into_iter().map(describe_pool).collect(),
        qubes,
        deny: system.deny.clone(),
        fail: system.fail.clone(),
    };
    let mut text = serde_json::to_vec_pretty(&population).context("writing the population")?;
    text.push(b'\n');
    Ok(text)
}

fn describe_pool(pool: &Pool) -> PoolEntry {
    if pool.driver == Driver::FileReflink && pool.limit.is_none() {
        return PoolEntry::Name(pool.name.clone());
    }
    PoolEntry::Whole { name: pool.name.clone(), driver: pool.driver, limit: pool.limit }
}

fn describe(qube: &Qube) -> QubeEntry {
    let own = |name: &str| qube.property(name).map(str::to_owned);
    let none_if_empty = |value: String| if value.is_empty() { None } else { Some(value) };
    let apart = ["label", "template", "netvm", "installed_by_rpm"];
    let properties = qube.properties.iter().filter(|(name, _)| !apart.contains(&name.as_str()));
    let volumes = qube
        .volumes
        .iter()
        .filter(|volume| volume.usage.is_some() || matches!(volume.name.as_str(), "root" | "private"));
    QubeEntry {
        class: qube.class,
        label: own("label"),
        state: qube.state,
        template: own("template"),
        netvm: own("netvm").map(none_if_empty),
        installed_by_rpm: (qube.class != Class::AdminVM).then(|| qube.flag("installed_by_rpm")),
        features: qube.features.clone(),
        tags: qube.tags.iter().cloned().collect(),
        volumes: volumes
            .map(|volume| (volume.name.clone(), VolumeEntry { size: Some(volume.size), usage: volume.usage }))
            .collect(),
        properties: properties.map(|(name, value)| (name.clone(), describe_property(value))).collect(),
    }
}

fn describe_property(value: &str) -> Value {
    match value {
        "" => Value::Null,
        "True" => Value::Bool(true),
        "False" => Value::Bool(false),
        text => Value::String(text.to_owned()),
    }
}

/// Properties of the system that a population names.
const GLOBALS: [&str; 8] = [
    "default_dispvm",
    "default_netvm",
    "default_guivm",
    "default_audiovm",
    "default_template",
    "clockvm",
    "updatevm",
    "management_dispvm",
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Names for ever are no part of a population.
    fn without_uuids(mut system: System) -> System {
        for qube in system.qubes.values_mut() {
            qube.uuid.clear();
        }
        system
    }

    #[test]
    fn every_recorded_population_comes_back_as_it_was() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings/populations");
        let mut seen = 0;
        for entry in std::fs::read_dir(folder).expect("the recordings") {
            let path = entry.expect("a file").path();
            let system = read(&std::fs::read(&path).expect("a file")).expect("a population");
            let again = read(&write(&system).expect("a population")).expect("a population");
            assert_eq!(without_uuids(again), without_uuids(system), "{}", path.display());
            seen += 1;
        }
        assert!(seen > 0);
    }

    #[test]
    fn an_absent_netvm_is_the_default_and_null_is_none() {
        let text = br#"{"globals":{"default_netvm":"n"},"pools":["p"],"qubes":{
            "n":{"class":"StandaloneVM","properties":{"provides_network":true},"netvm":null},
            "a":{"class":"StandaloneVM"}}}"#;
        let system = read(text).expect("a population");
        assert_eq!(system.qubes["n"].property("netvm"), Some(""));
        assert_eq!(system.qubes["a"].property("netvm"), None);
        assert_eq!(system.qubes["dom0"].class, Class::AdminVM);
    }
}
