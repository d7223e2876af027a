//! A configuration file.

#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    let _ = blind_relay::config::parse_toml(text);
});
