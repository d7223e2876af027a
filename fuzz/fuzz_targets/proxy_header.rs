//! A header of the PROXY protocol.

#![no_main]

libfuzzer_sys::fuzz_target!(|header: &[u8]| {
    let _ = blind_relay::http::proxies::protocol::source(header);
});
