//! blind-relay: a key directory and blind message relay for clients that speak the Signal protocol.
//!
//! # The path of an envelope
//!
//! 1. [`http::routes`] finds `http/messages.rs`, which proves the sender (or checks the access key of a stranger) and
//!    parses the body.
//! 2. [`relay::accept`] compares the named devices with those that there are, and [`sealing::queue`] seals a copy to each.
//! 3. [`relay::writer`] commits the copies together with whatever else has arrived: [`storage::EnvelopeQueue::commit`].
//!    Now the sender gets its success, on the tick of [`http::pace`].
//! 4. [`relay::presence`] rings the bell of the recipient's connection on this node; [`wakeup`] tells the other nodes.
//! 5. `http/socket/driver.rs`, on whichever node has the connection, asks [`relay::session`] what to hand out next;
//!    what it reads back [`relay::drain`] opens with the device's own key.
//! 6. The client's answer becomes an acknowledgement, and the next commit deletes the row.

pub mod accounts;
pub mod admin;
pub mod age;
pub mod attachments;
pub mod audit;
pub mod auth;
pub mod backup;
pub mod calling;
pub mod certificates;
pub mod cli;
pub mod codes;
pub mod config;
pub mod console;
pub mod directory;
pub mod doctor;
pub mod domain;
pub mod encoding;
pub mod http;
pub mod limits;
pub mod manifest;
pub mod provisioning;
pub mod relay;
pub mod retention;
pub mod sealing;
pub mod secret_file;
pub mod server;
pub mod storage;
pub mod telemetry;
pub mod tls;
pub mod wakeup;
