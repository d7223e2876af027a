//! A service id, as the text of a path and as the bytes of an envelope.

#![no_main]

use keys_schema::ServiceId;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = (
        ServiceId::from_compact(bytes),
        std::str::from_utf8(bytes).map(ServiceId::parse),
    );
});
