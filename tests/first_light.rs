//! The whole line with packages that other people's tools made, and the README's first command.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::support::programs::{SANDBOX, folder, success};
use crate::support::sandbox::Sandbox;

/// A spec file as Qubes' own builders write it; `@PAYLOAD@` is rpm's name of the compression.
const SPEC: &str = r"%global _binary_payload @PAYLOAD@
%global __os_install_post %{nil}
Name: qubes-template-@NAME@
Version: 4.3.0
Release: 202511130213
Summary: Made by rpmbuild
License: GPLv3+
BuildArch: noarch
Provides: qubes-template
%description
A template that rpmbuild made.
%prep
%build
%install
d=%{buildroot}/var/lib/qubes/vm-templates/@NAME@
mkdir -p $d
cp %{_topdir}/parts/root.img.part.* $d/
printf 'qrexec=1\nvirt-mode=pvh\n' > $d/template.conf
for list in vm-whitelisted-appmenus whitelisted-appmenus netvm-whitelisted-appmenus; do
    echo org.example.Terminal.desktop > $d/$list.list
done
touch $d/root.img $d/private.img $d/volatile.img $d/clean-volatile.img.tar
%pre
exit 1
%files
%defattr(660,root,root,2770)
%dir /var/lib/qubes/vm-templates/@NAME@
/var/lib/qubes/vm-templates/@NAME@/root.img.part.*
/var/lib/qubes/vm-templates/@NAME@/clean-volatile.img.tar
/var/lib/qubes/vm-templates/@NAME@/template.conf
/var/lib/qubes/vm-templates/@NAME@/*.list
%ghost /var/lib/qubes/vm-templates/@NAME@/root.img
%ghost /var/lib/qubes/vm-templates/@NAME@/private.img
%ghost /var/lib/qubes/vm-templates/@NAME@/volatile.img
";

/// Puts data at the beginning, the middle and the end of an image with holes.
const IMAGE: &str = "truncate -s $SIZE root.img
for at in 0 $((SIZE / 8192)) $((SIZE / 4096 - 64)); do
    head -c 262144 /dev/urandom | dd of=root.img bs=4096 seek=$at conv=notrunc status=none
done";

fn shell(place: &Path, script: &str) -> Result<String> {
    success(place, "bash", ["-euo", "pipefail", "-c", script])
}

/// Builds and signs a package as Qubes does: RSA 4096, header signature and signature over header and payload.
fn rpmbuild(place: &Path, name: &str, payload: &str) -> Result<()> {
    let spec = SPEC.replace("@NAME@", name).replace("@PAYLOAD@", payload);
    fs::write(place.join(format!("{name}.spec")), spec)?;
    let script = format!(
        "rpmbuild -bb --quiet --define \"_topdir $PWD\" {name}.spec
         export GNUPGHOME=$PWD/gpg
         rpmsign --define '__gpg /usr/bin/gpg' --define '_gpg_name test' --digest-algo=sha256 --rpmv3 --addsign \
             RPMS/noarch/qubes-template-{name}-*.rpm"
    );
    shell(place, &script).map(drop)
}

/// A key in a GnuPG home of its own.
fn make_key(place: &Path) -> Result<()> {
    let script = "mkdir -m 700 gpg; export GNUPGHOME=$PWD/gpg
        gpg -q --batch --passphrase '' --quick-gen-key 'test <test@example.invalid>' rsa4096 sign never
        gpg -q --armor --export > key.public";
    shell(place, script).map(drop)
}

/// Gives sys-net the repository, and mgmt its description and key.
fn publish(place: &Path, system: &Sandbox) -> Result<()> {
    shell(place, "createrepo_c -q RPMS")?;
    let served = system.files("sys-net").join("srv/templates");
    fs::create_dir_all(served.parent().context("a parent")?)?;
    fs::rename(place.join("RPMS"), served)?;
    let configuration = system.files("mgmt").join("etc/qubes/repo-templates");
    fs::create_dir_all(configuration.join("keys"))?;
    fs::copy(place.join("key.public"), configuration.join("keys/RPM-GPG-KEY-test"))?;
    let text = "[test]\nname=Test\nbaseurl=file:///srv/templates\nenabled=1\n\
                gpgkey=file:///etc/qubes/repo-templates/keys/RPM-GPG-KEY-test\n";
    Ok(fs::write(configuration.join("test.repo"), text)?)
}

/// Installs a template in mgmt; the largest memory of any process of the tool, in KiB.
fn install(system: &Sandbox, name: &str) -> Result<u64> {
    let script = "import resource, subprocess, sys
subprocess.run(['qvm-template', 'install', '-q', sys.argv[1]], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)";
    let said = system.exec(&[], &["python3", "-c", script, name])?;
    ensure!(said.status == 0, "{}{}", said.out, said.err);
    said.out.trim().parse().context("reading the memory that was used")
}

fn volume_digest(system: &Sandbox, name: &str) -> Result<String> {
    let shown = system.show()?;
    let digest = shown["qubes"][name]["volumes"]["root"]["sha256"].as_str();
    digest.map(str::to_owned).with_context(|| format!("{name} has no root volume"))
}

#[test]
fn the_demonstration_ends_with_equal_digests_and_no_denied_call() -> Result<()> {
    let place = folder()?;
    let out = success(place.path(), SANDBOX, ["demo", "demo"])?;
    for wanted in ["\nequal\n", ", 0 denied by the policy", "Installed Templates\ndemo-1 "] {
        ensure!(out.contains(wanted), "{wanted:?} is not in {out}");
    }
    Ok(())
}

#[test]
fn packages_of_rpmbuild_and_rpmsign_arrive_whole() -> Result<()> {
    let (place, system) = (folder()?, Sandbox::new()?);
    let at = place.path();
    make_key(at)?;
    // The first image is all data for tar, so it fills three parts of 1 GiB. The second is larger, but tar sees its holes;
    // its parts are small, so that there are three again and xz has little to do.
    let sized = |bytes: u64, script: &str| shell(at, &format!("SIZE={bytes}\n{IMAGE}\n{script}"));
    let full = "mkdir -p parts; rm -f parts/*
        tar cf - root.img | split -d -b 1G - parts/root.img.part.; ls parts | wc -l; sha256sum < root.img";
    let first = sized((2 << 30) + (96 << 20), full)?;
    rpmbuild(at, "full", "w1.zstdio")?;
    let sparse = "rm -f parts/*
        tar --sparse -cf - root.img | split -d -b 300K - parts/root.img.part.; ls parts | wc -l; sha256sum < root.img";
    let second = sized(9 << 30, &format!("rm root.img; {IMAGE}; {sparse}"))?;
    rpmbuild(at, "sparse", "w2.xzdio")?;
    publish(at, &system)?;
    for (name, said) in [("full", first), ("sparse", second)] {
        let (parts, digest) = said.split_once('\n').context("two lines")?;
        assert_eq!(parts, "3", "{name}");
        let memory = install(&system, name)?;
        assert_eq!(digest.split_whitespace().next(), Some(volume_digest(&system, name)?.as_str()), "{name}");
        assert!(memory < 64 << 10, "{name} took {memory} KiB");
    }
    assert!(system.log()?.iter().all(|call| call.allowed), "a call was denied");
    Ok(())
}
