// SPDX-License-Identifier: GPL-2.0-or-later
//! Fuzz targets: everything that reads what others wrote. Errors are fine; panics, aborts, hangs and memory without
//! bound are bugs.
//!
//! | command | what |
//! |---|---|
//! | `cargo run --manifest-path fuzz/Cargo.toml --bin seeds` | makes `fuzz/corpus/TARGET/` from real packages and keys (gpg, rpmbuild) |
//! | `cargo run --manifest-path fuzz/Cargo.toml --bin smoke -- [SECONDS] [TARGET...]` | a simple mutation loop over the seeds, with stable Rust; for CI |
//! | `cargo +nightly fuzz run TARGET --features libfuzzer` | coverage-guided, for as long as you like |
//!
//! A finding of the smoke test is written to `fuzz/artifacts/TARGET`; `smoke 0 TARGET` runs what lies there.

use qvm_template::fuzzing;
use qvm_template::template::RepoId;

/// A fuzz target: its name and what takes the bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("rpm_head", fuzzing::rpm_head),
    ("openpgp", fuzzing::openpgp),
    ("payload", fuzzing::payload),
    ("archive", fuzzing::archive),
    ("tar", fuzzing::tar),
    ("build_tar", fuzzing::build_tar),
    ("build_oci", fuzzing::build_oci),
    ("build_squashfs", fuzzing::build_squashfs),
    ("build_image", fuzzing::build_image),
    ("build_deb", fuzzing::build_deb),
    ("build_rpm", fuzzing::build_rpm),
    ("search_reply", search_reply),
    ("search_request", search_request),
    ("repo_file", repo_file),
    ("template_conf", template_conf),
    ("repomd", repomd),
    ("primary", primary),
    ("admin_reply", admin_reply),
    ("seen", fuzzing::seen),
    ("config", fuzzing::config),
    ("delegate_request", fuzzing::delegate_request),
    ("grants", fuzzing::grants),
    ("delegate_answer", fuzzing::delegate_answer),
];

/// Runs one target.
///
/// # Panics
/// If there is no target of that name, or the target found a bug.
pub fn run(name: &str, data: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target of that name");
    target(data);
}

fn search_reply(data: &[u8]) {
    use qvm_template::repo::wire::{Limits, SearchReply};
    let Ok(reply) = SearchReply::parse(data, Limits { bytes: 1 << 20, records: 1000 }) else { return };
    for offer in &reply.offers {
        let texts = [&offer.name, &offer.license, &offer.url, &offer.summary, &offer.description];
        let clean = |c: char| c == '\n' || !c.is_control();
        assert!(
            texts.iter().all(|text| text.chars().all(clean)),
            "a control character came through: {offer:?}"
        );
    }
    assert!(reply.skipped.iter().all(|line| !line.chars().any(char::is_control)), "{:?}", reply.skipped);
}

fn search_request(data: &[u8]) {
    drop(qvm_template::repo::wire::Request::parse(data));
}

fn repo_file(data: &[u8]) {
    drop(qvm_template::repo::file::parse(&String::from_utf8_lossy(data)));
}

fn template_conf(data: &[u8]) {
    use qvm_template::template::conf::{AllowPv, TemplateConf};
    drop(TemplateConf::parse(data, AllowPv::No));
    drop(TemplateConf::parse(data, AllowPv::Yes));
}

fn repomd(data: &[u8]) {
    drop(qvm_template::service::metadata::read_repomd(data));
}

fn primary(data: &[u8]) {
    let repo = RepoId::new("fuzz").expect("a name");
    drop(qvm_template::service::metadata::read_primary(data, &repo));
}

fn admin_reply(data: &[u8]) {
    use qvm_template::admin::{CallName, wire};
    if let Some(Err(error)) = wire::reply(&CallName::new("dom0", "admin.vm.List", None), data.to_vec()) {
        let text = error.to_string();
        assert!(text.len() < 64 << 10, "an error of {} bytes", text.len());
    }
}
