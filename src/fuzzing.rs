//! Doors for fuzzers: each takes any bytes and returns. Whatever the bytes are, nothing here panics, aborts, hangs or
//! asks for much memory; what is wrong with them is not of interest.
//!
//! The doors lead straight to the readers, without the threads in which these run otherwise ([`crate::confine`]), so
//! that a fuzzer sees them. See `fuzz/` for the programs.

use std::io::Write as _;
use std::time::{Duration, SystemTime};

use crate::build::compose::{Action, Edit, edit};
use crate::build::layer::input::Spool;
use crate::build::layer::{Form, Layer, Whiteouts, put};
use crate::build::tree::Tree;
use crate::payload::cpio::Archive;
use crate::payload::decoder::Compression;
use crate::payload::{Contents, TemplateFiles};
use crate::root_image::source::{Plain, Source};
use crate::root_image::tar::{Image, Piece};
use crate::seen::Memory;
use crate::verify::{FileInfo, Keyring, Rejection};

pub use crate::build::layer::rpm::fuzz_payload as build_rpm;
pub use crate::verify::fuzz_head as rpm_head;

/// Most bytes of an image in [`archive`], [`payload`] and [`tar()`].
const IMAGE: u64 = 64 << 20;

/// A keyring, asked everything that can be asked of one; and the same bytes as a signature by its keys: the bytes are
/// the length of the keyring (two, big endian), the keyring, a signature packet, and what is signed.
pub fn openpgp(data: &[u8]) {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let look = |keyring: &Keyring| {
        for certificate in keyring.certificates() {
            drop((certificate.fingerprint(), certificate.user_ids(), certificate.expires(now)));
            drop(certificate.usable(now));
        }
    };
    drop(Keyring::parse(data).map(|keyring| look(&keyring)));
    let Some((len, rest)) = data.split_first_chunk() else { return };
    let Some((keyring, rest)) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len))) else { return };
    if let Ok(keyring) = Keyring::parse(keyring) {
        crate::verify::fuzz_signature(&keyring, rest, now);
    }
}

/// The memory of builds seen, and what is made of it: what was read is written and read back.
///
/// # Panics
/// If that is not the same.
pub fn seen(data: &[u8]) {
    let Ok(memory) = Memory::read(data) else { return };
    let written = memory.write().ok().and_then(|bytes| Memory::read(&bytes).ok());
    assert_eq!(written.as_ref(), Some(&memory), "the memory is not read back");
}

/// A request that another qube writes to one of our services. What is let through is short and plain.
///
/// # Panics
/// If it is not.
pub fn delegate_request(data: &[u8]) {
    use crate::delegate::request::{MAX_REQUEST, Request};
    let Ok(request) = Request::parse(data) else { return };
    assert!(data.len() <= MAX_REQUEST, "a request of {} bytes", data.len());
    let plain =
        |text: &String| !text.starts_with('-') && text.chars().all(|c| c.is_ascii() && !c.is_control());
    let texts = request.version.iter().chain(&request.pool).chain(&request.keywords);
    assert!(texts.into_iter().all(plain), "a text came through: {request:?}");
}

/// A file of grants, with what is made of it. Nobody is granted what is another's.
///
/// # Panics
/// If somebody is.
pub fn grants(data: &[u8]) {
    use crate::delegate::Verb;
    use crate::delegate::grants::{Grants, Owner};
    use crate::delegate::review;
    let Ok(grants) = Grants::parse(&String::from_utf8_lossy(data)) else { return };
    drop((review::matrix(&grants, &[]), review::remarks(&grants, None)));
    let Ok(name) = crate::template::TemplateName::new("debian-13") else { return };
    for verb in Verb::ALL {
        for (owner, said) in review::explain(&grants, "help-desk", &["t".to_owned()], verb, &name) {
            assert!(owner != Owner::Other || said.is_err(), "{verb} of another's");
        }
    }
}

/// What a management qube answers to a qube that asks it: any bytes, in two pieces.
pub fn delegate_answer(data: &[u8]) {
    crate::delegate::client::fuzz(data);
}

/// A configuration file.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    drop(crate::cli::config::parse(text));
    let _: Option<u64> = crate::cli::args::size(text);
}

/// A compressed payload: one byte for the kind of compression, then the stream. See [`files`] for what is in it.
pub fn payload(data: &[u8]) {
    let Some((kind, stream)) = data.split_first() else { return };
    let kind = [Compression::Zstd, Compression::Xz, Compression::Gzip][usize::from(kind % 3)];
    drop(kind.decoder(stream, 1).and_then(|decoder| unpack(Archive::new(decoder, files()))));
}

/// An archive that is not compressed.
pub fn archive(data: &[u8]) {
    // As the decoder would hand it over; level 1 stores what does not shrink.
    let Ok(stream) = zstd::encode_all(data, 1) else { return };
    drop(
        Compression::Zstd.decoder(&stream[..], 1).and_then(|decoder| unpack(Archive::new(decoder, files()))),
    );
}

/// A tar archive with an image in it.
pub fn tar(data: &[u8]) {
    let source = Plain { bytes: data, files: TemplateFiles::default() };
    drop(Image::open(source, IMAGE).and_then(drain));
}

/// A tar archive as a layer; one byte for the whiteouts before it.
pub fn build_tar(data: &[u8]) {
    let Some((mode, archive)) = data.split_first() else { return };
    let modes = [Whiteouts::None, Whiteouts::Oci, Whiteouts::Overlayfs, Whiteouts::Ostree];
    layer(Form::Tar, modes[usize::from(mode % 4)], archive);
}

/// An archive of an OCI image layout as a layer.
pub fn build_oci(data: &[u8]) {
    layer(Form::Oci, Whiteouts::Oci, data);
}

/// A squashfs file, or a live image, as a layer.
pub fn build_squashfs(data: &[u8]) {
    layer(Form::Live, Whiteouts::None, data);
}

/// A disk image, or an ext4 file system, as a layer.
pub fn build_image(data: &[u8]) {
    layer(Form::Image, Whiteouts::None, data);
}

/// A Debian package as a layer on a tree with dpkg's records.
pub fn build_deb(data: &[u8]) {
    layer(Form::Deb, Whiteouts::None, data);
}

const STATUS: &[u8] = b"Package: dpkg\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.21\n\n";

/// Puts a layer on a small tree; what it gives must be a tree that can be walked.
fn layer(form: Form, whiteouts: Whiteouts, data: &[u8]) {
    let folder = std::env::temp_dir();
    let mut tree = Tree::new();
    let status = Edit {
        path: b"var/lib/dpkg/status".to_vec(),
        action: Action::Write(STATUS.to_vec()),
        mode: None,
        owner: None,
    };
    let (Ok(()), Ok(mut file)) = (edit(&mut tree, &status, 0), tempfile::NamedTempFile::new_in(&folder))
    else {
        return;
    };
    if file.write_all(data).is_err() {
        return;
    }
    let Ok(mut spool) = Spool::new(&folder, IMAGE) else { return };
    let layer = Layer { whiteouts, ..Layer::new(form, file.path().to_owned()) };
    if put(&layer, &mut tree, &mut spool, 0).is_ok() {
        for step in tree.walk() {
            assert!(
                step.path.split(|byte| *byte == b'/').all(|part| part != b".." && part != b"."),
                "{step:?}"
            );
        }
    }
}

/// The list of files to which [`payload`] and [`archive`] compare what they find: path below the root, size (`None`
/// for a directory).
#[must_use]
pub fn file_list() -> [(&'static str, Option<u64>); 5] {
    [
        ("/var/lib/qubes/vm-templates/fuzz", None),
        ("/var/lib/qubes/vm-templates/fuzz/other", Some(3)),
        ("/var/lib/qubes/vm-templates/fuzz/root.img.part.00", Some(1536)),
        ("/var/lib/qubes/vm-templates/fuzz/root.img.part.01", Some(1024)),
        ("/var/lib/qubes/vm-templates/fuzz/template.conf", Some(6)),
    ]
}

fn files() -> Vec<FileInfo> {
    file_list()
        .into_iter()
        .map(|(path, size)| FileInfo {
            path: path.to_owned(),
            size: size.unwrap_or(0),
            mode: if size.is_some() { 0o100_660 } else { 0o040_770 },
            ghost: false,
        })
        .collect()
}

fn unpack<R: std::io::BufRead>(archive: Archive<R>) -> Result<TemplateFiles, Rejection> {
    let contents = Contents::new(archive, "/var/lib/qubes/vm-templates/fuzz".into());
    drain(Image::open(contents, IMAGE)?)
}

fn drain<S: Source>(mut image: Image<S>) -> Result<TemplateFiles, Rejection> {
    let (mut buf, mut size) = ([0; 4096], 0);
    loop {
        match image.next(&mut buf)? {
            Piece::Data(n) => size += n as u64,
            Piece::Zeros(n) => size += n,
            Piece::End => break,
        }
    }
    assert_eq!(size, image.size(), "an image of another size than announced");
    image.finish()
}
