//! Proofs of knowing the user name behind a hash, as clients show them when they take a name.
//!
//! A hash is a point of the Ristretto group, written in 32 bytes: the sum of three fixed base points, each multiplied by
//! a number that the client derives from the name. A proof shows knowledge of three such numbers for the hash and nothing
//! about them: a Schnorr proof over three bases, made non-interactive with Perrin's stateful hash object over HMAC-SHA-256.
//! Which numbers belong to which name is the clients' business; whoever knows numbers without a name knows nothing that
//! others could look up.

use curve25519_dalek::ristretto::{CompressedRistretto, RistrettoPoint};
use curve25519_dalek::{Scalar, constants, traits::VartimeMultiscalarMul};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The length of a proof: the challenge and three responses.
pub const PROOF_LENGTH: usize = 128;

/// The points by which the three numbers are multiplied.
pub const BASES: [[u8; 32]; 3] = [
    [
        0x60, 0xb9, 0x93, 0x66, 0x3a, 0x3d, 0xae, 0xcc, 0x4c, 0x85, 0x2f, 0x53, 0x35, 0x47, 0xe3, 0x05, 0x38, 0x8c,
        0x2a, 0x50, 0xa5, 0x83, 0x93, 0xea, 0x27, 0x7d, 0xe4, 0xab, 0xf3, 0xde, 0x54, 0x3a,
    ],
    [
        0xf2, 0xb6, 0xf1, 0xc8, 0x26, 0xfa, 0x36, 0x40, 0x20, 0x6f, 0x3b, 0x58, 0xb2, 0x28, 0x6b, 0xde, 0xfd, 0xfd,
        0xa6, 0xa5, 0x4f, 0xf9, 0x02, 0xf2, 0x04, 0xa7, 0x2d, 0xe7, 0x37, 0xd2, 0x61, 0x57,
    ],
    [
        0x06, 0x06, 0xbd, 0x3a, 0xbf, 0xce, 0x4e, 0x96, 0x17, 0xd4, 0x48, 0xfb, 0x2c, 0xae, 0xb6, 0xcc, 0x02, 0x8e,
        0xc9, 0xa2, 0xb6, 0x2b, 0x10, 0xb3, 0xd9, 0xeb, 0x29, 0x48, 0xda, 0x6f, 0x3f, 0x53,
    ],
];

/// Whether `proof` shows that its maker knew a name with this hash.
///
/// Not constant-time: both arguments are public.
#[must_use]
pub fn verify(hash: &[u8; 32], proof: &[u8; PROOF_LENGTH]) -> bool {
    let (Some(point), Some([challenge, responses @ ..])) = (decompress(hash), scalars(proof)) else {
        return false;
    };
    let Some(mut points) = bases() else { return false };
    points.push(point);
    let factors = responses.into_iter().chain([-challenge]);
    let commitment = RistrettoPoint::vartime_multiscalar_mul(factors, points);
    self::challenge(hash, &commitment.compress().to_bytes()) == challenge
}

/// The number that a prover cannot choose: a hash of what is proven and of the prover's commitment.
#[must_use]
pub fn challenge(hash: &[u8; 32], commitment: &[u8; 32]) -> Scalar {
    let mut state = ratchet(&[0; 32], &[LABEL]);
    let generator = constants::RISTRETTO_BASEPOINT_COMPRESSED.to_bytes();
    let [first, second, third] = &BASES;
    state = ratchet(&state, &[&EQUATION, &generator, hash, first, second, third]);
    // What is proven comes again as the message that the proof is bound to.
    state = ratchet(&state, &[commitment, hash]);
    let mut wide = [0; 64];
    for (index, block) in (0_u64..).zip(wide.chunks_exact_mut(32)) {
        block.copy_from_slice(&hmac(&state, &[&index.to_be_bytes(), &[1]]));
    }
    Scalar::from_bytes_mod_order_wide(&wide)
}

/// The stateful hash: absorbs the parts and moves on.
fn ratchet(state: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    hmac(state, &[&parts.concat(), &[0]])
}

fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn bases() -> Option<Vec<RistrettoPoint>> {
    BASES.iter().map(decompress).collect()
}

fn decompress(bytes: &[u8; 32]) -> Option<RistrettoPoint> {
    CompressedRistretto(*bytes).decompress()
}

/// The four numbers of a proof, if each is written in its one way.
fn scalars(proof: &[u8; PROOF_LENGTH]) -> Option<[Scalar; 4]> {
    let mut scalars = [Scalar::ZERO; 4];
    for (scalar, bytes) in scalars.iter_mut().zip(proof.chunks_exact(32)) {
        *scalar = Option::from(Scalar::from_canonical_bytes(bytes.try_into().ok()?))?;
    }
    Some(scalars)
}

const LABEL: &[u8] = b"POKSHO_Ristretto_SHOHMACSHA256";
/// One equation: point 1, the hash, is a sum of three terms, number 0 times point 2, 1 times 3, 2 times 4. Point 0 is the
/// group's generator and has no part in it.
const EQUATION: [u8; 9] = [1, 1, 3, 0, 2, 1, 3, 2, 4];
