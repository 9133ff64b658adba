//! Dry runs, results as JSON, and several templates in one command.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::cli_contract::schema;
use crate::install::{World, told};

/// What the tool prints with `--json`, checked against its schema, and its exit status.
pub fn result(world: &World, arguments: &[&str]) -> Result<(Value, i32)> {
    let output = world.tool(&[&["--json"], arguments].concat())?;
    let text = String::from_utf8(output.stdout.clone())?;
    ensure!(text.lines().count() == 1 && text.is_ascii(), "{}", told(&output));
    let value: Value = serde_json::from_str(&text).with_context(|| told(&output))?;
    let root: Value = serde_json::from_str(include_str!("../../src/cli/schema/output-v1.json"))?;
    schema::check(&root, &root, &value, "output").map_err(|wrong| anyhow::anyhow!("{wrong}: {value}"))?;
    let status = output.status.code().context("a status")?;
    assert_eq!(value["exit"], status, "{value}");
    Ok((value, status))
}

/// Name, action and outcome of each template.
pub fn outcomes(value: &Value) -> Vec<[String; 3]> {
    let word = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    let each = value["templates"].as_array().into_iter().flatten();
    each.map(|entry| ["name", "action", "outcome"].map(|key| word(entry, key))).collect()
}

/// Calls of a service so far.
fn calls(world: &World, service: &str) -> Result<usize> {
    Ok(world.log()?.iter().filter(|call| call["service"] == service).count())
}

#[test]
fn a_dry_run_checks_and_changes_nothing() -> Result<()> {
    let world = World::new()?;
    let (value, status) = result(&world, &["install", "--dry-run", "demo-1.0", "second"])?;
    assert_eq!((status, &value["result"]), (0, &json!("planned")));
    assert_eq!(outcomes(&value), [["demo", "install", "planned"], ["second", "install", "planned"]]);
    assert_eq!(value["templates"][0]["after"]["evr"], "0:1.0-1");
    assert_eq!(value["templates"][1]["after"]["reponame"], "test");
    assert_eq!(value["templates"][1]["after"]["signer"], Value::Null);
    // Two names are one question (R16).
    assert_eq!((calls(&world, "qubes.TemplateSearch")?, calls(&world, "qubes.TemplateDownload")?), (1, 0));
    assert_eq!(world.changes(0)?, [""; 0]);
    let output = world.tool(&["install", "--dry-run", "demo"])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(text.starts_with("would install demo: 0:2.0-1 from test, "), "{text}");

    world.must(&["install", "-q", "--skip-start", "demo-1.0"])?;
    let from = world.log()?.len();
    let before = world.settled("demo")?;
    let (value, _) = result(&world, &["upgrade", "--dry-run", "demo"])?;
    assert_eq!(value["templates"][0]["before"]["evr"], "0:1.0-1");
    assert_eq!(value["templates"][0]["before"]["reponame"], "test");
    assert_eq!(value["templates"][0]["after"]["evr"], "0:2.0-1");
    let (value, status) = result(&world, &["remove", "--dry-run", "demo"])?;
    assert_eq!((status, outcomes(&value)), (0, vec![["demo", "remove", "planned"].map(str::to_owned)]));
    let (value, status) = result(&world, &["install", "--dry-run", "demo"])?;
    assert_eq!((status, &value["result"]), (0, &json!("unchanged")));
    assert_eq!(value["templates"][0]["reason"], "already installed");
    // What would fail says so.
    let (value, status) = result(&world, &["upgrade", "--dry-run", "second"])?;
    assert_eq!((status, &value["error"]["cause"]), (2, &json!("usage")));
    assert_eq!(world.changes(from)?, [""; 0]);
    assert_eq!((world.settled("demo")?, world.denied()?), (before, vec![]));
    Ok(())
}

#[test]
fn one_failure_does_not_stop_the_others() -> Result<()> {
    let world = World::new()?;
    let line = ["install", "-q", "--skip-start", "--retries=1", "demo", "foreign", "unsigned", "second"];
    let (value, status) = result(&world, &line)?;
    assert_eq!((status, &value["result"]), (1, &json!("failed")));
    assert_eq!(
        outcomes(&value),
        [
            ["demo", "install", "done"],
            ["foreign", "install", "failed"],
            ["unsigned", "install", "failed"],
            ["second", "install", "done"]
        ]
    );
    assert_eq!(value["error"]["message"], "not done: foreign, unsigned");
    assert_eq!(value["templates"][1]["error"]["cause"], "download-failed");
    let signer = value["templates"][3]["after"]["signer"].as_str().unwrap_or_default();
    ensure!(signer.len() == 40 && signer.bytes().all(|byte| byte.is_ascii_hexdigit()), "{value}");
    assert_eq!(world.root_digest("demo")?, world.packages.image_digest("2.0")?);
    ensure!(world.qube("foreign")?.is_null() && !world.qube("second")?.is_null());
    // Nothing of what was installed stays in the cache.
    let cache = world.place("qubes/mgmt/root/root/.cache/qvm-template");
    let left = std::fs::read_dir(&cache).map(|entries| entries.count()).unwrap_or(0);
    assert_eq!((left, world.denied()?), (0, vec![]));
    Ok(())
}

#[test]
fn unless_somebody_wants_it_to() -> Result<()> {
    let world = World::new()?;
    let line = ["install", "--skip-start", "--retries=1", "--fail-fast", "demo", "foreign", "second"];
    let output = world.tool(&line)?;
    let text = told(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let summary = text.split_once("Summary:\n").context("a summary")?.1;
    ensure!(summary.starts_with("  demo: install done 0:2.0-1\n  foreign: failed: "), "{text}");
    ensure!(summary.ends_with("  second: skipped: not begun\n"), "{text}");
    ensure!(!world.qube("demo")?.is_null() && world.qube("second")?.is_null());
    Ok(())
}

#[test]
fn the_next_package_is_fetched_while_the_current_one_is_put_in_place() -> Result<()> {
    let world = World::new()?;
    world.must(&["install", "-q", "demo", "second"])?;
    let log = world.log()?;
    let place = |service: &str, last: bool| {
        let mut found = log.iter().enumerate().filter(|(_, call)| {
            call["service"] == service && (service != "admin.vm.feature.Set" || call["target"] == "demo")
        });
        let found = if last { found.next_back() } else { found.next() };
        found.map(|(at, _)| at).with_context(|| format!("no {service}"))
    };
    let second_download = place("qubes.TemplateDownload", true)?;
    ensure!(second_download < place("admin.vm.feature.Set", true)?, "fetched after the first was done");
    ensure!(second_download > place("qubes.TemplateDownload", false)?);
    Ok(())
}

#[test]
fn a_change_that_dom0_refuses_half_way_is_told_too() -> Result<()> {
    let world = World::new()?;
    world.must(&["install", "-q", "--skip-start", "demo-1.0", "second-1.0"])?;
    let before = world.settled("demo")?;
    world.sandbox(&["fault", "exception", "--target", "demo", "admin.vm.volume.Clear", "QubesException"])?;
    let line = ["upgrade", "-q", "--yes", "--skip-start", "demo", "second"];
    let (value, status) = result(&world, &line)?;
    assert_eq!((status, &value["result"]), (1, &json!("failed")));
    assert_eq!(outcomes(&value), [["demo", "upgrade", "failed"], ["second", "upgrade", "done"]]);
    assert_eq!(value["templates"][0]["before"]["evr"], "0:1.0-1");
    assert_eq!(world.settled("demo")?, before);
    assert_eq!(world.qube("second")?["features"]["template-version"], "2.0");
    Ok(())
}
