//! `grants`: what the file comes to, before somebody asks.

use std::io::Write as _;

use anyhow::Result;
use serde_json::Value;

use super::TENANTS;
use super::world::{NAMED, World};

#[test]
fn the_file_is_checked_and_every_decision_has_its_line() -> Result<()> {
    let world = World::new("tenant", TENANTS)?.keep()?;
    let checked = world.tool("mgmt", &["grants", "check", "--json", NAMED, "rival-own"])?;
    assert_eq!(checked.status, 0, "{}", checked.err);
    let result: Value = serde_json::from_str::<Value>(&checked.out)?["result"].clone();
    // What the matrix says is what the services do.
    for row in result["matrix"].as_array().into_iter().flatten() {
        let qube = if row["caller"] == "desk" { "desk" } else { "rival" };
        // Who has a grant by name and one by tag has both.
        if qube == "desk" && row["template"] == "rival-own" {
            continue;
        }
        let template = row["template"].as_str().unwrap_or_default();
        for verb in ["Info", "Plan", "Install", "Reinstall", "Downgrade", "Status", "Cancel"] {
            let answer = world.call(
                qube,
                &format!("template.{verb}+{template}"),
                r#"{"schema": 1, "version": "7"}"#,
            )?;
            let granted = row["verbs"][verb.to_lowercase()] != "-";
            let refused = answer.word() == "refused";
            assert_eq!(granted, !refused, "{qube} {verb} {template}: {answer:?}");
        }
    }
    let text = world.tool("mgmt", &["grants", "check"])?;
    writeln!(std::io::stdout(), "{}", text.out)?;
    assert!(text.out.contains("@tag:template-tenant") && text.out.contains("debian-*"), "{}", text.out);
    let explained = world.tool("mgmt", &["grants", "explain", "desk", "install", NAMED])?;
    assert!(
        explained.out.contains("granted by grant 1: caller line 4, verbs line 5, templates line 6"),
        "{}",
        explained.out
    );
    assert!(explained.err.contains("--tag"), "{}", explained.err);
    let refused = world
        .tool("mgmt", &["grants", "explain", "rival", "downgrade", NAMED, "--tag", "template-tenant"])?;
    assert!(refused.out.contains("refused: grant 2, line 13: the verb is not granted"), "{}", refused.out);
    world.grant(&TENANTS.replace("\"list\"", "\"lost\""))?;
    let broken = world.tool("mgmt", &["grants", "check"])?;
    assert_eq!((broken.status, broken.err.contains("lost")), (1, true), "{}", broken.err);
    assert_eq!(world.tool("mgmt", &["grants", "explain", "desk", "eat", NAMED])?.status, 2);
    Ok(())
}
