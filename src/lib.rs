//! blind-relay.

pub mod cli;
pub mod config;
pub mod doctor;
pub mod http;
pub mod secret_file;
pub mod server;
pub mod telemetry;
pub mod tls;

/// The nouns.
pub mod domain {
    mod clock;

    pub use clock::{Clock, Day, SystemClock, Timestamp};
}
