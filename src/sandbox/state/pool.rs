//! Storage pools.

use serde::{Deserialize, Serialize};

/// How a pool keeps volumes; it decides what can be gone back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Driver {
    /// A commit renames over the volume and keeps the old content as revision `<n>`; a leftover import is discarded.
    #[serde(rename = "file-reflink")]
    FileReflink,
    /// A commit renames; the old content stays as revision `<unixtime>-back`; a leftover import blocks start and import.
    #[serde(rename = "lvm_thin")]
    LvmThin,
    /// A commit removes the old volume and all its snapshots; a leftover import blocks start and import.
    #[serde(rename = "zfs")]
    Zfs,
    /// A commit renames over, nothing is kept; a leftover import makes the next import fail without a reply.
    #[serde(rename = "file")]
    File,
    /// Kernels for qubes: read only, no data of its own.
    #[serde(rename = "linux-kernel")]
    LinuxKernel,
}

impl Driver {
    /// The driver of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::FileReflink, Self::LvmThin, Self::Zfs, Self::File, Self::LinuxKernel]
            .into_iter()
            .find(|driver| driver.as_str() == name)
    }

    /// The name as the Admin API writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FileReflink => "file-reflink",
            Self::LvmThin => "lvm_thin",
            Self::Zfs => "zfs",
            Self::File => "file",
            Self::LinuxKernel => "linux-kernel",
        }
    }

    /// Whether a leftover import stands in the way of starts and imports.
    #[must_use]
    pub const fn import_blocks(self) -> bool {
        matches!(self, Self::LvmThin | Self::Zfs)
    }
}

/// One storage pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// How it keeps volumes.
    pub driver: Driver,
    /// Lines of `admin.pool.Info` other than those that every pool of the driver has, as `(key, value)`, in order.
    pub config: Vec<(String, String)>,
    /// How many bytes of data it can hold; none: as many as the file system of the sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

impl Pool {
    /// A pool with the configuration that a fresh system gives it.
    #[must_use]
    pub fn new(name: &str, driver: Driver) -> Self {
        let pairs: &[(&str, &str)] = match driver {
            Driver::FileReflink | Driver::File if name == "varlibqubes" => &[("dir_path", "/var/lib/qubes")],
            Driver::FileReflink | Driver::File => &[],
            Driver::LvmThin => &[("thin_pool", "vm-pool"), ("volume_group", "qubes_dom0")],
            Driver::Zfs => &[],
            Driver::LinuxKernel => &[("dir_path", "/var/lib/qubes/vm-kernels")],
        };
        let mut config: Vec<(String, String)> =
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        match driver {
            Driver::FileReflink | Driver::File if config.is_empty() => {
                config.push(("dir_path".to_owned(), format!("/srv/{name}")));
            }
            Driver::Zfs => config.push(("container".to_owned(), format!("qubes_dom0/{name}"))),
            _ => {}
        }
        config.push(("driver".to_owned(), driver.as_str().to_owned()));
        if driver != Driver::LinuxKernel {
            config.push(("ephemeral_volatile".to_owned(), "False".to_owned()));
        }
        config.push(("name".to_owned(), name.to_owned()));
        if driver == Driver::LinuxKernel {
            config.push(("included_in".to_owned(), "varlibqubes".to_owned()));
        } else {
            config.push(("revisions_to_keep".to_owned(), "1".to_owned()));
        }
        Self { name: name.to_owned(), driver, config, limit: None }
    }

    /// A value of its configuration.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.config.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    /// How many revisions a new volume keeps here.
    #[must_use]
    pub fn revisions_to_keep(&self) -> i64 {
        self.get("revisions_to_keep").and_then(|value| value.parse().ok()).unwrap_or(0)
    }
}
