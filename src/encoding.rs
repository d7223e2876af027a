//! Text encodings of bytes, as the wire and files have them.

use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// The standard alphabet, written with padding and read with or without.
pub const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);

/// The standard alphabet, written without padding and read with or without.
pub const BASE64_UNPADDED: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, LENIENT.with_encode_padding(false));

/// The URL-safe alphabet, written without padding and read with or without.
pub const BASE64_URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT.with_encode_padding(false));

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    // One digit more than is needed: who ends a line with a secret leaves no copy behind by growing the text.
    let mut text = String::with_capacity(2 * bytes.len() + 1);
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(digit.into(), 16).expect("four bits are a hex digit"));
        }
    }
    text
}

/// Reads hexadecimal digits in either case into `bytes`; `None` unless they are exactly as many as fill it. In place, so
/// that whoever reads a secret wipes the only copy.
pub fn read_hex(text: &str, bytes: &mut [u8]) -> Option<()> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return None;
    };
    if pairs.len() != bytes.len() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(())
}

fn digit(digit: u8) -> Option<u8> {
    u8::try_from(char::from(digit).to_digit(16)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_is_read_as_it_is_written_and_in_capitals() {
        let bytes: Vec<u8> = (0..=255).collect();
        let mut read = [0; 256];
        for text in [hex(&bytes), hex(&bytes).to_uppercase()] {
            assert_eq!(read_hex(&text, &mut read), Some(()));
            assert_eq!(read[..], bytes);
        }
    }

    #[test]
    fn other_lengths_and_other_signs_are_refused() {
        let mut bytes = [0; 2];
        for text in ["", "abc", "abcde", "abcdef", "+1+2", "ab g", "0xab", "é00"] {
            assert_eq!(read_hex(text, &mut bytes), None, "{text}");
        }
    }
}
