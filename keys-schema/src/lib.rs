//! Wire formats and public-key formats of blind-relay.
//!
//! Bytes and strings from strangers become types here, once; the rest of the server handles only the types. The rules
//! the crate keeps:
//!
//! - **Pure.** No I/O, no async, no clock, no randomness, and none of our other crates. Time and random bytes are arguments.
//! - **Public halves only**, of everything that clients encrypt with. The private keys with a type here are
//!   [`PrivateKey`], with which the server signs certificates, and [`sealed_queue::QueueKey`], which opens what the server
//!   sealed itself before it was stored. Nothing here decrypts what a client encrypted.
//! - **Silent.** `Debug` of an identifier, key, signature or message prints the type's name and no more, and
//!   [`DecodeError`] never repeats what it refused, so neither can carry a value into a log. `Display` of service ids is
//!   the wire form and is for the wire only.
//! - **At least as strict as the clients' library.** What parses here parses there; where we refuse more, the type's
//!   documentation says so and a test lists the difference. Key agreement stays with the clients: a key that parses is
//!   well formed, not trustworthy, which [`EcPublicKey::is_weak`] and [`SignedEcPreKey::is_signed_by`] are for.
//! - **Golden.** `vectors/libsignal-vectors.json` holds what the official library said about keys and signatures,
//!   `vectors/username-proofs.json` about proofs of user names, `vectors/framing.json` about ciphertexts, `vectors/sealed-queue.json` what another implementation
//!   made of [`sealed_queue`], and the message encodings have byte constants in
//!   [`proto`]. Changing one is a change of protocol.

pub mod certificate;
pub mod created_at;
mod error;
pub mod framing;
mod given;
pub mod multi_recipient;
mod opaque_debug;
mod pre_key;
mod private_key;
pub mod proto;
mod public_key;
pub mod sealed_queue;
mod service_id;
pub mod username;
pub mod xeddsa;

pub use error::DecodeError;
pub use pre_key::{EcPreKey, KeyId, KyberPreKey, Signature, SignedEcPreKey, repeated_use_digest};
pub use private_key::PrivateKey;
pub use public_key::{EcPublicKey, IdentityKey, KyberPublicKey};
pub use service_id::{Aci, CompactServiceId, Pni, ServiceId};

/// The manifest: what the server stores, says and shows. It lies here because it is a schema, too; the server parses it.
pub const MANIFEST: &str = include_str!("../manifest.toml");
