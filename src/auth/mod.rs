//! From what a request shows to what it proves: a device's password or token to its [`ProtocolAddress`], an access key to the
//! right to reach an account anonymously.
//!
//! [`ProtocolAddress`]: crate::domain::ProtocolAddress

mod authenticate;
mod basic;
mod contact;
mod credential;
mod credentials;
mod number;
mod secrets;
mod tokens;
mod unidentified;

pub use authenticate::{Authenticated, Authenticator, Proven};
pub use basic::{BasicCredentials, BasicUser, MalformedAuthorization};
pub use contact::{Contact, EmailAddress, InvalidEmail};
pub use credential::{DeviceSecret, Password, matches, queue_key, verifier};
pub use credentials::Credentials;
pub use number::{InvalidNumber, Number};
pub use secrets::{
    ServerSecrets, link_token_hash, open_link_number, open_session_contact, random_aci, random_invite_id,
    random_link_handle, random_pni, seal_link_number, seal_session_contact, session_key,
};
pub use tokens::{
    Bearer, BearerToken, Issued, NoTokenKey, OpenedKey, OpenedSession, PublishedKey, Refreshed, TokenError, TokenKeys,
    TokenSecrets, TokenTimes, Tokens, new_token_key,
};
pub use unidentified::{access_key_checksum, allows_unidentified, allows_unidentified_all, is_access_key};
