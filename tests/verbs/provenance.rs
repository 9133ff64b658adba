//! Where templates come from, as `list` tells it, and `adopt`.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::several::{outcomes, result};
use crate::install::{World, told};

/// Features of a template that another tool installed as `name`.
fn described(name: &str) -> Vec<String> {
    let values = [
        ("template-name", name),
        ("template-epoch", "0"),
        ("template-version", "4.3"),
        ("template-release", "1"),
        ("template-reponame", "elsewhere"),
        ("template-buildtime", "2025-01-02 03:04:05"),
        ("template-installtime", "2025-02-03 04:05:06"),
        ("template-license", "GPL"),
        ("template-url", "https://example.org"),
        ("template-summary", "s"),
        ("template-description", "d"),
    ];
    values.map(|(feature, value)| format!("{feature}={value}")).to_vec()
}

/// Puts a template with these features into the system.
fn add(world: &World, name: &str, features: &[String]) -> Result<()> {
    let mut line = vec!["qube", name, "--tag", "created-by-mgmt"];
    line.extend(features.iter().flat_map(|feature| ["--feature", feature.as_str()]));
    world.sandbox(&line).map(drop)
}

/// What the list says about where each template comes from.
fn provenance(world: &World) -> Result<Vec<(String, Value)>> {
    let output = world.tool(&["list", "--installed", "--json"])?;
    ensure!(output.status.success(), "{}", told(&output));
    let value: Value = serde_json::from_slice(&output.stdout)?;
    let of = |key: &str| value["result"][key].as_array().cloned().unwrap_or_default();
    let each = of("templates").into_iter().chain(of("unmanaged"));
    Ok(each.map(|t| (t["name"].as_str().unwrap_or_default().to_owned(), t["provenance"].clone())).collect())
}

fn kind(world: &World, name: &str) -> Result<String> {
    let all = provenance(world)?;
    let found = all.iter().find(|(known, _)| known == name);
    Ok(found.and_then(|(_, value)| value["kind"].as_str()).unwrap_or_default().to_owned())
}

#[test]
fn the_list_tells_where_templates_come_from_by_evidence() -> Result<()> {
    let world = World::new()?;
    world.must(&["install", "-q", "--skip-start", "demo-1.0"])?;
    let record =
        world.qube("demo")?["features"]["qvm-template-record"].as_str().unwrap_or_default().to_owned();
    ensure!(record.starts_with("install demo 0:1.0-1 20") && record.contains(" uuid="), "{record}");
    let mut cloned = described("demo");
    cloned.push(format!("qvm-template-record={record}"));
    add(&world, "copy", &cloned)?;
    add(&world, "foreign", &described("foreign"))?;
    add(&world, "half", &["template-name=half".to_owned()])?;
    add(&world, "bare", &[])?;
    // With the machine formats of the original nothing changes.
    let pipe = world.must(&["list", "--installed", "--machine-readable"])?;
    let expected = "installed|demo|0:1.0-1|test\ninstalled|foreign|0:4.3-1|elsewhere\ninstalled|half|:-|\n";
    assert_eq!(pipe, expected);
    assert_eq!(
        provenance(&world)?,
        [
            ("demo".to_owned(), json!({"kind": "installed"})),
            ("foreign".to_owned(), json!({"kind": "other-tool"})),
            ("half".to_owned(), json!({"kind": "half-described"})),
            ("bare".to_owned(), json!({"kind": "unknown"})),
            ("copy".to_owned(), json!({"kind": "clone", "of": "demo"})),
        ]
    );
    // Another tool installs over it: our record is stale.
    world.sandbox(&["qube", "demo", "--feature", "template-version=9"])?;
    assert_eq!(kind(&world, "demo")?, "other-tool");
    world.sandbox(&["qube", "demo", "--feature", "template-version=1.0"])?;
    assert_eq!(kind(&world, "demo")?, "installed");
    // The same features in another qube of that name.
    let other = record.replace(" uuid=", " uuid=0");
    world.sandbox(&["qube", "demo", "--feature", &format!("qvm-template-record={other}")])?;
    assert_eq!(kind(&world, "demo")?, "restored");
    let upgraded = format!("qvm-template-record={record} os=fedora/42");
    let line = ["qube", "demo", "--feature", &upgraded, "--feature", "os-distribution=fedora"];
    world.sandbox(&[&line[..], &["--feature", "os-version=43"]].concat())?;
    let all = provenance(&world)?;
    assert_eq!(all[0].1, json!({"kind": "upgraded-in-place", "from": "fedora/42", "to": "fedora/43"}));
    assert_eq!(world.denied()?, [""; 0]);
    Ok(())
}

#[test]
fn templates_are_adopted_as_what_their_features_say() -> Result<()> {
    let world = World::new()?;
    let without = |features: Vec<String>, gone: &[&str]| -> Vec<String> {
        features.into_iter().filter(|f| !gone.iter().any(|gone| f.starts_with(&format!("{gone}=")))).collect()
    };
    add(&world, "foreign", &described("foreign"))?;
    add(&world, "copy", &described("demo"))?;
    add(&world, "bare", &without(described(""), &["template-name", "template-url", "template-summary"]))?;
    let (value, status) = result(&world, &["adopt", "--dry-run", "copy", "bare"])?;
    assert_eq!((status, &value["result"]), (0, &json!("planned")));
    assert_eq!(value["templates"][0]["after"]["evr"], "0:4.3-1");
    assert_eq!(value["templates"][0]["reason"], "clone of demo");
    assert_eq!(world.changes(0)?, [""; 0]);
    let (value, status) = result(&world, &["adopt", "--yes", "copy", "bare", "foreign"])?;
    assert_eq!((status, &value["result"]), (0, &json!("done")));
    let names = ["copy", "bare", "foreign"];
    assert_eq!(outcomes(&value), names.map(|name| [name, "adopt", "done"].map(str::to_owned)));
    for name in names {
        assert_eq!(kind(&world, name)?, "adopted", "{name}");
    }
    let copy = world.qube("copy")?;
    assert_eq!(copy["features"]["template-name"], "copy");
    let record = copy["features"]["qvm-template-record"].as_str().unwrap_or_default();
    ensure!(record.starts_with("adopt demo 0:4.3-1 2025-02-03T04:05:06"), "{record}");
    // What nobody knows is empty, so that the original can read it too.
    assert_eq!(world.qube("bare")?["features"]["template-summary"], "");
    let (value, _) = result(&world, &["adopt", "--yes", "copy"])?;
    assert_eq!(
        (&value["result"], &value["templates"][0]["reason"]),
        (&json!("unchanged"), &json!("managed already"))
    );
    assert_eq!(world.denied()?, [""; 0]);
    Ok(())
}

#[test]
fn what_nothing_tells_is_not_made_up() -> Result<()> {
    let world = World::new()?;
    add(&world, "blank", &[])?;
    add(&world, "half", &["template-name=half".to_owned(), "template-epoch=0".to_owned()])?;
    let odd = described("odd").into_iter().map(|feature| feature.replace("2025-01-02", "soon"));
    add(&world, "odd", &odd.collect::<Vec<_>>())?;
    let before = world.show()?;
    for (name, text) in [("blank", "retire blank"), ("half", "upgrade half"), ("odd", "make no sense")] {
        let output = world.tool(&["adopt", "--yes", name])?;
        let told = told(&output);
        ensure!(output.status.code() == Some(1) && told.contains(text), "{name}: {} {told}", output.status);
    }
    for (line, text) in [
        (&["adopt"][..], "required"),
        (&["adopt", "gone"], "no such domain"),
        (&["adopt", "sys-net"], "no template"),
        (&["adopt", "../x"], "no such domain"),
        (&["adopt", "--yes", "blank", "blank"], ""),
    ] {
        let output = world.tool(line)?;
        ensure!(!output.status.success() && told(&output).contains(text), "{line:?}: {}", told(&output));
    }
    assert_eq!((world.changes(0)?, world.show()?), (vec![], before));
    // A refusal half way puts back what was there; the mark was to come last.
    add(&world, "copy", &described("demo"))?;
    let before = world.settled("copy")?;
    world.sandbox(&["fault", "exception", "admin.vm.feature.Set+template-name", "QubesException"])?;
    let (value, status) = result(&world, &["adopt", "--yes", "copy"])?;
    assert_eq!((status, outcomes(&value)), (1, vec![["copy", "adopt", "failed"].map(str::to_owned)]));
    assert_eq!(world.settled("copy")?, before);
    Ok(())
}
