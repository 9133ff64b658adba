//! The programs that call the original, by their exact command lines and with the rules by which they read what comes back.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::place::{Place, REPLY};
use crate::support::programs::{folder, success};

/// The graphical template manager: JSON in ASCII, numbers and times that it parses; of the actions merged output, read in
/// chunks of 100 bytes that are decoded one by one.
#[test]
fn the_graphical_manager_reads_us() -> Result<()> {
    let place = Place::new(REPLY, "", 0)?;
    let groups = ["--installed", "--available", "--upgrades", "--extras"];
    for refresh in [&[][..], &["--refresh"]] {
        let line = [&["--yes"], refresh, &["info", "--machine-readable-json"], &groups[..]].concat();
        let outcome = place.run(&line, "")?;
        ensure!(outcome.status == 0 && outcome.out.is_ascii() && outcome.err.is_ascii(), "{outcome:?}");
        ensure!(outcome.out.lines().count() == 1, "one line");
        assert_eq!(read_by_the_manager(&outcome.out)?, 9 + 5 + 5 + 3);
    }
    // Nothing to show is an answer too for it: an object, or an exit status with a reason on standard error.
    let nothing = place.run(&["--yes", "info", "--machine-readable-json", "--installed", "nope"], "")?;
    ensure!(nothing.status == 2 && nothing.out.is_empty() && nothing.err.is_ascii(), "{nothing:?}");
    for (line, status) in [
        ("--yes install -- plain-0:4.3.0-1", 0),
        ("--yes reinstall -- gw-0:17-1", 2),
        ("--yes upgrade -- tied", 0),
        ("--yes remove -- gone", 0),
        ("--yes remove -- plain", 1),
    ] {
        let outcome = place.exec(&["sh", "-c", &format!("qvm-template {line} 2>&1")], "")?;
        assert_eq!(outcome.status, status, "{line}: {outcome:?}");
        let bytes = outcome.out.as_bytes();
        ensure!(bytes.chunks(100).all(|chunk| std::str::from_utf8(chunk).is_ok()), "{line}: {outcome:?}");
        ensure!(bytes.is_ascii() && !bytes.contains(&0x1b), "{line}: {outcome:?}");
    }
    Ok(())
}

/// What the manager does with the object; the number of entries.
fn read_by_the_manager(out: &str) -> Result<usize> {
    let value: Value = serde_json::from_str(out)?;
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
    Ok(seen)
}

/// Salt's module: `info` with one name must have exactly one object under `installed`, and fail when it is absent; of an
/// installation the status counts, and standard error is shown.
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
    let absent = place.run(&["info", "--installed", "--machine-readable-json", "odd"], "")?;
    ensure!(absent.status != 0 && absent.out.is_empty(), "{absent:?}");
    for line in [
        &["install", "--quiet", "plain"][..],
        &["install", "--quiet", "--repoid=stable", "plain-4.3.0"],
        &["install", "--quiet", "--repoid=stable", "--pool=vm-pool", "plain"],
    ] {
        assert_eq!(place.run(line, "")?.status, 0, "{line:?}");
    }
    let failed = place.run(&["install", "--quiet", "--repoid=stable", "nope"], "")?;
    ensure!(failed.status != 0 && failed.err.contains("Template 'nope' not found."), "{failed:?}");
    Ok(())
}

/// qubes-dom0-update passes the action and the name on, its own options behind the action.
#[test]
fn qubes_dom0_update_redirects_to_us() -> Result<()> {
    let place = Place::new(REPLY, "", 0)?;
    let options = ["--enablerepo=stable-testing", "--disablerepo=other"];
    for (action, status) in [
        ("list", 0),
        ("info", 0),
        ("search", 0),
        ("install", 0),
        ("reinstall", 1),
        ("upgrade", 1),
        ("downgrade", 0),
    ] {
        let line = [&[action], &options[..], &["plain"]].concat();
        let outcome = place.run(&line, "n\n")?;
        assert_eq!(outcome.status, status, "{line:?}: {outcome:?}");
        let request = place.request().context("the UpdateVM was asked")?;
        ensure!(request.starts_with("--enablerepo=stable-testing\n--disablerepo=other\n"), "{request}");
    }
    let outcome = place.run(&["list", "--refresh", "plain"], "")?;
    ensure!(
        outcome.status == 0 && place.request().is_some_and(|text| text.contains("--refresh\n")),
        "{outcome:?}"
    );
    // What it does not consume, the original does not know either.
    for option in ["-y", "--downloadonly"] {
        let outcome = place.run(&["install", option, "plain"], "")?;
        assert_eq!((outcome.status, outcome.out.as_str()), (2, ""), "{option}");
    }
    assert_eq!(place.run(&["install", "--nogpgcheck", "plain"], "")?.status, 0);
    let outcome = place.run(&["remove", "gone"], "y\n")?;
    assert_eq!((outcome.status, &outcome.changes[..]), (0, &["vm.Remove gone".to_owned()][..]));
    Ok(())
}

/// The integration tests of dom0 look for `|NAME|`, and install from one repository alone.
#[test]
fn the_integration_tests_find_their_template() -> Result<()> {
    let place = Place::new(REPLY, "", 0)?;
    let out = place.output(&["--repoid=stable", "list", "--machine-readable", "--available", "plain"])?;
    assert!(out.contains("|plain|"));
    assert_eq!(place.request().as_deref(), Some("--repoid=stable\n--releasever=4.3\nqubes-template-plain\n"));
    let outcome = place.run(&["--disablerepo=*", "--enablerepo=stable", "install", "plain"], "")?;
    assert_eq!(outcome.status, 0, "{outcome:?}");
    // In a management qube the services are its own.
    for (path, executable) in
        [("etc/qubes-rpc/qubes.TemplateSearch", true), ("etc/reply", false), ("etc/errors", false)]
    {
        let text = std::fs::read_to_string(place.path("sys-net", path))?;
        place.put("mgmt", path, &text, executable)?;
    }
    let line = [
        "--updatevm=",
        "--releasever=4.3",
        "--repoid=stable",
        "list",
        "--machine-readable",
        "--available",
        "plain",
    ];
    assert!(place.output(&line)?.contains("|plain|"));
    assert!(place.path("mgmt", "tmp/request").exists(), "asked here");
    Ok(())
}

/// The policy under which those tests run their management qube: what they allow is all that is called.
#[test]
fn the_policy_of_the_integration_tests_is_enough() -> Result<()> {
    let place = Place::new(REPLY, "", 0)?;
    let reads = [
        "admin.vm.List * mgmt @adminvm allow target=dom0",
        "admin.vm.List * mgmt @anyvm allow target=dom0",
        "admin.vm.feature.Get * mgmt @anyvm allow target=dom0",
        "admin.vm.volume.List * mgmt @anyvm allow target=dom0",
        "admin.vm.volume.Info * mgmt @anyvm allow target=dom0",
        "admin.property.Get +updatevm mgmt @adminvm allow target=dom0",
        "qubes.TemplateSearch * mgmt sys-net allow",
        "qubes.TemplateDownload * mgmt sys-net allow",
    ];
    place.put("dom0", "etc/qubes/policy.d/30-test.policy", &format!("{}\n", reads.join("\n")), false)?;
    for line in [
        &["list", "--installed"][..],
        &["--repoid=stable", "list", "--machine-readable", "--available", "plain"],
        &["info", "--installed", "plain"],
        &["list", "--upgrades"],
        &["search", "plain"],
        &["install", "plain"],
    ] {
        let outcome = place.run(line, "")?;
        assert_eq!(outcome.status, 0, "{line:?}: {outcome:?}");
        // The population has one qube that hides its features by dom0's own decision.
        ensure!(outcome.denied.iter().all(|call| call.ends_with(" hidden")), "{line:?}: {outcome:?}");
    }
    Ok(())
}

/// initial-setup installs what lies on the disk: no UpdateVM, no network, perhaps no repository file; both streams captured.
#[test]
fn the_installer_needs_no_update_vm() -> Result<()> {
    let place = Place::new(REPLY, "", 0)?;
    std::fs::remove_file(place.path("mgmt", "etc/qubes/repo-templates/test.repo"))?;
    let deny = "qubes.TemplateSearch * @anyvm @anyvm deny\nadmin.property.Get * @anyvm @anyvm deny\n\
                * * mgmt @adminvm allow target=dom0\n* * mgmt @anyvm allow target=dom0\n";
    place.put("dom0", "etc/qubes/policy.d/30-test.policy", deny, false)?;
    package(&place, "qubes-template-plain")?;
    let line = ["install", "--nogpgcheck", "/home/user/package.rpm"];
    let outcome = place.run(&line, "")?;
    // A template of that name is there; what matters is that nobody was asked for it.
    ensure!(outcome.status == 0 && outcome.err.contains("Template 'plain' already installed"), "{outcome:?}");
    ensure!(outcome.denied.is_empty() && place.request().is_none(), "{outcome:?}");
    ensure!(outcome.out.is_ascii() && outcome.err.is_ascii());
    Ok(())
}

#[test]
fn a_package_of_no_template_is_refused_by_its_name() -> Result<()> {
    let place = Place::new(REPLY, "", 0)?;
    package(&place, "something-else")?;
    let outcome = place.run(&["install", "--nogpgcheck", "/home/user/package.rpm"], "")?;
    let said = "qvm-template: error: Illegal package name for package '/home/user/package.rpm'.\n";
    assert_eq!((outcome.status, outcome.err.as_str()), (2, said));
    assert_eq!(outcome.changes, [""; 0]);
    Ok(())
}

/// Puts an unsigned package of this name into the management qube's home.
fn package(place: &Place, name: &str) -> Result<()> {
    let work = folder()?;
    let place_of_image =
        format!("/var/lib/qubes/vm-templates/{}", name.trim_start_matches("qubes-template-"));
    let spec = format!(
        "Name: {name}\nVersion: 1\nRelease: 1\nSummary: x\nLicense: MIT\nBuildArch: noarch\n%description\nx\n\
         %install\nmkdir -p %{{buildroot}}{place_of_image}\necho x > %{{buildroot}}{place_of_image}/root.img.part.00\n\
         %files\n{place_of_image}\n"
    );
    std::fs::write(work.path().join("x.spec"), spec)?;
    let top = format!("_topdir {}", work.path().display());
    success(work.path(), "rpmbuild", ["-bb", "--quiet", "--define", &top, "x.spec"])?;
    let built = work.path().join(format!("RPMS/noarch/{name}-1-1.noarch.rpm"));
    std::fs::copy(built, place.path("mgmt", "home/user/package.rpm")).map(drop).context("placing a package")
}
