//! From a local package to a committed volume.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context as _, Result};
use qvm_template::build::compress::Method;

use super::{holes as mostly_holes, mixed};
use crate::data::{KEYRING, Sandbox, Wanted};
use crate::measure::{self, Cost, here, in_qube};
use crate::rows::{Bench, Side, cpu, memory as in_memory, slower, wall};
use crate::table::RowResult;

/// One pass of the original's way from a package to an image.
pub const ORIGINAL: &str =
    "rpm2archive - < \"$0\" | tar xzSOf - --wildcards '*/root.img.part.*' | tar xSOf -";

/// zstd in one frame, as Qubes ships it.
pub fn zstd(bench: &Bench) -> Result<Vec<RowResult>> {
    let wanted = mixed("bench-zstd", bench.either(256, 2048), Method::Zstd, 3);
    let case = Case::new(bench, &wanted, "zstd")?;
    let [ours, original, decoder, sink] = bench.alternate([
        case.ours(),
        case.pipe_to_sink(ORIGINAL, &case.package),
        case.decoder(&["zstd", "-dcq"]),
        case.sink()?,
    ])?;
    Ok(vec![
        RowResult::new(
            "cpu-zstd",
            "CPU s, local package to committed volume; one pass of the original into the same sink",
            "s",
            (&cpu(&ours), &cpu(&original)),
            1.0 / 20.0,
        ),
        RowResult::new(
            "wall-zstd",
            "wall s, the same; the slower of decoder alone and sink alone",
            "s",
            (&wall(&ours), &slower(&wall(&decoder), &wall(&sink))),
            1.15,
        ),
    ])
}

/// zstd in many frames, as our builder writes it.
pub fn frames(bench: &Bench) -> Result<Vec<RowResult>> {
    let wanted = Wanted { seams: true, ..mixed("bench-frames", bench.either(256, 2048), Method::Zstd, 3) };
    let case = Case::new(bench, &wanted, "frames")?;
    let [ours, decoder, sink] =
        bench.alternate([case.ours(), case.decoder(&["zstd", "-dcq"]), case.sink()?])?;
    Ok(vec![RowResult::new(
        "wall-zstd-frames",
        "wall s, zstd in many frames; the slower of decoder alone and sink alone",
        "s",
        (&wall(&ours), &slower(&wall(&decoder), &wall(&sink))),
        1.15,
    )])
}

/// xz in one block, as Qubes shipped it.
pub fn xz(bench: &Bench) -> Result<Vec<RowResult>> {
    let wanted = mixed("bench-xz", bench.either(256, 2048), Method::Xz, 2);
    let case = Case::new(bench, &wanted, "xz")?;
    let [ours, decoder, sink] = bench.alternate([case.ours(), case.decoder(&["xz", "-dc"]), case.sink()?])?;
    Ok(vec![
        RowResult::new(
            "cpu-xz",
            "CPU s, local package to committed volume; xz -dc of the payload alone",
            "s",
            (&cpu(&ours), &cpu(&decoder)),
            0.9,
        ),
        RowResult::new(
            "wall-xz",
            "wall s, the same; the slower of decoder alone and sink alone",
            "s",
            (&wall(&ours), &slower(&wall(&decoder), &wall(&sink))),
            1.15,
        ),
    ])
}

/// xz in many blocks, as our builder writes it.
pub fn blocks(bench: &Bench) -> Result<Vec<RowResult>> {
    let wanted = Wanted { seams: true, ..mixed("bench-blocks", bench.either(256, 1024), Method::Xz, 2) };
    let case = Case::new(bench, &wanted, "blocks")?;
    let [ours, decoder, sink] =
        bench.alternate([case.ours(), case.decoder(&["xz", "-dc", "-T2"]), case.sink()?])?;
    Ok(vec![RowResult::new(
        "wall-xz-blocks",
        "wall s, xz in many blocks; the slower of xz -dc -T2 alone and sink alone",
        "s",
        (&wall(&ours), &slower(&wall(&decoder), &wall(&sink))),
        1.15,
    )])
}

/// An image that is mostly holes.
pub fn holes(bench: &Bench) -> Result<Vec<RowResult>> {
    let wanted = mostly_holes("bench-holes", bench.either(2048, 10240));
    let case = Case::new(bench, &wanted, "holes")?;
    let zeros = format!("\"$0\" {} {}", measure::ZEROS, wanted.mebibytes << 20);
    let itself = std::env::current_exe()?;
    let [ours, decoder, zeros] = bench.alternate([
        case.ours(),
        case.decoder(&["zstd", "-dcq"]),
        case.pipe_to_sink(&zeros, &itself),
    ])?;
    let sum = |one: Vec<f64>, other: Vec<f64>| -> Vec<f64> {
        one.iter().zip(other).map(|(one, other)| one + other).collect()
    };
    let what = "10 GiB mostly holes (2 with --quick); decoder alone and writing zeros into the same pipe";
    Ok(vec![
        RowResult::new("holes-cpu", what, "s", (&cpu(&ours), &sum(cpu(&decoder), cpu(&zeros))), 1.15),
        RowResult::new("holes-wall", what, "s", (&wall(&ours), &sum(wall(&decoder), wall(&zeros))), 1.15),
    ])
}

/// Memory, which must not depend on the image.
pub fn memory(bench: &Bench) -> Result<Vec<RowResult>> {
    let mut rows = Vec::new();
    let row = |name, what, ours: &[crate::measure::Cost], bound| {
        RowResult::new(name, what, "MiB", (&in_memory(ours), &[bound]), 1.0)
    };
    let sizes = [
        ("memory-small", mostly_holes("bench-small", bench.either(256, 1024))),
        ("memory-large", mostly_holes("bench-large", bench.either(4096, 16384))),
    ];
    for (name, wanted) in sizes {
        let case = Case::new(bench, &wanted, name);
        let Ok(case) = case else { continue };
        let [ours] = bench.alternate([case.ours()])?;
        let what = "MiB of all processes of the tool; 32 MiB and the decoder's window of 2 MiB";
        rows.push(row(name, what, &ours, 34.0));
    }
    // A window of the length of our builder's frames.
    let wanted = Wanted { seams: true, ..mixed("bench-frames", bench.either(256, 2048), Method::Zstd, 3) };
    let case = Case::new(bench, &wanted, "frames")?;
    let [ours] = bench.alternate([case.ours()])?;
    let what = "MiB of all processes of the tool, frames of 8 MiB; 32 MiB and the decoder's window of 8 MiB";
    rows.push(row("memory-frames", what, &ours, 40.0));
    Ok(rows)
}

/// A package and a sandbox to install it in.
#[derive(Debug)]
struct Case<'a> {
    bench: &'a Bench,
    sandbox: Sandbox,
    package: std::path::PathBuf,
    wanted: Wanted,
}

/// Name of the template that the peers import into.
pub const PEER: &str = "bench-peer";

impl<'a> Case<'a> {
    fn new(bench: &'a Bench, wanted: &Wanted, place: &str) -> Result<Self> {
        let package = bench.data.package(wanted)?;
        bench.data.payload(&package)?;
        bench.ready()?;
        let sandbox = bench.data.sandbox(&format!("sandbox-{place}"))?;
        sandbox.run(&create(PEER))?;
        Ok(Self { bench, sandbox, package, wanted: *wanted })
    }

    fn ours(&self) -> Side<'_> {
        Box::new(|| {
            let package = self.package.to_str().context("a path in UTF-8")?;
            let command = ["qvm-template", "install", "-q", "--skip-start", "--updatevm=", KEYRING, package];
            let cost = in_qube(&self.sandbox.prefix(), &command)?;
            self.sandbox.run(&["qvm-template", "-q", "--yes", "remove", self.wanted.name])?;
            Ok(cost)
        })
    }

    /// A shell pipeline that makes an image, into an import of the peers' template. `$0` is `argument`.
    fn pipe_to_sink(&self, pipeline: &str, argument: &Path) -> Side<'_> {
        let (script, argument) = (into_sink(pipeline, self.wanted.mebibytes), argument.to_owned());
        Box::new(move || {
            in_qube(
                &self.sandbox.prefix(),
                &["bash".as_ref(), "-c".as_ref(), script.as_ref(), argument.as_os_str()],
            )
        })
    }

    /// The image itself into an import: as fast as data can go there.
    fn sink(&self) -> Result<Side<'_>> {
        let image = self.bench.data.image(self.wanted.mebibytes, self.wanted.filling)?;
        Ok(self.pipe_to_sink("cat \"$0\"", &image))
    }

    fn decoder(&self, command: &[&str]) -> Side<'_> {
        let mut words: Vec<OsString> = command.iter().map(OsString::from).collect();
        words.push(self.package.with_extension("payload").into_os_string());
        Box::new(move || -> Result<Cost> { here(&words) })
    }
}

/// The script that sends what a pipeline makes into an import of the peers' template.
pub fn into_sink(pipeline: &str, mebibytes: u64) -> String {
    let size = mebibytes << 20;
    format!(
        "set -o pipefail; {{ echo {size}; {pipeline}; }} | qrexec-client-vm {PEER} \
         admin.vm.volume.ImportWithSize+root | grep -qa '^0'"
    )
}

/// The command that creates a template for the peers.
pub fn create(name: &str) -> [&str; 4] {
    let script =
        "printf 'name=%s label=black' \"$0\" | qrexec-client-vm dom0 admin.vm.Create.TemplateVM >/dev/null";
    ["bash", "-c", script, name]
}
