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
pub use credential::{DeviceSecret, Password, matches, verifier};
pub use number::{InvalidNumber, Number};
pub use secrets::{ServerSecrets, open_session_number, random_aci, random_pni, seal_session_number, session_key};
pub use unidentified::allows_unidentified;
