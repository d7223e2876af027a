//! The value of an `Authorization` header: a password or a token.

#![no_main]

libfuzzer_sys::fuzz_target!(|header: &[u8]| {
    let _ = blind_relay::auth::Credentials::parse(header);
});
