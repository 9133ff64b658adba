//! An inode of 256 bytes: 160 of fixed fields, then room for extended attributes.

use super::checksum::crc32c;
use super::{put16, put32};

/// The file has extents.
pub(super) const EXTENTS: u32 = 0x8_0000;
/// The directory has an index.
pub(super) const INDEX: u32 = 0x1000;
/// Where the room for extended attributes begins.
pub(super) const ROOM: usize = 160;

/// The fields that differ between inodes.
#[derive(Debug)]
pub(super) struct Inode {
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub time: i64,
    pub links: u16,
    /// Blocks in units of 512 bytes.
    pub sectors: u64,
    pub flags: u32,
    /// Extent tree, short symbolic link or device number.
    pub block: [u8; 60],
    /// Block of extended attributes.
    pub attributes: u64,
}

impl Inode {
    /// The bytes, with `room` (96 bytes) at the end; `seed` is the inode's own ([`seed`]).
    pub fn encode(&self, room: &[u8], seed: u32) -> [u8; 256] {
        let mut bytes = [0; 256];
        let low16 = |value: u32| u16::from_le_bytes([value.to_le_bytes()[0], value.to_le_bytes()[1]]);
        let high16 = |value: u32| u16::from_le_bytes([value.to_le_bytes()[2], value.to_le_bytes()[3]]);
        let (size_low, size_high) = halves(self.size);
        let (sectors_low, sectors_high) = halves(self.sectors);
        let (attributes_low, attributes_high) = halves(self.attributes);
        let (time, epoch) = split_time(self.time);
        for (at, value) in [
            (0x00, self.mode),
            (0x02, low16(self.uid)),
            (0x18, low16(self.gid)),
            (0x1a, self.links),
            (0x74, low16(sectors_high)),
            (0x76, low16(attributes_high)),
            (0x78, high16(self.uid)),
            (0x7a, high16(self.gid)),
            (0x80, 32),
        ] {
            put16(&mut bytes, at, value);
        }
        for (at, value) in [
            (0x04, size_low),
            (0x08, time),
            (0x0c, time),
            (0x10, time),
            (0x1c, sectors_low),
            (0x20, self.flags),
            (0x68, attributes_low),
            (0x6c, size_high),
            (0x84, epoch),
            (0x88, epoch),
            (0x8c, epoch),
            (0x90, time),
            (0x94, epoch),
        ] {
            put32(&mut bytes, at, value);
        }
        bytes[0x28..0x64].copy_from_slice(&self.block);
        bytes[ROOM..].copy_from_slice(room);
        let crc = crc32c(seed, &bytes);
        put16(&mut bytes, 0x7c, low16(crc));
        put16(&mut bytes, 0x82, high16(crc));
        bytes
    }
}

/// The start value of every checksum in what belongs to an inode (its generation is always 0).
pub(super) fn seed(file_system: u32, inode: u32) -> u32 {
    crc32c(crc32c(file_system, &inode.to_le_bytes()), &[0; 4])
}

/// A device number as an inode has it: the old form where it fits.
pub(super) fn device(major: u32, minor: u32) -> [u8; 60] {
    let mut block = [0; 60];
    if major < 256 && minor < 256 {
        put32(&mut block, 0, (major << 8) | minor);
    } else {
        put32(&mut block, 4, (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12));
    }
    block
}

/// Lower and upper 32 bits.
pub(super) fn halves(value: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
}

/// Seconds as an inode has them: 32 bits, and two more in the extra field. Times outside 1901 to 2446 become the
/// nearest that can be stored.
fn split_time(seconds: i64) -> (u32, u32) {
    const FIRST: i64 = -(1 << 31);
    let since = u64::try_from(seconds.clamp(FIRST, FIRST + (1 << 34) - 1) - FIRST).unwrap_or(0);
    let (low, epoch) = halves(since);
    (low ^ 0x8000_0000, epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_and_after_2038_have_their_place() {
        assert_eq!(split_time(0), (0, 0));
        assert_eq!(split_time(-1), (u32::MAX, 0));
        assert_eq!(split_time(0x7fff_ffff), (0x7fff_ffff, 0));
        assert_eq!(split_time(0x8000_0000), (0x8000_0000, 1));
        assert_eq!(split_time(0x1_0000_0000), (0, 1));
        assert_eq!(split_time(i64::MAX), (0x7fff_ffff, 3));
        assert_eq!(split_time(i64::MIN), (0x8000_0000, 0));
    }

    #[test]
    fn devices_have_two_forms() {
        assert_eq!(device(5, 1)[..8], [1, 5, 0, 0, 0, 0, 0, 0]);
        assert_eq!(device(259, 0x12345)[..8], [0, 0, 0, 0, 0x45, 0x03, 0x31, 0x12]);
    }
}
