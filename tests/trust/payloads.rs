//! Packages whose payload is an attack, with right digests, so that nothing but the rules for archives stands in the
//! way.

use std::io::Write;

use qvm_template::payload::Payload;
use qvm_template::root_image::{CopyError, Limits};
use qvm_template::verify::{Policy, check_digests_only};

use super::surgery::{Rpm, STRING_ARRAY};
use super::{package, spool};

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

/// What becomes of a package with these files: the code of its rejection, wherever on the line that happens.
fn fate(rpm: &Rpm) -> &'static str {
    let verified = match check_digests_only(spool(&rpm.bytes()), &Policy::any()) {
        Ok(verified) => verified,
        Err(rejection) => return rejection.code(),
    };
    let limits = Limits { image_size: 1 << 30, ..Limits::default() };
    let opened = Payload::open(&verified, &verified.info().name).and_then(|p| p.root_image(limits));
    let image = match opened {
        Ok(image) => image,
        Err(rejection) => return rejection.code(),
    };
    let size = image.size();
    let mut out = Vec::new();
    match image.copy_to(&mut out, &mut |_| {}) {
        Ok(_) => {
            assert_eq!(out.len() as u64, size);
            "ok"
        }
        Err(CopyError::Rejected(rejection)) => {
            assert!((out.len() as u64) < size, "{rejection}: all bytes were written");
            rejection.code()
        }
        Err(CopyError::Write(e)) => panic!("{e}"),
    }
}

#[test]
fn every_attack_by_payload_ends_in_its_own_rejection() {
    let base = Rpm::read(&package("tiny"));
    let image = tar(b'0', &[7; 5000], |_| {});
    let good = || template(&image, 3000);
    let with = |more: File| fate(&pack(&base, &[good(), vec![more]].concat()));
    let changed = |at: usize, how: &dyn Fn(&mut File)| {
        let mut files = good();
        how(&mut files[at]);
        fate(&pack(&base, &files))
    };
    let root = |tar: &[u8]| fate(&pack(&base, &template(tar, 3000)));
    let mut seen = Vec::new();
    let mut check =
        |what: &str, fate: &'static str, wanted: &str| seen.push((what.to_owned(), fate, wanted.to_owned()));

    check("nothing wrong", fate(&pack(&base, &good())), "ok");
    check("an ignored file", with(file("/readme", b"text")), "ok");
    check("an ignored directory", with(dir("/apps")), "ok");
    // The list of files.
    check("symlink", with(File { mode: 0o120_777, ..file("/link", b"/etc/passwd") }), "file-kind");
    check("device", with(File { mode: 0o060_660, ..file("/disk", b"") }), "file-kind");
    check("pipe", with(File { mode: 0o010_660, ..file("/pipe", b"") }), "file-kind");
    check("dot dot", with(file("/../../../../../etc/cron.d/x", b"x")), "file-path");
    check("double slash", with(file("//x", b"x")), "file-path");
    check("control character", with(file("/a\x1b[2J", b"x")), "file-path");
    check("outside", with(File { path: "/etc/cron.d/x".into(), ..file("", b"x") }), "file-outside");
    check(
        "a neighbour",
        with(File { path: "/var/lib/qubes/vm-templates/test2/x".into(), ..file("", b"x") }),
        "file-outside",
    );
    check("directory as a file", changed(0, &|f| f.mode = 0o100_660), "file-outside");
    check("listed twice", with(file("/template.conf", b"x")), "file-twice");
    check("second image", with(file("/root.img", b"x")), "second-image");
    check("second image in tar", with(file("/root.img.tar", b"x")), "second-image");
    check("no image", fate(&pack(&base, &[dir(""), file("/template.conf", b"gui=1\n")])), "no-root-image");
    check("first part missing", changed(1, &|f| f.path = f.path.replace(".00", ".09")), "parts");
    check("middle part missing", changed(2, &|f| f.path = f.path.replace(".01", ".09")), "parts");
    check("odd number", with(file("/root.img.part.3", b"x")), "parts");
    check("empty part", with(file("/root.img.part.03", b"")), "parts");
    check("large template.conf", changed(4, &|f| f.data = vec![b'#'; 70_000]), "template-file");
    check(
        "many files",
        fate(&pack(&base, &[good(), (0..5000).map(|i| file(&format!("/{i}"), b"")).collect()].concat())),
        "file-list",
    );
    // The archive against the list.
    check(
        "parts swapped",
        {
            let mut f = good();
            f.swap(1, 2);
            fate(&pack(&base, &f))
        },
        "parts",
    );
    check("entry twice", changed(4, &|f| f.times = 2), "older-value");
    check(
        "entry twice, no size named",
        {
            let mut f = good();
            f[4].times = 2;
            fate(&with_payload(&base, &f, zstd::encode_all(&cpio(&f)[..], 1).unwrap(), None))
        },
        "archive-entry",
    );
    let odd = |how: &dyn Fn(&mut File)| {
        let mut files = good();
        how(&mut files[4]);
        fate(&with_payload(&base, &files, zstd::encode_all(&cpio(&files)[..], 1).unwrap(), None))
    };
    check("entry missing", odd(&|f| f.times = 0), "archive-entry");
    check("entry of another name", odd(&|f| f.entry_path = Some("./etc/passwd".into())), "archive-entry");
    check("entry is a symlink", odd(&|f| f.entry_mode = Some(0o120_777)), "archive-entry");
    check("entry of another size", odd(&|f| f.entry_size = Some(1 << 31)), "archive-entry");
    check("hard link", odd(&|f| f.links = 2), "archive-entry");
    check(
        "ghost in the archive",
        odd(&|f| {
            f.path.push('x');
            f.entry_path = Some("./x".into());
        }),
        "archive-entry",
    );
    check(
        "unlisted entry",
        {
            let files = good();
            let more = [files.clone(), vec![file("/more", b"x")]].concat();
            fate(&with_archive(&base, &files, &cpio(&more)))
        },
        "older-value",
    );
    let archive = cpio(&good());
    check(
        "archive cut",
        fate(&with_payload(
            &base,
            &good(),
            zstd::encode_all(&archive[..archive.len() - 4], 1).unwrap(),
            None,
        )),
        "archive",
    );
    check(
        "archive goes on",
        fate(&with_payload(
            &base,
            &good(),
            zstd::encode_all(&[&archive[..], b"0707"].concat()[..], 1).unwrap(),
            None,
        )),
        "trailing-data",
    );
    check(
        "padding used",
        {
            let mut odd = archive.clone();
            let at = odd.windows(8).position(|w| w == b"vm-templ").unwrap() - 1;
            assert_eq!(odd[at], b'/');
            let at = odd[..].windows(5).position(|w| w == b"gui=1").unwrap() + 6;
            odd[at] = 1;
            fate(&with_payload(&base, &good(), zstd::encode_all(&odd[..], 1).unwrap(), None))
        },
        "archive",
    );
    // The compressed stream.
    let packed = zstd::encode_all(&archive[..], 1).unwrap();
    check(
        "stream cut",
        fate(&with_payload(&base, &good(), packed[..packed.len() - 3].to_vec(), None)),
        "compression",
    );
    check(
        "stream goes on",
        fate(&with_payload(&base, &good(), [&packed[..], b"more"].concat(), None)),
        "compression",
    );
    check("not compressed", fate(&with_payload(&base, &good(), archive.clone(), None)), "compression");
    check(
        "other compression",
        {
            let mut r = pack(&base, &good());
            r.header.set(1125, 6, b"bzip2\0");
            fate(&r.fix_digests())
        },
        "compressor",
    );
    check(
        "named as xz",
        {
            let mut r = pack(&base, &good());
            r.header.set(1125, 6, b"xz\0");
            fate(&r.fix_digests())
        },
        "compression",
    );
    check(
        "a frame of zeros without end",
        {
            // 4 GiB of zeros in some hundred KiB, where the list says 5 KB.
            let bomb = zstd::encode_all(std::io::Read::take(std::io::repeat(0), 256 << 20), 1).unwrap();
            fate(&with_payload(&base, &good(), bomb, None))
        },
        "archive",
    );
    check(
        "huge window",
        {
            let mut e = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
            e.window_log(30).unwrap();
            std::io::Write::write_all(&mut e, &archive).unwrap();
            fate(&with_payload(&base, &good(), e.finish().unwrap(), None))
        },
        "window",
    );
    // The tar archive.
    check("two members", root(&[&image[..image.len() - 1024], &image[..]].concat()), "second-image");
    check("a member behind the end", root(&[&image[..], &image[..]].concat()), "trailing-data");
    check("symlink in tar", root(&tar(b'2', b"", |_| {})), "tar");
    check("PAX", root(&tar(b'x', b"30 GNU.sparse.major=1\n", |_| {})), "tar-format");
    check("no end", root(&image[..image.len() - 1024]), "tar");
    check("only an end", root(&[0; 10240]), "tar");
    check("cut in data", root(&image[..3000]), "tar");
    check("empty image", root(&tar(b'0', b"", |_| {})), "empty-image");
    check("huge image", root(&tar(b'S', b"", |h| sparse(h, b"77777777777\0", &[]))), "image-too-large");
    check(
        "overlap",
        root(&tar(b'S', &[1; 1024], |h| {
            sparse(
                h,
                b"00000010000\0",
                &[(b"00000000000\0", b"00000001000\0"), (b"00000000000\0", b"00000001000\0")],
            )
        })),
        "sparse-map",
    );
    check(
        "endless map",
        root(&tar(b'S', &[0; 4096], |h| {
            sparse(h, b"00000010000\0", &[]);
            h[482] = 1;
        })),
        "sparse-map",
    );
    let wrong: Vec<_> = seen.iter().filter(|(_, fate, wanted)| fate != wanted).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
