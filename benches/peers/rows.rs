//! What is compared with what.

use std::ffi::OsString;
use std::path::Path;

use anyhow::Result;
use qvm_template::build::compress::Method;

use crate::data::{Data, Filling, Sandbox, Wanted};
use crate::measure::{Cost, here, in_qube};
use crate::table::RowResult;

/// What the rounds of ours and of the peer gave.
type Figures = (Vec<f64>, Vec<f64>);

/// One comparison.
pub struct Row {
    /// Name, for the table and to choose rows by.
    pub name: &'static str,
    what: &'static str,
    unit: &'static str,
    goal: f64,
    measure: fn(&Data, usize) -> Result<Figures>,
}

impl Row {
    /// Measures it `runs` times.
    pub fn run(&self, data: &Data, runs: usize) -> Result<RowResult> {
        let (ours, peer) = (self.measure)(data, runs)?;
        Ok(RowResult::new(self.name, self.what, self.unit, (&ours, &peer), self.goal))
    }
}

const ZSTD: Wanted =
    Wanted { name: "bench-zstd", mebibytes: 2048, filling: Filling::Mixed, method: Method::Zstd, level: 3 };
const XZ: Wanted =
    Wanted { name: "bench-xz", mebibytes: 2048, filling: Filling::Mixed, method: Method::Xz, level: 2 };
const HOLES: Wanted = Wanted {
    name: "bench-holes",
    mebibytes: 10240,
    filling: Filling::MostlyHoles,
    method: Method::Zstd,
    level: 3,
};
const SMALL: Wanted = Wanted {
    name: "bench-small",
    mebibytes: 1024,
    filling: Filling::MostlyHoles,
    method: Method::Zstd,
    level: 3,
};
const LARGE: Wanted = Wanted {
    name: "bench-large",
    mebibytes: 16384,
    filling: Filling::MostlyHoles,
    method: Method::Zstd,
    level: 3,
};

/// The original's way from a package to an image.
const ORIGINAL: &str = "rpm2archive - < \"$0\" | tar xzSOf - --wildcards '*/root.img.part.*' | tar xSOf -";

/// Every row.
pub fn all() -> Vec<Row> {
    vec![
        Row {
            name: "cpu-zstd",
            what: "CPU s, verified local package to committed volume; one pass of the original into the same sink",
            unit: "s",
            goal: 1.0 / 20.0,
            measure: |data, runs| {
                let package = data.package(&ZSTD)?;
                let sandbox = data.sandbox("sandbox-zstd")?;
                sandbox.run(&create(PEER))?;
                alternate(
                    runs,
                    || Ok(install(&sandbox, data, &package, ZSTD.name)?.cpu),
                    || Ok(into_sink(&sandbox, ORIGINAL, &package, 2048)?.cpu),
                )
            },
        },
        Row {
            name: "cpu-xz",
            what: "CPU s, the same with an xz payload; xz -dc of the payload alone",
            unit: "s",
            goal: 0.9,
            measure: |data, runs| {
                let package = data.package(&XZ)?;
                let payload = data.payload(&package)?;
                let sandbox = data.sandbox("sandbox-xz")?;
                alternate(
                    runs,
                    || Ok(install(&sandbox, data, &package, XZ.name)?.cpu),
                    || Ok(decode("xz", &payload)?.cpu),
                )
            },
        },
        Row {
            name: "wall-zstd",
            what: "wall s, the same; the slower of decoder alone and sink alone",
            unit: "s",
            goal: 1.15,
            measure: |data, runs| wall(data, runs, &ZSTD, "zstd", "sandbox-wall-zstd"),
        },
        Row {
            name: "wall-xz",
            what: "wall s, the same with xz",
            unit: "s",
            goal: 1.15,
            measure: |data, runs| wall(data, runs, &XZ, "xz", "sandbox-wall-xz"),
        },
        Row {
            name: "holes",
            what: "CPU s, 10 GiB mostly holes; decoder alone and writing zeros into the same pipe",
            unit: "s",
            goal: 1.15,
            measure: |data, runs| {
                let package = data.package(&HOLES)?;
                let payload = data.payload(&package)?;
                let sandbox = data.sandbox("sandbox-holes")?;
                sandbox.run(&create(PEER))?;
                alternate(
                    runs,
                    || Ok(install(&sandbox, data, &package, HOLES.name)?.cpu),
                    || {
                        let zeros = into_sink(&sandbox, "head -c 10737418240 /dev/zero", &package, 10240)?;
                        Ok(decode("zstd", &payload)?.cpu + zeros.cpu)
                    },
                )
            },
        },
        Row {
            name: "memory-small",
            what: "MiB resident of the tool's processes, 1 GiB image; 32 MiB and the decoder's window of 2 MiB",
            unit: "MiB",
            goal: 1.0,
            measure: |data, runs| memory(data, runs, &SMALL, "sandbox-memory-small"),
        },
        Row {
            name: "memory-large",
            what: "MiB resident of the tool's processes, 16 GiB image; the same bound",
            unit: "MiB",
            goal: 1.0,
            measure: |data, runs| memory(data, runs, &LARGE, "sandbox-memory-large"),
        },
        Row {
            name: "start-help",
            what: "wall s of --help; python3 importing argparse, json and subprocess",
            unit: "s",
            goal: 0.5,
            measure: |data, runs| start(data, runs, &["--help"]),
        },
        Row {
            name: "start-list",
            what: "wall s of list --installed with 30 templates; the same Python start",
            unit: "s",
            goal: 0.5,
            measure: |data, runs| start(data, runs, &["list", "--installed"]),
        },
    ]
}

/// Name of the template that the peers import into.
const PEER: &str = "bench-peer";

fn create(name: &str) -> [&str; 4] {
    let script =
        "printf 'name=%s label=black' \"$0\" | qrexec-client-vm dom0 admin.vm.Create.TemplateVM >/dev/null";
    ["bash", "-c", script, name]
}

/// Installs from a local package and removes the template again, which is not measured.
fn install(sandbox: &Sandbox, data: &Data, package: &Path, name: &str) -> Result<Cost> {
    let keyring = data.certificate();
    let (keyring, package) = (keyring.to_string_lossy(), package.to_string_lossy());
    let command = [
        "qvm-template",
        "install",
        "-q",
        "--skip-start",
        "--updatevm=",
        &format!("--keyring={keyring}"),
        &package,
    ];
    let cost = in_qube(&sandbox.prefix(), &command)?;
    sandbox.run(&["qvm-template", "--yes", "remove", name])?;
    Ok(cost)
}

/// Runs a shell pipeline that makes an image, into an import of the peers' template.
fn into_sink(sandbox: &Sandbox, pipeline: &str, package: &Path, mebibytes: u64) -> Result<Cost> {
    let size = mebibytes << 20;
    let script = format!(
        "{{ echo {size}; {pipeline}; }} | qrexec-client-vm {PEER} admin.vm.volume.ImportWithSize+root | grep -q '^0'"
    );
    in_qube(&sandbox.prefix(), &["bash", "-c", &script, &package.to_string_lossy()])
}

fn decode(decoder: &str, payload: &Path) -> Result<Cost> {
    here(&[decoder.into(), OsString::from("-dc"), payload.into()])
}

fn wall(data: &Data, runs: usize, wanted: &Wanted, decoder: &str, place: &str) -> Result<Figures> {
    let package = data.package(wanted)?;
    let payload = data.payload(&package)?;
    let image = data.image(wanted.mebibytes, wanted.filling)?;
    let sandbox = data.sandbox(place)?;
    sandbox.run(&create(PEER))?;
    alternate(
        runs,
        || Ok(install(&sandbox, data, &package, wanted.name)?.wall),
        || {
            let sink = into_sink(&sandbox, "cat \"$0\"", &image, wanted.mebibytes)?;
            Ok(decode(decoder, &payload)?.wall.max(sink.wall))
        },
    )
}

fn memory(data: &Data, runs: usize, wanted: &Wanted, place: &str) -> Result<Figures> {
    let package = data.package(wanted)?;
    let sandbox = data.sandbox(place)?;
    #[allow(clippy::cast_precision_loss, reason = "a count of bytes in memory is far below 2^52")]
    let mebibytes = |cost: Cost| cost.memory as f64 / f64::from(1 << 20);
    alternate(runs, || Ok(mebibytes(install(&sandbox, data, &package, wanted.name)?)), || Ok(34.0))
}

fn start(data: &Data, runs: usize, words: &[&str]) -> Result<Figures> {
    let sandbox = data.sandbox("sandbox-start")?;
    let script = "for n in $(seq 30); do
        printf 'name=tpl-%s label=black' $n | qrexec-client-vm dom0 admin.vm.Create.TemplateVM
        for f in name=tpl-$n epoch=0 version=4.3.0 release=1 reponame=itl; do
            printf %s \"${f#*=}\" | qrexec-client-vm tpl-$n admin.vm.feature.Set+template-${f%%=*}
        done
    done >/dev/null";
    sandbox.run(&["bash", "-c", script])?;
    let command: Vec<&str> = std::iter::once("qvm-template").chain(words.iter().copied()).collect();
    alternate(
        runs,
        || Ok(in_qube(&sandbox.prefix(), &command)?.wall),
        || Ok(in_qube(&sandbox.prefix(), &["python3", "-c", "import argparse, json, subprocess"])?.wall),
    )
}

/// Ours and the peer's in turn, after one round that is not counted.
fn alternate(
    runs: usize,
    mut ours: impl FnMut() -> Result<f64>,
    mut peer: impl FnMut() -> Result<f64>,
) -> Result<Figures> {
    ours()?;
    peer()?;
    let mut figures = (Vec::new(), Vec::new());
    for _ in 0..runs {
        figures.0.push(ours()?);
        figures.1.push(peer()?);
    }
    Ok(figures)
}
