//! What an operator sees: logs and metrics. Neither holds anything that names a person, a device or a message.

pub mod logging;
pub mod metrics;
