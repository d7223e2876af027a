//! Whom an account has blocked, as far as it can be told.

use schemars::JsonSchema;
use serde::Serialize;

/// The answer of `GET /v1/blocks`.
#[derive(Serialize, JsonSchema)]
pub struct BlocksOut {
    /// How many ids are blocked. Which ones, nobody can read.
    pub count: usize,
}
