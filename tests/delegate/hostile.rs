//! A tenant that means harm: it changes nothing of others, learns nothing of them, and gets no more than its grant.

use std::io::Write as _;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::TENANTS;
use super::world::{NAMED, World};

const ALL: [&str; 11] = [
    "Info",
    "Plan",
    "Install",
    "Reinstall",
    "Upgrade",
    "Downgrade",
    "Remove",
    "Rollback",
    "Finalize",
    "Status",
    "Cancel",
];

/// Nothing that a caller hears may hold these.
const SECRETS: [&str; 8] = ["rival", "sys-net", "/etc/", "/home/", "grant 1", "policy", "audit", "stranger"];

fn is_discreet(answer: &super::world::Answer) -> bool {
    let text = format!("{:?} {}", answer.progress, answer.result);
    !SECRETS.iter().any(|secret| text.contains(secret))
}

#[test]
fn what_is_anothers_is_as_if_it_were_not_there() -> Result<()> {
    // Both may have any name: only the owner keeps them apart.
    let grants = TENANTS
        .replace("[\"debian-*\", \"big\"]", "[\"*\"]")
        .replace("[\"rival-*\", \"debian-13-xfce\"]", "[\"*\"]");
    let world = World::new("tenant", &grants)?.keep()?;
    assert_eq!(world.call("rival", "template.Install+rival-own", "")?.word(), "done", "{:?}", world.audit()?);
    let before = world.qube("rival-own")?;
    for verb in ["Info", "Reinstall", "Upgrade", "Downgrade", "Remove", "Status", "Cancel"] {
        for request in ["", r#"{"schema": 1, "show": ["installed", "extras", "upgrades"]}"#] {
            let theirs = world.call("desk", &format!("template.{verb}+rival-own"), request)?;
            let absent = world.call("desk", &format!("template.{verb}+nobody-has"), request)?;
            let plain =
                |value: &Value| value.to_string().replace("rival-own", "NAME").replace("nobody-has", "NAME");
            // An offer that repositories have is no secret; that somebody took it is.
            if verb == "Info" && request.is_empty() {
                let rows = theirs.result["listing"].as_array().context("a listing")?;
                assert!(rows.iter().all(|row| row["status"] == "available"), "{theirs:?}");
                continue;
            }
            assert_eq!(plain(&theirs.result), plain(&absent.result), "{verb}");
        }
    }
    for verb in ["install", "reinstall", "upgrade", "remove"] {
        let request = format!(r#"{{"schema": 1, "verb": "{verb}"}}"#);
        let theirs = world.call("desk", "template.Plan+rival-own", &request)?;
        let absent = world.call("desk", "template.Plan+nobody-has", &request)?;
        assert_eq!(theirs.result, absent.result, "plan of {verb}");
    }
    let taken = world.call("desk", "template.Install+rival-own", "")?;
    assert_eq!(taken.word(), "not-available");
    let list = world.call(
        "desk",
        "template.List",
        r#"{"schema": 1, "show": ["installed", "extras", "upgrades"]}"#,
    )?;
    assert_eq!(list.word(), "nothing", "{list:?}");
    let search = world.call("desk", "template.Search", r#"{"schema": 1, "keywords": ["rival"]}"#)?;
    assert!(!search.result.to_string().contains("qvm-template-owner"));
    assert_eq!(world.call("desk", "template.Status", "")?.word(), "no-such-job");
    assert_eq!(world.qube("rival-own")?, before);
    assert_eq!(world.denied()?, [""; 0]);
    Ok(())
}

#[test]
fn who_has_no_rule_or_no_grant_gets_nothing() -> Result<()> {
    let world = World::new("tenant", "version = 1\n")?.keep()?;
    let policy = |qube: &str, verb: &str| world.call(qube, &format!("template.{verb}+{NAMED}"), "");
    for verb in ALL {
        assert_eq!(policy("stranger", verb)?.word(), "policy", "{verb}");
    }
    for grants in
        ["version = 1\n", "", "version = 1\nnogpgcheck = true\n", &TENANTS.replace("\"list\"", "\"lost\"")]
    {
        world.grant(grants)?;
        for service in ["template.List".to_owned(), format!("template.Install+{NAMED}")] {
            let answer = world.call("desk", &service, "")?;
            assert_eq!(answer.word(), "refused", "{grants} {answer:?}");
            assert!(is_discreet(&answer), "{answer:?}");
        }
    }
    assert!(world.qube(NAMED)?.is_null());
    let audit = world.audit()?;
    assert!(audit.iter().all(|line| line["event"] == "refused" && line["caller"] == "desk"), "{audit:?}");
    Ok(())
}

#[test]
fn odd_names_and_requests_are_refused_and_change_nothing() -> Result<()> {
    let world = World::new("tenant", TENANTS)?.keep()?;
    for name in [
        "*",
        "debian-*",
        "debian-13",
        "debian-13-xfce.rpm",
        "..",
        "--all",
        "a+b",
        "hidden",
        "x".repeat(300).as_str(),
    ] {
        let answer = world.call("desk", &format!("template.Install+{name}"), "")?;
        assert!(
            ["refused", "malformed-request", "not-available"].contains(&answer.word()),
            "{name}: {answer:?}"
        );
        assert!(is_discreet(&answer), "{name}: {answer:?}");
    }
    let long = format!(r#"{{"schema": 1, "version": "{}"}}"#, "1".repeat(1 << 20));
    let deep = format!("{}{}", "[".repeat(4000), "]".repeat(90));
    let requests = [
        r#"{"schema": 1, "nogpgcheck": true}"#,
        r#"{"schema": 1, "allow-pv": true}"#,
        r#"{"schema": 1, "force": true}"#,
        r#"{"schema": 1, "keyring": "/tmp/k"}"#,
        r#"{"schema": 2}"#,
        r#"{"schema": 1"#,
        "\0",
        "{}",
        "[]",
        r#"{"schema": 1, "version": "../../x"}"#,
        r#"{"schema": 1, "repository": "@commandline"}"#,
        r#"{"schema": 1, "pool": "a\nb"}"#,
        r#"{"schema": 1, "version": "1.0", "version": "2.0"}"#,
        &long,
        &deep,
    ];
    for request in requests {
        let answer = world.call("desk", &format!("template.Install+{NAMED}"), request)?;
        assert_eq!(answer.word(), "malformed-request", "{request:.60}: {answer:?}");
        assert!(is_discreet(&answer), "{answer:?}");
    }
    for (key, value) in [("repository", "other"), ("pool", "vault")] {
        let request = format!(r#"{{"schema": 1, "{key}": "{value}"}}"#);
        assert_eq!(
            world.call("desk", &format!("template.Install+{NAMED}"), &request)?.word(),
            "refused",
            "{key}"
        );
    }
    let log = world.sandbox.log()?;
    assert!(!log.iter().any(|call| call.service.contains("Create")), "something was created");
    assert_eq!(world.denied()?, [""; 0]);
    Ok(())
}

#[test]
fn quotas_hold() -> Result<()> {
    let world = World::new("tenant", TENANTS)?.keep()?;
    let big = world.call("desk", "template.Install+big", "")?;
    assert_eq!(big.word(), "quota", "{big:?} {:?}", world.audit()?);
    assert!(world.qube("big")?.is_null());
    world.grant(&TENANTS.replace(
        "max-image-size = \"16 MiB\"",
        "max-image-size = \"80 MiB\"\nmax-total-size = \"66 MiB\"",
    ))?;
    assert_eq!(world.call("desk", "template.Install+big", "")?.word(), "done");
    let second = world.call("desk", &format!("template.Install+{NAMED}"), "")?;
    assert_eq!(second.word(), "quota", "the sum is too large: {second:?}");
    world.grant(&TENANTS.replace("max-templates = 2", "max-templates = 1"))?;
    assert_eq!(world.call("desk", &format!("template.Install+{NAMED}"), "")?.word(), "quota");
    world.grant(&TENANTS.replacen("max-changes-per-hour = 50", "max-changes-per-hour = 3", 1))?;
    assert_eq!(world.call("desk", "template.Remove+big", "")?.word(), "rate");
    assert!(!world.qube("big")?.is_null());
    Ok(())
}

#[test]
fn a_plan_is_carried_out_once_and_as_it_was_made() -> Result<()> {
    let world = World::new("tenant", TENANTS)?.keep()?;
    let plan = |qube: &str, request: &str| -> Result<String> {
        let answer = world.call(qube, &format!("template.Plan+{NAMED}"), request)?;
        assert_eq!(answer.word(), "planned", "{answer:?} {:?}", world.audit()?);
        Ok(answer.result["plan"].as_str().context("a plan")?.to_owned())
    };
    let carry_out = |qube: &str, verb: &str, id: &str| -> Result<String> {
        let request = format!(r#"{{"schema": 1, "plan": "{id}"}}"#);
        Ok(world.call(qube, &format!("template.{verb}+{NAMED}"), &request)?.word().to_owned())
    };
    let id = plan("desk", r#"{"schema": 1, "verb": "install", "version": "1.0"}"#)?;
    assert_eq!(carry_out("rival", "Install", &id)?, "plan-void", "another's plan");
    assert_eq!(carry_out("desk", "Upgrade", &id)?, "no-such-template");
    assert_eq!(carry_out("desk", "Install", &id)?, "done");
    assert_eq!(world.qube(NAMED)?["features"]["template-version"], "1.0");
    assert_eq!(carry_out("desk", "Install", &id)?, "plan-void", "a replay");
    // The world moves: the grant, what is installed.
    let id = plan("desk", r#"{"schema": 1, "verb": "upgrade"}"#)?;
    world.grant(&TENANTS.replace("max-templates = 2", "max-templates = 3"))?;
    assert_eq!(carry_out("desk", "Upgrade", &id)?, "plan-void", "another grant");
    let id = plan("desk", r#"{"schema": 1, "verb": "upgrade"}"#)?;
    assert_eq!(world.call("desk", &format!("template.Upgrade+{NAMED}"), "")?.word(), "done");
    assert_eq!(carry_out("desk", "Upgrade", &id)?, "plan-void", "another build");
    Ok(())
}

#[test]
fn two_tenants_race_for_one_name() -> Result<()> {
    let world = World::new("tenant", TENANTS)?.keep()?;
    let install = format!("template.Install+{NAMED}");
    let words = thread::scope(|scope| -> Result<Vec<String>> {
        let run = |qube: &'static str| {
            let (world, install) = (&world, &install);
            scope.spawn(move || world.call(qube, install, "").map(|answer| answer.word().to_owned()))
        };
        let running: Vec<_> = ["desk", "rival"].map(run).into();
        running.into_iter().map(|one| one.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?).collect()
    })?;
    let mut sorted = words.clone();
    sorted.sort();
    assert_eq!(sorted, ["done", "not-available"], "{:?}", world.audit()?);
    let owner = world.qube(NAMED)?["features"]["qvm-template-owner"].clone();
    assert_eq!(owner, if words[0] == "done" { "desk" } else { "rival" });
    Ok(())
}

/// The caller goes at every stage: what it asked for comes to its end, or to nothing, as it chose.
#[test]
fn a_caller_that_hangs_up_gets_what_it_chose() -> Result<()> {
    let world = World::new("tenant", TENANTS)?.keep()?;
    let stages = [
        ("qubes.TemplateSearch", "out"),
        ("qubes.TemplateDownload", "out"),
        ("admin.vm.volume.ImportWithSize", "in"),
    ];
    for (service, direction) in stages {
        for choice in ["continue", "cancel"] {
            let stage = format!("{service} {choice}");
            world.fault(&["stall", service, direction, "0", "--seconds", "4"])?;
            let request = format!(r#"{{"schema": 1, "on-hangup": "{choice}"}}"#);
            let mut child = world.start("desk", &format!("template.Install+{NAMED}"), &request)?;
            thread::sleep(Duration::from_millis(1500));
            child.kill()?;
            child.wait()?;
            let state = world.settled_job()?;
            world.fault(&["clear"])?;
            let there = !world.qube(NAMED)?.is_null();
            match choice {
                "continue" => assert!(there && state == "done", "{stage}: {state} {:?}", world.audit()?),
                _ => assert!(!there && state == "failed", "{stage}: {state} {:?}", world.audit()?),
            }
            if there {
                assert_eq!(world.call("desk", &format!("template.Remove+{NAMED}"), "")?.word(), "done");
            }
        }
    }
    Ok(())
}

#[test]
fn cancel_ends_a_job_and_grants_that_change_do_not() -> Result<()> {
    let world = World::new("tenant", TENANTS)?.keep()?;
    for cancel in [true, false] {
        world.fault(&["stall", "qubes.TemplateDownload", "out", "0", "--seconds", "4"])?;
        let child = world.start("desk", &format!("template.Install+{NAMED}"), "")?;
        thread::sleep(Duration::from_millis(1500));
        if cancel {
            assert_eq!(world.call("rival", &format!("template.Cancel+{NAMED}"), "")?.word(), "no-such-job");
            assert_eq!(world.call("desk", &format!("template.Cancel+{NAMED}"), "")?.word(), "done");
        } else {
            world.grant("version = 1\n")?;
        }
        let output = child.wait_with_output()?;
        let last = String::from_utf8_lossy(&output.stdout).lines().last().unwrap_or_default().to_owned();
        let result: Value = serde_json::from_str(&last).with_context(|| format!("reading {last}"))?;
        world.fault(&["clear"])?;
        if cancel {
            assert_eq!(
                (&result["error"]["cause"], output.status.code()),
                (&"cancelled".into(), Some(143)),
                "{result}"
            );
            assert!(world.qube(NAMED)?.is_null());
        } else {
            assert_eq!(result["result"], "done", "{result}");
        }
    }
    Ok(())
}

/// How long it takes from the request to the first line of progress, in the qube that asks. Printed, and only held
/// against a minute: the machine may be busy.
#[test]
fn the_first_line_comes_soon() -> Result<()> {
    let world = World::new("tenant", TENANTS)?.keep()?;
    let script = format!(
        "for n in 1 2 3 4 5; do b=$(date +%s%N); qrexec-client-vm mgmt template.Install+{NAMED} </dev/null | \
         {{ read -r l; echo $((($(date +%s%N) - b) / 1000000)) $l; cat >/dev/null; }}; \
         qrexec-client-vm mgmt template.Remove+{NAMED} </dev/null >/dev/null; done"
    );
    let said = world.sandbox.exec(&["--qube", "desk"], &["bash", "-c", &script])?;
    let mut times = Vec::new();
    for line in said.out.lines() {
        let (time, line) = line.split_once(' ').context("a time and a line")?;
        assert_eq!(serde_json::from_str::<Value>(line)?["event"], "job", "{line}");
        times.push(time.parse::<u64>()?);
    }
    times.sort_unstable();
    writeln!(std::io::stdout(), "request to first line of a delegated install, in ms, 5 runs: {times:?}")?;
    assert!(times.len() == 5 && times[4] < 60_000, "{times:?} {}", said.err);
    Ok(())
}
