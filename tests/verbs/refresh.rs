//! `refresh-metadata`: texts from the signed header alone.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::several::{outcomes, result};
use crate::install::{World, told};

/// Bytes that the download service sent in all.
fn downloaded(world: &World) -> Result<u64> {
    let log = world.log()?;
    let downloads = log.iter().filter(|call| call["service"] == "qubes.TemplateDownload");
    Ok(downloads.filter_map(|call| call["bytes_out"].as_u64()).sum())
}

#[test]
fn texts_come_from_the_header_and_no_more_is_fetched() -> Result<()> {
    let world = World::new()?;
    let package = world.packages.rpm("demo", "1.0").display().to_string();
    world.must(&["install", "-q", "--skip-start", &package])?;
    let before = world.settled("demo")?;
    let size = std::fs::metadata(world.packages.rpm("demo", "1.0"))?.len();
    let (value, status) = result(&world, &["refresh-metadata", "demo"])?;
    assert_eq!((status, &value["result"]), (0, &json!("unchanged")), "{value}");
    assert_eq!(value["templates"][0]["reason"], "it is as the package says");

    let line = ["qube", "demo", "--feature", "template-summary=odd", "--feature", "template-description=x|y"];
    world.sandbox(&line)?;
    let from = world.log()?.len();
    let (value, status) = result(&world, &["refresh-metadata", "--dry-run", "demo"])?;
    assert_eq!(
        (status, outcomes(&value)),
        (0, vec![["demo", "refresh-metadata", "planned"].map(str::to_owned)])
    );
    assert_eq!(world.changes(from)?, [""; 0]);
    let already = downloaded(&world)?;
    let (value, status) = result(&world, &["refresh-metadata", "demo"])?;
    assert_eq!(
        (status, outcomes(&value)),
        (0, vec![["demo", "refresh-metadata", "done"].map(str::to_owned)])
    );
    assert_eq!(value["templates"][0]["reason"], "summary, description");
    ensure!(
        value["templates"][0]["after"]["signer"].as_str().is_some_and(|signer| signer.len() == 40),
        "{value}"
    );
    assert_eq!((world.settled("demo")?, world.denied()?), (before, vec![]));
    assert_eq!(
        world.changes(from)?,
        ["admin.vm.feature.Set+template-summary", "admin.vm.feature.Set+template-description"]
    );
    let fetched = downloaded(&world)? - already;
    ensure!(fetched < size / 2, "{fetched} of {size} bytes");
    Ok(())
}

#[test]
fn what_is_not_the_installed_build_changes_nothing() -> Result<()> {
    let world = World::new()?;
    world.must(&["install", "-q", "--skip-start", "demo-1.0"])?;
    let odd = |feature: &str| world.sandbox(&["qube", "demo", "--feature", feature]).map(drop);
    odd("template-summary=odd")?;
    for (feature, back, status, text) in [
        ("template-version=7", "template-version=1.0", 2, "Same version of template 'demo' not found."),
        ("template-version=", "template-version=1.0", 1, "upgrade demo"),
        ("template-name=other", "template-name=demo", 2, "not managed"),
    ] {
        odd(feature)?;
        let output = world.tool(&["refresh-metadata", "demo"])?;
        let told = told(&output);
        ensure!(output.status.code() == Some(status) && told.contains(text), "{feature}: {told}");
        odd(back)?;
    }
    let qube = world.qube("demo")?;
    let built = qube["features"]["template-buildtime"].as_str().context("a time")?;
    odd("template-buildtime=2001-02-03 04:05:06")?;
    let before = world.settled("demo")?;
    let from = world.log()?.len();
    let (value, status) = result(&world, &["refresh-metadata", "demo"])?;
    assert_eq!(
        (status, outcomes(&value)),
        (1, vec![["demo", "refresh-metadata", "failed"].map(str::to_owned)])
    );
    ensure!(value["error"]["message"].as_str().unwrap_or_default().contains(built), "{value}");
    odd(&format!("template-buildtime={built}"))?;
    // Every head that nobody whom we trust has signed, or that is none.
    for (at, direction) in [("110", "out"), ("700", "out")] {
        world.sandbox(&["fault", "flip", "qubes.TemplateDownload", direction, at])?;
        let (value, status) = result(&world, &["refresh-metadata", "demo"])?;
        assert_eq!((status, &value["result"]), (1, &json!("failed")), "{at}: {value}");
        world.sandbox(&["fault", "clear"])?;
    }
    world.sandbox(&["fault", "cut", "qubes.TemplateDownload", "out", "300"])?;
    let (value, status) = result(&world, &["refresh-metadata", "demo"])?;
    assert_eq!((status, &value["result"]), (1, &json!("failed")), "{value}");
    odd("template-buildtime=2001-02-03 04:05:06")?;
    assert_eq!((world.changes(from)?, world.settled("demo")?), (vec![], before));
    for (line, text) in [
        (&["refresh-metadata"][..], "required"),
        (&["refresh-metadata", "gone"], "not already installed"),
        (&["refresh-metadata", "../x"], "not already installed"),
        (&["refresh-metadata", "sys-net"], "not already installed"),
        (&["refresh-metadata", "demo", "demo"], "more than once"),
    ] {
        let output = world.tool(line)?;
        ensure!(
            output.status.code() == Some(2) && told(&output).contains(text),
            "{line:?}: {}",
            told(&output)
        );
    }
    // A refusal half way puts back what was there.
    odd(&format!("template-buildtime={built}"))?;
    odd("template-description=odd")?;
    let before = world.settled("demo")?;
    world.sandbox(&["fault", "exception", "admin.vm.feature.Set+template-description", "QubesException"])?;
    let (value, status) = result(&world, &["refresh-metadata", "demo"])?;
    assert_eq!((status, &value["templates"][0]["error"]["cause"]), (1, &Value::from("admin-call-failed")));
    assert_eq!((world.settled("demo")?, world.denied()?), (before, vec![]));
    Ok(())
}
