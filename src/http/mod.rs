//! HTTP: from sockets to handlers and back.

pub mod admin;
pub mod health;
pub mod listener;
pub mod transport;
