//! The roles of `qrexec-policy/`: what each allows works, and everything else is refused.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use qvm_template::delegate::Verb;
use qvm_template::sandbox::policy::{Call, Directories, Domain, Facts, Policy, Verdict};

use super::world::{NAMED, World, role_file};

const ROLES: [&str; 4] = ["auditor", "helpdesk", "tenant", "salt"];
/// One that every role is for, one that policy leaves to grants, one that no grant has.
const TEMPLATES: [&str; 3] = [NAMED, "big", "hidden"];

/// Grants as the role is meant, for the tag that its policy goes by.
fn grants(role: &str) -> String {
    let (verbs, templates, whose) = match role {
        "auditor" => ("list info", "\"*\"", "shared"),
        "helpdesk" => {
            ("list info search plan install reinstall upgrade status cancel", "\"debian-13-xfce\"", "own")
        }
        "salt" => (
            "list info plan install reinstall upgrade remove finalize status cancel",
            "\"debian-13-xfce\", \"big\"",
            "shared",
        ),
        _ => (
            "list info search plan install reinstall upgrade downgrade remove finalize status cancel",
            "\"debian-13-xfce\", \"big\"",
            "own",
        ),
    };
    let verbs: Vec<String> = verbs.split(' ').map(|verb| format!("\"{verb}\"")).collect();
    format!(
        "version = 1\n[[grant]]\ncaller = \"@tag:template-{role}\"\nverbs = [{}]\ntemplates = [{templates}]\n\
         whose = \"{whose}\"\nrepositories = [\"test\"]\nmax-templates = 3\nmax-changes-per-hour = 200\n",
        verbs.join(", ")
    )
}

/// What a cell is to be: refused by policy, refused by grants, or served.
fn expected(role: &str, verb: Verb, template: &str) -> &'static str {
    use Verb::{
        Cancel, Downgrade, Finalize, Info, Install, List, Plan, Reinstall, Remove, Rollback, Search, Status,
        Upgrade,
    };
    let by_policy = match (role, verb) {
        (_, Rollback) => false,
        (_, List | Info) => true,
        ("auditor", _) => false,
        ("helpdesk", Install | Reinstall | Upgrade) => template == NAMED,
        ("helpdesk", Downgrade | Remove | Finalize) => false,
        ("salt", Search | Downgrade) => false,
        (
            _,
            Search | Plan | Status | Cancel | Install | Reinstall | Upgrade | Downgrade | Remove | Finalize,
        ) => true,
    };
    let by_grants = match (role, template) {
        ("auditor", _) | (_, NAMED) => true,
        ("helpdesk", _) | (_, "hidden") => false,
        _ => true,
    };
    match (by_policy, by_grants) {
        (false, _) => "-",
        (true, false) => "grants",
        (true, true) => "yes",
    }
}

/// What the services say: a request that leaves everything as it is, where the verb has such a one.
fn cell(world: &World, qube: &str, verb: Verb, template: &str) -> Result<&'static str> {
    let request = match verb {
        Verb::Plan => r#"{"schema": 1, "verb": "install", "version": "7"}"#,
        verb if verb.changes() => r#"{"schema": 1, "version": "7"}"#,
        _ => "",
    };
    let answer = world.call(qube, &format!("{}+{template}", verb.service()), request)?;
    Ok(match answer.word() {
        "policy" => "-",
        "refused" => "grants",
        "failed" => anyhow::bail!("{verb} {template}: {answer:?} {:?}", world.audit()?.last()),
        _ => "yes",
    })
}

#[test]
fn every_cell_of_the_matrix_is_as_it_is_meant() -> Result<()> {
    let mut wrong = 0;
    let mut out = std::io::stdout().lock();
    for role in ROLES {
        let world = World::new(role, &grants(role))?.keep()?;
        world.sandbox.tool(["answer"], &["allow"])?;
        for template in TEMPLATES {
            let mut line = format!("{role:<9} {template:<15}");
            for verb in Verb::ALL {
                let said = cell(&world, "desk", verb, template)?;
                let mark = if said == expected(role, verb, template) { "" } else { "!" };
                wrong += mark.len();
                line.push_str(&format!(" {verb}={said}{mark}"));
            }
            writeln!(out, "{line}")?;
        }
        // Nobody without the role gets any of it.
        for verb in Verb::ALL {
            assert_eq!(cell(&world, "stranger", verb, NAMED)?, "-", "{role} {verb}");
        }
        assert_eq!(world.denied()?, [""; 0], "{role}");
        assert!(world.qube(NAMED)?.is_null() && world.qube("big")?.is_null(), "{role}");
        if role == "helpdesk" {
            world.sandbox.tool(["answer"], &["deny"])?;
            assert_eq!(cell(&world, "desk", Verb::Install, NAMED)?, "-", "the user of dom0 says no");
            assert_eq!(cell(&world, "desk", Verb::Info, NAMED)?, "yes", "looking needs no question");
        }
        // The rule for tags is what grants for tags stand on.
        let path = world.sandbox.files("dom0").join("etc/qubes/policy.d/31-role.policy");
        let text = fs::read_to_string(&path)?;
        fs::write(&path, without(&text, "admin.vm.tag.List"))?;
        assert_eq!(cell(&world, "desk", Verb::List, NAMED)?, "grants", "{role} without the caller's tags");
        ensure!(
            world.denied()?.iter().all(|call| call.contains("admin.vm.tag.List")),
            "{:?}",
            world.denied()?
        );
    }
    writeln!(out, "wrong cells: {wrong}")?;
    assert_eq!(wrong, 0);
    Ok(())
}

fn without(text: &str, start: &str) -> String {
    text.lines().filter(|line| !line.starts_with(start)).map(|line| format!("{line}\n")).collect()
}

/// The calls that a role's policy lets a qube with the role make.
fn allowed(text: &str, role: &str) -> Result<Vec<String>> {
    let place = crate::support::programs::folder()?;
    let folder = place.path().join("etc/qubes/policy.d");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("31-role.policy"), text)?;
    let policy = Policy::load(&Directories::of_dom0(place.path()))?;
    let domain = |tags: &[&str], class: &str| Domain {
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        class: class.to_owned(),
        power_state: "Running".to_owned(),
        guivm: Some("dom0".to_owned()),
        ..Domain::default()
    };
    let tag = format!("template-{role}");
    let domains = BTreeMap::from([
        ("dom0".to_owned(), domain(&[], "AdminVM")),
        ("mgmt".to_owned(), domain(&["template-manager"], "AppVM")),
        ("desk".to_owned(), domain(&[&tag], "AppVM")),
        ("other".to_owned(), domain(&[], "AppVM")),
    ]);
    let facts = Facts { domains };
    let mut calls: Vec<(String, String, &str, &str)> =
        vec![("admin.vm.tag.List".into(), "+".into(), "mgmt", "desk")];
    for verb in Verb::ALL {
        for template in TEMPLATES {
            for (source, target) in [("desk", "mgmt"), ("other", "mgmt"), ("desk", "other")] {
                calls.push((verb.service(), format!("+{template}"), source, target));
            }
        }
    }
    let mut all = Vec::new();
    for (service, argument, source, target) in calls {
        let call = Call::new((&service, &argument), source, target, &facts, &mut Vec::new())?;
        if let Ok(Verdict::Allow { .. } | Verdict::Ask { .. }) =
            policy.evaluate(&call, &facts, &mut Vec::new())
        {
            all.push(format!("{service}{argument} {source} {target}"));
        }
    }
    Ok(all)
}

/// Without a rule exactly that is refused which the comment above it tells.
#[test]
fn each_rule_of_a_role_is_for_what_its_comment_says() -> Result<()> {
    for role in ROLES {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(role_file(role)))?;
        let all = allowed(&text, role)?;
        assert!(all.iter().all(|call| !call.contains("other")), "{role}: {all:?}");
        let mut comment = "";
        for line in text.lines() {
            if line.starts_with('#') || line.is_empty() {
                comment = line;
                continue;
            }
            let service = line.split_whitespace().next().context("a service")?;
            let rest = allowed(&without(&text, &format!("{service} ")), role)?;
            let lost: Vec<&String> = all.iter().filter(|call| !rest.contains(call)).collect();
            assert!(!lost.is_empty(), "{role}: {line} is for nothing");
            assert!(lost.iter().all(|call| call.starts_with(&format!("{service}+"))), "{role}: {lost:?}");
            let told = match service.strip_prefix("template.") {
                Some("Plan") => "--dry-run".to_owned(),
                Some(verb) => format!("--via MGMT {}", verb.to_lowercase()),
                None => "every grant for a tag is void".to_owned(),
            };
            assert!(comment.contains(&told), "{role}: {comment:?} does not tell of {told:?}");
        }
    }
    Ok(())
}

/// A management qube with network does all of it alone, by the rules of its file and no other.
#[test]
fn a_networked_management_qube_needs_no_other() -> Result<()> {
    let world = World::new("tenant", "version = 1\n")?.keep()?;
    let files = |qube: &str| world.sandbox.files(qube);
    let policy = files("dom0").join("etc/qubes/policy.d");
    fs::remove_file(policy.join("30-qvm-template.policy"))?;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("qrexec-policy/30-qvm-template-networked.policy");
    let text = fs::read_to_string(&file)?;
    fs::copy(&file, policy.join("30-qvm-template-networked.policy"))?;
    for service in ["qubes.TemplateSearch", "qubes.TemplateDownload"] {
        fs::copy(
            files("sys-net").join("etc/qubes-rpc").join(service),
            files("mgmt").join("etc/qubes-rpc").join(service),
        )?;
    }
    super::world::copy(&files("sys-net").join("srv"), &files("mgmt").join("srv"))?;
    let configuration = files("mgmt").join("etc/qubes/qvm-template.toml");
    fs::write(&configuration, "updatevm = \"\"\n")?;
    let old = format!("{NAMED}-0:1.0-1");
    for arguments in [
        &["list", "--available", NAMED][..],
        &["search", "debian"],
        &["install", &old],
        &["upgrade", "--yes", NAMED],
        &["reinstall", "--yes", NAMED],
        &["info", "--installed", NAMED],
        &["remove", "--yes", "--dry-run", NAMED],
        &["remove", "--yes", NAMED],
    ] {
        let said = world.tool("mgmt", arguments)?;
        assert_eq!(said.status, 0, "{arguments:?}: {}", said.err);
    }
    assert_eq!(world.denied()?, [""; 0]);
    let log = world.sandbox.log()?;
    assert!(log.iter().all(|call| call.source != "mgmt" || call.target != "sys-net"), "sys-net was asked");
    // It holds no rule that the offline one does not have.
    let offline = Path::new(env!("CARGO_MANIFEST_DIR")).join("qrexec-policy/30-qvm-template.policy");
    let offline = fs::read_to_string(offline)?;
    let more: Vec<&str> =
        text.lines().filter(|line| line.starts_with("admin.") || line.starts_with("qubes.")).collect();
    assert!(more.iter().all(|line| offline.lines().any(|other| other == *line)), "{more:?}");
    assert!(!text.contains("sys-net"), "the UpdateVM is spoken of");
    Ok(())
}
