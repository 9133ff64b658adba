//! `trust list`: whose signatures count, and whether they would today (attack A8, before it happens).

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::World;
use crate::support::packages::key;

#[test]
fn every_enabled_repository_with_its_certificates() -> Result<()> {
    let world = World::new()?;
    let said = world.must(&["trust", "list"])?;
    let (first, second) =
        (key("first")?.fingerprint().to_uppercase(), key("second")?.fingerprint().to_uppercase());
    let expected = format!(
        "first: first repository\n  /etc/qubes/repo-templates/keys/first\n    {first}\n      \
         first <first@example.invalid>\n      usable, does not expire\n\
         second: second repository\n  /etc/qubes/repo-templates/keys/second\n    {second}\n      \
         second <second@example.invalid>\n      usable, does not expire\n\
         local files\n  /etc/qubes/repo-templates/keys/first\n    {first}\n      \
         first <first@example.invalid>\n      usable, does not expire\n"
    );
    assert_eq!(said.out, expected);
    // The repository options count, and nobody was asked anything.
    let said = world.must(&["trust", "list", "--repoid=third"])?;
    ensure!(said.out.starts_with("third: ") && !said.out.contains("second: "), "{}", said.out);
    ensure!(world.sandbox.log()?.is_empty());
    for wrong in [&["trust"][..], &["trust", "lists"], &["trust", "list", "x"]] {
        ensure!(world.tool(wrong)?.status == 2, "{wrong:?}");
    }
    Ok(())
}

#[test]
fn what_cannot_be_used_is_said_and_hides_nothing() -> Result<()> {
    let world = World::new()?;
    let fixtures = crate::trust::fixtures().join("keys");
    let place = world.sandbox.files("mgmt").join("etc/qubes/repo-templates");
    let mut repos = String::new();
    for name in ["expired", "revoked", "weakrsa1024", "dsa"] {
        fs::copy(fixtures.join(format!("{name}.gpg")), place.join("keys").join(name))?;
        repos +=
            &format!("[{name}]\nbaseurl=http://x/\ngpgkey=file:///etc/qubes/repo-templates/keys/{name}\n");
    }
    repos += "[missing]\nbaseurl=http://x/\ngpgkey=file:///etc/qubes/repo-templates/keys/none\n\
              [outside]\nbaseurl=http://x/\ngpgkey=file:///etc/passwd\n\
              [broken]\nbaseurl=http://x/\ngpgkey=file:///etc/qubes/repo-templates/test.repo\n\
              [keyless]\nname=a\x1b[2J\u{202e}\nbaseurl=http://x/\n";
    fs::write(place.join("more.repo"), repos)?;
    fs::write(place.join("keys/garbage"), "no key\n")?;
    let said = world.must(&["trust", "list", "--json"])?;
    let value: Value = serde_json::from_str(&said.out)?;
    let trust = &value["result"]["trust"];
    let of = |id: &str| -> Result<&Value> {
        let all = trust["repositories"].as_array().context("repositories")?;
        all.iter().find(|repo| repo["id"] == id).with_context(|| format!("no {id} in {trust}"))
    };
    for (id, why) in [("expired", "expired"), ("revoked", "revoked"), ("weakrsa1024", "RSA"), ("dsa", "RSA")]
    {
        let certificate = &of(id)?["keys"][0]["certificates"][0];
        ensure!(certificate["usable"] == false, "{id}: {certificate}");
        ensure!(
            certificate["reason"].as_str().is_some_and(|reason| reason.contains(why)),
            "{id}: {certificate}"
        );
    }
    ensure!(of("expired")?["keys"][0]["certificates"][0]["expires"].is_string());
    for (id, why) in
        [("missing", "No such file"), ("outside", "does not lie in"), ("broken", "does not lie in")]
    {
        let error = of(id)?["keys"][0]["error"].as_str().unwrap_or_default();
        ensure!(error.contains(why), "{id}: {error}");
    }
    ensure!(of("keyless")?["by_keyring"] == true && of("keyless")?["name"] == "a_[2J_");
    ensure!(of("first")?["keys"][0]["certificates"][0]["usable"] == true);
    let said = world.must(&["trust", "list"])?;
    ensure!(said.out.lines().all(|line| line.chars().count() <= 80), "{}", said.out);
    ensure!(
        said.out.contains("NOT USABLE: cannot be read: No such file") && !said.out.contains('\x1b'),
        "{}",
        said.out
    );
    // Nothing at all that can be read is a failure.
    let blind = ["trust", "list", "--keyring=/etc/qubes/repo-templates/keys/garbage", "--repoid=missing"];
    world.refuses(&blind, "not one certificate can be read")?;
    world.refuses(&["trust", "list", "--repo-files=/none/*.repo", "--keyring=/none"], "not one certificate")
}
