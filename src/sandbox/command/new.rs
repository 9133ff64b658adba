//! `new`: a fresh system with what this repository ships.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use clap::Args;

use super::Dir;
use crate::sandbox::fresh;
use crate::sandbox::qubesd::Qubesd;

/// `qubes-sandbox new`
#[derive(Debug, Args)]
pub(super) struct New {
    #[command(flatten)]
    dir: Dir,
}

impl New {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<()> {
        let dir = &self.dir.dir;
        Qubesd::create(dir, fresh::system())?;
        install(dir)?;
        writeln!(out, "A Qubes system with dom0, mgmt and sys-net is in {}", dir.display()).context("writing")
    }
}

/// Puts what this repository ships into a system's dom0 and UpdateVM.
pub(super) fn install(dir: &Path) -> Result<()> {
    let files = |qube: &str| dir.join("qubes").join(qube).join("root");
    for (name, text) in POLICY {
        write(&files("dom0").join("etc/qubes/policy.d").join(name), text, 0o644)?;
    }
    for (name, text) in SERVICES {
        write(&files("sys-net").join("etc/qubes-rpc").join(name), text, 0o755)?;
    }
    for (name, text) in DELEGATE {
        write(&files("mgmt").join("etc/qubes-rpc").join(name), text, 0o755)?;
    }
    Ok(())
}

fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("opening {}", path.display()))
}

/// The policy that a management qube of this name needs.
const POLICY: [(&str, &str); 1] =
    [("30-qvm-template.policy", include_str!("../../../qrexec-policy/30-qvm-template.policy"))];

/// The services of the UpdateVM.
const SERVICES: [(&str, &str); 2] = [
    ("qubes.TemplateSearch", include_str!("../../../rpc-services/qubes.TemplateSearch")),
    ("qubes.TemplateDownload", include_str!("../../../rpc-services/qubes.TemplateDownload")),
];

/// The services that the management qube offers to other qubes. No policy lets anybody call them.
const DELEGATE: [(&str, &str); 12] = [
    ("template.List", include_str!("../../../rpc-services/template.List")),
    ("template.Info", include_str!("../../../rpc-services/template.Info")),
    ("template.Search", include_str!("../../../rpc-services/template.Search")),
    ("template.Plan", include_str!("../../../rpc-services/template.Plan")),
    ("template.Install", include_str!("../../../rpc-services/template.Install")),
    ("template.Reinstall", include_str!("../../../rpc-services/template.Reinstall")),
    ("template.Upgrade", include_str!("../../../rpc-services/template.Upgrade")),
    ("template.Downgrade", include_str!("../../../rpc-services/template.Downgrade")),
    ("template.Remove", include_str!("../../../rpc-services/template.Remove")),
    ("template.Finalize", include_str!("../../../rpc-services/template.Finalize")),
    ("template.Status", include_str!("../../../rpc-services/template.Status")),
    ("template.Cancel", include_str!("../../../rpc-services/template.Cancel")),
];
