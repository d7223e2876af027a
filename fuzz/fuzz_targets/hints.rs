//! A message from another node, by way of Redis.

#![no_main]

libfuzzer_sys::fuzz_target!(|message: &[u8]| {
    let _ = blind_relay::wakeup::decode(message);
});
