//! HTTP and WebSocket: what is on the wire, and nothing else.
//!
//! [`listener`] accepts connections and [`routes`] is the one list of what they may ask. A request reaches its handler by
//! plain HTTP or through a WebSocket (`socket/`); the handler cannot tell, and need not.

pub mod admin;
pub mod crowd;
pub mod drain;
pub mod error;
pub mod etag;
pub mod health;
pub mod listener;
pub mod network;
pub mod operator;
pub mod proxies;
pub mod remote_config;
pub mod routes;
pub mod state;
pub mod transport;
pub mod waits;
pub mod wire;

mod absent;
pub mod account_data;
mod accounts;
mod around;
pub mod attachments;
mod blocks;
mod calling;
mod certificates;
mod devices;
mod envelope;
pub mod export;
mod extract;
mod idempotency;
mod key_claims;
mod keys;
mod limits;
mod mailbox;
mod messages;
mod multi_recipient;
mod openapi;
mod origin;
pub mod pace;
mod password;
mod profiles;
mod protobuf;
mod provisioning;
mod query_secrets;
mod rate;
mod reach;
mod registration;
mod reports;
mod seen;
mod socket;
mod tokens;
mod usernames;
mod verification;

pub use socket::frame::{Frame, InnerRequest, parse_frame};
