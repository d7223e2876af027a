//! A queued envelope, as the historic fetch reads it.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = <keys_schema::proto::Envelope as prost::Message>::decode(bytes);
});
