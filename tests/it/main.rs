//! The server from outside.

#![expect(
    clippy::unwrap_used,
    reason = "a failure here is a failed test, also in what tests share"
)]

mod account_data;
mod attachment_attacks;
mod attachments;
mod audit;
mod authorization;
mod blindness;
mod calling;
mod canary;
mod cannot_decrypt;
mod certificates;
mod crash;
mod delivery;
mod devices;
mod enumeration;
mod erasure;
mod export;
mod framing;
mod http2;
mod keys;
mod layering;
mod limits;
mod manifest;
mod messages;
mod metrics;
mod multi_recipient;
mod openapi;
mod operations;
mod profiles;
mod provisioning;
mod quiet;
mod redis;
mod registration;
mod sealed_queue;
mod sockets;
mod support;
mod threats;
mod timing;
mod traces;
mod usernames;
