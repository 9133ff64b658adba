//! `switch` and `retire`: another template takes the place of one, or nothing changes.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Map, Value, json};

use super::several::{outcomes, result};
use crate::install::{World, told};
use crate::support::programs::{SANDBOX, run};

/// A qube: name, class, state, properties.
type Qube<'a> = (&'a str, &'a str, &'a str, &'a [(&'a str, &'a str)]);

/// Where mgmt's user has what is remembered.
const STATE: &str = "/home/user/.local/state/qvm-template";
const POLICY: &str = "qubes/dom0/root/etc/qubes/policy.d/30-qvm-template.policy";

const QUIET: &[Qube<'_>] = &[
    ("old", "TemplateVM", "Halted", &[]),
    ("new", "TemplateVM", "Halted", &[]),
    ("dvm", "AppVM", "Halted", &[("template", "old"), ("template_for_dispvms", "True")]),
    ("new-dvm", "AppVM", "Halted", &[("template", "new"), ("template_for_dispvms", "True")]),
    ("work", "AppVM", "Halted", &[("template", "old"), ("default_dispvm", "dvm")]),
    ("x.-_9", "AppVM", "Halted", &[("template", "old")]),
    ("other", "AppVM", "Running", &[("template", "new")]),
    ("sys-usb", "DispVM", "Halted", &[("template", "dvm")]),
    ("vault", "StandaloneVM", "Running", &[("default_dispvm", "dvm"), ("management_dispvm", "dvm")]),
];

/// A system with these qubes beside dom0, mgmt and sys-net; all but those of `hidden` are mgmt's.
fn world(qubes: &[&[Qube<'_>]], hidden: &[&str]) -> Result<World> {
    let world = World::new()?;
    let mut all = Map::new();
    let entry = |class: &str, state: &str, tags: &[&str], properties: &[(&str, &str)]| {
        let own: Map<String, Value> = properties
            .iter()
            .filter(|(name, _)| *name != "template")
            .map(|(name, value)| {
                let value = if *value == "True" { json!(true) } else { json!(value) };
                ((*name).to_owned(), value)
            })
            .collect();
        let template = properties.iter().find(|(name, _)| *name == "template").map(|(_, value)| *value);
        json!({"class": class, "state": state, "tags": tags, "template": template, "netvm": null,
               "features": {"qrexec": "1"}, "properties": own})
    };
    all.insert("dom0".into(), entry("AdminVM", "Running", &[], &[("default_dispvm", "dvm")]));
    all.insert("mgmt".into(), entry("StandaloneVM", "Running", &[], &[]));
    all.insert("sys-net".into(), entry("StandaloneVM", "Running", &[], &[("provides_network", "True")]));
    for (name, class, state, properties) in qubes.iter().copied().flatten() {
        let tags: &[&str] = if hidden.contains(name) { &[] } else { &["created-by-mgmt"] };
        all.insert((*name).to_owned(), entry(class, state, tags, properties));
    }
    let population = json!({
        "globals": {"default_template": "old", "default_dispvm": "dvm", "management_dispvm": "dvm",
                    "default_netvm": "sys-net", "updatevm": "sys-net", "clockvm": "sys-net",
                    "default_guivm": "dom0", "default_audiovm": "dom0"},
        "pools": ["vm-pool"],
        "qubes": all,
    });
    let path = world.folder.path().join("population.json");
    fs::write(&path, population.to_string())?;
    world.sandbox(&["import", &path.display().to_string()])?;
    Ok(world)
}

/// Everything that a switch could change: properties, states, and which qubes there are.
fn picture(world: &World) -> Result<Value> {
    let show: Value = serde_json::from_str(&world.sandbox(&["show", "--json", "--no-digest"])?)?;
    let mut picture = Map::new();
    picture.insert("globals".to_owned(), show["globals"].clone());
    for (name, qube) in show["qubes"].as_object().context("qubes")? {
        picture.insert(name.clone(), json!([qube["properties"], qube["state"]]));
    }
    Ok(Value::Object(picture))
}

fn template(world: &World, qube: &str) -> Result<String> {
    let show: Value = serde_json::from_str(&world.sandbox(&["show", "--json", "--no-digest"])?)?;
    Ok(show["qubes"][qube]["properties"]["template"].as_str().unwrap_or_default().to_owned())
}

fn undo_files(world: &World) -> Vec<PathBuf> {
    let entries = fs::read_dir(world.place("qubes/mgmt/root").join(&STATE[1..]).join("undo"));
    entries.into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// `holder.property` of each change that is told.
fn changes(value: &Value) -> Vec<String> {
    let each = value["changes"].as_array().into_iter().flatten();
    each.map(|c| format!("{}.{}", c["holder"].as_str().unwrap_or("-"), c["property"].as_str().unwrap_or("")))
        .collect()
}

#[test]
fn everything_that_uses_a_template_follows_and_comes_back() -> Result<()> {
    let world = world(&[QUIET], &[])?;
    let before = picture(&world)?;
    let line = ["switch", "--from", "old", "--to", "new"];
    let (value, status) = result(&world, &[&line[..], &["--dry-run"]].concat())?;
    assert_eq!((status, &value["result"]), (0, &json!("planned")));
    let expected = ["-.default_template", "dvm.template", "work.template", "x.-_9.template"];
    assert_eq!(changes(&value), expected);
    assert_eq!(value["changes"][1]["outcome"], "planned");
    let told = world.must(&[&line[..], &["--dry-run"]].concat())?;
    ensure!(told.contains("would change template of work: old -> new\n"), "{told}");
    assert_eq!((world.changes(0)?, undo_files(&world).len()), (vec![], 0));

    let (value, status) = result(&world, &["switch", "--yes", "old", "new"])?;
    assert_eq!((status, &value["result"]), (0, &json!("done")));
    assert_eq!(outcomes(&value), [["old", "switch", "done"]]);
    assert_eq!(
        (changes(&value), &value["changes"][0]["outcome"]),
        (expected.map(str::to_owned).into(), &json!("done"))
    );
    for qube in ["dvm", "work", "x.-_9", "new-dvm", "other"] {
        assert_eq!(template(&world, qube)?, "new", "{qube}");
    }
    assert_eq!(world.show()?["globals"]["default_template"], "new");
    let undo = value["undo"].as_str().context("an undo file")?;
    assert_eq!(undo, format!("{STATE}/undo/old-to-new.1.json"));

    // A second time there is nothing to do, and no second file.
    let (value, status) = result(&world, &["switch", "--yes", "old", "new"])?;
    assert_eq!((status, &value["result"]), (0, &json!("unchanged")));
    assert_eq!(undo_files(&world).len(), 1);

    let (value, _) = result(&world, &["switch", "--undo", undo, "--dry-run"])?;
    assert_eq!((value["result"].as_str(), changes(&value).len()), (Some("planned"), 4));
    let (value, status) = result(&world, &["switch", "--undo", undo, "--yes"])?;
    assert_eq!((status, outcomes(&value)), (0, vec![["old", "switch", "done"].map(str::to_owned)]));
    assert_eq!((picture(&world)?, world.denied()?), (before, vec![]));
    // What somebody changed meanwhile is not taken back.
    let (value, _) = result(&world, &["switch", "--undo", undo, "--yes"])?;
    assert_eq!(value["result"], "unchanged");
    Ok(())
}

#[test]
fn what_disposables_are_made_from_is_switched_too() -> Result<()> {
    let world = world(&[QUIET], &[])?;
    let before = picture(&world)?;
    // Not one that no disposable may be made from; nothing is changed on the way to that.
    let (value, status) = result(&world, &["switch", "--yes", "--from", "dvm", "--to", "work"])?;
    assert_eq!((status, &value["result"]), (2, &json!("failed")));
    ensure!(value["error"]["help"].as_str().unwrap_or_default().contains("template_for_dispvms"), "{value}");
    assert_eq!(world.changes(0)?, [""; 0]);
    let place = "/home/user/undo.json";
    let line = ["switch", "--yes", "--from", "dvm", "--to", "new-dvm", "--undo", place];
    let (value, status) = result(&world, &line)?;
    assert_eq!((status, &value["undo"]), (0, &json!(place)), "{value}");
    assert_eq!(
        changes(&value),
        [
            "-.default_dispvm",
            "-.management_dispvm",
            "dom0.default_dispvm",
            "sys-usb.template",
            "vault.default_dispvm",
            "vault.management_dispvm",
            "work.default_dispvm"
        ]
    );
    // An undo file is not written over another one.
    let (value, status) = result(&world, &["switch", "--yes", "new-dvm", "dvm", "--undo", place])?;
    assert_eq!(
        (status, value["error"]["message"].as_str().is_some_and(|text| text.contains(place))),
        (1, true)
    );
    world.must(&["switch", "-q", "--yes", "--undo", place])?;
    assert_eq!((picture(&world)?, world.denied()?), (before, vec![]));
    Ok(())
}

const RUNNING: &[Qube<'_>] = &[
    ("net", "AppVM", "Running", &[("template", "old"), ("provides_network", "True")]),
    ("mail", "AppVM", "Running", &[("template", "old"), ("netvm", "net")]),
    ("disp7", "DispVM", "Running", &[("template", "dvm"), ("auto_cleanup", "True")]),
    ("disp8", "DispVM", "Running", &[("template", "dvm"), ("auto_cleanup", "True"), ("is_preload", "True")]),
];

#[test]
fn what_runs_is_named_shut_down_or_restarted() -> Result<()> {
    let world = world(&[QUIET, RUNNING], &[])?;
    let before = picture(&world)?;
    for line in [["switch", "--yes"], ["switch", "--dry-run"]] {
        let (value, status) = result(&world, &[&line[..], &["old", "new"]].concat())?;
        assert_eq!((status, &value["error"]["cause"]), (1, &json!("obstacles")), "{value}");
        // What dom0 made in advance is in nobody's way.
        assert_eq!(value["running"], json!(["disp7", "mail", "net"]));
        ensure!(
            value["error"]["message"].as_str().unwrap_or_default().contains("disp7, mail, net"),
            "{value}"
        );
    }
    assert_eq!((picture(&world)?, world.changes(0)?), (before, vec![]));
    let (value, status) = result(&world, &["switch", "--yes", "--restart", "old", "new"])?;
    assert_eq!(status, 0, "{value}");
    let now = picture(&world)?;
    for qube in ["net", "mail"] {
        assert_eq!((&now[qube][0]["template"], &now[qube][1]), (&json!("new"), &json!("Running")), "{qube}");
    }
    // Disposables are gone with their shutdown, or because their template changed.
    ensure!(now["disp7"].is_null() && now["disp8"].is_null(), "{now}");
    world.must(&["switch", "-q", "--yes", "--shutdown", "new", "old"])?;
    let now = picture(&world)?;
    for qube in ["net", "mail", "other"] {
        assert_eq!((&now[qube][0]["template"], &now[qube][1]), (&json!("old"), &json!("Halted")), "{qube}");
    }
    assert_eq!(world.denied()?, [""; 0]);
    Ok(())
}

#[test]
fn a_refused_call_takes_everything_back() -> Result<()> {
    for fault in ["exception", "refuse", "exit"] {
        let world = world(&[QUIET, &RUNNING[..2]], &[])?;
        let before = picture(&world)?;
        let class: &[&str] = match fault {
            "exception" => &["QubesException"],
            "exit" => &["1"],
            _ => &[],
        };
        let order = ["fault", fault, "--target", "work", "admin.vm.property.Set"];
        world.sandbox(&[&order[..], class].concat())?;
        let (value, status) = result(&world, &["switch", "--yes", "--restart", "old", "new"])?;
        assert_eq!(
            (status, outcomes(&value)),
            (1, vec![["old", "switch", "failed"].map(str::to_owned)]),
            "{value}"
        );
        ensure!(
            value["error"]["message"].as_str().unwrap_or_default().contains("template of work"),
            "{value}"
        );
        assert_eq!(value["changes"], json!([]));
        assert_eq!((picture(&world)?, undo_files(&world).len()), (before, 0), "{fault}");
        ensure!(world.changes(0)?.len() > 4, "it had begun");
    }
    Ok(())
}

#[test]
fn a_signal_takes_everything_back_in_time() -> Result<()> {
    let world = world(&[QUIET], &[])?;
    let before = picture(&world)?;
    for signal in ["INT", "HUP"] {
        world.sandbox(&["fault", "stall", "--target", "x.-_9", "admin.vm.property.Set", "in", "0"])?;
        let script = format!(
            "qvm-template switch --yes old new & tool=$!; sleep 2.5; kill -{signal} $tool; \
             begun=$(date +%s); wait $tool; echo status $? after $(($(date +%s) - begun)) s"
        );
        let line = ["exec", "system", "--cwd", "/", "--", "bash", "-c", &script];
        let output = run(world.folder.path(), SANDBOX, line)?;
        world.sandbox(&["fault", "clear"])?;
        let told = told(&output);
        let status = told.lines().find_map(|line| line.strip_prefix("status ")).context(told.clone())?;
        let words: Vec<&str> = status.split(' ').collect();
        assert!(["129", "130"].contains(&words[0]) && words[2].parse::<u32>()? <= 5, "{signal}: {told}");
        assert_eq!((picture(&world)?, undo_files(&world).len()), (before.clone(), 0), "{signal}: {told}");
    }
    Ok(())
}

#[test]
fn who_is_killed_half_way_leaves_an_undo_file() -> Result<()> {
    let world = world(&[QUIET], &[])?;
    let before = picture(&world)?;
    let order = ["fault", "kill", "--who", "caller", "--target", "work", "admin.vm.property.Set", "after"];
    world.sandbox(&order)?;
    let output = world.tool(&["switch", "--yes", "old", "new"])?;
    ensure!(!output.status.success(), "{}", told(&output));
    assert_eq!((template(&world, "work")?, template(&world, "x.-_9")?), ("new".into(), "old".into()));
    let files = undo_files(&world);
    assert_eq!(files.len(), 1);
    // On again to the end: a file of its own tells of what was left to do.
    world.must(&["switch", "-q", "--yes", "old", "new"])?;
    assert_eq!((template(&world, "x.-_9")?, undo_files(&world).len()), ("new".into(), 2));
    // The first file tells of all of it.
    let first = format!("{STATE}/undo/old-to-new.1.json");
    world.must(&["switch", "-q", "--yes", "--undo", &first])?;
    assert_eq!((picture(&world)?, world.denied()?), (before, vec![]));
    Ok(())
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_changed() -> Result<()> {
    let world = world(&[QUIET], &[])?;
    for (line, text) in [
        (&["switch", "old", "old"][..], "cannot take its own place"),
        (&["switch", "old", "gone"], "no such domain: 'gone'"),
        (&["switch", "gone", "new"], "no such domain: 'gone'"),
        (&["switch", "old", "dvm"], "based on 'old' itself"),
        (&["switch", "old", "vault"], "StandaloneVM"),
        (&["switch", "dom0", "new"], "AdminVM"),
        (&["switch", "old", ""], "no such domain: ''"),
        (&["switch", "old", "new\n"], "no such domain"),
        (&["switch", "--from=--to", "--to=@default"], "no such domain: '--to'"),
        (&["switch", "--from", "old"], "required"),
        (&["switch", "old"], "required"),
        (&["switch", "--from", "old", "new"], "required"),
        (&["switch"], "required"),
        (&["switch", "--undo", "x", "old"], "required"),
        (&["switch", "--shutdown", "--restart", "old", "new"], "not allowed"),
        (&["retire", "old"], "required"),
        (&["retire", "old", "new", "--to", "new"], "required"),
        (&["retire", "dvm", "--to", "new-dvm"], "no template but of class AppVM"),
    ] {
        let output = world.tool(line)?;
        let told = told(&output);
        ensure!(output.status.code() == Some(2) && told.contains(text), "{line:?}: {} {told}", output.status);
    }
    let output = world.tool(&["switch", "--undo", "/etc/passwd", "--yes"])?;
    ensure!(output.status.code() == Some(1) && told(&output).contains("no undo file"), "{}", told(&output));
    assert_eq!((world.changes(0)?, world.denied()?), (vec![], vec![]));
    Ok(())
}

#[test]
fn a_template_is_retired() -> Result<()> {
    let world = world(&[QUIET], &[])?;
    let (value, status) = result(&world, &["retire", "old", "--to", "new", "--dry-run"])?;
    assert_eq!((status, outcomes(&value)), (0, vec![["old", "remove", "planned"].map(str::to_owned)]));
    assert_eq!((changes(&value).len(), world.changes(0)?.len()), (4, 0));
    let told = world.must(&["retire", "old", "--to", "new", "--yes"])?;
    ensure!(told.starts_with("changed: 4\nremoved old\n"), "{told}");
    assert_eq!((template(&world, "work")?, world.qube("old")?), ("new".into(), Value::Null));
    // One that nothing uses goes too.
    let (value, status) = result(&world, &["switch", "--yes", "new", "new"])?;
    assert_eq!((status, &value["result"]), (2, &json!("failed")));
    world.sandbox(&["qube", "idle", "--tag", "created-by-mgmt"])?;
    let (value, status) = result(&world, &["retire", "--yes", "idle", "--to", "new"])?;
    assert_eq!((status, outcomes(&value)), (0, vec![["idle", "remove", "done"].map(str::to_owned)]));
    assert_eq!((undo_files(&world).len(), world.denied()?), (0, vec![]));
    Ok(())
}

#[test]
fn one_that_dom0_does_not_let_go_is_not_retired() -> Result<()> {
    // Something uses it that mgmt may not see.
    let hidden: Qube<'_> = ("hidden", "AppVM", "Halted", &[("template", "old")]);
    let world = world(&[QUIET, &[hidden]], &["hidden"])?;
    let before = picture(&world)?;
    let (value, status) = result(&world, &["retire", "old", "--to", "new", "--yes"])?;
    assert_eq!((status, outcomes(&value)), (1, vec![["old", "remove", "failed"].map(str::to_owned)]));
    ensure!(value["error"]["help"].as_str().unwrap_or_default().contains("may not see"), "{value}");
    assert_eq!((picture(&world)?, undo_files(&world).len()), (before.clone(), 0));
    // What can be known beforehand stops it before anything is changed.
    let from = world.log()?.len();
    world.sandbox(&["qube", "old", "--property", "installed_by_rpm=True"])?;
    let (value, _) = result(&world, &["retire", "old", "--to", "new", "--yes"])?;
    ensure!(value["error"]["message"].as_str().unwrap_or_default().contains("package manager"), "{value}");
    world.sandbox(&["qube", "old", "--property", "installed_by_rpm=False"])?;
    world.sandbox(&["qube", "vault", "--property", "audiovm=old"])?;
    let (value, _) = result(&world, &["retire", "old", "--to", "new", "--yes"])?;
    assert_eq!(value["error"]["message"], "audiovm of vault is 'old'");
    assert_eq!((world.changes(from)?, world.denied()?), (vec![], vec![]));
    Ok(())
}

#[test]
fn without_any_one_rule_nothing_is_changed_by_halves() -> Result<()> {
    let world = world(&[QUIET, &RUNNING[..2]], &[])?;
    let path = world.place(POLICY);
    let policy = fs::read_to_string(&path)?;
    let before = picture(&world)?;
    let wanted = ["+template ", "+default_template", "admin.vm.Shutdown", "admin.vm.Start "];
    let rules: Vec<&str> = policy
        .lines()
        .filter(|line| !line.starts_with('#') && wanted.iter().any(|word| line.contains(word)))
        .collect();
    ensure!(rules.len() >= 6, "{rules:?}");
    for rule in rules {
        fs::write(&path, policy.replace(&format!("{rule}\n"), ""))?;
        let from = world.denied()?.len();
        let output = world.tool(&["switch", "--yes", "--restart", "old", "new"])?;
        let after = picture(&world)?;
        match output.status.success() {
            // What could not be known stays as it is, which is said; what was shut down may have to stay so.
            true => {
                let said = told(&output);
                ensure!(after != before && said.contains("Warning: "), "{rule}: {said}");
            }
            false => assert_eq!(after, before, "{rule}: {}", told(&output)),
        }
        // As many as are asked at a time, and the ones before that.
        let denied = world.denied()?.len() - from;
        ensure!(denied <= 10, "{rule}: {denied} notifications");
        fs::write(&path, &policy)?;
        reset(&world)?;
    }
    Ok(())
}

/// Brings the system back to the population that it began with.
fn reset(world: &World) -> Result<()> {
    world.sandbox(&["import", &world.folder.path().join("population.json").display().to_string()]).map(drop)
}
