//! JSON bodies as they are on the wire, and their way to and from domain types.
//!
//! Unknown fields are ignored and absent options may be `null`: stock clients send both. A body becomes domain types in
//! one step, all of it or nothing.

pub mod account;
pub mod account_data;
pub mod attachments;
pub mod base64_bytes;
pub mod blocks;
pub mod calling;
pub mod certificates;
pub mod content;
pub mod devices;
pub mod export;
pub mod forms;
pub mod keys;
pub mod limits;
pub mod messages;
pub mod profiles;
pub mod provisioning;
pub mod registration;
pub mod tokens;
pub mod usernames;
