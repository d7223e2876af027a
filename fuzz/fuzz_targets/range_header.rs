//! The values of a `Range` and a `Content-Range` header.

#![no_main]

libfuzzer_sys::fuzz_target!(|header: &[u8]| blind_relay::attachments::range::read_any(header));
