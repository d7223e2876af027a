//! Wire formats and public-key formats of blind-relay.
//!
//! Bytes and strings from strangers become types here, once; the rest of the server handles only the types. The rules
//! the crate keeps:
//!
//! - **Pure.** No I/O, no async, no clock, no randomness, and none of our other crates. Time and random bytes are arguments.
//! - **Public halves only**, of everything that is a client's. The one private key with a type here is [`PrivateKey`],
//!   with which the server signs certificates, and nothing here decrypts.
//! - **Silent.** `Debug` of an identifier, key, signature or message prints the type's name and no more, and
//!   [`DecodeError`] never repeats what it refused, so neither can carry a value into a log. `Display` of service ids is
//!   the wire form and is for the wire only.
//! - **At least as strict as the clients' library.** What parses here parses there; where we refuse more, the type's
//!   documentation says so and a test lists the difference. Key agreement stays with the clients: a key that parses is
//!   well formed, not trustworthy, which [`EcPublicKey::is_weak`] and [`SignedEcPreKey::is_signed_by`] are for.
//! - **Golden.** `vectors/libsignal-vectors.json` holds what the official library said about keys and signatures,
//!   `vectors/username-proofs.json` about proofs of user names, and the message encodings have byte constants in
//!   [`proto`]. Changing one is a change of protocol.

pub mod certificate;
pub mod created_at;
mod error;
pub mod multi_recipient;
mod opaque_debug;
mod pre_key;
mod private_key;
pub mod proto;
mod public_key;
mod service_id;
pub mod username;
pub mod xeddsa;

pub use error::DecodeError;
pub use pre_key::{EcPreKey, KeyId, KyberPreKey, Signature, SignedEcPreKey, repeated_use_digest};
pub use private_key::PrivateKey;
pub use public_key::{EcPublicKey, IdentityKey, KyberPublicKey};
pub use service_id::{Aci, CompactServiceId, Pni, ServiceId};
