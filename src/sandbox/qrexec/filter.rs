//! Output that cannot act on a terminal.

/// Replaces bytes that are neither printable ASCII nor among the harmless controls by `_`.
pub(super) fn replace_escapes(bytes: &mut [u8]) {
    for byte in bytes {
        if !matches!(*byte, 0x20..=0x7e | b'\t' | b'\n' | b'\r' | 0x08 | 0x07) {
            *byte = b'_';
        }
    }
}
