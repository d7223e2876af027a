//! Proof of work: a client spends some time of a processor before it may ask for a code, once per session.
//!
//! It makes thousands of sessions dear, and one a moment's wait. The challenge is the session's id, which nobody knows
//! before the server has drawn it, so that no work can be done in advance or used twice.

use sha2::{Digest, Sha256};

/// How much work is asked for: leading zero bits of a hash. Each bit more doubles it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkBits(u8);

impl WorkBits {
    /// Between 8 and 32, or `None`.
    pub fn new(bits: u8) -> Option<Self> {
        (MIN_BITS..=MAX_BITS).contains(&bits).then_some(Self(bits))
    }

    /// How many.
    pub fn get(self) -> u8 {
        self.0
    }

    /// Whether the nonce is an answer to the challenge.
    pub fn accepts(self, challenge: &str, nonce: &str) -> bool {
        let fits = (1..=MAX_NONCE_BYTES).contains(&nonce.len()) && nonce.bytes().all(|byte| byte.is_ascii_graphic());
        fits && leading_zeros(&hash(challenge, nonce)) >= u32::from(self.0)
    }
}

fn hash(challenge: &str, nonce: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [PURPOSE, challenge, ":", nonce] {
        hash.update(part.as_bytes());
    }
    hash.finalize().into()
}

fn leading_zeros(hash: &[u8; 32]) -> u32 {
    let (first, _) = hash.split_at(8);
    u64::from_be_bytes(first.try_into().expect("eight of 32 bytes")).leading_zeros()
}

/// What is hashed before the challenge, so that the work is of use here alone.
const PURPOSE: &str = "blind-relay registration work v1:";
/// The longest nonce that is looked at.
pub const MAX_NONCE_BYTES: usize = 64;
const MIN_BITS: u8 = 8;
const MAX_BITS: u8 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    /// The vector of docs/protocol.md, made with `sha256sum`.
    const CHALLENGE: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
    const NONCE: &str = "52004";

    #[test]
    fn the_vector_of_the_protocol_has_its_bits_and_no_more() {
        assert_eq!(
            crate::encoding::hex(&hash(CHALLENGE, NONCE)),
            "00005d83f17689ba12197993446e3f6c7a7674f775b71693398f308d24a09a40"
        );
        assert!(WorkBits(16).accepts(CHALLENGE, NONCE));
        assert!(!WorkBits(32).accepts(CHALLENGE, NONCE));
    }

    #[test]
    fn work_is_for_one_challenge() {
        let bits = WorkBits::new(8).unwrap();
        let nonce = (0..)
            .map(|n: u32| n.to_string())
            .find(|nonce| bits.accepts("one", nonce));
        let nonce = nonce.unwrap();
        let others = (0..64).filter(|other| bits.accepts(&format!("other {other}"), &nonce));
        assert!(others.count() < 8);
    }

    #[test]
    fn bits_and_nonces_have_bounds() {
        for (bits, good) in [(0, false), (7, false), (8, true), (32, true), (33, false)] {
            assert_eq!(WorkBits::new(bits).is_some(), good);
        }
        // Whatever the hash is, these are not looked at.
        let none = WorkBits(0);
        assert!(none.accepts("c", "1") && none.accepts("c", &"1".repeat(64)));
        for nonce in ["", "1 2", "1\n", "é", &"1".repeat(65)] {
            assert!(!none.accepts("c", nonce), "{nonce:?}");
        }
    }

    #[test]
    fn zero_bits_are_counted_from_the_first_byte() {
        let mut hash = [0xff; 32];
        assert_eq!(leading_zeros(&hash), 0);
        hash[0] = 0;
        hash[1] = 0x1f;
        assert_eq!(leading_zeros(&hash), 11);
        assert!(leading_zeros(&[0; 32]) >= u32::from(MAX_BITS));
    }
}
