//! The body of `PUT /v1/messages/{destination}`.

#![no_main]

libfuzzer_sys::fuzz_target!(|body: &[u8]| {
    let _ = blind_relay::http::wire::messages::parse_send(body);
});
