//! The contract of the command line: what goes in, what comes out, which calls are made. Everything runs in a sandbox.
//!
//! Every message of the original (M1 to M25) and every one of its rough edges (R1 to R61) is named by a case here, or in
//! [`elsewhere`] with the places that hold it.

#[path = "cli_contract/callers.rs"]
mod callers;
#[path = "cli_contract/cases.rs"]
mod cases;
#[path = "cli_contract/elsewhere.rs"]
mod elsewhere;
#[path = "cli_contract/place.rs"]
mod place;
#[path = "cli_contract/schema.rs"]
pub(crate) mod schema;
#[path = "cli_contract/terminal.rs"]
mod terminal;

use anyhow::{Context as _, Result, ensure};
use cases::{Case, INSTALLS, LINES, LISTS, REMOVALS};
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
