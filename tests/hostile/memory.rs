//! What was seen before: attacks A1 and A3.

use anyhow::{Result, ensure};

use super::{INSTALL, Rpm, World, demo};

const UPGRADE: [&str; 6] = ["upgrade", "-q", "--skip-start", "--yes", "--retries=1", "demo"];

fn with<'a>(command: &[&'a str], option: &'a str) -> Vec<&'a str> {
    [&command[..1], &[option], &command[1..]].concat()
}

#[test]
fn a3_a_build_that_is_older_than_one_seen_before() -> Result<()> {
    let world = World::new()?;
    let (old, new) = (demo("1.0").bytes()?, demo("2.0").bytes()?);
    // A download is enough to have seen it.
    world.offer("2.0", "first", &new)?;
    world.must(&["download", "-q", "--downloaddir=/tmp", "demo"])?;
    world.offer("1.0", "first", &old)?;
    let before = world.downloads()?;
    let told = "Template 'demo' is not taken: 0:1.0-1 is older than 0:2.0-1, which repository 'first' had before\n\
                help: a stale mirror or a dishonest UpdateVM can keep builds back; '--allow-older=demo' takes the older one";
    world.refuses(&INSTALL, told)?;
    world.refuses(&with(&INSTALL, "--allow-older=other"), told)?;
    world.refuses(&["download", "-q", "--downloaddir=/tmp", "d*"], told)?;
    ensure!(world.downloads()? == before, "it was downloaded in vain");
    // What was named in full is no surprise, and does not lower the floor.
    world.must(&["install", "-q", "--skip-start", "demo-1.0"])?;
    ensure!(world.version()? == "1.0");
    world.must(&["reinstall", "-q", "--skip-start", "--yes", "demo"])?;
    world.refuses(&["reinstall", "-q", "--skip-start", "--yes", "--newest", "demo"], told)?;
    world.offer("2.0", "first", &new)?;
    world.must(&UPGRADE)?;
    world.offer("1.0", "first", &old)?;
    world.must(&["downgrade", "-q", "--skip-start", "--yes", "demo"])?;
    world.must(&["reinstall", "-q", "--skip-start", "--yes", "demo"])?;
    world.must(&["remove", "-q", "--yes", "demo"])?;
    world.refuses(&INSTALL, told)?;
    // The override lowers it.
    world.must(&with(&INSTALL, "--allow-older=demo"))?;
    world.must(&["remove", "-q", "--yes", "demo"])?;
    world.must(&INSTALL)?;
    Ok(())
}

#[test]
fn a3_age_is_judged_by_the_signed_header() -> Result<()> {
    let world = World::new()?;
    world.offer("1.0", "first", &Rpm { age: 40, ..demo("1.0") }.bytes()?)?;
    let command = with(&INSTALL, "--require-max-age=30");
    world.refuses(&command, "Template 'demo' is not taken: it was built 40 days ago (on ")?;
    world.must(&with(&INSTALL, "--require-max-age=41"))?;
    let said = world.must(&["list", "--available", "--json"])?;
    ensure!(said.out.contains("\"age_days\": 0"), "{}", said.out);
    Ok(())
}

#[test]
fn a_template_stays_with_its_repository_and_its_signer() -> Result<()> {
    let world = World::new()?;
    let keys = world.sandbox.files("mgmt").join("etc/qubes/repo-templates/keys");
    world.offer("1.0", "first", &demo("1.0").bytes()?)?;
    world.must(&INSTALL)?;
    let other = Rpm { key: "second", ..demo("2.0") }.bytes()?;
    world.offer("2.0", "second", &other)?;
    world.refuses(&UPGRADE, "repository 'second' offers it, which came from 'first' before")?;
    world.refuses(
        &with(&UPGRADE, "--enablerepo=s*"),
        "'--allow-repository-change=demo' or '--enablerepo=second'",
    )?;
    world.must(&with(&UPGRADE, "--allow-repository-change=demo"))?;
    ensure!(world.version()? == "2.0");
    // Two certificates vouch for `first` now: the other one is a surprise, until only it is left.
    let three = Rpm { key: "third", ..demo("3.0") }.bytes()?;
    world.offer("3.0", "first", &three)?;
    let (first, third) =
        (std::fs::read_to_string(keys.join("first"))?, std::fs::read_to_string(keys.join("third"))?);
    std::fs::write(keys.join("first"), format!("{first}\n{third}"))?;
    world.refuses(&UPGRADE, "'--allow-signer-change=demo' takes it")?;
    std::fs::write(keys.join("first"), third)?;
    world.must(&UPGRADE)?;
    ensure!(world.version()? == "3.0");
    Ok(())
}

#[test]
fn a_local_package_is_held_to_the_certificate() -> Result<()> {
    let world = World::new()?;
    let place = world.sandbox.files("mgmt").join("srv");
    std::fs::create_dir_all(&place)?;
    for (version, key) in [("1.0", "first"), ("2.0", "first"), ("3.0", "third")] {
        std::fs::write(place.join(format!("{version}.rpm")), Rpm { key, ..demo(version) }.bytes()?)?;
    }
    let install = |path: &'static str| ["install", "-q", "--skip-start", path];
    world.must(&install("/srv/2.0.rpm"))?;
    world.must(&["remove", "-q", "--yes", "demo"])?;
    world.refuses(
        &install("/srv/1.0.rpm"),
        "is older than 0:2.0-1, which repository '@commandline' had before",
    )?;
    let mut other = vec!["--keyring=/etc/qubes/repo-templates/keys/third"];
    other.extend(install("/srv/3.0.rpm"));
    world.refuses(&other, "certificate ")?;
    other.insert(2, "--allow-signer-change=demo");
    let said = world.tool(&other)?;
    ensure!(said.status == 0, "{}", said.err);
    ensure!(world.version()? == "3.0");
    Ok(())
}

#[test]
fn a_damaged_memory_is_said_and_begins_anew() -> Result<()> {
    let world = World::new()?;
    world.offer("2.0", "first", &demo("2.0").bytes()?)?;
    world.must(&["download", "-q", "--downloaddir=/tmp", "demo"])?;
    let file = world.sandbox.files("mgmt").join("state/qvm-template/seen.json");
    let text = std::fs::read_to_string(&file)?;
    ensure!(text.contains("\"repository\": \"first\"") && text.contains("\"version\": \"2.0\""), "{text}");
    std::fs::write(&file, &text[..text.len() / 2])?;
    world.offer("1.0", "first", &demo("1.0").bytes()?)?;
    let said = world.must(&INSTALL)?;
    ensure!(
        said.err.contains("Warning: the memory of builds seen (seen.json) begins anew: "),
        "{}",
        said.err
    );
    ensure!(std::fs::read_to_string(&file)?.contains("\"version\": \"1.0\""));
    ensure!(file.with_file_name("seen.json.damaged").exists());
    Ok(())
}

#[test]
fn what_nogpgcheck_leaves_out_is_said_and_the_rest_is_checked() -> Result<()> {
    let world = World::new()?;
    let place = world.sandbox.files("mgmt").join("srv");
    std::fs::create_dir_all(&place)?;
    let package = Rpm { key: "third", ..demo("1.0") }.bytes()?;
    std::fs::write(place.join("x.rpm"), &package)?;
    world.refuses(
        &["install", "-q", "--skip-start", "/srv/x.rpm"],
        "which is not among the keys of this repository",
    )?;
    std::fs::write(place.join("cut.rpm"), &package[..package.len() - 1])?;
    world.refuses(&["install", "--nogpgcheck", "--skip-start", "/srv/cut.rpm"], "the package is cut off")?;
    let said = world.must(&["install", "--nogpgcheck", "--skip-start", "/srv/x.rpm"])?;
    let told = "Warning: --nogpgcheck: nobody's signature on '/srv/x.rpm' is checked, only its digests";
    ensure!(said.err.matches(told).count() == 1, "{}", said.err);
    Ok(())
}
