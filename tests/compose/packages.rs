//! RPM packages as layers, made by rpmbuild and asked about by rpm.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::command::{fails, make, program};
use super::{have, run};

/// A base in which packages can be registered: users, a database, and units that catch up.
struct Base {
    place: tempfile::TempDir,
}

const SPECS: [(&str, &str); 9] = [
    (
        "basepkg",
        "Provides: libbase = 1 /bin/sh /sbin/ldconfig\n%install\nmkdir -p %{buildroot}/usr/bin %{buildroot}/etc\n\
         echo base > %{buildroot}/usr/bin/basetool\necho old > %{buildroot}/etc/base.conf\n\
         %transfiletriggerin -- /usr/share/schemas\necho compile 'them'\n%filetriggerin -- /usr/lib64/lib\n/sbin/ldconfig\n\
         %files\n/usr/bin/basetool\n%config(noreplace) /etc/base.conf\n",
    ),
    (
        "layertest",
        "Requires: libbase >= 1\nRequires: /usr/bin/basetool\n%install\ncd %{buildroot}\n\
         mkdir -p usr/bin etc usr/share/layertest usr/lib/sysusers.d usr/lib64\n\
         head -c 300000 /dev/zero | tr '\\0' x > usr/share/layertest/a\n\
         ln usr/share/layertest/a usr/share/layertest/b\nln usr/share/layertest/a usr/share/layertest/c\n\
         : > usr/share/layertest/e1\nln usr/share/layertest/e1 usr/share/layertest/e2\nln -s a usr/share/layertest/link\n\
         echo cap > usr/bin/capbin\necho suid > usr/bin/suidbin\necho new > etc/admin.conf\necho new > etc/plain.conf\n\
         echo 'u layered 77 -' > usr/lib/sysusers.d/layertest.conf\necho lib > usr/lib64/libl.so.1\n\
         %files\n%dir /usr/share/layertest\n/usr/share/layertest/*\n/usr/lib/sysusers.d/layertest.conf\n/usr/lib64/libl.so.1\n\
         %caps(cap_net_raw=ep) /usr/bin/capbin\n%attr(4755,games,daemon) /usr/bin/suidbin\n\
         %attr(0640,layered,layered) %config(noreplace) /etc/admin.conf\n%config /etc/plain.conf\n\
         %ghost /var/log/layertest.log\n",
    ),
    (
        "scripty",
        "%install\nmkdir -p %{buildroot}/usr/share/scripty\n%files\n/usr/share/scripty\n%post -p /sbin/ldconfig\n\
         %posttrans -p <lua>\nio.open('CANARY', 'w'):close()\n%triggerin -- basepkg\ntouch CANARY\n\
         %transfiletriggerin -- /usr/lib\ntouch CANARY\n",
    ),
    (
        "conflict",
        "%install\nmkdir -p %{buildroot}/usr/bin\necho other > %{buildroot}/usr/bin/basetool\n%files\n/usr/bin/basetool\n",
    ),
    (
        "stranger",
        "%install\nmkdir -p %{buildroot}/usr/bin\n: > %{buildroot}/usr/bin/s\n%files\n%attr(4755,nosuchuser,root) /usr/bin/s\n",
    ),
    ("needy", "Requires: libnothing.so.1 /usr/bin/nowhere\n%files\n"),
    (
        "schemas",
        "%install\nmkdir -p %{buildroot}/usr/share/schemas\n: > %{buildroot}/usr/share/schemas/x\n%files\n/usr/share/schemas/x\n",
    ),
    (
        "twin",
        "%install\nmkdir -p %{buildroot}/usr/bin\necho twin > %{buildroot}/usr/bin/capbin\n%files\n/usr/bin/capbin\n",
    ),
    ("goodbye", "%install\n%files\n%preun\ntouch CANARY\n%postun -p <lua>\nos.exit(1)\n"),
];

impl Base {
    fn new() -> Self {
        let base = Self { place: tempfile::tempdir().unwrap() };
        let canary = base.path("canary").display().to_string();
        for (name, rest) in SPECS {
            let spec = base.path(&format!("{name}.spec"));
            let (head, body) = rest.split_at(rest.find('%').unwrap());
            let text = format!(
                "Name: {name}\nVersion: 1\nRelease: 1\nSummary: x\nLicense: MIT\nBuildArch: noarch\n{head}%description\nx\n{body}"
            );
            std::fs::write(&spec, text.replace("CANARY", &canary)).unwrap();
            run(Command::new("rpmbuild")
                .args(["-bb", "--quiet", "--define"])
                .arg(format!("_topdir {}", base.path("top").display()))
                .args([
                    "--define",
                    "_buildhost localhost",
                    "--define",
                    "use_source_date_epoch_as_buildtime 1",
                ])
                .arg(&spec)
                .env("SOURCE_DATE_EPOCH", "1600000000"));
        }
        make(
            &base.path("root"),
            "mkdir -p etc usr/bin usr/lib usr/lib64 usr/lib/systemd/system usr/lib/sysimage/rpm var/log; ln -s usr/bin bin; \
             printf 'root:x:0:0::/:\\ngames:x:5:60::/:\\n' > etc/passwd; printf 'root:x:0:\\ndaemon:x:2:\\n' > etc/group; \
             : > usr/lib/systemd/system/ldconfig.service; : > usr/lib/systemd/system/systemd-sysusers.service; \
             echo base > usr/bin/basetool; echo old > etc/base.conf; echo mine > etc/admin.conf; echo mine > etc/plain.conf; \
             : > etc/.updated; : > var/.updated",
        );
        run(Command::new("rpm")
            .args(["-i", "--justdb", "--noscripts", "--notriggers", "--noplugins", "--dbpath"])
            .arg(base.path("root/usr/lib/sysimage/rpm"))
            .arg(base.package("basepkg"))
            .env("SOURCE_DATE_EPOCH", "1600000000"));
        make(
            &base.path("root"),
            "rm -f usr/lib/sysimage/rpm/rpmdb.sqlite-* usr/lib/sysimage/rpm/.rpm.lock; find . -exec touch -h -d @1500000000 {} +",
        );
        base
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn package(&self, name: &str) -> PathBuf {
        self.path(&format!("top/RPMS/noarch/{name}-1-1.noarch.rpm"))
    }

    /// A folder with some of the packages.
    fn set(&self, names: &[&str]) -> PathBuf {
        let folder = self.path(&names.join("-"));
        std::fs::create_dir_all(&folder).unwrap();
        for name in names {
            std::fs::copy(self.package(name), folder.join(format!("{name}.rpm"))).unwrap();
        }
        folder
    }

    fn compose(&self, layer: &str, packages: &Path) -> Command {
        let mut command = program();
        command.arg("compose").arg("--layer").arg(format!("dir:{}", self.path("root").display()));
        command.arg("--layer").arg(format!("{layer}:{}", packages.display()));
        command
    }

    fn refused(&self, names: &[&str]) -> String {
        let out = self.path("refused.tar");
        let said = fails(self.compose("rpm", &self.set(names)).args(["--format", "tar", "-o"]).arg(&out));
        assert!(!out.exists() && !self.path("canary").exists() && !said.contains("panicked"), "{said}");
        said
    }
}

fn have_rpm() -> bool {
    have("rpmbuild", "rpm") && have("rpm", "rpm")
}

#[test]
fn case_003_a_packages_are_put_on_a_base_and_registered() {
    if !have_rpm() {
        return;
    }
    let base = Base::new();
    let set = base.set(&["layertest", "goodbye"]);
    let mut digests = Vec::new();
    for (folder, zone) in [("one", "UTC"), ("another-place", "Asia/Tokyo")] {
        std::fs::create_dir(base.path(folder)).unwrap();
        let out = base.path(folder).join("out.tar");
        let manifest = base.path(folder).join("manifest.json");
        let mut command = base.compose("rpm", &set);
        command.args(["--format", "tar", "-o"]).arg(&out).arg("--manifest").arg(&manifest).env("TZ", zone);
        let said = run(&mut command);
        assert!(
            said.contains("/etc/admin.conf.rpmnew") && said.contains("/etc/plain.conf.rpmorig"),
            "{said}"
        );
        assert!(said.contains("nobody checked who signed"), "{said}");
        assert_eq!(std::fs::read_dir(base.path(folder)).unwrap().count(), 2, "something was left");
        digests.push(qvm_template::build::layer::sha256(&out).unwrap());
        let text = std::fs::read_to_string(&manifest).unwrap();
        assert!(
            text.contains("layertest-1-1.noarch")
                && text.contains("systemd-sysusers.service")
                && text.contains("ldconfig.service"),
            "{text}"
        );
        assert!(
            text.contains("rpm basepkg 1-1 noarch") && text.contains("rpm layertest 1-1 noarch"),
            "{text}"
        );
        assert!(text.contains("RPM version"), "{text}");
    }
    assert_eq!(digests[0], digests[1]);
    assert!(!base.path("canary").exists());

    let unpacked = base.path("unpacked");
    std::fs::create_dir(&unpacked).unwrap();
    run(Command::new("tar")
        .args(["--xattrs", "--xattrs-include=*", "-xpf"])
        .arg(base.path("one/out.tar"))
        .arg("-C")
        .arg(&unpacked));
    let stat = |path: &str, format: &str| {
        run(Command::new("stat").args(["-c", format]).arg(unpacked.join(path))).trim().to_owned()
    };
    assert_eq!(stat("usr/share/layertest/a", "%h %s"), "3 300000");
    assert_eq!(stat("usr/share/layertest/a", "%i"), stat("usr/share/layertest/c", "%i"));
    assert_eq!(stat("usr/share/layertest/e1", "%h %s"), "2 0");
    assert_eq!(std::fs::read_link(unpacked.join("usr/share/layertest/link")).unwrap(), Path::new("a"));
    assert_eq!(stat("usr/bin/suidbin", "%a %u:%g"), "4755 5:2");
    assert_eq!(stat("etc/admin.conf.rpmnew", "%a %u:%g"), "640 77:77");
    let text = |path: &str| std::fs::read_to_string(unpacked.join(path)).unwrap();
    assert_eq!((text("etc/admin.conf"), text("etc/admin.conf.rpmnew")), ("mine\n".into(), "new\n".into()));
    assert_eq!((text("etc/plain.conf"), text("etc/plain.conf.rpmorig")), ("new\n".into(), "mine\n".into()));
    for gone in
        ["var/log/layertest.log", "etc/.updated", "var/.updated", "usr/lib/sysimage/rpm/rpmdb.sqlite-shm"]
    {
        assert!(!unpacked.join(gone).exists(), "{gone}");
    }
    let mut capability = [0; 64];
    if let Ok(len) =
        rustix::fs::lgetxattr(unpacked.join("usr/bin/capbin"), "security.capability", &mut capability)
    {
        assert_eq!(capability[..len][..8], [1, 0, 0, 2, 0, 32, 0, 0]);
    } else {
        eprintln!("SKIPPED: this machine lets nobody set capabilities");
    }
    let rpm = |arguments: &[&str]| {
        run(Command::new("rpm").arg("--dbpath").arg(unpacked.join("usr/lib/sysimage/rpm")).args(arguments))
    };
    assert_eq!(rpm(&["-q", "layertest", "--qf", "%{INSTALLTIME} %{EVR}"]), "1700000000 1-1");
    assert!(rpm(&["-q", "--whatrequires", "libbase"]).contains("layertest"));
    assert!(rpm(&["-ql", "layertest"]).contains("/var/log/layertest.log"));
}

#[test]
fn case_003_a_what_cannot_be_left_out_is_refused_by_name() {
    if !have_rpm() {
        return;
    }
    let base = Base::new();
    let said = base.refused(&["scripty"]);
    for wanted in
        ["POSTINPROG /sbin/ldconfig", "POSTTRANS <lua>", "TRIGGERIN /bin/sh", "TRANSFILETRIGGERIN /bin/sh"]
    {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    let said = base.refused(&["conflict"]);
    assert!(said.contains("/usr/bin/basetool") && said.contains("basepkg"), "{said}");
    let said = base.refused(&["stranger"]);
    assert!(said.contains("nosuchuser") && said.contains("usr/bin/s"), "{said}");
    let said = base.refused(&["schemas"]);
    assert!(said.contains("TRANSFILETRIGGERIN") && said.contains("basepkg"), "{said}");
    let said = base.refused(&["twin", "layertest"]);
    assert!(said.contains("/usr/bin/capbin"), "{said}");
    let said = base.refused(&["basepkg"]);
    assert!(said.contains("already in the tree"), "{said}");
    let said = base.refused(&["needy"]);
    assert!(said.contains("libnothing.so.1") && said.contains("help:"), "{said}");
    let output = base.compose("rpm", &base.set(&["needy", "layertest"])).arg("--missing").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let lines = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        lines,
        "/usr/bin/nowhere is needed by needy-1-1.noarch\nlibnothing.so.1 is needed by needy-1-1.noarch\n"
    );
    let output = base.compose("rpm", &base.set(&["layertest"])).arg("--missing").output().unwrap();
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    // without a database nothing would ever update the package
    std::fs::remove_dir_all(base.path("root/usr/lib/sysimage")).unwrap();
    assert!(base.refused(&["goodbye"]).contains("no rpm database"));
}

#[test]
fn packages_must_be_whole_and_signed_by_whom_the_recipe_names() {
    if !have_rpm() || !have("rpmsign", "rpm") || !have("gpg", "gnupg") {
        return;
    }
    let base = Base::new();
    let whole = std::fs::read(base.package("layertest")).unwrap();
    let damaged = base.path("damaged.rpm");
    for at in [whole.len() - 9, whole.len() / 2, 900, 200] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(&damaged, bytes).unwrap();
        let out = base.path("out.tar");
        let said = fails(base.compose("rpm", &damaged).args(["--format", "tar", "-o"]).arg(&out));
        assert!(said.contains("damaged.rpm") && !out.exists() && !said.contains("panicked"), "{at}: {said}");
    }
    let key = |name: &str| {
        let paths = [base.path(&format!("{name}.secret")), base.path(&format!("{name}.asc"))];
        run(program()
            .args(["keygen", "--seed", name, "--algorithm", "rsa3072", "--user", name, "--secret"])
            .arg(&paths[0])
            .arg("--public")
            .arg(&paths[1]));
        paths
    };
    let [secret, public] = key("mine");
    let [_, other] = key("other");
    let home = base.path("gnupg");
    std::fs::create_dir(&home).unwrap();
    run(Command::new("chmod").arg("700").arg(&home));
    run(Command::new("gpg").args(["--batch", "--quiet", "--import"]).arg(&secret).env("GNUPGHOME", &home));
    let set = base.set(&["layertest"]);
    run(Command::new("rpmsign")
        .args(["--define", "__gpg /usr/bin/gpg", "--define", "_gpg_name mine", "--addsign"])
        .arg(set.join("layertest.rpm"))
        .env("GNUPGHOME", &home));
    let compose = |keys: &Path| {
        let mut command = base.compose(&format!("rpm,keys={}", keys.display()), &set);
        command
            .env("SOURCE_DATE_EPOCH", "2000000000")
            .args(["--format", "tar", "--json", "-o"])
            .arg(base.path("signed.tar"));
        command
    };
    let said = run(&mut compose(&public));
    assert!(said.contains("\"signer\"") && !said.contains("nobody checked"), "{said}");
    let said = fails(&mut compose(&other));
    assert!(said.contains("layertest.rpm"), "{said}");
    let layer = format!("rpm,keys={}", public.display());
    let said = fails(
        base.compose(&layer, &base.package("goodbye")).args(["--format", "tar", "-o"]).arg(base.path("x")),
    );
    assert!(said.contains("not signed") || said.contains("signature"), "{said}");
}
