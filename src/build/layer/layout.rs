//! Writing an OCI image layout with one plain layer, as a tar archive: what `podman load`, `skopeo copy oci-archive:`
//! and [`super::oci`] read.
//!
//! Nothing in it depends on the machine: the platform is `linux/amd64`, every time is the one that is given. Source:
//! OCI image specification 1.1, "Image Layout".

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::archive;
use crate::build::tree::content::{Content, Source};
use crate::build::tree::{Kind, Meta, Missing, Tree};

const PLATFORM: (&str, &str) = ("linux", "amd64");
const VERSION: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// Writes to a file whatever is written through it, and hashes and counts it.
#[derive(Debug)]
pub struct Blob<'a> {
    file: BufWriter<&'a File>,
    hash: Sha256,
    len: u64,
}

impl Write for Blob<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.len += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// Writes the layout to `out`. `layer` writes the layer's archive, which goes to a temporary file in `folder` first, as
/// its digest stands in front of it; every time in the layout is `time`.
///
/// # Errors
/// What `layer` and the file system say.
pub fn write(
    out: &File,
    folder: &Path,
    time: i64,
    layer: impl for<'a> FnOnce(Blob<'a>) -> Result<Blob<'a>>,
) -> Result<()> {
    let spool = tempfile::tempfile_in(folder).context("making a temporary file for the layer")?;
    let (layer, len) = {
        let file = BufWriter::with_capacity(1 << 20, &spool);
        let mut blob = layer(Blob { file, hash: Sha256::new(), len: 0 })?;
        blob.flush().context("writing the layer")?;
        (format!("{:x}", blob.hash.finalize()), blob.len)
    };

    let created = jiff::Timestamp::from_second(time).context("writing the source date")?.to_string();
    let (os, architecture) = PLATFORM;
    let config = serde_json::to_vec(&json!({
        "created": created, "architecture": architecture, "os": os, "config": {},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer}")]},
        "history": [{"created": created, "created_by": "qubes-template-build"}],
    }))?;
    let descriptor = |kind: &str, digest: &str, size: u64| {
        json!({
            "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": format!("sha256:{digest}"), "size": size,
        })
    };
    let digest = |bytes: &[u8]| format!("{:x}", Sha256::digest(bytes));
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("config.v1+json", &digest(&config), config.len() as u64),
        "layers": [descriptor("layer.v1.tar", &layer, len)],
    }))?;
    let mut named = descriptor("manifest.v1+json", &digest(&manifest), manifest.len() as u64);
    named["platform"] = json!({"architecture": architecture, "os": os});
    let index = serde_json::to_vec(&json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [named],
    }))?;

    let mut files = Tree::new();
    files.meta_mut(Tree::ROOT).mtime = time;
    let source = files.sources.add(Source::File(Arc::new(spool)))?;
    let blobs = files.directory(&[b"blobs", b"sha256"], Missing::Create(time))?;
    let blobs = blobs.context("the folder of the blobs")?;
    files.put(
        blobs,
        layer.as_bytes(),
        Meta::root(0o644, time),
        Kind::File(Content::whole(source, 0, len)),
    )?;
    for (folder, name, bytes) in [
        (blobs, digest(&config), config),
        (blobs, digest(&manifest), manifest),
        (Tree::ROOT, "index.json".to_owned(), index),
        (Tree::ROOT, "oci-layout".to_owned(), VERSION.to_vec()),
    ] {
        let len = bytes.len() as u64;
        let content = Content::whole(files.sources.add(Source::Bytes(bytes))?, 0, len);
        files.put(folder, name.as_bytes(), Meta::root(0o644, time), Kind::File(content))?;
    }
    archive::write_tree(BufWriter::with_capacity(1 << 20, out), &files, time, &mut |_| {})?
        .flush()
        .context("writing the layout")
}
