//! CRC-32C as ext4 uses it: any start value, no inversion at the end.

const TABLES: [[u32; 256]; 8] = tables();

/// Continues `crc` over `bytes`; the first call starts with `!0` or with a seed.
pub(super) fn crc32c(mut crc: u32, bytes: &[u8]) -> u32 {
    let byte = |word: u32, index: usize| word.to_le_bytes()[index] as usize;
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let low = crc ^ u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
        let high = u32::from_le_bytes([chunk[4], chunk[5], chunk[6], chunk[7]]);
        crc = TABLES[7][byte(low, 0)]
            ^ TABLES[6][byte(low, 1)]
            ^ TABLES[5][byte(low, 2)]
            ^ TABLES[4][byte(low, 3)]
            ^ TABLES[3][byte(high, 0)]
            ^ TABLES[2][byte(high, 1)]
            ^ TABLES[1][byte(high, 2)]
            ^ TABLES[0][byte(high, 3)];
    }
    for next in chunks.remainder() {
        crc = (crc >> 8) ^ TABLES[0][byte(crc, 0) ^ *next as usize];
    }
    crc
}

/// `TABLES[n][b]`: what byte `b` does to a checksum when `n` more bytes follow.
#[allow(clippy::cast_possible_truncation, reason = "an index below 256, and `try_from` is not const")]
const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut index = 0;
    while index < 256 {
        let mut crc = index as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        tables[0][index] = crc;
        index += 1;
    }
    let mut table = 1;
    while table < 8 {
        let mut index = 0;
        while index < 256 {
            let before = tables[table - 1][index];
            tables[table][index] = (before >> 8) ^ tables[0][(before & 0xff) as usize];
            index += 1;
        }
        table += 1;
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_of_the_catalogue() {
        assert_eq!(!crc32c(!0, b"123456789"), 0xe306_9283);
        let bytes: Vec<u8> = (0..=255).collect();
        let split = crc32c(crc32c(!0, &bytes[..77]), &bytes[77..]);
        assert_eq!(crc32c(!0, &bytes), split);
    }
}
