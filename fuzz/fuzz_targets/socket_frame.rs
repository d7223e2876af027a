//! One binary frame of a WebSocket.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = blind_relay::http::parse_frame(bytes.to_vec().into());
});
