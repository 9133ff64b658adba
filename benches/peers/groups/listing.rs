//! Starting up, and asking what there is.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Result;
use sha2::{Digest as _, Sha256};

use super::whole::needs;
use crate::measure::{here, in_qube};
use crate::rows::{Bench, wall};
use crate::table::RowResult;

/// What the original imports before it does anything.
const IMPORTS: &str = "import argparse, json, subprocess";
/// Packages of the repository, as many as Fedora's repository of templates could ever have.
const PACKAGES: usize = 2000;

/// `--help`, `list --installed` and `info` on a system with 30 templates.
pub fn start(bench: &Bench) -> Result<Vec<RowResult>> {
    bench.ready()?;
    let sandbox = bench.data.sandbox("sandbox-start")?;
    let script = "for n in $(seq 30); do
        printf 'name=tpl-%s label=black' $n | qrexec-client-vm dom0 admin.vm.Create.TemplateVM
        for f in name=tpl-$n epoch=0 version=4.3.0 release=1 reponame=itl buildtime='2025-11-13 02:13:00' \\
            installtime='2025-11-14 02:13:00' license=GPL url=http://www.qubes-os.org summary=Template description=Text; do
            printf %s \"${f#*=}\" | qrexec-client-vm tpl-$n admin.vm.feature.Set+template-${f%%=*}
        done
    done >/dev/null";
    sandbox.run(&["bash", "-c", script])?;
    let command = |words: &'static [&'static str]| {
        let prefix = sandbox.prefix();
        Box::new(move || in_qube(&prefix, words))
    };
    let [help, list, info, python] = bench.alternate_for(
        bench.rounds * 4,
        [
            command(&["qvm-template", "--help"]),
            command(&["qvm-template", "list", "--installed"]),
            command(&["qvm-template", "info", "--installed", "tpl-7"]),
            command(&["/usr/bin/python3", "-c", IMPORTS]),
        ],
    )?;
    let row = |name, what, ours: &[_]| RowResult::new(name, what, "s", (&wall(ours), &wall(&python)), 0.5);
    Ok(vec![
        row("start-help", "wall s, --help; python3 importing argparse, json and subprocess", &help),
        row("start-list", "wall s, list --installed with 30 templates; the same", &list),
        row("start-info", "wall s, info --installed NAME with 30 templates; the same", &info),
    ])
}

/// `list --available` with 2,000 packages, the metadata at hand and not.
pub fn available(bench: &Bench) -> Result<Vec<RowResult>> {
    needs("dnf")?;
    bench.ready()?;
    let sandbox = bench.data.sandbox("sandbox-available")?;
    let repository = sandbox.files("sys-net", "srv/templates")?;
    write_repository(&repository)?;
    sandbox.know_repository()?;
    let home = bench.data.place("dnf");
    fs::create_dir_all(&home)?;
    let set = |key: &str| format!("--setopt={key}={}/{key}", home.display());
    let dnf = [
        "dnf".to_owned(),
        "-q".to_owned(),
        set("reposdir"),
        set("cachedir"),
        set("logdir"),
        set("persistdir"),
        format!("--repofrompath=bench,file://{}", repository.display()),
        "--repo=bench".to_owned(),
        "repoquery".to_owned(),
    ];
    let ours = ["qvm-template", "list", "--available"];
    let clean = "rm -rf /home/user/.cache/qubes-template-service /root/.cache/qubes-template-service /var/cache/qubes-template-service";
    let in_update_vm: Vec<std::ffi::OsString> = {
        let mut prefix = sandbox.prefix();
        prefix.splice(2..2, ["--qube".into(), "sys-net".into()]);
        prefix
    };
    let [warm, dnf_warm, cold, dnf_cold] = bench.alternate([
        Box::new(|| in_qube(&sandbox.prefix(), &ours)),
        Box::new(|| here(&dnf)),
        Box::new(|| {
            let status = std::process::Command::new(&in_update_vm[0])
                .args(&in_update_vm[1..])
                .args(["sh", "-c", clean])
                .status()?;
            anyhow::ensure!(status.success(), "emptying the service's cache ended with {status}");
            in_qube(&sandbox.prefix(), &ours)
        }),
        Box::new(|| {
            let cache = home.join("cachedir");
            if cache.exists() {
                fs::remove_dir_all(&cache)?;
            }
            here(&dnf)
        }),
    ])?;
    let row =
        |name, what, ours: &[_], dnf: &[_]| RowResult::new(name, what, "s", (&wall(ours), &wall(dnf)), 0.1);
    Ok(vec![
        row(
            "available-warm",
            "wall s, list --available of 2,000 packages, metadata at hand; dnf repoquery",
            &warm,
            &dnf_warm,
        ),
        row("available-cold", "wall s, the same without metadata at hand", &cold, &dnf_cold),
    ])
}

/// Metadata of [`PACKAGES`] packages, of the shape of createrepo_c's.
fn write_repository(place: &Path) -> Result<()> {
    let mut primary = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<metadata xmlns=\"http://linux.duke.edu/metadata/common\" \
         xmlns:rpm=\"http://linux.duke.edu/metadata/rpm\" packages=\"2000\">\n",
    );
    let mut files = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<filelists xmlns=\"http://linux.duke.edu/metadata/filelists\" packages=\"2000\">\n",
    );
    for number in 0..PACKAGES {
        let name = format!("qubes-template-fedora-{number}-xfce");
        let digest = hex(&Sha256::digest(&name));
        write!(
            primary,
            "<package type=\"rpm\"><name>{name}</name><arch>noarch</arch><version epoch=\"0\" ver=\"4.3.0\" rel=\"202511130213\"/>\
             <checksum type=\"sha256\" pkgid=\"YES\">{digest}</checksum><summary>Qubes OS template for fedora-{number}</summary>\
             <description>Qubes OS template for fedora-{number}, with the usual programs, a few pages of text about\nthem, and two lines.</description>\
             <packager></packager><url>http://www.qubes-os.org</url><time file=\"1763000000\" build=\"1763000000\"/>\
             <size package=\"1470000000\" installed=\"5000000000\" archive=\"5000000000\"/><location href=\"rpm/{name}-4.3.0-202511130213.noarch.rpm\"/>\
             <format><rpm:license>GPLv3+</rpm:license><rpm:vendor/><rpm:group>Unspecified</rpm:group><rpm:buildhost>localhost</rpm:buildhost>\
             <rpm:sourcerpm>{name}-4.3.0-202511130213.src.rpm</rpm:sourcerpm><rpm:header-range start=\"4504\" end=\"9999\"/><rpm:provides>\
             <rpm:entry name=\"{name}\" flags=\"EQ\" epoch=\"0\" ver=\"4.3.0\" rel=\"202511130213\"/></rpm:provides><rpm:requires>\
             <rpm:entry name=\"/bin/sh\" pre=\"1\"/></rpm:requires></format></package>\n",
        )?;
        writeln!(
            files,
            "<package pkgid=\"{digest}\" name=\"{name}\" arch=\"noarch\"><version epoch=\"0\" ver=\"4.3.0\" rel=\"202511130213\"/>\
             <file type=\"dir\">/var/lib/qubes/vm-templates/fedora-{number}-xfce</file></package>",
        )?;
    }
    primary.push_str("</metadata>\n");
    files.push_str("</filelists>\n");
    let folder = place.join("repodata");
    fs::create_dir_all(&folder)?;
    let mut repomd = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<repomd xmlns=\"http://linux.duke.edu/metadata/repo\">\n<revision>1763000000</revision>\n",
    );
    for (kind, text) in [("primary", primary), ("filelists", files)] {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        std::io::Write::write_all(&mut gzip, text.as_bytes())?;
        let packed = gzip.finish()?;
        writeln!(
            repomd,
            "<data type=\"{kind}\"><checksum type=\"sha256\">{}</checksum><open-checksum type=\"sha256\">{}</open-checksum>\
             <location href=\"repodata/{kind}.xml.gz\"/><timestamp>1763000000</timestamp><size>{}</size><open-size>{}</open-size></data>",
            hex(&Sha256::digest(&packed)),
            hex(&Sha256::digest(text.as_bytes())),
            packed.len(),
            text.len(),
        )?;
        fs::write(folder.join(format!("{kind}.xml.gz")), packed)?;
    }
    repomd.push_str("</repomd>\n");
    fs::write(folder.join("repomd.xml"), repomd)?;
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
