//! Every malformed and wrongly signed package of the differential table, through the real program: one message each, one
//! exit status, no change in dom0.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use super::World;
use crate::trust::{self, table::TABLE};

#[test]
fn every_refused_package_ends_in_its_own_message_and_changes_nothing() -> Result<()> {
    let world = World::new()?;
    let place = world.sandbox.files("mgmt").join("srv");
    fs::create_dir_all(&place)?;
    let mut keys = Vec::new();
    for name in trust::ALL_KEYS {
        keys.extend(fs::read(trust::fixtures().join("keys").join(name))?);
    }
    fs::write(place.join("keys"), keys)?;
    let refused: Vec<_> = TABLE.iter().filter(|(_, _, _, ours, _)| *ours != "ok").collect();
    for (name, ..) in &refused {
        fs::write(place.join(format!("{name}.rpm")), trust::case(name))?;
    }
    let script = "ulimit -v 1048576; cd /srv; for file in *.rpm; do \
                  said=$(qvm-template --keyring=/srv/keys install -q --skip-start /srv/$file 2>&1); \
                  echo \"== $file $? $said\"; done";
    let said = world
        .sandbox
        .exec(&["--cwd", "/", "--env", "XDG_STATE_HOME=/state", "--space", "64M"], &["sh", "-c", script])?;
    let outcome =
        |name: &str| said.out.split("== ").find_map(|one| one.strip_prefix(&format!("{name}.rpm ")));
    let mut wrong = Vec::new();
    for (name, _, _, ours, _) in &refused {
        let said = outcome(name).with_context(|| format!("{name} was not tried: {}", said.err))?;
        let why = trust::judge(&trust::case(name), &trust::ALL_KEYS).err().context("it is refused")?;
        let (status, told) = match *ours {
            "not-a-template" => (2, "Illegal package name for package".to_owned()),
            _ => (1, format!("Signature verification failed: {why}")),
        };
        if !said.starts_with(&format!("{status} "))
            || said.matches(told.lines().next().unwrap_or_default()).count() != 1
        {
            wrong.push(format!("{name}: {said}(wanted: {told})"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    let changes = world.changes(0)?;
    ensure!(changes.is_empty(), "{changes:?}");
    Ok(())
}
