//! The value of an `Authorization` header.

#![no_main]

libfuzzer_sys::fuzz_target!(|header: &[u8]| {
    let _ = blind_relay::auth::BasicCredentials::parse(header);
});
