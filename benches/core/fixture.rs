//! Small packages, and what is done with them.

use std::fs::{self, File};
use std::io::{self, Read as _, Write};
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use qvm_template::build::compress::{Compression, Method};
use qvm_template::build::keys::{Algorithm, NewKey, SigningKey};
use qvm_template::build::package::{Making, Menus, PART, Package, pack};
use qvm_template::payload::Payload;
use qvm_template::root_image::Limits;
use qvm_template::spool::{Spool, Spooled};
use qvm_template::template::TemplateName;
use qvm_template::verify::{Keyring, Policy, Verified, verify};

/// First argument of the process whose instructions are counted.
pub const WORK: &str = "do-work";
/// Name of the template.
const NAME: &str = "core";
/// Seconds since 1970 of the packages; they are judged a day later.
const BUILT: u32 = 1_763_000_000;
const MIB: u64 = 1 << 20;

/// Makes a package for every work.
pub fn make(folder: &Path) -> Result<()> {
    let key = SigningKey::generate(&NewKey {
        user: "Core <core@example.invalid>".to_owned(),
        algorithm: Algorithm::Ed25519,
        created: BUILT - 86_400,
        lifetime: None,
        seed: Some("core".to_owned()),
    })?;
    fs::write(folder.join("key"), key.certificate()?)?;
    let mixed = image(16, |mebibyte| mebibyte % 3 != 0)?;
    let holes = image(1024, |mebibyte| mebibyte % 256 == 7)?;
    for (name, image, method, level) in
        [("zstd", &mixed, Method::Zstd, 3), ("xz", &mixed, Method::Xz, 0), ("holes", &holes, Method::Zstd, 3)]
    {
        let package = Package {
            name: NAME.to_owned(),
            epoch: 0,
            version: "1".to_owned(),
            release: "1".to_owned(),
            summary: "Core".to_owned(),
            description: "Core".to_owned(),
            url: None,
            license: "GPL".to_owned(),
            conf: None,
            menus: Menus::default(),
            build_time: BUILT,
            build_host: "localhost".to_owned(),
            manifest: None,
        };
        let making = Making {
            compression: Compression::new(method, Some(level))?.without_seams(),
            threads: NonZeroUsize::MIN,
            part: PART,
            spool: folder,
            signer: Some(&key),
            rpmv3: true,
        };
        pack(image, &package, &making, &mut File::create(folder.join(name))?)?;
    }
    Ok(())
}

/// An image: half of each MiB that holds data is noise, the other half text.
fn image(mebibytes: u64, holds_data: impl Fn(u64) -> bool) -> Result<File> {
    let image = tempfile::tempfile()?;
    image.set_len(mebibytes * MIB)?;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for at in (0..mebibytes).filter(|&at| holds_data(at)) {
        let mut block: Vec<u8> = (0..MIB / 16).flat_map(|_| next().to_le_bytes()).collect();
        while block.len() < 1 << 20 {
            writeln!(block, "{} is a word", next() % 700)?;
        }
        block.truncate(1 << 20);
        image.write_all_at(&block, at * MIB)?;
    }
    Ok(image)
}

/// Does one work, from the arriving bytes on.
pub fn work(name: &str, folder: &Path) -> Result<()> {
    if name == "verify" {
        return arrive(folder, "zstd").and_then(|spooled| judge(spooled, folder)).map(drop);
    }
    let written = copy(&judge(arrive(folder, name)?, folder)?)?;
    ensure!(written % MIB == 0 && written > 0, "{written} bytes came out");
    Ok(())
}

/// Takes a package into the spool, in pieces as a pipe gives them.
pub fn arrive(folder: &Path, name: &str) -> Result<Spooled> {
    let mut from = File::open(folder.join(name)).with_context(|| format!("opening package {name}"))?;
    let mut spool = Spool::create(folder, u64::MAX)?;
    let mut piece = vec![0; 64 << 10];
    loop {
        match from.read(&mut piece)? {
            0 => return Ok(spool.finish()?),
            n => spool.write_all(&piece[..n])?,
        }
    }
}

/// Judges a package.
pub fn judge(spooled: Spooled, folder: &Path) -> Result<Verified> {
    let keyring = Keyring::parse(&fs::read(folder.join("key"))?)?;
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(BUILT) + 86_400);
    Ok(verify(spooled, &Policy::default(), &keyring, now)?)
}

/// Decodes, takes apart and writes the image; how long it is.
pub fn copy(verified: &Verified) -> Result<u64> {
    let payload = Payload::open(verified, &TemplateName::new(NAME)?)?;
    let image = payload.root_image(Limits::default())?;
    let size = image.size();
    let mut sink = Counted(0);
    image.copy_to(&mut sink, &mut |_| ())?;
    ensure!(sink.0 == size, "{} of {size} bytes came out", sink.0);
    Ok(size)
}

/// Counts what is written.
#[derive(Debug)]
struct Counted(u64);

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
