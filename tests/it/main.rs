//! The server from outside.

#![expect(
    clippy::unwrap_used,
    reason = "a failure here is a failed test, also in what tests share"
)]

mod account_data;
mod admin;
mod attachment_attacks;
mod attachments;
mod audit;
mod authorization;
mod blindness;
mod blocks;
mod caches;
mod calling;
mod canary;
mod cannot_decrypt;
mod certificates;
mod crash;
mod delivery;
mod devices;
mod direct;
mod enumeration;
mod erasure;
mod export;
mod framing;
mod http2;
mod key_budgets;
mod key_claims;
mod key_uploads;
mod keys;
mod layering;
mod limits;
mod manifest;
mod messages;
mod metrics;
mod multi_recipient;
mod networks;
mod notices;
mod openapi;
mod operations;
mod profiles;
mod provisioning;
mod push_tokens;
mod quiet;
mod rate_limits;
mod redis;
mod registration;
mod registration_policies;
mod restore;
mod sealed_queue;
mod shares;
mod sockets;
mod support;
mod threats;
mod timing;
mod tokens;
mod traces;
mod usernames;
