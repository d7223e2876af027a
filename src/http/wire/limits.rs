//! Rate limits in JSON.

use schemars::JsonSchema;
use serde::Serialize;

/// The answer of `GET /v1/limits`.
#[derive(Serialize, JsonSchema)]
pub struct LimitsOut {
    /// `false` if the operator has switched them off.
    pub enforced: bool,
    /// Every limit in force.
    pub limits: Vec<LimitOut>,
    /// Those that each route has before anything else is looked at.
    pub routes: Vec<RouteLimitsOut>,
}

/// One limit: a bucket for each of those that it counts by.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LimitOut {
    /// Its name.
    pub name: &'static str,
    /// What is counted, in words.
    pub counts: &'static str,
    /// By whom, in words.
    pub by: &'static str,
    /// How many at once.
    pub burst: u32,
    /// After how many milliseconds one more.
    pub every_millis: u64,
    /// Whether all nodes count together.
    pub across_nodes: bool,
}

/// The limits of one route.
#[derive(Serialize, JsonSchema)]
pub struct RouteLimitsOut {
    /// Its method, in lower case.
    pub method: &'static str,
    /// Its path, with parameters in braces.
    pub path: &'static str,
    /// The limit for those who do not prove to be a device.
    pub strangers: &'static str,
    /// The limit for devices.
    pub devices: &'static str,
}
