//! Packages that are rightly signed and want more memory, disk or time than there is: attack A7.

use std::io::{Read as _, Write as _};

use anyhow::{Context as _, Result, ensure};

use super::{INSTALL, World};
use crate::support::packages::key;
use crate::trust::payloads::{File, cpio, pack, sparse, tar, template, with_payload};
use crate::trust::surgery::{BIN, Rpm, STRING};

/// `rpm` signed by the key of `first`, with right digests.
fn signed(rpm: Rpm) -> Result<Vec<u8>> {
    let mut rpm = rpm.unsigned();
    let signature = key("first")?.sign(&rpm.header.bytes()[..], 1_762_300_000)?;
    rpm.signature.insert(267, BIN, &signature);
    Ok(rpm.fix_digests().bytes())
}

fn zeros(length: u64) -> impl std::io::Read {
    std::io::repeat(0).take(length)
}

/// What a program makes of zeros.
fn packed_by(program: &str, beginning: &[u8], length: u64) -> Result<Vec<u8>> {
    use std::process::{Command, Stdio};
    let mut child = Command::new(program)
        .args(["-c", "-1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {program}"))?;
    let mut stdin = child.stdin.take().context("its input")?;
    let output = std::thread::scope(|scope| {
        scope.spawn(move || {
            let _ = stdin.write_all(beginning);
            let _ = std::io::copy(&mut zeros(length), &mut stdin);
        });
        child.wait_with_output()
    })?;
    ensure!(output.status.success(), "{program} failed");
    Ok(output.stdout)
}

/// Offers `rpm` as what its header says it is.
fn serve(world: &World, rpm: Rpm) -> Result<()> {
    let bytes = signed(rpm)?;
    world.package(&bytes)?;
    let name = "qubes-template-test|0|4.3.0|202511051200|first|";
    world.reply(format!("{name}{}|2025-11-05 12:00|GPL|u|s|d|\n", bytes.len()))
}

#[test]
fn a7_bombs_end_within_memory_and_disk() -> Result<()> {
    let world = World::new()?;
    let base = Rpm::read(&crate::trust::package("tiny"));
    let install = [&INSTALL[..4], &["test"]].concat();
    let image = tar(b'0', &[7; 5000], |_| {});
    let files = template(&image, 3000);
    let archive = cpio(&files);

    // Zeros without measure behind the archive's beginning, in each compression.
    let length = 2 << 30;
    let mut zstd = zstd::stream::write::Encoder::new(Vec::new(), 1)?;
    zstd.write_all(&archive[..archive.len() / 2])?;
    std::io::copy(&mut zeros(length), &mut zstd)?;
    let half = &archive[..archive.len() / 2];
    for (compressor, bytes) in [
        ("zstd", zstd.finish()?),
        ("gzip", packed_by("gzip", half, 256 << 20)?),
        ("xz", packed_by("xz", half, 256 << 20)?),
    ] {
        let mut rpm = with_payload(&base, &files, bytes, None);
        rpm.header.set(1125, STRING, format!("{compressor}\0").as_bytes());
        serve(&world, rpm)?;
        // The digest is right and the archive begins well, so an import begins, and is undone.
        let said = world.tool(&install)?;
        ensure!(
            said.status == 1 && said.err.contains("the archive in the payload is malformed"),
            "{}",
            said.err
        );
        ensure!(world.sandbox.show()?["qubes"]["test"].is_null(), "{compressor}: the template stayed");
    }

    // An image of 8 PiB in one hole, and a part that claims to be as long as the list can say.
    let huge = tar(b'S', b"", |h| sparse(h, b"77777777777\0", &[]));
    serve(&world, pack(&base, &template(&huge, 3000)))?;
    world.refuses(&with_cap(&install, "--max-image-size=4M"), "at most 4194304 are allowed")?;
    let endless = tar(b'S', &[0; 4096], |h| {
        sparse(h, b"00000010000\0", &[]);
        h[482] = 1;
    });
    serve(&world, pack(&base, &template(&endless, 3000)))?;
    world.refuses(&install, "Failed to extract test template: ")?;

    // Headers: more entries than bytes, values beyond the end, more entries than anybody needs.
    let good = signed(pack(&base, &files))?;
    for (at, value) in
        [(96 + 8, u32::MAX), (96 + 12, u32::MAX), (96 + 8, 0x0fff_ffff), (96 + 12, 0x7fff_ffff)]
    {
        let mut bytes = good.clone();
        bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
        world.package(&bytes)?;
        let line = format!("qubes-template-test|0|4.3.0|202511051200|first|{}|", bytes.len());
        world.reply(format!("{line}2025-11-05 12:00|GPL|u|s|d|\n"))?;
        world.refuses(&install, "the package is refused: ")?;
    }
    let many: Vec<File> = (0..5000).map(|n| crate::trust::payloads::file(&format!("/{n}"), b"")).collect();
    serve(&world, pack(&base, &[files.clone(), many].concat()))?;
    world.refuses(&install, "the package is refused: ")?;

    // And the same package without a bomb is taken.
    serve(&world, pack(&base, &files))?;
    world.must(&with_cap(&install, "--max-image-size=5000"))?;
    Ok(())
}

fn with_cap<'a>(command: &[&'a str], option: &'a str) -> Vec<&'a str> {
    [&command[..1], &[option], &command[1..]].concat()
}
