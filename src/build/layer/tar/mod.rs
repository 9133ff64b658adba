//! Tar archives: V7, POSIX with extended headers, GNU with long names and holes.
//!
//! An archive is a sequence of records of 512 bytes. A member is a header, then its content up to a full record; two
//! records of zeros end the archive. Sources: POSIX.1-2024 (pax), the GNU tar manual, appendix "Tar Internals".
//!
//! | type | meaning |
//! |---|---|
//! | `0` NUL `7` | file (with a `/` at its end: a directory, as V7 has it) |
//! | `1` `2` `3` `4` `5` `6` | hard link, symbolic link, character device, block device, directory, pipe |
//! | `S`, or `GNU.sparse.*` in an extended header (0.0, 0.1, 1.0) | file with holes |
//! | `x` `g` `L` `K` | about the next member, about all that follow, its long name, its long link target |
//! | `D` `V` | directory of an incremental archive, volume label |
//!
//! Everything else is refused by name. Limits: an extended header has at most 4 MiB, a map of holes a million entries.
//! Contents are not looked at: see [`Input`].

mod header;
mod pax;

use anyhow::{Context, Result, bail, ensure};
use header::{Header, RECORD, text};
use pax::{Pax, decimal};

use super::input::Input;
use super::{Entry, Sink, What};
use crate::build::tree::content::{Content, Piece, SourceId};
use crate::build::tree::{Device, Meta, shown};

const MAX_MAP: usize = 1 << 20;

/// Gives the members of an archive to `sink`.
pub fn read(input: &mut Input<'_>, sink: &mut Sink<'_>) -> Result<()> {
    let mut global = Pax::default();
    let mut next = global.clone();
    let mut long = (None, None);
    let mut ended = false;
    let mut last = Vec::new();
    loop {
        let mut record = [0; RECORD];
        let context = |last: &[u8]| {
            if last.is_empty() {
                "at the start of the archive".to_owned()
            } else {
                format!("after `{}`", shown(last))
            }
        };
        if !input.fill(&mut record).with_context(|| context(&last))? {
            ensure!(
                ended,
                "the archive has no end mark ({}): it is cut off, or no tar archive",
                context(&last)
            );
            break;
        }
        if record == [0; RECORD] {
            if ended {
                break;
            }
            ended = true;
            continue;
        }
        ensure!(!ended, "the archive goes on after its end mark ({})", context(&last));
        let header = Header::new(record).with_context(|| context(&last))?;
        match header.kind() {
            b'x' => next.read(&about(input, &header)?).with_context(|| context(&last))?,
            b'g' => {
                global.read(&about(input, &header)?).with_context(|| context(&last))?;
                next = merged(&global, next);
            }
            b'L' => long.0 = Some(text(&about(input, &header)?).to_vec()),
            b'K' => long.1 = Some(text(&about(input, &header)?).to_vec()),
            _ => {
                let pax = std::mem::replace(&mut next, global.clone());
                let (name, target) = std::mem::take(&mut long);
                let path = pax.sparse.name.clone().or_else(|| pax.path.clone()).or(name);
                last = path.unwrap_or_else(|| header.path());
                let target = pax.link.clone().or(target).unwrap_or_else(|| header.link());
                let entry = member(input, &header, pax, &last, target)
                    .with_context(|| format!("archive member `{}`", shown(&last)))?;
                if let Some(entry) = entry {
                    sink(entry)?;
                }
            }
        }
    }
    input.drain()
}

/// A global header holds for the next member too, unless its own header says otherwise.
fn merged(global: &Pax, own: Pax) -> Pax {
    let mut xattrs = global.xattrs.clone();
    xattrs.extend(own.xattrs);
    Pax {
        path: own.path.or_else(|| global.path.clone()),
        link: own.link.or_else(|| global.link.clone()),
        size: own.size.or(global.size),
        uid: own.uid.or(global.uid),
        gid: own.gid.or(global.gid),
        mtime: own.mtime.or(global.mtime),
        xattrs,
        sparse: own.sparse,
    }
}

/// The content of a member that is about others.
fn about(input: &mut Input<'_>, header: &Header) -> Result<Vec<u8>> {
    let size = header.size()?;
    ensure!(size <= pax::MAX, "an extended header of {size} bytes is larger than the {} allowed", pax::MAX);
    let mut content = vec![0; usize::try_from(size)?];
    ensure!(content.is_empty() || input.fill(&mut content)?, "the archive ends in an extended header");
    input.skip(padding(size))?;
    Ok(content)
}

fn member(
    input: &mut Input<'_>,
    header: &Header,
    pax: Pax,
    path: &[u8],
    target: Vec<u8>,
) -> Result<Option<Entry>> {
    let mut meta = Meta {
        mode: header.mode()?,
        uid: pax.uid.map_or_else(|| header.uid(), Ok)?,
        gid: pax.gid.map_or_else(|| header.gid(), Ok)?,
        mtime: pax.mtime.map_or_else(|| header.mtime(), Ok)?,
        xattrs: None,
    };
    if !pax.xattrs.is_empty() {
        meta.xattrs = Some(Box::new(pax.xattrs));
    }
    let size = pax.size.map_or_else(|| header.size(), Ok)?;
    let kind = header.kind();
    let what = match kind {
        b'0' | 0 | b'7' if pax.sparse.present => sparse_by_header(input, &pax.sparse, size)?,
        b'0' | 0 | b'7' if !path.ends_with(b"/") => {
            let (source, offset) = input.keep(size)?;
            input.skip(padding(size))?;
            What::File(Content::whole(source, offset, size))
        }
        b'S' => sparse_by_member(input, header, size)?,
        _ => {
            // a hard link may announce the size of its file, which is not there
            let has_content = matches!(kind, b'0' | 0 | b'7' | b'5' | b'D' | b'V');
            let count = if has_content { size } else { 0 };
            input.skip(count)?;
            input.skip(padding(count))?;
            match kind {
                b'1' => What::Link(target),
                b'2' => What::Symlink(target.into()),
                b'3' => What::Char(device(header)?),
                b'4' => What::Block(device(header)?),
                b'6' => What::Fifo,
                b'5' | b'D' | b'0' | 0 | b'7' => What::Directory,
                b'V' => return Ok(None),
                b'M' => bail!("it is continued from another volume, which is not supported"),
                other => bail!("it is of the unknown type `{}`", other.escape_ascii()),
            }
        }
    };
    Ok(Some(Entry { path: path.to_vec(), meta, what }))
}

fn device(header: &Header) -> Result<Device> {
    let (major, minor) = header.device()?;
    ensure!(major < 1 << 12 && minor < 1 << 20, "the device number {major}:{minor} is too large");
    Ok(Device { major, minor })
}

/// GNU's own form: the map begins in the header and goes on in records behind it.
fn sparse_by_member(input: &mut Input<'_>, header: &Header, stored: u64) -> Result<What> {
    let real = u64::try_from(header.number(483..495)?).context("a negative size")?;
    let mut map = Vec::new();
    let read = |map: &mut Vec<(u64, u64)>, fields: &[u8]| -> Result<()> {
        for field in fields.chunks_exact(24).take_while(|field| field[0] != 0) {
            let offset = u64::try_from(header::number(&field[..12])?).context("a negative offset")?;
            let len = u64::try_from(header::number(&field[12..])?).context("a negative length")?;
            map.push((offset, len));
        }
        ensure!(map.len() <= MAX_MAP, "its map of holes is too large");
        Ok(())
    };
    read(&mut map, &header.0[386..482])?;
    let mut more = header.0[482] != 0;
    while more {
        let mut record = [0; RECORD];
        ensure!(input.fill(&mut record)?, "the archive ends in a map of holes");
        read(&mut map, &record[..504])?;
        more = record[504] != 0;
    }
    let (source, offset) = input.keep(stored)?;
    input.skip(padding(stored))?;
    with_holes(&map, real, source, offset, stored)
}

/// The form in extended headers: the map is there (0.0 and 0.1), or in lines before the content (1.0).
fn sparse_by_header(input: &mut Input<'_>, sparse: &pax::Sparse, stored: u64) -> Result<What> {
    let real = sparse.real_size.context("a file with holes without its size")?;
    if sparse.major.unwrap_or(0) == 0 {
        ensure!(
            sparse.map.len().is_multiple_of(2) && sparse.map.len() / 2 <= MAX_MAP,
            "a damaged map of holes"
        );
        let map: Vec<(u64, u64)> = sparse.map.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        let (source, offset) = input.keep(stored)?;
        input.skip(padding(stored))?;
        return with_holes(&map, real, source, offset, stored);
    }
    let mut numbers = Vec::new();
    let mut line = Vec::new();
    let mut used = 0;
    let mut wanted = 1;
    while numbers.len() < wanted {
        let mut record = [0; RECORD];
        ensure!(
            used + RECORD as u64 <= stored && input.fill(&mut record)?,
            "the file ends in its map of holes"
        );
        used += RECORD as u64;
        for byte in record {
            if numbers.len() == wanted {
                break;
            }
            if byte != b'\n' {
                ensure!(line.len() < 20, "a damaged map of holes");
                line.push(byte);
                continue;
            }
            numbers.push(decimal(&line)?);
            line.clear();
            if let [count] = numbers.as_slice() {
                let count = usize::try_from(*count)?;
                ensure!(count <= MAX_MAP, "its map of holes is too large");
                wanted = 1 + 2 * count;
            }
        }
    }
    let map: Vec<(u64, u64)> = numbers[1..].chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    let left = stored - used;
    let (source, offset) = input.keep(left)?;
    input.skip(padding(left))?;
    with_holes(&map, real, source, offset, left)
}

fn with_holes(map: &[(u64, u64)], real: u64, source: SourceId, mut offset: u64, stored: u64) -> Result<What> {
    let mut left = stored;
    let mut pieces = Vec::with_capacity(map.len());
    for (at, len) in map {
        left = left.checked_sub(*len).context("its map of holes names more than is stored")?;
        pieces.push(Piece { at: *at, len: *len, source, offset });
        offset += len;
    }
    ensure!(left == 0, "its map of holes leaves out {left} of the stored bytes");
    Ok(What::File(Content::pieces(real, pieces)?))
}

fn padding(size: u64) -> u64 {
    size.wrapping_neg() % RECORD as u64
}
