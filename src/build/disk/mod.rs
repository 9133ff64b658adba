//! The disk around a template's root file system: partition table and EFI partition.
//!
//! The layout is the one that templates of Qubes OS have, and that the guest counts on (its `resize-rootfs` grows
//! partition 3, which must be the last):
//!
//! | # | start sector | sectors | type | name |
//! |---|---|---|---|---|
//! | 1 | 2048 | 409600 (200 MiB) | EFI system | `EFI System`, FAT16 with label `EFI` |
//! | 2 | 411648 | 4096 (2 MiB) | BIOS boot | `BIOS boot partition`, empty |
//! | 3 | 415744 | up to 1 MiB before the end | Linux file system | `Root filesystem` |
//!
//! Disk and partition GUIDs are fixed. The table is byte for byte what `sfdisk` 2.38 writes from the same description.
//! [`write()`] writes table and EFI partition; [`root`] says where the root file system goes.

mod fat;
mod gpt;

use anyhow::{Result, ensure};

pub use fat::EfiFile;
pub use gpt::{Partition, read as read_partitions};

use crate::build::image::Image;

/// Bytes in a sector.
pub const SECTOR: u64 = 512;

/// Where the root partition begins, in bytes.
pub const ROOT_START: u64 = 415_744 * SECTOR;

/// The space kept free behind the root partition, which ends with the second copy of the partition table.
pub const TAIL: u64 = 1 << 20;

/// The smallest disk: a root partition of 16 MiB.
pub const SMALLEST: u64 = ROOT_START + (16 << 20) + TAIL;

const EFI_START: u64 = 2048 * SECTOR;
const EFI_SIZE: u64 = 409_600 * SECTOR;

/// A part of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub size: u64,
}

/// What goes around the root file system.
#[derive(Debug, Default)]
pub struct Disk {
    /// Size of the whole disk in bytes, a multiple of 1 MiB.
    pub size: u64,
    /// Serial number of the FAT file system in the EFI partition.
    pub serial: u32,
    /// Time of everything in the EFI partition, in seconds since 1970.
    pub time: i64,
    /// Files for the EFI partition.
    pub efi_files: Vec<EfiFile>,
}

/// Where the root file system goes on a disk of `size` bytes.
pub fn root(size: u64) -> Result<Region> {
    ensure!(
        size.is_multiple_of(1 << 20) && size >= SMALLEST,
        "a disk of {size} bytes is not possible: at least {SMALLEST}, in whole MiB"
    );
    Ok(Region { offset: ROOT_START, size: size - ROOT_START - TAIL })
}

/// Writes partition table and EFI partition to `image`, which must have the size of the disk already.
///
/// Returns the place of the root partition, of which nothing is written.
pub fn write(image: &mut Image, disk: &Disk) -> Result<Region> {
    let root = root(disk.size)?;
    ensure!(image.size() == disk.size, "the image has {} bytes, the disk {}", image.size(), disk.size);
    gpt::write(image, disk.size)?;
    fat::write(image, Region { offset: EFI_START, size: EFI_SIZE }, disk)?;
    Ok(root)
}
