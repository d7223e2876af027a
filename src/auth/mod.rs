//! From what a request shows to what it proves: a device's password to its [`ProtocolAddress`], an access key to the
//! right to reach an account anonymously.
//!
//! [`ProtocolAddress`]: crate::domain::ProtocolAddress

mod authenticate;
mod basic;
mod credential;
mod number;
mod secrets;
mod unidentified;

pub use authenticate::{Authenticated, Authenticator};
pub use basic::{BasicCredentials, BasicUser, MalformedAuthorization};
pub use credential::{DeviceSecret, Password, matches, queue_key, verifier};
pub use number::{InvalidNumber, Number};
pub use secrets::{
    ServerSecrets, link_token_hash, open_link_number, open_session_number, random_aci, random_link_handle, random_pni,
    seal_link_number, seal_session_number, session_key,
};
pub use unidentified::{access_key_checksum, allows_unidentified, allows_unidentified_all};
