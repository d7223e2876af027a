//! The lines of `X-Forwarded-For`, one after the other.

#![no_main]

use std::sync::LazyLock;

use ipnet::IpNet;

static TRUSTED: LazyLock<Vec<IpNet>> = LazyLock::new(|| {
    let ranges = ["10.0.0.0/8", "fd00::/8"];
    ranges.iter().map(|range| range.parse().expect("a range")).collect()
});

libfuzzer_sys::fuzz_target!(|lines: &[u8]| {
    let lines = lines.split(|byte| *byte == b'\n');
    let _ = blind_relay::http::proxies::forwarded::client(lines, &TRUSTED);
});
