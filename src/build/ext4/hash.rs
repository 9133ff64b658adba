//! The hash that sorts the names of a large directory: half MD4 over unsigned bytes, seeded.
//!
//! Source: the kernel's documentation of ext4 ("Hash Tree Directories"); a test compares with `debugfs dx_hash`.

/// Major and minor hash of a name. The lowest bit of the major hash is clear: an index uses it to mark a run of equal
/// hashes that goes on from the leaf before.
pub(super) fn half_md4(name: &[u8], seed: [u32; 4]) -> (u32, u32) {
    let mut state = if seed == [0; 4] { [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476] } else { seed };
    let mut rest = name;
    while !rest.is_empty() {
        transform(&mut state, &words(rest));
        rest = rest.get(32..).unwrap_or_default();
    }
    let major = state[1] & !1;
    // the two largest values mean "end of directory"
    let major = if major == 0x7fff_ffff << 1 { 0x7fff_fffe << 1 } else { major };
    (major, state[2])
}

/// The next 32 bytes as eight words; what is missing is filled with the length.
fn words(rest: &[u8]) -> [u32; 8] {
    let len = u32::try_from(rest.len()).unwrap_or(u32::MAX);
    let pad = len | (len << 8);
    let pad = pad | (pad << 16);
    let mut words = [pad; 8];
    for (word, bytes) in words.iter_mut().zip(rest[..rest.len().min(32)].chunks(4)) {
        *word = bytes.iter().fold(pad, |word, byte| (word << 8).wrapping_add(u32::from(*byte)));
    }
    words
}

fn transform(state: &mut [u32; 4], input: &[u32; 8]) {
    const SECOND: u32 = 0x5a82_7999;
    const THIRD: u32 = 0x6ed9_eba1;
    let [mut a, mut b, mut c, mut d] = *state;
    let f = |x: u32, y: u32, z: u32| z ^ (x & (y ^ z));
    let g = |x: u32, y: u32, z: u32| (x & y).wrapping_add((x ^ y) & z);
    let h = |x: u32, y: u32, z: u32| x ^ y ^ z;
    let mut round =
        |mix: &dyn Fn(u32, u32, u32) -> u32, order: [usize; 8], constant: u32, shifts: [u32; 4]| {
            for (index, word) in order.into_iter().enumerate() {
                let sum = a.wrapping_add(mix(b, c, d)).wrapping_add(input[word]).wrapping_add(constant);
                (a, b, c, d) = (d, sum.rotate_left(shifts[index % 4]), b, c);
            }
        };
    round(&f, [0, 1, 2, 3, 4, 5, 6, 7], 0, [3, 7, 11, 19]);
    round(&g, [1, 3, 5, 7, 0, 2, 4, 6], SECOND, [3, 5, 9, 13]);
    round(&h, [3, 7, 2, 6, 1, 5, 0, 4], THIRD, [3, 9, 11, 15]);
    for (word, change) in state.iter_mut().zip([a, b, c, d]) {
        *word = word.wrapping_add(change);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of `debugfs -R "dx_hash -h half_md4 [-s SEED] NAME"` (e2fsprogs 1.47.0), without a seed and with
    /// 11111111-2222-3333-4444-555555555555.
    #[test]
    fn equal_to_debugfs() {
        let seed = [0x1111_1111, 0x3333_2222, 0x5555_4444, 0x5555_5555];
        for (name, plain, seeded) in [
            ("a", (0xd5fa_7d7a, 0xacb4_8187), (0x61ab_28ce, 0x4ffe_6d79)),
            ("lost+found", (0x591d_e422, 0x6ffc_56e0), (0x10e0_9910, 0x2cea_ef16)),
            (
                "a-name-of-more-than-thirty-two-bytes-to-take-two-rounds",
                (0xcb24_6bac, 0x6acc_90ae),
                (0x7a6f_9c6a, 0x9ac2_34ec),
            ),
            ("12345678901234567890123456789012", (0xfa6c_c63e, 0x2f77_bd1c), (0x17d4_f7f2, 0x56b9_8e8c)),
        ] {
            assert_eq!(half_md4(name.as_bytes(), [0; 4]), plain, "{name}");
            assert_eq!(half_md4(name.as_bytes(), seed), seeded, "{name}");
        }
    }
}
