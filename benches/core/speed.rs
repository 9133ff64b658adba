//! How fast each adaptor is by itself.

use std::hint::black_box;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use qvm_template::io::hash::Hash;
use qvm_template::io::tail::HoldBack;

use crate::fixture::{arrive, copy, judge};

/// How often each is timed.
const ROUNDS: usize = 11;
const MIB: usize = 1 << 20;

/// Times every adaptor and prints MiB a second, of the bytes that go in (of holes: that come out).
pub fn measure(folder: &Path) -> Result<()> {
    let data: Vec<u8> = (0..16 * MIB as u64).map(|n| n.wrapping_mul(n).to_le_bytes()[1]).collect();
    for (name, hash) in [("MD5", Hash::Md5), ("SHA-256", Hash::Sha256), ("SHA-512", Hash::Sha512)] {
        row(name, data.len(), || {
            black_box(hash.of(&data));
            Ok(())
        })?;
    }
    row("hold back", data.len(), || {
        let mut out = HoldBack::new(io::sink(), data.len() as u64, 4096);
        data.chunks(256 << 10).try_for_each(|piece| out.write_all(piece))?;
        Ok(out.release()?)
    })?;
    for name in ["zstd", "xz", "holes"] {
        let spooled = arrive(folder, name)?;
        let packed = usize::try_from(spooled.size())?;
        let verified = judge(spooled, folder)?;
        row(&format!("{name}: arrive, hash"), packed, || arrive(folder, name).map(drop))?;
        row(&format!("{name}: decode, tar"), if name == "holes" { 1024 * MIB } else { 16 * MIB }, || {
            copy(&verified).map(drop)
        })?;
    }
    Ok(())
}

fn row(name: &str, bytes: usize, mut work: impl FnMut() -> Result<()>) -> Result<()> {
    let mut seconds = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        work()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    #[allow(clippy::cast_precision_loss, reason = "a few GiB")]
    let rate = |seconds: f64| bytes as f64 / MIB as f64 / seconds;
    let [fast, middle, slow] = [0, ROUNDS / 2, ROUNDS - 1].map(|at| rate(seconds[at]));
    println!("{name:<22} {slow:>9.0} / {middle:>9.0} / {fast:>9.0} MiB/s (min/median/max of {ROUNDS})");
    Ok(())
}
