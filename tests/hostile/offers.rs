//! Offers that are not what they claim: attacks A1, A2 and A9.

use anyhow::{Result, ensure};

use super::{INSTALL, Rpm, World, demo, record};

#[test]
fn a1_an_old_signed_build_in_place_of_the_newest() -> Result<()> {
    let world = World::new()?;
    world.offer("2.0", "first", &demo("1.0").bytes()?)?;
    let told = "does not match expected template version: got the build 0:1.0-1 in place of 0:2.0-1";
    world.refuses(&INSTALL, told)
}

#[test]
fn a2_only_the_keys_of_the_repository_that_an_offer_names() -> Result<()> {
    let world = World::new()?;
    let download = ["download", "-q", "--retries=1", "--downloaddir=/tmp", "demo"];
    // Another enabled repository's key, and that of the keyring for local files, count for nothing.
    for (key, repo) in [("second", "first"), ("first", "second"), ("third", "first")] {
        world.offer("1.0", repo, &Rpm { key, ..demo("1.0") }.bytes()?)?;
        for command in [&INSTALL, &download] {
            world.refuses(command, "which is not among the keys of this repository")?;
        }
    }
    // A repository that does not take part, or does not exist, selects no key and offers nothing.
    let before = world.downloads()?;
    for (repo, told) in [
        ("third", "repository 'third', which is not enabled\nhelp: '--enablerepo=third' enables it"),
        ("fourth", "repository 'fourth', which is not configured here"),
    ] {
        world.offer("1.0", repo, &Rpm { key: "third", ..demo("1.0") }.bytes()?)?;
        for command in [&INSTALL, &download] {
            world.refuses(command, told)?;
        }
    }
    ensure!(world.downloads()? == before, "something was downloaded");
    // Beside an offer that counts it is passed over, however new it claims to be.
    let good = demo("1.0").bytes()?;
    world.offer("1.0", "first", &good)?;
    world.reply([record("demo", "1.0", "first", good.len()), record("demo", "9.0", "third", 5)].concat())?;
    let said = world.must(&INSTALL)?;
    let told = "Warning: demo-0:9.0-1 is passed over: it is said to be in repository 'third', which is not enabled\n";
    ensure!(said.err.contains(told) && world.version()? == "1.0", "{}", said.err);
    // With the option it counts, under its own key.
    world.offer("9.0", "third", &Rpm { key: "third", ..demo("9.0") }.bytes()?)?;
    world.must(&["upgrade", "-q", "--skip-start", "--yes", "--enablerepo=third", "demo"])?;
    ensure!(world.version()? == "9.0");
    Ok(())
}

#[test]
fn a9_the_wrong_package_under_the_right_key() -> Result<()> {
    let world = World::new()?;
    world.offer("1.0", "first", &Rpm { name: "other", ..demo("1.0") }.bytes()?)?;
    world.refuses(&INSTALL, "ERROR: Downloaded package does not match expected template name")?;
    // Ordinary and source packages, under a key that is trusted.
    let fixtures = crate::trust::fixtures();
    let keys = world.sandbox.files("mgmt").join("etc/qubes/repo-templates/keys");
    std::fs::copy(fixtures.join("keys/rsa.gpg"), keys.join("first"))?;
    for (name, told) in [("ordinary", "is not a template"), ("source", "source package")] {
        world.offer("1.0", "first", &crate::trust::case(name))?;
        world.refuses(&INSTALL, told)?;
    }
    world.offer("1.0", "first", &crate::trust::case("unsigned"))?;
    world.refuses(&INSTALL, "the package is not signed")?;
    let mut flipped = crate::trust::case("good-rsa");
    let at = flipped.len() - 100;
    flipped[at] ^= 1;
    world.offer("1.0", "first", &flipped)?;
    world.refuses(&INSTALL, "the payload is not")
}

#[test]
fn names_that_no_qube_can_have() -> Result<()> {
    let world = World::new()?;
    for name in ["a+b", "-x", &"x".repeat(32), "1a"] {
        world.reply(record(name, "1.0", "first", 5))?;
        let said = world.tool(&["install", "-q", "--", name])?;
        ensure!(said.status != 0 && world.changes(0)?.is_empty(), "{name}: {} {}", said.status, said.err);
    }
    ensure!(world.downloads()? == 0);
    Ok(())
}

#[test]
fn r21_a_rotten_package_in_the_cache_is_replaced() -> Result<()> {
    let world = World::new()?;
    let good = demo("1.0").bytes()?;
    world.offer("1.0", "first", &good)?;
    let cache = world.sandbox.files("mgmt").join("srv/cache");
    std::fs::create_dir_all(&cache)?;
    let file = cache.join("qubes-template-demo-0:1.0-1.rpm");
    for rotten in [&good[..good.len() - 1], b"", &Rpm { key: "third", ..demo("1.0") }.bytes()?] {
        std::fs::write(&file, rotten)?;
        let keep =
            ["install", "--keep-cache", "--cachedir=/srv/cache", "--skip-start", "--retries=1", "demo"];
        let said = world.must(&keep)?;
        ensure!(said.err.contains(".rpm' is of no use: Signature verification failed: "), "{}", said.err);
        ensure!(std::fs::read(&file)? == good, "it was not replaced");
        world.must(&["remove", "-q", "--yes", "demo"])?;
    }
    Ok(())
}

#[test]
fn r22_the_language_decides_nothing() -> Result<()> {
    let world = World::new()?;
    world.offer("1.0", "first", &demo("1.0").bytes()?)?;
    for language in ["de_DE.UTF-8", "tr_TR.UTF-8", "C", "none.such"] {
        let install = ["env", "qvm-template", "--releasever=4.3", "install", "-q", "--skip-start", "demo"];
        let remove = ["qvm-template", "remove", "-q", "--yes", "demo"];
        for command in [&install[..], &remove] {
            let variables = [format!("LC_ALL={language}"), format!("LANGUAGE={language}")];
            let options = [
                "--cwd",
                "/",
                "--env",
                &variables[0],
                "--env",
                &variables[1],
                "--env",
                "XDG_STATE_HOME=/state",
            ];
            let said = world.sandbox.exec(&options, command)?;
            ensure!(said.status == 0, "{language}: {}", said.err);
        }
    }
    Ok(())
}
