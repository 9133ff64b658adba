//! From a repository to committed volumes.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use anyhow::Result;
use qvm_template::build::compress::Method;

use super::line::{ORIGINAL, PEER, create, into_sink};
use super::mixed;
use crate::data::{KEYRING, REPOSITORY, Sandbox, Wanted};
use crate::measure::{Cost, here, in_qube};
use crate::rows::{Bench, Side, cpu, mebibytes, wall, written};
use crate::table::RowResult;

/// Bytes a second of a line that is better than most have: 1 Gbit/s.
const GIGABIT: u64 = 118_000_000;

/// What the original does with a package of zstd level 19 out of a repository, replayed: it downloads, decompresses
/// once for the small files and once for the image. (Its checks of signatures and its many calls are left out.)
pub fn whole(bench: &Bench) -> Result<Vec<RowResult>> {
    let wanted = mixed("bench-whole", bench.either(192, 3072), Method::Zstd, 19);
    let package = bench.data.package(&wanted)?;
    bench.ready()?;
    let sandbox = bench.data.sandbox("sandbox-whole")?;
    sandbox.run(&create(PEER))?;
    sandbox.serve(&[&package])?;
    let size = fs::metadata(&package)?.size();
    let original = format!(
        "cd \"$HOME\" && {download} && mkdir -p x && rpm2archive - < peer.rpm | \
         tar xz -C x --exclude='root.img.part.*' && set -- && {pass}; rm -r x peer.rpm",
        download = download(&wanted),
        pass = into_sink(&ORIGINAL.replace("\"$0\"", "peer.rpm"), wanted.mebibytes)
    );
    let [ours, peer] = bench.alternate([
        ours(&sandbox, &["install", "--skip-start"], &[wanted.name], true),
        Box::new(|| in_qube(&sandbox.prefix(), &["bash", "-c", &original])),
    ])?;
    Ok(vec![
        RowResult::new(
            "cpu-whole",
            "CPU s, install --skip-start from a repository, zstd 19; the original's download and two passes",
            "s",
            (&cpu(&ours), &cpu(&peer)),
            1.0 / 30.0,
        ),
        RowResult::new(
            "disk-whole",
            "MiB written in the management qube by the same; size of the package",
            "MiB",
            (&written(&ours), &[mebibytes(size)]),
            1.02,
        ),
    ])
}

/// What a local package costs in disk: nothing where it is sealed.
pub fn disk(bench: &Bench) -> Result<Vec<RowResult>> {
    let wanted = mixed("bench-zstd", bench.either(256, 2048), Method::Zstd, 3);
    let package = bench.data.package(&wanted)?;
    bench.ready()?;
    let sandbox = bench.data.sandbox("sandbox-disk")?;
    let size = fs::metadata(&package)?.size();
    // A sealed file in memory that the command inherits, as a service that hands packages on would give it.
    let script = "import fcntl, os, subprocess, sys
fd = os.memfd_create('package', os.MFD_ALLOW_SEALING)
with open(sys.argv[1], 'rb') as f:
    while os.sendfile(fd, f.fileno(), None, 1 << 30): pass
fcntl.fcntl(fd, 1033, 1 | 2 | 4 | 8)
os.symlink(f'/proc/self/fd/{fd}', os.environ['HOME'] + '/sealed.rpm')
code = subprocess.call(['qvm-template', 'install', '-q', '--skip-start', '--updatevm=', sys.argv[2],
                        os.environ['HOME'] + '/sealed.rpm'], pass_fds=[fd])
os.unlink(os.environ['HOME'] + '/sealed.rpm')
sys.exit(code)";
    let package = package.to_string_lossy();
    let [ours] = bench.alternate([Box::new(|| {
        let cost = in_qube(&sandbox.prefix(), &["/usr/bin/python3", "-c", script, &package, KEYRING])?;
        remove(&sandbox, wanted.name)?;
        Ok(cost)
    })])?;
    Ok(vec![RowResult::new(
        "disk-sealed",
        "MiB written for a local package that is sealed; size of the package",
        "MiB",
        (&written(&ours), &[mebibytes(size)]),
        0.001,
    )])
}

/// What verifying adds to a download over a fast line.
pub fn verification(bench: &Bench) -> Result<Vec<RowResult>> {
    let wanted = mixed("bench-zstd", bench.either(256, 2048), Method::Zstd, 3);
    let package = bench.data.package(&wanted)?;
    bench.ready()?;
    let sandbox = bench.data.sandbox("sandbox-verify")?;
    sandbox.serve(&[&package])?;
    sandbox.throttle(GIGABIT)?;
    let plain = format!("cd \"$HOME\" && {} && rm peer.rpm", download(&wanted));
    let [ours, peer] = bench.alternate([
        Box::new(|| {
            let cost = in_qube(
                &sandbox.prefix(),
                &["qvm-template", "download", "-q", "--downloaddir=/home/user", wanted.name],
            );
            sandbox.run(&["bash", "-c", "rm /home/user/*.rpm"])?;
            cost
        }),
        Box::new(|| in_qube(&sandbox.prefix(), &["bash", "-c", &plain])),
    ])?;
    Ok(vec![RowResult::new(
        "verify-download",
        "wall s, download over 1 Gbit/s with verification; the same two calls into a file",
        "s",
        (&wall(&ours), &wall(&peer)),
        1.03,
    )])
}

/// Three templates at once and one after the other.
pub fn three(bench: &Bench) -> Result<Vec<RowResult>> {
    let names = ["bench-one", "bench-two", "bench-three"];
    let mut packages = Vec::new();
    for name in names {
        packages.push(bench.data.package(&mixed(name, bench.either(256, 1024), Method::Zstd, 3))?);
    }
    bench.ready()?;
    let sandbox = bench.data.sandbox("sandbox-three")?;
    sandbox.serve(&packages.iter().map(std::path::PathBuf::as_path).collect::<Vec<_>>())?;
    sandbox.throttle(GIGABIT)?;
    let words = ["install", "--skip-start"];
    let [together, apart] = bench.alternate([
        ours(&sandbox, &words, &names, true),
        Box::new(|| {
            let mut sum = Cost::default();
            for name in names {
                sum.wall += ours(&sandbox, &words, &[name], true)()?.wall;
            }
            Ok(sum)
        }),
    ])?;
    Ok(vec![RowResult::new(
        "three-templates",
        "wall s, three templates in one install, over 1 Gbit/s; the sum of three installs",
        "s",
        (&wall(&together), &wall(&apart)),
        0.75,
    )])
}

/// A command on templates, which are removed again afterwards.
fn ours<'a>(sandbox: &'a Sandbox, words: &'a [&str], names: &'a [&str], clean: bool) -> Side<'a> {
    Box::new(move || {
        let command: Vec<&str> = ["qvm-template", "-q"].iter().chain(words).chain(names).copied().collect();
        let cost = in_qube(&sandbox.prefix(), &command)?;
        if clean {
            names.iter().try_for_each(|name| remove(sandbox, name))?;
        }
        Ok(cost)
    })
}

fn remove(sandbox: &Sandbox, name: &str) -> Result<()> {
    sandbox.run(&["qvm-template", "-q", "--yes", "remove", name])?;
    // The pool gives its space back in the background.
    std::thread::sleep(Duration::from_millis(50));
    Ok(())
}

/// The calls of the original around a download, in the shell; the package becomes `peer.rpm`.
fn download(wanted: &Wanted) -> String {
    let call = |spec: &str, service: &str| {
        format!(
            "printf '%s\\n' --releasever=4.3 '{spec}' --- '{REPOSITORY}' | qrexec-client-vm sys-net qubes.Template{service}"
        )
    };
    format!(
        "{} >/dev/null && {} > peer.rpm && test -s peer.rpm",
        call(&format!("qubes-template-{}", wanted.name), "Search"),
        call(&format!("qubes-template-{}-0:4.3.0-202511130213", wanted.name), "Download"),
    )
}

/// Programs that a row needs and this machine may not have.
pub fn needs(program: &str) -> Result<()> {
    here(&["sh", "-c", &format!("command -v {program}")])
        .map(drop)
        .map_err(|_| anyhow::anyhow!("{program} is not installed"))
}
