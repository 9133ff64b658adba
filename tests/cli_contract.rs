//! The contract of the command line: what goes in, what comes out, which calls are made. Everything runs in a sandbox.
//!
//! Every message of the original (M1 to M25) and every one of its rough edges (R1 to R61) is named by a case here, or in
//! [`cases::ELSEWHERE`] with the place that holds it.

#[path = "cli_contract/cases.rs"]
mod cases;
#[path = "cli_contract/place.rs"]
mod place;
#[path = "cli_contract/schema.rs"]
pub(crate) mod schema;

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use cases::{Case, ELSEWHERE, INSTALLS, LINES, LISTS, REMOVALS};
use place::{Place, REPLY};
use serde_json::Value;

#[test]
fn listing() -> Result<()> {
    each(LISTS)
}

#[test]
fn command_lines() -> Result<()> {
    each(LINES)
}

#[test]
fn installing() -> Result<()> {
    each(INSTALLS)
}

#[test]
fn removing() -> Result<()> {
    each(REMOVALS)
}

fn each(cases: &[Case]) -> Result<()> {
    let mut wrong = Vec::new();
    for case in cases {
        let outcome = Place::new(REPLY, "", 0)?.run(case.args, case.input).context(case.name)?;
        let fits = |wanted: &str, have: &str| {
            wanted.strip_prefix('~').map_or(have == wanted, |part| have.contains(part))
        };
        let mut changes = outcome.changes.clone();
        for kills in changes.chunk_by_mut(|a, b| a.starts_with("vm.Kill") && b.starts_with("vm.Kill")) {
            kills.sort();
        }
        let right = outcome.status == case.status
            && fits(case.out, &outcome.out)
            && fits(case.err, &outcome.err)
            && changes == case.changes
            && (outcome.denied.is_empty() || outcome.denied.iter().all(|call| call.ends_with(" hidden")));
        if !right {
            wrong.push(format!("{}: {:?} came to {outcome:#?}", case.name, case.args));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn every_message_and_rule_has_a_place() {
    let cases = [LISTS, LINES, INSTALLS, REMOVALS].into_iter().flatten().map(|case| case.name);
    let words: BTreeSet<&str> =
        cases.chain(ELSEWHERE.iter().map(|(names, _)| *names)).flat_map(|name| name.split(' ')).collect();
    let wanted = (1..=25).map(|n| format!("M{n}")).chain((1..=61).map(|n| format!("R{n}")));
    let missing: Vec<String> = wanted.filter(|name| !words.contains(name.as_str())).collect();
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn one_search_for_several() -> Result<()> {
    let place = Place::new(REPLY, "", 0)?;
    place.output(&[
        "--refresh",
        "--enablerepo=b",
        "list",
        "--available",
        "--disablerepo=a",
        "plain",
        "gw",
    ])?;
    assert_eq!(
        place.request().as_deref(),
        Some("--enablerepo=b\n--disablerepo=a\n--refresh\n--releasever=4.3\n*\n")
    );
    Ok(())
}

#[test]
fn an_update_vm_that_fails_says_so() -> Result<()> {
    let outcome = Place::new("", "one\n\ntwo\x1b[31m\n", 3)?.run(&["list", "--available"], "")?;
    assert_eq!(outcome.status, 1);
    let expected =
        "[Qrexec] one\n[Qrexec] \n[Qrexec] two_[31m\nERROR: qrexec call 'qubes.TemplateSearch' failed.\n";
    assert_eq!(outcome.err, expected);
    let outcome = Place::new("garbage", "", 0)?.run(&["list", "--available"], "")?;
    assert_eq!((outcome.status, outcome.out.as_str()), (1, ""));
    assert_eq!(outcome.err, "ERROR: qrexec call 'qubes.TemplateSearch' failed: unexpected data format.\n");
    let outcome = Place::new(
        &format!("{REPLY}qubes-template-bad|0|1|1|stable|x|2024-01-02 03:04|GPL|u|s|d|\n"),
        "",
        0,
    )?
    .run(&["list", "--available"], "")?;
    assert_eq!(outcome.status, 0);
    assert!(outcome.err.starts_with("Warning: "), "{}", outcome.err);
    Ok(())
}

#[test]
fn a_refusal_is_undone() -> Result<()> {
    let place = Place::new(REPLY, "", 0)?;
    let policy = "admin.vm.Remove * mgmt plain deny\n* * mgmt @adminvm allow target=dom0\n\
                  * * mgmt @anyvm allow target=dom0\n";
    place.put("dom0", "etc/qubes/policy.d/30-test.policy", policy, false)?;
    let outcome = place.run(&["--yes", "remove", "--disassoc", "plain"], "")?;
    assert_eq!(outcome.status, 1, "{outcome:?}");
    assert!(outcome.err.contains("admin.vm.Remove to 'plain'"), "{}", outcome.err);
    assert_eq!(outcome.denied, ["admin.vm.Remove+ plain"]);
    let put_back = ["vm.property.Set work template", "vm.property.Set live template", "vm.Remove dummy"];
    assert_eq!(outcome.changes[outcome.changes.len() - 3..], put_back);
    Ok(())
}

/// The graphical template manager: merged output, chunks of 100 bytes, JSON in ASCII, numbers and times that it parses.
#[test]
fn the_graphical_manager_reads_us() -> Result<()> {
    let place = Place::new(REPLY, "", 0)?;
    let groups = ["--installed", "--available", "--upgrades", "--extras"];
    let out = place.output(&[&["--yes", "info", "--machine-readable-json"], &groups[..]].concat())?;
    assert!(out.is_ascii());
    let value: Value = serde_json::from_str(&out)?;
    let mut seen = 0;
    for entry in value
        .as_object()
        .context("an object")?
        .values()
        .flat_map(|list| list.as_array().into_iter().flatten())
    {
        seen += 1;
        let text = |key: &str| entry[key].as_str().with_context(|| format!("{key} of {entry}"));
        text("size")?.parse::<u64>()?;
        for key in
            ["name", "epoch", "version", "release", "reponame", "license", "url", "summary", "description"]
        {
            text(key)?;
        }
        for key in ["buildtime", "installtime"] {
            let time = text(key)?;
            // `half` has no times: the manager leaves such an entry out, it does not fail on the others.
            ensure!(
                time.is_empty() || jiff::civil::DateTime::strptime("%Y-%m-%d %H:%M:%S", time).is_ok(),
                "{entry}"
            );
        }
    }
    assert_eq!(seen, 9 + 5 + 5 + 3);
    let outcome = place.exec(&["sh", "-c", "qvm-template --yes remove -- gone 2>&1"], "")?;
    assert_eq!(outcome.status, 0);
    assert!(outcome.out.as_bytes().chunks(100).all(|chunk| std::str::from_utf8(chunk).is_ok()));
    Ok(())
}

/// Salt's module: `info` with one name must have exactly one object under `installed`, and fail when it is absent.
#[test]
fn salt_reads_us() -> Result<()> {
    let place = Place::new(REPLY, "", 0)?;
    let out = place.output(&["info", "--installed", "--machine-readable-json", "plain"])?;
    let value: Value = serde_json::from_str(&out)?;
    assert_eq!(value["installed"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        (value["installed"][0]["name"].as_str(), value["installed"][0]["version"].as_str()),
        (Some("plain"), Some("4.3.0"))
    );
    assert_ne!(place.run(&["info", "--installed", "--machine-readable-json", "odd"], "")?.status, 0);
    assert_eq!(place.run(&["install", "--quiet", "--repoid=stable", "plain-4.3.0"], "")?.status, 0);
    Ok(())
}

/// qubes-dom0-update puts its options behind the action; the integration tests look for `|NAME|`.
#[test]
fn redirected_command_lines_work() -> Result<()> {
    let place = Place::new(REPLY, "", 0)?;
    let out = place.output(&[
        "list",
        "--enablerepo=stable-testing",
        "--disablerepo=other",
        "--refresh",
        "plain",
    ])?;
    assert!(out.contains("plain  0:4.3.0-2  stable\n"));
    assert_eq!(place.run(&["install", "-y", "plain"], "")?.status, 2);
    let out = place.output(&["--repoid=stable", "list", "--machine-readable", "--available", "plain"])?;
    assert!(out.contains("|plain|"));
    let outcome = place.run(&["--disablerepo=*", "--enablerepo=stable", "install", "plain"], "")?;
    assert_eq!(outcome.status, 0, "{outcome:?}");
    Ok(())
}

#[test]
fn our_json_follows_its_schema() -> Result<()> {
    let root: Value = serde_json::from_str(include_str!("../src/cli/schema/output-v1.json"))?;
    let place = Place::new(REPLY, "", 0)?;
    for line in [
        &["list", "--all", "--extras", "--upgrades"][..],
        &["info", "plain"],
        &["search", "a"],
        &["repolist", "--all"],
        &["config"],
        &["clean"],
        &["install", "plain"],
        &["list", "nope"],
        &["remove", "nope"],
        &["migrate-from-rpmdb"],
        &["remove", "--dry-run", "gone"],
        &["remove", "--dry-run", "plain"],
        &["purge", "--dry-run", "plain"],
        &["upgrade", "--dry-run", "plain"],
        &["remove", "--yes", "gone"],
        &["purge", "gone"],
    ] {
        let outcome = place.run(&[&["--json"], line].concat(), "")?;
        let value: Value =
            serde_json::from_str(&outcome.out).with_context(|| format!("{line:?}: {outcome:?}"))?;
        assert!(outcome.out.is_ascii() && outcome.out.lines().count() == 1, "{line:?}: {outcome:?}");
        schema::check(&root, &root, &value, "output")
            .map_err(|wrong| anyhow::anyhow!("{line:?}: {wrong}"))?;
        assert_eq!(value["error"].is_object(), outcome.status != 0, "{line:?}");
    }
    let root: Value = serde_json::from_str(include_str!("../src/cli/schema/progress-v1.json"))?;
    let outcome = place.run(&["--progress=json", "upgrade", "tied"], "")?;
    assert!(outcome.err.lines().count() > 0);
    for line in outcome.err.lines() {
        let value: Value = serde_json::from_str(line).with_context(|| format!("{line:?}"))?;
        schema::check(&root, &root, &value, "progress")
            .map_err(|wrong| anyhow::anyhow!("{line:?}: {wrong}"))?;
    }
    Ok(())
}

#[test]
fn the_originals_output_is_ascii() -> Result<()> {
    let reply =
        "qubes-template-odd|0|1|1|stable|1|2024-01-02 03:04|GPL|u|Gr\u{f6}\u{df}e \u{202e}|\u{6a21}|\n";
    let place = Place::new(reply, "", 0)?;
    // Here nothing filters what the service says.
    for (path, executable) in
        [("etc/qubes-rpc/qubes.TemplateSearch", true), ("etc/reply", false), ("etc/errors", false)]
    {
        let text = std::fs::read_to_string(place.path("sys-net", path))?;
        place.put("mgmt", path, &text, executable)?;
    }
    for form in [&["--machine-readable"][..], &["--machine-readable-json"], &["--json"]] {
        let out = place.output(&[&["--updatevm=", "info", "--available"], form].concat())?;
        assert!(out.is_ascii() && out.contains("odd"), "{form:?}: {out}");
    }
    Ok(())
}
