//! The body of `PUT /v2/keys`.

#![no_main]

libfuzzer_sys::fuzz_target!(|body: &[u8]| {
    let _ = blind_relay::http::wire::keys::parse_key_upload(body);
});
