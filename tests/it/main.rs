//! The server from outside.

#![expect(
    clippy::unwrap_used,
    reason = "a failure here is a failed test, also in what tests share"
)]

mod account_data;
mod attachment_attacks;
mod attachments;
mod authorization;
mod blindness;
mod calling;
mod certificates;
mod crash;
mod delivery;
mod devices;
mod http2;
mod keys;
mod layering;
mod limits;
mod messages;
mod metrics;
mod multi_recipient;
mod openapi;
mod operations;
mod profiles;
mod provisioning;
mod redis;
mod registration;
mod sockets;
mod support;
mod traces;
mod usernames;
