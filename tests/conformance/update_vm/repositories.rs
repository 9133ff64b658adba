//! Repositories made of `packages.json`: repodata as createrepo_c writes it, and files of the described length.
//!
//! The services never look into a package, so any bytes do; that keeps the recorded sizes and offsets.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use crate::support::packages::Description;
use crate::support::web::Files;

/// Every repository at `/NAME/`, with its packages in `rpm/`.
pub fn files(packages: &[Description]) -> Files {
    let mut files = Files::new();
    let mut lists: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for package in packages {
        let content = content(package);
        let href = href(package);
        lists.entry(&package.repo).or_default().push(element(package, &href, &content));
        files.insert(format!("/{}/{href}", package.repo), content);
    }
    for (repo, list) in lists {
        let primary = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<metadata xmlns=\"http://linux.duke.edu/metadata/common\" \
             xmlns:rpm=\"http://linux.duke.edu/metadata/rpm\" packages=\"{}\">\n{}</metadata>\n",
            list.len(),
            list.concat()
        );
        let name = format!("repodata/{}-primary.xml", sum(primary.as_bytes()));
        let repomd = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<repomd xmlns=\"http://linux.duke.edu/metadata/repo\"><data type=\"primary\">\
             <checksum type=\"sha256\">{}</checksum><location href=\"{name}\"/><size>{}</size></data></repomd>\n",
            sum(primary.as_bytes()),
            primary.len()
        );
        files.insert(format!("/{repo}/{name}"), primary.into_bytes());
        files.insert(format!("/{repo}/repodata/repomd.xml"), repomd.into_bytes());
    }
    files
}

/// Where a package lies below its repository.
pub fn href(package: &Description) -> String {
    let epoch = if package.epoch == 0 { String::new() } else { format!("{}-", package.epoch) };
    format!("rpm/{epoch}qubes-template-{}-{}-{}.noarch.rpm", package.name, package.version, package.release)
}

/// Bytes that follow from what the package is.
pub fn content(package: &Description) -> Vec<u8> {
    let length = usize::try_from(package.size).unwrap_or(usize::MAX);
    let mut bytes = Vec::with_capacity(length + 32);
    let label = format!("{} {}", package.key, href(package));
    for block in 0_u64.. {
        if bytes.len() >= length {
            break;
        }
        bytes.extend(Sha256::new().chain_update(&label).chain_update(block.to_le_bytes()).finalize());
    }
    bytes.truncate(length);
    bytes
}

fn element(package: &Description, href: &str, content: &[u8]) -> String {
    let mut out = String::new();
    let name = package.metadata_name.as_ref().unwrap_or(&package.name);
    let version = package.metadata_version.as_ref().unwrap_or(&package.version);
    let (summary, description) = (escaped(&package.summary), escaped(&package.description));
    let (url, license) = (escaped(&package.url), escaped(&package.license));
    let _ = writeln!(
        out,
        "<package type=\"rpm\">\n  <name>qubes-template-{name}</name>\n  <arch>noarch</arch>\n  <version epoch=\"{}\" ver=\"{version}\" rel=\"{}\"/>\n  \
         <checksum type=\"sha256\" pkgid=\"YES\">{}</checksum>\n  <summary>{summary}</summary>\n  <description>{description}</description>\n  \
         <packager></packager>\n  <url>{url}</url>\n  <time file=\"{built}\" build=\"{built}\"/>\n  <size package=\"{}\" installed=\"0\" archive=\"0\"/>\n  \
         <location href=\"{href}\"/>\n  <format>\n    <rpm:license>{license}</rpm:license>\n  </format>\n</package>",
        package.epoch,
        package.release,
        sum(content),
        content.len(),
        built = package.buildtime
    );
    out
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// SHA-256 as text.
pub fn sum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
