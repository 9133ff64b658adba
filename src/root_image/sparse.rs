//! The map of a sparse image: where its data lies, in a few bytes a piece.

use crate::verify::Rejection;

/// Block of tar archives; pieces begin at multiples of it.
pub(crate) const BLOCK: u64 = 512;

/// Most bytes that a map may take in memory: two million pieces and more. An image of 16 GiB in which every second
/// 4 KiB block is a hole has that many; real ones have some ten thousand.
const MAX_MAP: usize = 4 << 20;

/// Pieces of data in rising order, without overlap: the gap before a piece and its length, both in blocks, as
/// variable-length numbers. Only what was checked gets in.
#[derive(Debug)]
pub(crate) struct Map {
    size: u64,
    end: u64,
    stored: u64,
    packed: Vec<u8>,
}

impl Map {
    /// An empty map of an image of `size` bytes.
    pub(crate) fn new(size: u64) -> Self {
        Self { size, end: 0, stored: 0, packed: Vec::new() }
    }

    /// Adds the piece of `len` bytes at `offset`.
    pub(crate) fn push(&mut self, offset: u64, len: u64) -> Result<(), Rejection> {
        let end = offset.checked_add(len).filter(|end| *end <= self.size);
        let end = end.ok_or(Rejection::SparseMap("a piece lies outside of the image"))?;
        if offset < self.end {
            return Err(Rejection::SparseMap("pieces overlap or are not in order"));
        }
        if len == 0 {
            // GNU tar marks the end of an image that ends in a hole so.
            return Ok(());
        }
        if !offset.is_multiple_of(BLOCK) || !(len.is_multiple_of(BLOCK) || end == self.size) {
            return Err(Rejection::SparseMap("a piece begins or ends inside of a block"));
        }
        pack(&mut self.packed, (offset - self.end) / BLOCK);
        pack(&mut self.packed, len.div_ceil(BLOCK));
        if self.packed.len() > MAX_MAP {
            return Err(Rejection::SparseMap("it has too many pieces"));
        }
        self.end = end;
        self.stored += len;
        Ok(())
    }

    /// Bytes of data in all pieces.
    pub(crate) fn stored(&self) -> u64 {
        self.stored
    }

    /// Reads the map from its beginning.
    pub(crate) fn into_pieces(self) -> Pieces {
        Pieces { map: self, at: 0, position: 0 }
    }
}

/// Reads a map: holes and pieces in turn.
#[derive(Debug)]
pub(crate) struct Pieces {
    map: Map,
    at: usize,
    position: u64,
}

impl Pieces {
    /// The next hole (perhaps of no length) and the piece of data after it; at the end a piece of no length.
    pub(crate) fn next(&mut self) -> (u64, u64) {
        let size = self.map.size;
        if self.at == self.map.packed.len() {
            let hole = size - self.position;
            self.position = size;
            return (hole, 0);
        }
        let hole = self.unpack() * BLOCK;
        let start = self.position + hole;
        let len = (self.unpack() * BLOCK).min(size - start);
        self.position = start + len;
        (hole, len)
    }

    fn unpack(&mut self) -> u64 {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.map.packed.get(self.at).copied().unwrap_or(0);
            self.at += 1;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        number
    }
}

fn pack(out: &mut Vec<u8>, mut number: u64) {
    loop {
        let [low, ..] = (number & 0x7f).to_le_bytes();
        number >>= 7;
        if number == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn gives_back_what_was_put_in(steps in prop::collection::vec((0u64..1 << 40, 1u64..1 << 30), 0..50), rest in 0u64..5000) {
            let mut at = 0;
            let pieces: Vec<(u64, u64)> = steps.iter().map(|(gap, len)| {
                let start = at + gap * BLOCK;
                at = start + len * BLOCK;
                (start, len * BLOCK)
            }).collect();
            let mut map = Map::new(at + rest);
            for (offset, len) in &pieces {
                map.push(*offset, *len).unwrap();
            }
            let mut read = map.into_pieces();
            let mut position = 0;
            for (offset, len) in pieces {
                let (hole, data) = read.next();
                prop_assert_eq!((position + hole, data), (offset, len));
                position = offset + len;
            }
            prop_assert_eq!(read.next(), (rest, 0));
            prop_assert_eq!(read.next(), (0, 0));
        }
    }

    #[test]
    fn refuses_maps_that_lie() {
        let map = || Map::new(10_000);
        assert!(map().push(0, 10_001).is_err());
        assert!(map().push(u64::MAX, 2).is_err());
        assert!(map().push(100, 512).is_err());
        assert!(map().push(0, 100).is_err());
        let mut good = map();
        good.push(512, 512).unwrap();
        assert!(good.push(512, 512).is_err());
        assert!(good.push(0, 512).is_err());
        good.push(9728, 272).unwrap();
        good.push(10_000, 0).unwrap();
        assert_eq!(good.stored(), 784);
    }

    #[test]
    fn a_bomb_ends_at_the_cap() {
        let mut map = Map::new(u64::MAX);
        let error = (0..u64::MAX / 1024).find_map(|i| map.push(i * 1024, 512).err());
        assert!(matches!(error, Some(Rejection::SparseMap(_))));
        assert!(map.packed.capacity() <= 2 * MAX_MAP);
    }
}
