//! `install --name`: a template that is called otherwise than its package.

use anyhow::{Result, ensure};
use serde_json::json;

use super::several::{outcomes, result};
use crate::install::{World, told};

#[test]
fn a_template_with_a_name_of_its_own_lives_like_any_other() -> Result<()> {
    let world = World::new()?;
    world.must(&["install", "-q", "--skip-start", "demo-2.0"])?;
    let beside = world.settled("demo")?;
    let (value, status) =
        result(&world, &["install", "--allow-older", "demo", "--skip-start", "--name", "mine", "demo-1.0"])?;
    assert_eq!(
        (status, outcomes(&value)),
        (0, vec![["mine", "install", "done"].map(str::to_owned)]),
        "{value}"
    );
    assert_eq!(world.root_digest("mine")?, world.packages.image_digest("1.0")?);
    let features = world.qube("mine")?["features"].clone();
    assert_eq!((&features["template-name"], &features["template-version"]), (&json!("mine"), &json!("1.0")));
    ensure!(
        features["qvm-template-record"]
            .as_str()
            .is_some_and(|record| record.starts_with("install demo 0:1.0-1 ")),
        "{features}"
    );
    // The original's formats show it like any other.
    let list = world.must(&["list", "--installed", "--machine-readable"])?;
    assert_eq!(list, "installed|demo|0:2.0-1|test\ninstalled|mine|0:1.0-1|test\n");
    let list = world.must(&["list", "--upgrades", "--machine-readable"])?;
    assert_eq!(list, "upgradable|mine|0:2.0-1|test\n");
    ensure!(world.tool(&["list", "--extras"])?.status.code() == Some(2), "it is no extra");

    let (value, status) = result(&world, &["reinstall", "--yes", "--skip-start", "mine"])?;
    assert_eq!(
        (status, outcomes(&value)),
        (0, vec![["mine", "reinstall", "done"].map(str::to_owned)]),
        "{value}"
    );
    assert_eq!(world.root_digest("mine")?, world.packages.image_digest("1.0")?);
    // By a pattern as well as by name, with a version and without.
    let (value, _) = result(&world, &["upgrade", "--dry-run", "m*"])?;
    assert_eq!(outcomes(&value), [["mine", "upgrade", "planned"]]);
    let (value, status) = result(&world, &["upgrade", "--yes", "--skip-start", "mine-2.0"])?;
    assert_eq!(
        (status, outcomes(&value)),
        (0, vec![["mine", "upgrade", "done"].map(str::to_owned)]),
        "{value}"
    );
    assert_eq!(world.root_digest("mine")?, world.packages.image_digest("2.0")?);
    assert_eq!(world.qube("mine")?["features"]["template-name"], "mine");
    let (value, _) = result(&world, &["upgrade", "--yes", "mine"])?;
    assert_eq!(value["result"], "unchanged");
    assert_eq!((world.settled("demo")?, world.denied()?), (beside, vec![]));
    world.must(&["remove", "-q", "--yes", "mine"])?;
    // From a file, too.
    let package = world.packages.rpm("second", "1.0").display().to_string();
    world.must(&["install", "-q", "--skip-start", "--name=own", &package])?;
    assert_eq!(world.qube("own")?["features"]["template-name"], "own");
    Ok(())
}

#[test]
fn names_that_cannot_be_are_refused_before_anything_is_fetched() -> Result<()> {
    let world = World::new()?;
    for (line, text) in [
        (&["install", "--name=9x", "demo"][..], "no qube can be called"),
        (&["install", "--name=", "demo"], "no qube can be called"),
        (&["install", "--name=a/b", "demo"], "no qube can be called"),
        (&["install", "--name=dom0-dm", "demo"], "no qube can be called"),
        (&["install", "--name=x", "demo", "second"], "one template at a time"),
        (&["install", "--name=x"], "one template at a time"),
        (&["upgrade", "--name=x", "demo"], "unrecognized"),
    ] {
        let output = world.tool(line)?;
        ensure!(
            output.status.code() == Some(2) && told(&output).contains(text),
            "{line:?}: {}",
            told(&output)
        );
    }
    // A name that is taken is as good as installed.
    let (value, status) = result(&world, &["install", "--name=sys-net", "demo"])?;
    assert_eq!((status, &value["result"]), (0, &json!("unchanged")));
    assert_eq!(world.changes(0)?, [""; 0]);
    Ok(())
}
