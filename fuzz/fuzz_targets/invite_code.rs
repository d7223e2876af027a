//! The code of an invite as somebody typed it. It is read the same as it is shown.

#![no_main]

use blind_relay::accounts::InviteCode;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Some(code) = InviteCode::parse(text) {
        assert!(InviteCode::parse(&code.to_string()) == Some(code));
    }
});
