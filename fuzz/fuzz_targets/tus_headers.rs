//! The headers of a request of tus.

#![no_main]

libfuzzer_sys::fuzz_target!(|lines: &[u8]| {
    let _ = blind_relay::attachments::tus::parse_lines(lines);
});
