//! The server from outside.

#![expect(
    clippy::unwrap_used,
    reason = "a failure here is a failed test, also in what tests share"
)]

mod authorization;
mod blindness;
mod crash;
mod delivery;
mod keys;
mod layering;
mod limits;
mod messages;
mod metrics;
mod operations;
mod redis;
mod registration;
mod sockets;
mod support;
