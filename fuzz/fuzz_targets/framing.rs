//! The outer form of a ciphertext, as each type that it may be declared as. What names no type passes if it passes as
//! one of the others, and a field that nobody knows does not change that.

#![no_main]

use keys_schema::framing::check;
use keys_schema::proto::envelope::Type;

libfuzzer_sys::fuzz_target!(|content: &[u8]| {
    let passes = |kind| check(kind, content).is_ok();
    let named = [
        Type::Ciphertext,
        Type::PrekeyBundle,
        Type::UnidentifiedSender,
        Type::PlaintextContent,
    ];
    assert_eq!(passes(Type::Unknown), named.into_iter().any(passes));
    assert!(!passes(Type::ServerDeliveryReceipt) && !passes(Type::SenderkeyMessage));
    if passes(Type::PrekeyBundle) {
        let more = [content, b"\x7a\x02hi"].concat();
        assert!(check(Type::PrekeyBundle, &more).is_ok());
    }
});
