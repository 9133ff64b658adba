//! The builder beside the programs that a package's payload is usually made with.

use std::fs;

use anyhow::Result;

use crate::data::Filling;
use crate::measure::here;
use crate::rows::{Bench, memory, wall};
use crate::table::RowResult;

/// Level 3, where everything that is not compressing shows.
pub fn fast(bench: &Bench) -> Result<Vec<RowResult>> {
    let sizes = bench.either([64, 256], [512, 2048]);
    let (mut rows, mut peaks) = (Vec::new(), Vec::new());
    for mebibytes in sizes {
        let (row, peak) = pack(bench, "pack-3", mebibytes, 3)?;
        rows.push(row);
        peaks.push(peak);
    }
    let memory = RowResult::new(
        "pack-3-memory",
        "MiB, pack of the larger image; of one a quarter as large",
        "MiB",
        (&peaks[1], &peaks[0]),
        1.1,
    );
    Ok(vec![rows.remove(1), memory])
}

/// Level 19, the usual one.
pub fn usual(bench: &Bench) -> Result<Vec<RowResult>> {
    Ok(vec![pack(bench, "pack-19", bench.either(32, 96), 19)?.0])
}

fn pack(bench: &Bench, name: &str, mebibytes: u64, level: u32) -> Result<(RowResult, Vec<f64>)> {
    let image = bench.data.image(mebibytes, Filling::Mixed)?;
    bench.ready()?;
    let place = bench.data.place("pack");
    let _ = fs::remove_dir_all(&place);
    fs::create_dir_all(&place)?;
    let recipe = place.join("recipe.toml");
    fs::write(
        &recipe,
        "name = \"bench\"\nversion = \"1\"\nrelease = \"1\"\nsummary = \"Benchmark\"\nsource_date = 1763000000\n",
    )?;
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    let (image, package) = (image.display().to_string(), place.join("ours.rpm").display().to_string());
    let ours = words(&[
        env!("CARGO_BIN_EXE_qubes-template-build"),
        "pack",
        &image,
        "--recipe",
        &recipe.display().to_string(),
        "--level",
        &level.to_string(),
        "--output",
        &package,
    ]);
    let script = format!(
        "set -o pipefail; tar -cS -C \"${{0%/*}}\" -f - \"${{0##*/}}\" | \
         split -b 1G --filter='zstd -q -T0 -{level} > $FILE' - {}/theirs.",
        place.display()
    );
    let [ours, theirs] =
        bench.alternate([Box::new(|| here(&ours)), Box::new(|| here(&["bash", "-c", &script, &image]))])?;
    let what = "wall s, pack; tar -S | split | zstd -T0 of the same image with the same level";
    let row = RowResult::new(name, what, "s", (&wall(&ours), &wall(&theirs)), 1.1);
    fs::remove_dir_all(&place)?;
    Ok((row, memory(&ours)))
}
