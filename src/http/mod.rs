//! HTTP and WebSocket: what is on the wire, and nothing else.
//!
//! [`routes`] is the one list of what there is. A request reaches its handler by plain HTTP or through a WebSocket
//! ([`socket`]); the handler cannot tell, and need not.

pub mod error;
pub mod fetch_limit;
pub mod routes;
pub mod state;
pub mod wire;

mod accounts;
mod envelope;
mod extract;
mod health;
mod keys;
mod mailbox;
mod messages;
mod reach;
mod registration;
mod socket;
mod verification;

pub use socket::frame::parse_frame;
