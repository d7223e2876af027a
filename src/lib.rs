//! blind-relay.

pub mod domain;
pub mod storage;
