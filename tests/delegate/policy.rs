//! `check-policy`, and the table behind it, held against the calls that commands make.

use std::collections::BTreeSet;
use std::fs;

use anyhow::Result;
use qvm_template::needs::{self, About, Names};

use super::world::{NAMED, World};

const NAMES: Names<'_> = Names { qube: "mgmt", updatevm: "sys-net" };

/// Each command under exactly the rules that the table has for it: no call is denied, every call is in the table, and
/// what is always needed is used.
#[test]
fn commands_make_the_calls_of_the_table_and_no_other() -> Result<()> {
    let world = World::new("tenant", "version = 1\n")?.keep()?;
    let file = world.sandbox.files("dom0").join("etc/qubes/policy.d/30-qvm-template.policy");
    let old = format!("{NAMED}-0:1.0-1");
    let mut seen = world.sandbox.log()?.len();
    let mut unused: BTreeSet<String> = BTreeSet::new();
    let mut used: BTreeSet<String> = BTreeSet::new();
    for (command, arguments) in [
        ("list", &["list", "--available", NAMED][..]),
        ("download", &["download", "--downloaddir", "/tmp", NAMED]),
        ("install", &["install", &old]),
        ("list", &["list"]),
        ("search", &["search", "debian"]),
        ("info", &["info", "--installed", NAMED]),
        ("upgrade", &["upgrade", "--yes", NAMED]),
        ("reinstall", &["reinstall", "--yes", NAMED]),
        ("downgrade", &["downgrade", "--yes", "--allow-older", NAMED, NAMED]),
        ("renew", &["renew", "--yes", NAMED]),
        ("finalize", &["finalize", NAMED]),
        ("remove", &["remove", "--yes", "--dry-run", NAMED]),
        ("remove", &["remove", "--yes", NAMED]),
        ("clean", &["clean"]),
        ("repolist", &["repolist"]),
    ] {
        fs::write(&file, needs::policy(needs::of(Some(command)), NAMES))?;
        let said = world.tool("mgmt", arguments)?;
        assert_eq!(said.status, 0, "{arguments:?}: {}", said.err);
        let log = world.sandbox.log()?;
        let mut calls: BTreeSet<(String, String, About)> = BTreeSet::new();
        for call in log[seen..].iter().filter(|call| call.source == "mgmt") {
            assert!(call.allowed, "{command}: {} {:?} {}", call.service, call.arg, call.target);
            let about = match (call.target.as_str(), call.to.as_deref()) {
                ("dom0" | "@adminvm", _) => About::System,
                ("sys-net", Some("dom0")) => About::UpdateVm,
                ("sys-net", _) => About::InUpdateVm,
                (_, Some("dom0")) => About::Own,
                _ => About::InOwn,
            };
            calls.insert((call.service.clone(), call.arg.clone().unwrap_or_default(), about));
        }
        seen = log.len();
        for (service, arg, about) in &calls {
            assert!(
                needs::of(Some(command)).any(|need| need.covers(service, arg, *about)),
                "{command} calls {service}+{arg} about {about:?}, which the table does not have"
            );
        }
        for need in needs::of(Some(command)).filter(|need| need.is_required()) {
            let name = format!("{command}: {} {} {:?}", need.service, need.argument, need.about);
            // dom0 looks at the rule for its list itself, and the log has only the call.
            let by_dom0 = need.service == "admin.vm.List" && need.about == About::Own;
            if by_dom0 || calls.iter().any(|(service, arg, about)| need.covers(service, arg, *about)) {
                used.insert(name);
            } else {
                unused.insert(name);
            }
        }
    }
    let never: Vec<&String> = unused.iter().filter(|name| !used.contains(*name)).collect();
    assert!(never.is_empty(), "said to be needed always, and never used: {never:#?}");
    Ok(())
}

#[test]
fn the_policy_is_checked_where_it_can_be_read_and_printed_elsewhere() -> Result<()> {
    let world = World::new("tenant", "version = 1\n")?.keep()?;
    let file = world.sandbox.files("dom0").join("etc/qubes/policy.d/30-qvm-template.policy");
    let whole = world.tool("dom0", &["check-policy", "mgmt"])?;
    assert_eq!(whole.status, 0, "{}", whole.err);
    assert!(!whole.out.contains("missing") && whole.out.contains("upgrade"), "{}", whole.out);
    let other = world.tool("dom0", &["check-policy", "stranger", "--for", "install"])?;
    assert_eq!(other.status, 1, "{}", other.out);
    assert!(other.out.contains("stranger @tag:created-by-stranger"), "{}", other.out);
    // One rule out, one made a question.
    let text = fs::read_to_string(&file)?;
    let changed: String = text
        .lines()
        .filter(|line| !line.starts_with("admin.vm.volume.ImportWithSize"))
        .map(|line| match line.starts_with("admin.vm.Create.TemplateVM") {
            true => format!("{}\n", line.replace("allow target=dom0", "ask target=dom0 default_target=dom0")),
            false => format!("{line}\n"),
        })
        .collect();
    fs::write(&file, changed)?;
    let lacking = world.tool("dom0", &["check-policy", "mgmt", "--for", "install"])?;
    assert_eq!(lacking.status, 1, "{}", lacking.out);
    let rules: Vec<&str> = lacking.out.lines().skip_while(|line| !line.starts_with("# Missing")).collect();
    assert_eq!(rules.len(), 3, "{}", lacking.out);
    assert!(
        rules[2].starts_with("admin.vm.volume.ImportWithSize") && lacking.out.contains("asks"),
        "{rules:?}"
    );
    // What is printed in the management qube is enough.
    let printed = world.tool("mgmt", &["check-policy"])?;
    assert_eq!(printed.status, 0, "{}", printed.err);
    fs::write(&file, &printed.out)?;
    let again = world.tool("dom0", &["check-policy", "mgmt"])?;
    assert!(again.status == 0 && !again.out.contains("missing"), "{}", again.out);
    let json = world.tool("dom0", &["check-policy", "mgmt", "--for", "remove", "--json"])?;
    let json: serde_json::Value = serde_json::from_str(&json.out)?;
    assert_eq!(
        (&json["result"]["readable"], &json["result"]["missing"]),
        (&true.into(), &"".into()),
        "{json}"
    );
    // Nobody was asked for any of it.
    assert!(world.sandbox.log()?.is_empty());
    Ok(())
}
