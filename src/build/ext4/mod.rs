//! An ext4 file system, written from a [`Tree`] in one pass and without a kernel.
//!
//! # What is written
//!
//! Blocks of 4096 bytes, inodes of 256. Features: `has_journal ext_attr resize_inode dir_index filetype extents 64bit
//! flex_bg sparse_super large_file huge_file dir_nlink extra_isize metadata_csum`, which is what `mke2fs` of
//! e2fsprogs 1.47.0 chooses, so the GRUB and the kernels of every distribution that has templates can read it.
//!
//! ```text
//! group 0:  superblock, descriptors, reserved descriptors | bitmaps and inode tables of groups 0 to 15 | blocks ...
//! group 1:  copy of superblock and descriptors            | blocks ...                  (also 3, 5, 7, 9, 25, ...)
//! group 16: bitmaps and inode tables of groups 16 to 31   | blocks ...
//! ```
//!
//! Blocks are given out in ascending order: journal, `lost+found`, then everything in the order of its path, each
//! file's blocks together. Inode numbers follow the same order. So two trees that are equal give the same bytes.
//! A block of zeros in a file becomes a hole. Bitmaps of groups that hold nothing are left to be derived
//! (`BLOCK_UNINIT`), tables of unused inodes are zero already (`INODE_ZEROED`), so an empty group costs no block.
//!
//! The resize inode reserves descriptor blocks for growth to 2 TiB while mounted (`mke2fs` reserves for more, which
//! would put 4 MiB of block lists into every image).
//!
//! # Times and identity
//!
//! Every inode's four times are the tree's time, not later than the given one. UUID and hash seed are given. Checks
//! by count or time are off, as with `mke2fs`.
//!
//! # Limits
//!
//! 8 MiB to 16 TiB; a file up to 16 TiB; extended attributes of a file up to 96 bytes in the inode plus one block;
//! 65000 names of a file (a directory may have more subdirectories). What does not fit is refused with the name of
//! the file, a full file system with the size that would do.
//!
//! Source: the kernel's documentation of the on-disk format (Documentation/filesystems/ext4), checked against `e2fsck`,
//! `debugfs` and the kernel.

mod checksum;
mod directory;
mod extents;
mod geometry;
mod hash;
mod inode;
mod read;
mod space;
mod superblock;
mod verify;
mod writer;
mod xattr;

pub use read::{Reader, is_ext4};
pub use writer::{Options, Report, write};

#[cfg(doc)]
use crate::build::tree::Tree;

/// Bytes in a block.
const BLOCK: u64 = 4096;
const BLOCK_BYTES: usize = 4096;

/// The journal's inode.
const JOURNAL: u32 = 8;

fn put16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

fn put32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}
