//! Fields of protobuf, written straight into a buffer.
//!
//! For the few messages that every envelope passes through: `keys_schema::proto` would have each text in a string of its
//! own and each inner message in a buffer of its own. Whoever writes with this holds it against those types in its tests.

use bytes::BufMut;

/// A field with a number.
pub(super) fn number(out: &mut impl BufMut, field: u8, value: u64) {
    key(out, field, NUMBER);
    varint(out, value);
}

/// A field with the bytes of all parts, one after the other.
pub(super) fn bytes(out: &mut impl BufMut, field: u8, parts: &[&[u8]]) {
    begin_bytes(out, field, total(parts));
    for part in parts {
        out.put_slice(part);
    }
}

/// The beginning of a field with so many bytes, which follow.
pub(super) fn begin_bytes(out: &mut impl BufMut, field: u8, len: usize) {
    key(out, field, BYTES);
    varint(out, len as u64);
}

/// Length of [`number`], for fields below 16.
pub(super) fn number_len(value: u64) -> usize {
    1 + varint_len(value)
}

/// Length of [`bytes`] with so many, for fields below 16.
pub(super) fn bytes_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

/// Length of all parts together.
pub(super) fn total(parts: &[&[u8]]) -> usize {
    parts.iter().map(|part| part.len()).sum()
}

fn key(out: &mut impl BufMut, field: u8, kind: u8) {
    varint(out, u64::from(field) << 3 | u64::from(kind));
}

fn varint(out: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.put_u8(value.to_le_bytes()[0]);
}

fn varint_len(value: u64) -> usize {
    let bits = u64::BITS - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

/// Wire types.
const NUMBER: u8 = 0;
const BYTES: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_as_long_as_they_are_said_to_be() {
        for value in (0..64)
            .map(|bits| 1 << bits)
            .chain([0, 127, 128, 16_383, 16_384, u64::MAX])
        {
            let mut out = Vec::new();
            number(&mut out, 15, value);
            assert_eq!(out.len(), number_len(value), "{value}");
            assert_eq!(
                prost::decode_length_delimiter(&out[1..]).ok(),
                usize::try_from(value).ok()
            );
        }
        for len in [0, 1, 127, 128, 16_383, 16_384, 70_000] {
            let mut out = Vec::new();
            bytes(&mut out, 1, &[&[], &vec![7; len]]);
            assert_eq!(out.len(), bytes_len(len), "{len}");
        }
    }
}
