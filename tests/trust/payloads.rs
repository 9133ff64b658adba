//! Packages whose payload is an attack, with right digests, so that nothing but the rules for archives stands in the
//! way.

use std::io::Write;

use super::surgery::{Rpm, STRING_ARRAY};

const DIR: &str = "/var/lib/qubes/vm-templates/test";

/// A file of the header's list, and its entry in the archive.
#[derive(Clone)]
pub struct File {
    pub path: String,
    pub mode: u32,
    pub data: Vec<u8>,
    pub ghost: bool,
    /// What the archive says in place of what the list says.
    pub entry_path: Option<String>,
    pub entry_mode: Option<u32>,
    pub entry_size: Option<u32>,
    pub links: u32,
    /// How often it is in the archive.
    pub times: usize,
}

pub fn file(name: &str, data: &[u8]) -> File {
    File {
        path: format!("{DIR}{name}"),
        mode: 0o100_660,
        data: data.to_vec(),
        ghost: false,
        entry_path: None,
        entry_mode: None,
        entry_size: None,
        links: 1,
        times: 1,
    }
}

pub fn dir(name: &str) -> File {
    File { mode: 0o040_770, ..file(name, b"") }
}

/// A good template: its directory, the parts of `tar`, each `cut` bytes, and a configuration.
pub fn template(tar: &[u8], cut: usize) -> Vec<File> {
    let parts = tar.chunks(cut).enumerate().map(|(i, part)| file(&format!("/root.img.part.{i:02}"), part));
    [dir("")].into_iter().chain(parts).chain([file("/template.conf", b"gui=1\n")]).collect()
}

/// `base` with another list of files and the archive that belongs to it.
pub fn pack(base: &Rpm, files: &[File]) -> Rpm {
    let archive = cpio(files);
    with_archive(base, files, &archive)
}

/// The same with the archive given.
pub fn with_archive(base: &Rpm, files: &[File], archive: &[u8]) -> Rpm {
    with_payload(base, files, zstd::encode_all(archive, 1).unwrap(), Some(archive.len()))
}

/// The same with the compressed payload given.
pub fn with_payload(base: &Rpm, files: &[File], payload: Vec<u8>, archive_size: Option<usize>) -> Rpm {
    let mut rpm = base.clone().unsigned();
    let strings = |of: &dyn Fn(&File) -> String| files.iter().map(of).collect::<Vec<_>>().join("\0") + "\0";
    let numbers =
        |of: &dyn Fn(&File) -> u32| files.iter().flat_map(|f| of(f).to_be_bytes()).collect::<Vec<_>>();
    let split = |f: &File| f.path.rfind('/').map_or(0, |at| at + 1);
    let h = &mut rpm.header;
    // Each file brings its own directory: the list need not be a short one.
    h.set(1117, STRING_ARRAY, strings(&|f| f.path[split(f)..].to_owned()).as_bytes());
    h.set(1118, STRING_ARRAY, strings(&|f| f.path[..split(f)].to_owned()).as_bytes());
    let indexes: Vec<u8> = (0..u32::try_from(files.len()).unwrap()).flat_map(u32::to_be_bytes).collect();
    h.set(1116, 4, &indexes);
    h.set(1028, 4, &numbers(&|f| u32::try_from(f.data.len()).unwrap()));
    let modes: Vec<u8> = files.iter().flat_map(|f| u16::try_from(f.mode).unwrap().to_be_bytes()).collect();
    h.set(1030, 3, &modes);
    h.set(1037, 4, &numbers(&|f| if f.ghost { 0x40 } else { 0 }));
    rpm.payload = payload;
    match archive_size {
        Some(size) => rpm.signature.set(1007, 4, &u32::try_from(size).unwrap().to_be_bytes()),
        None => rpm.signature.remove(1007),
    }
    rpm.fix_payload_digest().fix_digests()
}

/// The archive as rpm writes it.
pub fn cpio(files: &[File]) -> Vec<u8> {
    let mut out = Vec::new();
    for f in files.iter().filter(|f| !f.ghost) {
        for _ in 0..f.times {
            let path = f.entry_path.clone().unwrap_or_else(|| format!(".{}", f.path));
            let size = f.entry_size.unwrap_or_else(|| u32::try_from(f.data.len()).unwrap());
            entry(&mut out, &path, f.entry_mode.unwrap_or(f.mode), f.links, size, &f.data);
        }
    }
    entry(&mut out, "TRAILER!!!", 0, 1, 0, b"");
    out
}

fn entry(out: &mut Vec<u8>, path: &str, mode: u32, links: u32, size: u32, data: &[u8]) {
    let name = u32::try_from(path.len() + 1).unwrap();
    write!(out, "070701").unwrap();
    for field in [1, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name, 0] {
        write!(out, "{field:08x}").unwrap();
    }
    out.extend(path.as_bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend(data);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// A tar archive with one member of that kind, a header field changed by `change`, and its end.
pub fn tar(kind: u8, data: &[u8], change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut out = vec![0; 512];
    out[..8].copy_from_slice(b"root.img");
    out[124..136].copy_from_slice(format!("{:011o}\0", data.len()).as_bytes());
    out[156] = kind;
    out[257..265].copy_from_slice(b"ustar  \0");
    change(&mut out);
    out[148..156].fill(b' ');
    let sum: u32 = out.iter().map(|b| u32::from(*b)).sum();
    out[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    out.extend(data);
    out.resize(out.len().next_multiple_of(512) + 1024, 0);
    out
}

/// A sparse header whose image claims to have `size` bytes.
pub fn sparse(header: &mut [u8], size: &[u8; 12], entries: &[(&[u8; 12], &[u8; 12])]) {
    header[483..495].copy_from_slice(size);
    for (slot, (offset, len)) in header[386..482].chunks_exact_mut(24).zip(entries) {
        slot[..12].copy_from_slice(*offset);
        slot[12..].copy_from_slice(*len);
    }
}
