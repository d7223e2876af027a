//! Whether the declared rate limits hold, or others.

use crate::limits::Scale;

use super::read::Reader;

/// Reads `rate_limits`.
pub(super) fn read_scale(r: &mut Reader<'_>) -> Scale {
    let text = r.text("rate_limits");
    match text.as_str() {
        "on" => return Scale::Times(1.0),
        "off" => return Scale::Off,
        _ => {}
    }
    let times = text.parse().ok().filter(|times| (0.01..=10_000.0).contains(times));
    times.map_or_else(
        || {
            r.refuse(
                "rate_limits",
                "not understood",
                "write on, off (for load tests), or how many times the declared numbers: 0.01 to 10000",
            );
            Scale::Times(1.0)
        },
        Scale::Times,
    )
}
