//! The server from outside.

#![expect(
    clippy::unwrap_used,
    reason = "a failure here is a failed test, also in what tests share"
)]

mod operations;
