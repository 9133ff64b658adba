//! `--via`: the command in an admin's qube does what the local one does.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::TENANTS;
use super::world::{NAMED, World};

fn json(text: &str) -> Result<Value> {
    serde_json::from_str(text).with_context(|| format!("reading {text}"))
}

/// An installation here and over there, and what both say of it; the distant one knows a job as well.
fn same(world: &World, name: &str) -> Result<Value> {
    let here = world.tool("mgmt", &["install", name, "--json"])?;
    if here.status == 0 {
        assert_eq!(world.tool("mgmt", &["remove", "--yes", name])?.status, 0);
    }
    let there = world.tool("desk", &["--via", "mgmt", "install", name, "--json"])?;
    assert_eq!(here.status, there.status, "{name}: {} {}", there.out, there.err);
    let (here, mut there) = (json(&here.out)?, json(&there.out)?);
    if let Some(object) = there.as_object_mut() {
        object.remove("job");
    }
    let keys = |value: &Value| value.as_object().map(|o| o.keys().cloned().collect::<Vec<_>>());
    assert_eq!(keys(&here), keys(&there), "{name}");
    assert_eq!((&here["result"], &here["exit"]), (&there["result"], &there["exit"]));
    Ok(there)
}

#[test]
fn a_change_is_told_as_the_local_one_is() -> Result<()> {
    let world = World::new("tenant", TENANTS)?.keep()?;
    let old = world.tool("desk", &["--via", "mgmt", "install", &format!("{NAMED}-0:1.0-1")])?;
    assert_eq!(old.status, 0, "{}", old.err);
    let upgraded = world.tool("desk", &["--via", "mgmt", "upgrade", "--yes", "--json", NAMED])?;
    let upgraded = json(&upgraded.out)?;
    assert_eq!(upgraded["templates"][0]["before"]["evr"], "0:1.0-1", "{upgraded}");
    assert_eq!(world.qube(NAMED)?["features"]["template-version"], "2.0");
    assert_eq!(world.tool("desk", &["--via", "mgmt", "remove", "--yes", NAMED])?.status, 0);
    let done = same(&world, NAMED)?;
    assert_eq!(done["templates"][0]["after"]["evr"], "0:2.0-1", "{done}");
    assert_eq!(world.qube(NAMED)?["features"]["qvm-template-owner"], "desk");
    let again = world.tool("desk", &["--via", "mgmt", "upgrade", "--yes", NAMED])?;
    assert_eq!((again.status, again.out.as_str()), (0, ""));
    assert!(again.err.contains("of highest version already installed, skipping..."), "{}", again.err);
    let unknown = world.tool("desk", &["--via", "mgmt", "install", "debian-nobody-has", "--json"])?;
    assert_eq!(json(&unknown.out)?["error"]["cause"], "not-available", "{}", unknown.out);
    assert_eq!(json(&unknown.out)?["templates"][0]["outcome"], "failed", "{}", unknown.out);
    assert!(unknown.err.contains("ERROR: no such template can be installed here"), "{}", unknown.err);
    assert_eq!(world.denied()?, [""; 0]);
    Ok(())
}

#[test]
fn progress_is_told_as_the_local_one_is() -> Result<()> {
    let world = World::new("tenant", TENANTS)?.keep()?;
    let phases = |text: &str| -> Vec<String> {
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut all: Vec<String> = lines
            .filter(|line| line["event"] == "begin" || line["event"] == "done")
            .map(|line| format!("{} {} {}", line["event"], line["phase"], line["template"]))
            .collect();
        all.sort();
        all.dedup();
        all
    };
    let here = world.tool("mgmt", &["install", NAMED, "--progress=json"])?;
    assert_eq!(world.tool("mgmt", &["remove", "--yes", NAMED])?.status, 0);
    let there = world.tool("desk", &["--via", "mgmt", "install", NAMED, "--progress=json"])?;
    assert_eq!(there.status, 0, "{}", there.err);
    // What was asked of repositories is told under other names.
    let rest = |text: &str| -> Vec<String> {
        phases(text).into_iter().filter(|line| !line.contains("\"query\"")).collect()
    };
    assert_eq!(rest(&here.err), rest(&there.err));
    assert!(rest(&there.err).len() >= 4, "{}", there.err);
    Ok(())
}

#[test]
fn looking_is_told_as_the_local_one_is() -> Result<()> {
    let world = World::new("tenant", TENANTS)?.keep()?;
    assert_eq!(world.tool("desk", &["--via", "mgmt", "install", NAMED])?.status, 0);
    for arguments in [
        &["list", "--installed"][..],
        &["list", "--installed", "--machine-readable"],
        &["list", "--installed", "--json"],
        &["list", "--available", NAMED],
        &["list", "--available", "--all-versions", "--machine-readable-json", "debian-*"],
        &["info", "--installed", NAMED],
        &["info", "--installed", "--json", NAMED],
        &["search", "debian-13"],
        &["search", "--json", "debian-13"],
    ] {
        let here = world.tool("mgmt", arguments)?;
        let line: Vec<&str> = ["--via", "mgmt"].iter().chain(arguments).copied().collect();
        let there = world.tool("desk", &line)?;
        // Where a template comes from can name other qubes, and is not told to them.
        let own = here.out.replace(", \"provenance\": {\"kind\": \"installed\"}", "");
        assert_eq!((there.status, &there.out), (here.status, &own), "{arguments:?} {}", there.err);
    }
    let none = world.tool("desk", &["--via", "mgmt", "list", "nobody-has"])?;
    assert_eq!((none.status, none.err.contains("No matching templates to list")), (2, true), "{}", none.err);
    Ok(())
}

#[test]
fn a_plan_is_shown_and_carried_out() -> Result<()> {
    let world = World::new("tenant", TENANTS)?.keep()?;
    let planned = world.tool("desk", &["--via", "mgmt", "install", NAMED, "--dry-run"])?;
    assert_eq!(planned.status, 0, "{}", planned.err);
    assert!(planned.out.starts_with(&format!("would install {NAMED}: 0:2.0-1 from test")), "{}", planned.out);
    assert!(world.qube(NAMED)?.is_null());
    let id = planned.out.rsplit("--plan ").next().context("a plan")?.trim().to_owned();
    let done = world.tool("desk", &["--via", "mgmt", "install", NAMED, "--plan", &id])?;
    assert_eq!(done.status, 0, "{}", done.err);
    let again = world.tool("desk", &["--via", "mgmt", "install", NAMED, "--plan", &id, "--json"])?;
    assert_eq!(json(&again.out)?["error"]["cause"], "plan-void", "{}", again.out);
    Ok(())
}

#[test]
fn an_interrupted_command_leaves_nothing_and_a_left_one_is_found_again() -> Result<()> {
    let world = World::new("tenant", TENANTS)?.keep()?;
    for choice in ["cancel", "continue"] {
        world.fault(&["stall", "qubes.TemplateDownload", "out", "0", "--seconds", "4"])?;
        let line = ["qvm-template", "--via", "mgmt", "install", NAMED, "--on-hangup", choice];
        let mut child = world.sandbox.command(&["--qube", "desk"], &line).spawn()?;
        thread::sleep(Duration::from_millis(1500));
        kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGINT)?;
        assert_eq!(child.wait()?.code(), Some(130), "{choice}");
        if choice == "continue" {
            let status = world.tool("desk", &["--via", "mgmt", "status", NAMED, "--follow", "--json"])?;
            let jobs = json(&status.out)?["result"]["jobs"].clone();
            let last = jobs.as_array().and_then(|jobs| jobs.last()).context("a job")?.clone();
            assert_eq!(last["state"], "done", "{}", status.out);
        } else {
            assert_eq!(world.settled_job()?, "failed");
        }
        world.fault(&["clear"])?;
        assert_eq!(world.qube(NAMED)?.is_null(), choice == "cancel");
    }
    let all = world.tool("mgmt", &["status"])?;
    assert!(all.out.lines().count() == 2 && all.out.contains("  desk"), "{}", all.out);
    let none = world.tool("desk", &["--via", "mgmt", "cancel", NAMED])?;
    assert_eq!((none.status, none.err.contains("there is no such job")), (2, true), "{}", none.err);
    Ok(())
}

#[test]
fn what_cannot_be_asked_for_is_refused_here() -> Result<()> {
    let world = World::new("tenant", TENANTS)?.keep()?;
    for arguments in [
        &["install", "--nogpgcheck", NAMED][..],
        &["install", "--allow-pv", NAMED],
        &["install", "--allow-older", NAMED, NAMED],
        &["remove", "--disassoc", NAMED],
        &["remove", "--force", NAMED],
        &["purge", NAMED],
        &["clean"],
        &["install", "./x.rpm"],
        &["install", "../x"],
        &["install", "--repoid", "a*", NAMED],
        &["install", "--on-hangup", "maybe", NAMED],
        &["install"],
    ] {
        let line: Vec<&str> = ["--via", "mgmt"].iter().chain(arguments).copied().collect();
        let said = world.tool("desk", &line)?;
        assert_eq!(said.status, 2, "{arguments:?} {}", said.err);
    }
    let stranger = world.tool("stranger", &["--via", "mgmt", "list", "--json"])?;
    assert_eq!(stranger.status, 1);
    assert_eq!(json(&stranger.out)?["error"]["cause"], "denied", "{}", stranger.out);
    let patterns = world.tool("desk", &["--via", "mgmt", "install", "debian-13-*"])?;
    assert_eq!(patterns.status, 0, "{}", patterns.err);
    assert!(!world.qube(NAMED)?.is_null());
    Ok(())
}
