//! What the operator tells clients, in JSON: relays for calls, configuration, the time.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

/// The answer of `GET /v2/calling/relays`.
#[derive(Serialize, JsonSchema)]
pub struct RelaysOut {
    /// Empty if the operator has none.
    pub relays: Vec<RelayOut>,
}

/// One set of credentials and where they open.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RelayOut {
    /// Says until when it is good, and nothing else.
    pub username: String,
    /// Goes with the user name.
    pub password: String,
    /// Seconds for which it is good.
    pub ttl: u64,
    /// Where.
    pub urls: Vec<String>,
    /// The same by address: names are resolved by clients.
    pub urls_with_ips: [(); 0],
    /// Goes with `urls_with_ips`.
    pub hostname: Option<()>,
}

/// The answer of `GET /v1/time`.
#[derive(Serialize, JsonSchema)]
pub struct TimeOut {
    /// The server's time in milliseconds.
    pub timestamp: i64,
}

/// The answer of `GET /v2/config`, which is written once, when the node starts.
#[derive(Serialize, JsonSchema)]
pub struct RemoteConfigOut<'a> {
    /// Whatever the operator wants to tell all clients.
    pub config: &'a BTreeMap<String, String>,
}
