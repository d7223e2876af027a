//! blind-relay: a key directory and blind message relay for clients that speak the Signal protocol.

pub mod accounts;
pub mod auth;
pub mod directory;
pub mod domain;
pub mod encoding;
pub mod relay;
pub mod retention;
pub mod sealing;
pub mod storage;
pub mod telemetry;
pub mod wakeup;
