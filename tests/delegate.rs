// SPDX-License-Identifier: GPL-2.0-or-later
//! Services of the management qube, called by other qubes, some of which mean harm.

mod grants;
mod hostile;
mod policy;
mod roles;
mod via;
mod world;

use anyhow::Result;

use self::world::{NAMED, World};

pub(crate) const TENANTS: &str = r#"
version = 1
[[grant]]
caller = "desk"
verbs = ["list", "info", "search", "plan", "install", "reinstall", "upgrade", "downgrade", "remove", "finalize", "status", "cancel"]
templates = ["debian-*", "big"]
repositories = ["test"]
max-image-size = "16 MiB"
max-templates = 2
max-changes-per-hour = 50
[[grant]]
caller = "@tag:template-tenant"
verbs = ["list", "info", "search", "plan", "install", "upgrade", "remove", "status", "cancel"]
templates = ["rival-*", "debian-13-xfce"]
repositories = ["test"]
max-changes-per-hour = 50
"#;

#[test]
fn a_tenant_keeps_its_own_templates() -> Result<()> {
    let world = World::new("tenant", TENANTS)?.keep()?;
    let install = format!("template.Install+{NAMED}");
    let answer = world.call("desk", &install, r#"{"schema": 1, "version": "1.0"}"#)?;
    assert_eq!(answer.word(), "done", "{answer:?} {:?}", world.audit()?);
    assert_eq!(answer.result["templates"][0]["after"]["evr"], "0:1.0-1");
    assert_eq!(answer.progress[0]["event"], "job");
    let demo = world.qube(NAMED)?;
    assert_eq!(demo["features"]["qvm-template-owner"], "desk");
    assert_eq!(demo["features"]["template-reponame"], "test");
    let listed = world.call("desk", "template.List", r#"{"schema": 1, "show": ["installed"]}"#)?;
    assert_eq!(listed.result["listing"][0]["name"], NAMED, "{listed:?}");
    let upgraded = world.call("desk", &format!("template.Upgrade+{NAMED}"), "")?;
    assert_eq!(upgraded.word(), "done", "{upgraded:?}");
    assert_eq!(upgraded.result["templates"][0]["before"]["evr"], "0:1.0-1");
    assert_eq!(world.qube(NAMED)?["features"]["template-version"], "2.0");
    let again = world.call("desk", &format!("template.Upgrade+{NAMED}"), "")?;
    assert_eq!(again.word(), "unchanged", "{again:?}");
    let finalized = world.call("desk", &format!("template.Finalize+{NAMED}"), "")?;
    assert_eq!((finalized.word(), finalized.status), ("done", 0), "{finalized:?} {:?}", world.audit()?);
    assert_eq!(finalized.result["templates"][0]["action"], "finalize");
    let status = world.call("desk", &format!("template.Status+{NAMED}"), "")?;
    assert_eq!(status.result["jobs"].as_array().map(Vec::len), Some(4), "{status:?}");
    let removed = world.call("desk", &format!("template.Remove+{NAMED}"), "")?;
    assert_eq!(removed.word(), "done", "{removed:?} {:?}", world.audit()?);
    assert!(world.qube(NAMED)?.is_null());
    assert_eq!(world.denied()?, [""; 0]);
    Ok(())
}
