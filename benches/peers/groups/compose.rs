//! Composing an image beside the programs that make one of a folder: a folder of many small and some large files.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::measure::{Cost, here};
use crate::rows::{Bench, mebibytes, memory, wall};
use crate::table::RowResult;

const BUILDER: &str = env!("CARGO_BIN_EXE_qubes-template-build");

/// As much as a small template has.
pub fn small(bench: &Bench) -> Result<Vec<RowResult>> {
    rows(
        bench,
        ["compose", "compose-memory", "compose-tar", "compose-oci", "compose-squashfs"],
        bench.either(40, 200),
    )
}

/// As much as a large one has.
pub fn large(bench: &Bench) -> Result<Vec<RowResult>> {
    let names =
        ["compose-5G", "compose-5G-memory", "compose-5G-tar", "compose-5G-oci", "compose-5G-squashfs"];
    let mut rows = rows(bench, names, bench.either(100, 5000))?;
    rows.truncate(2);
    Ok(rows)
}

fn rows(bench: &Bench, names: [&'static str; 5], size: u64) -> Result<Vec<RowResult>> {
    let (folder, entries) = tree(bench, size)?;
    bench.ready()?;
    let place = bench.data.place("compose");
    let _ = fs::remove_dir_all(&place);
    fs::create_dir_all(&place)?;
    let folder = folder.display().to_string();
    let layer = format!("dir:{folder}");
    let room = format!("{}M", size * 2 + 100);
    let shell = |script: String| here(&["bash", "-ec", &script, &folder]);
    let compose = |layer: &str, arguments: &[&str], name: &str| -> Result<Cost> {
        let out = place.join(name);
        let _ = fs::remove_file(&out);
        let out = out.display().to_string();
        here(&[&[BUILDER, "compose", "--no-digest", "--layer", layer, "-o", &out][..], arguments].concat())
    };
    let at = |name: &str| place.join(name).display().to_string();

    let [ours, theirs] = bench.alternate([
        Box::new(|| compose(&layer, &["--no-partitions", "--size", &room], "ours.fs")),
        Box::new(|| {
            let out = at("theirs.fs");
            shell(format!("rm -f {out}; mke2fs -q -t ext4 -b 4096 -d \"$0\" {out} {room}"))
        }),
    ])?;
    let what = "wall s, compose of a folder to ext4; mke2fs -d of the same folder";
    let mut rows = vec![RowResult::new(names[0], what, "s", (&wall(&ours), &wall(&theirs)), 0.5)];
    let bound = [64.0 + mebibytes(200 * entries)];
    let what = "MiB in memory, the same; 64 MiB and 200 bytes for each name";
    rows.push(RowResult::new(names[1], what, "MiB", (&memory(&ours), &bound), 1.0));
    if names[0] == "compose" {
        let [ours, theirs] = bench.alternate([
            Box::new(|| compose(&layer, &["--format", "tar"], "ours.tar")),
            Box::new(|| {
                shell(format!(
                    "tar --sort=name --numeric-owner -cf - -C \"$0\" . | cat > {}",
                    at("theirs.tar")
                ))
            }),
        ])?;
        let what = "wall s, compose of a folder to a tar archive; tar --sort=name";
        rows.push(RowResult::new(names[2], what, "s", (&wall(&ours), &wall(&theirs)), 1.1));

        compose(&layer, &["--format", "oci"], "layout.tar")?;
        shell(format!(
            "mkdir {0}; tar -xf {1} -C {0}; sed -i 's/\"platform\"/\"annotations\":{{\"org.opencontainers.image.ref.name\":\"x\"}},&/' {0}/index.json",
            at("layout"),
            at("layout.tar")
        ))?;
        let layout = format!("oci:{}", at("layout"));
        let [ours, theirs] = bench.alternate([
            Box::new(|| compose(&layout, &["--no-partitions", "--size", &room], "oci.fs")),
            Box::new(|| {
                let out = at("bundle");
                shell(format!("rm -rf {out}; umoci raw unpack --image {}:x {out}", at("layout")))
            }),
        ])?;
        let what = "wall s, compose of an OCI layout to ext4; umoci unpacking it to a folder, which mke2fs had still to read";
        rows.push(RowResult::new(names[3], what, "s", (&wall(&ours), &wall(&theirs)), 1.0));

        let [ours, theirs] = bench.alternate([
            Box::new(|| compose(&layer, &["--format", "squashfs"], "ours.squashfs")),
            Box::new(|| {
                let out = at("theirs.squashfs");
                shell(format!("mksquashfs \"$0\" {out} -quiet -no-progress -noappend -comp zstd"))
            }),
        ])?;
        let what = "wall s, compose of a folder to squashfs (by tar2sqfs); mksquashfs";
        rows.push(RowResult::new(names[4], what, "s", (&wall(&ours), &wall(&theirs)), 1.5));
    }
    fs::remove_dir_all(&place)?;
    Ok(rows)
}

/// A folder with `size` MiB in files, made once; and how many names it has.
fn tree(bench: &Bench, size: u64) -> Result<(PathBuf, u64)> {
    let folder = bench.data.place(&format!("tree-{size}"));
    let (files, each) = (size * 48, 12 << 10);
    let names = files + files.div_ceil(100) + size.div_ceil(8);
    if folder.exists() {
        return Ok((folder, names));
    }
    let making = folder.with_extension("new");
    let _ = fs::remove_dir_all(&making);
    // text that a compressor makes a third of, as programs are
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut block: Vec<u8> = Vec::with_capacity(4 << 20);
    while block.len() < 4 << 20 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        block.extend(format!("{:x} ", state % 100_000).bytes());
    }
    let write = |path: &Path, from: usize, len: usize| {
        fs::write(path, &block[from..from + len]).with_context(|| format!("writing {}", path.display()))
    };
    for number in 0..files {
        let place = making.join(format!("usr/share/{}", number / 100));
        if number % 100 == 0 {
            fs::create_dir_all(&place).with_context(|| format!("making {}", place.display()))?;
        }
        let seed = usize::try_from(number * 7919 % (1 << 20))?;
        write(&place.join(format!("file-{number}")), seed, each - seed % 9000)?;
    }
    for number in 0..size.div_ceil(8) {
        let from = usize::try_from(number * 4099 % (1 << 19))?;
        write(&making.join(format!("usr/large-{number}")), from, 3 << 20)?;
    }
    fs::rename(&making, &folder).context("naming the folder")?;
    Ok((folder, names))
}
