//! The archive in a package: cpio, in the "newc" form of SVR4 and in rpm's own short form.
//!
//! ```text
//! 070701  ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check   (8 digits each)
//! name NUL, to a multiple of 4; content, to a multiple of 4; the last one is called TRAILER!!!
//! 07070X  index of the file in the header (8 digits), to a multiple of 4; content as long as the header says
//! ```
//!
//! Only contents are taken from here; everything else is the signed header's. Of names that are one file the last one
//! has the content.

use std::collections::BTreeMap;
use std::io::Read;

use anyhow::{Context, Result, bail, ensure};

use super::package::{Facts, File};
use crate::build::layer::input::{Compression, Input, Spool};
use crate::build::tree::content::{Content, Sources};
use crate::io::hash::{Hash, hex};

const REGULAR: u16 = 0o100_000;
const MAX_NAME: u64 = 4096;

/// Reads the payload of a package and returns the contents of its files, in the order of the header; those of a set of
/// names stand at the last one.
pub(super) fn contents(
    payload: impl Read,
    facts: &Facts,
    algorithm: Hash,
    sources: &mut Sources,
    spool: &mut Spool,
) -> Result<Vec<Content>> {
    let compression = match facts.compressor.as_str() {
        "gzip" => Compression::Gzip,
        "xz" => Compression::Xz,
        "zstd" => Compression::Zstd,
        other => bail!("its payload is compressed with {}, which is not supported", other.escape_debug()),
    };
    let by_path: BTreeMap<&[u8], usize> =
        facts.files.iter().enumerate().map(|(at, file)| (file.path.as_slice(), at)).collect();
    ensure!(by_path.len() == facts.files.len(), "a file is listed twice");
    let mut input = Input::stream(compression.reader(payload)?, sources, spool)?;
    let mut found: Vec<Option<Content>> = vec![None; facts.files.len()];
    while let Some((at, size)) = member(&mut input, facts, &by_path)? {
        let file = &facts.files[at];
        let context = || format!("in its payload, `{}`", String::from_utf8_lossy(&file.path).escape_debug());
        ensure!(found[at].is_none() && !file.ghost(), "{}: it does not belong there", context());
        let wanted = expected(file, at);
        ensure!(size == wanted, "{}: it has {size} bytes, not {wanted}", context());
        let (source, offset) = input.keep(size).with_context(context)?;
        input.skip(size.wrapping_neg() % 4).with_context(context)?;
        found[at] = Some(Content::whole(source, offset, size));
    }
    input.drain()?;
    drop(input);
    let mut contents = Vec::with_capacity(found.len());
    for (file, found) in facts.files.iter().zip(found) {
        let shown = || String::from_utf8_lossy(&file.path).escape_debug().to_string();
        ensure!(found.is_some() || file.ghost(), "its payload lacks `{}`", shown());
        let content = found.unwrap_or_default();
        if file.is(REGULAR) && file.last == contents.len() && !file.digest.is_empty() && !file.ghost() {
            let digest = digest(sources, &content, algorithm)?;
            ensure!(
                digest == file.digest,
                "the content of `{}` is not the one that its header names",
                shown()
            );
        }
        contents.push(content);
    }
    Ok(contents)
}

/// For fuzzers: a payload, after one byte for its compression, of a package with a file of two names, a link and a folder.
pub fn fuzz_payload(data: &[u8]) {
    let Some((kind, payload)) = data.split_first() else { return };
    let file = |path: &str, mode: u16, at: usize, first: usize, last: usize| File {
        path: path.as_bytes().to_vec(),
        mode,
        size: if at == last && mode & REGULAR == REGULAR { 5 } else { 0 },
        target: if mode & 0o170_000 == 0o120_000 { "a".to_owned() } else { String::new() },
        first,
        last,
        ..File::default()
    };
    let facts = Facts {
        name: "fuzz".to_owned(),
        evr: "1-1".to_owned(),
        arch: "noarch".to_owned(),
        obsoletes: Vec::new(),
        compressor: ["gzip", "xz", "zstd"][usize::from(kind % 3)].to_owned(),
        files: vec![
            file("usr/a", 0o100_644, 0, 0, 1),
            file("usr/b", 0o100_644, 1, 0, 1),
            file("usr/l", 0o120_777, 2, 2, 2),
            file("usr/d", 0o040_755, 3, 3, 3),
        ],
    };
    let mut sources = Sources::default();
    let Ok(mut spool) = Spool::new(&std::env::temp_dir(), 64 << 20) else { return };
    drop(contents(payload, &facts, Hash::Sha256, &mut sources, &mut spool));
}

/// Bytes that a member must have: a file's at the last of its names, a link's target.
fn expected(file: &File, at: usize) -> u64 {
    if file.is(REGULAR) && file.last == at {
        file.size
    } else if file.is(0o120_000) {
        file.target.len() as u64
    } else {
        0
    }
}

/// The next member: its number in the header and the length of its content. `None` at the end.
fn member(
    input: &mut Input<'_>,
    facts: &Facts,
    by_path: &BTreeMap<&[u8], usize>,
) -> Result<Option<(usize, u64)>> {
    let mut magic = [0; 6];
    ensure!(input.fill(&mut magic)?, "its payload has no end");
    match &magic {
        b"07070X" => {
            let mut digits = [0; 8];
            ensure!(input.fill(&mut digits)?, "its payload ends in the middle");
            input.skip(2)?;
            let at = usize::try_from(number(&digits)?)?;
            let file = facts.files.get(at).context("its payload has a file that the header does not know")?;
            Ok(Some((at, expected(file, at))))
        }
        b"070701" | b"070702" => {
            let mut head = [0; 104];
            ensure!(input.fill(&mut head)?, "its payload ends in the middle");
            let field = |at: usize| number(&head[at * 8..at * 8 + 8]);
            let (size, len) = (field(6)?, field(11)?);
            ensure!((1..=MAX_NAME).contains(&len), "a name in its payload is too long");
            let mut name = vec![0; usize::try_from(len)?];
            ensure!(input.fill(&mut name)?, "its payload ends in a name");
            input.skip((110 + len).wrapping_neg() % 4)?;
            ensure!(name.pop() == Some(0), "a name in its payload has no end");
            if name == b"TRAILER!!!" {
                return Ok(None);
            }
            let path = name.strip_prefix(b".").unwrap_or(&name);
            let path = path.strip_prefix(b"/").unwrap_or(path);
            let at = by_path.get(path).with_context(|| {
                format!(
                    "its payload has `{}`, which its header does not know",
                    String::from_utf8_lossy(&name).escape_debug()
                )
            })?;
            Ok(Some((*at, size)))
        }
        _ => bail!("its payload is no cpio archive, or damaged"),
    }
}

fn number(digits: &[u8]) -> Result<u64> {
    ensure!(digits.iter().all(u8::is_ascii_hexdigit), "a number in its payload is none");
    Ok(u64::from_str_radix(std::str::from_utf8(digits)?, 16)?)
}

fn digest(sources: &Sources, content: &Content, algorithm: Hash) -> Result<String> {
    let mut reader = sources.open(content);
    let mut running = algorithm.start();
    let mut buffer = vec![0; 1 << 16];
    let mut at = 0;
    while at < content.size() {
        let part = usize::try_from((content.size() - at).min(buffer.len() as u64))?;
        reader.read_at(&mut buffer[..part], at)?;
        running.update(&buffer[..part]);
        at += part as u64;
    }
    Ok(hex(&running.finish()))
}
