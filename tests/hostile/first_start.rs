//! What a package wishes for its qube (A10), and what happens until it has started once (A17, A18).

use anyhow::{Context as _, Result, ensure};

use super::{Rpm, World, demo};

#[test]
fn a10_a_package_gets_only_what_a_template_may_wish() -> Result<()> {
    let world = World::new()?;
    let conf = "virt-mode=pv\nkernel=/etc/shadow\nnetvm=sys-net\nprovides_network=True\ngui=yes\nqrexec=1\n\
                service.meminfo-writer=1\ninternal=1\nnet.fake-ip=10.1.2\nnet.fake-netmask=1.2.3.4\n\
                template-name=other\nuninstalled-by=\x1b[2J\n";
    world.offer("1.0", "first", &Rpm { conf, ..demo("1.0") }.bytes()?)?;
    let said = world.must(&["install", "--skip-start", "--retries=1", "demo"])?;
    for told in [
        "--allow-pv not set, ignoring request to change virt-mode",
        "Currently only supports setting kernel to (none)",
        "ignoring boolean config flags that are not '1'",
        "ignoring invalid value for 'net.fake-ip'",
    ] {
        ensure!(said.err.contains(told), "{told}: {}", said.err);
    }
    let shown = world.sandbox.show()?;
    let qube = &shown["qubes"]["demo"];
    let features = qube["features"].as_object().context("its features")?;
    let own: Vec<&str> =
        features.keys().map(String::as_str).filter(|key| !key.starts_with("template-")).collect();
    // The second one is the tool's own note of where the template comes from.
    ensure!(own == ["qrexec", "qvm-template-record"], "{own:?}");
    ensure!(features["template-name"] == "demo");
    let set: Vec<String> = world
        .sandbox
        .log()?
        .iter()
        .filter(|entry| entry.service == "admin.vm.property.Set")
        .filter_map(|entry| entry.arg.clone())
        .collect();
    ensure!(set == ["installed_by_rpm"], "{set:?}");
    Ok(())
}

#[test]
fn a17_a18_the_old_private_volume_is_gone_and_the_network_off_before_the_first_start() -> Result<()> {
    let world = World::new()?;
    world.offer("1.0", "first", &demo("1.0").bytes()?)?;
    world.must(&["install", "-q", "--skip-start", "--retries=1", "demo"])?;
    let from = world.sandbox.log()?.len();
    // A template that says a lot when it is started, and fails.
    world.sandbox.service(
        "demo",
        "qubes.PostInstall",
        "head -c 100M /dev/zero; printf 'x\\033[2J' >&2; exit 9",
    )?;
    let said = world.tool(&["reinstall", "--retries=1", "--yes", "demo"])?;
    ensure!(said.status == 3, "not finalized: {} {}", said.status, said.err);
    let log = world.sandbox.log()?;
    let calls: Vec<String> = log
        .iter()
        .skip(from)
        .map(|entry| format!("{}+{}", entry.service, entry.arg.as_deref().unwrap_or_default()))
        .collect();
    let at =
        |call: &str| calls.iter().position(|one| one == call).with_context(|| format!("{call}: {calls:#?}"));
    let order = [
        at("admin.vm.volume.ImportWithSize+root")?,
        at("admin.vm.volume.Clear+private")?,
        at("admin.vm.property.Set+netvm")?,
        at("admin.vm.Start+")?,
        at("qubes.PostInstall+")?,
        at("admin.vm.Shutdown+wait")?,
        at("admin.vm.property.Reset+netvm")?,
        at("admin.vm.feature.Set+template-name")?,
    ];
    ensure!(order.is_sorted(), "{calls:#?}");
    let asked = &log[from + at("qubes.PostInstall+")?];
    ensure!(asked.bytes_in == 0, "something was said to it");
    ensure!(said.err.contains("demo: qubes.PostInstall service failed\n"), "{}", said.err);
    ensure!(!said.out.contains('\u{1b}') && !said.err.contains('\u{1b}'), "{:?}", said.err);
    Ok(())
}
