//! The outer form of a Debian package, deb(5): an `ar` archive of three members.
//!
//! ```text
//! !<arch>\n
//! name[16] mtime[12] uid[6] gid[6] mode[8] size[10] `\n     then the content, to an even offset
//! debian-binary (2.0), control.tar[.gz .xz .zst], data.tar[.gz .xz .zst]
//! ```

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};

use crate::build::layer::input::{Compression, Input, Spool};
use crate::build::layer::{Entry, tar};
use crate::build::tree::content::Sources;
use crate::io::at::ReadAt;

const MAGIC: &[u8; 8] = b"!<arch>\n";
const HEAD: u64 = 60;

/// The members of a package: where they are and how they are compressed.
#[derive(Debug)]
pub(super) struct Package {
    file: Arc<File>,
    control: (u64, u64, Compression),
    data: (u64, u64, Compression),
}

impl Package {
    /// Finds the members.
    pub(super) fn open(file: Arc<File>) -> Result<Self> {
        let size = file.metadata().context("asking for its size")?.len();
        let mut magic = [0; 8];
        let read = |buffer: &mut [u8], at| file.read_exact_at(buffer, at).context("it ends too early");
        read(&mut magic, 0)?;
        ensure!(&magic == MAGIC, "it is no Debian package");
        let mut members = Vec::new();
        let mut at = 8;
        while at < size {
            ensure!(members.len() < 16, "it has more members than a Debian package");
            let mut head = [0; 60];
            read(&mut head, at)?;
            ensure!(head[58..] == *b"`\n", "a member of it begins wrongly");
            let text = |range: std::ops::Range<usize>| {
                std::str::from_utf8(&head[range])
                    .map(|text| text.trim_end().to_owned())
                    .context("a member's name")
            };
            let len: u64 = text(48..58)?.parse().context("the size of a member is no number")?;
            let (start, name) = (at + HEAD, text(0..16)?.trim_end_matches('/').to_owned());
            ensure!(len <= size - start, "its member `{}` is cut off", name.escape_debug());
            members.push((name, start, start + len));
            at = start + len + len % 2;
        }
        let [(first, start, _), rest @ ..] = members.as_slice() else { bail!("it is empty") };
        ensure!(first == "debian-binary", "its first member is not `debian-binary`");
        let mut version = [0; 2];
        read(&mut version, *start)?;
        ensure!(&version == b"2.", "it is of a form that is not supported");
        // members whose names begin with `_` may be added between those
        let mut wanted = rest.iter().filter(|(name, ..)| !name.starts_with('_'));
        let mut next = |what: &str| -> Result<(u64, u64, Compression)> {
            let (name, start, end) = wanted.next().with_context(|| format!("it has no member `{what}`"))?;
            let compression = match name.strip_prefix(what) {
                Some("") => Compression::None,
                Some(".gz") => Compression::Gzip,
                Some(".xz") => Compression::Xz,
                Some(".zst") => Compression::Zstd,
                _ => bail!("its member `{}` is not supported", name.escape_debug()),
            };
            Ok((*start, *end, compression))
        };
        let (control, data) = (next("control.tar")?, next("data.tar")?);
        ensure!(wanted.next().is_none(), "something follows after its data");
        Ok(Self { file: Arc::clone(&file), control, data })
    }

    /// What is about the package.
    pub(super) fn control(&self, sources: &mut Sources, spool: &mut Spool) -> Result<Vec<Entry>> {
        self.entries(self.control, sources, spool).context("reading what it says about itself")
    }

    /// What is in it.
    pub(super) fn data(&self, sources: &mut Sources, spool: &mut Spool) -> Result<Vec<Entry>> {
        self.entries(self.data, sources, spool).context("unpacking it")
    }

    fn entries(
        &self,
        (start, end, compression): (u64, u64, Compression),
        sources: &mut Sources,
        spool: &mut Spool,
    ) -> Result<Vec<Entry>> {
        let stream = compression.reader(ReadAt::new(Arc::clone(&self.file), start, end))?;
        let mut entries = Vec::new();
        tar::read(&mut Input::stream(stream, sources, spool)?, &mut |entry| {
            entries.push(entry);
            Ok(())
        })?;
        Ok(entries)
    }
}
