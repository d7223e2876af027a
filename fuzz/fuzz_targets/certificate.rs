//! Certificates of sealed sender, and whether a foreign trust root ever takes one.

#![no_main]

use keys_schema::PrivateKey;
use keys_schema::certificate::{SenderCertificate, ServerCertificate};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let foreign = PrivateKey::from_bytes(&[7; 32]).public_key();
    let read = SenderCertificate::parse(bytes.to_vec().into());
    assert!(!read.is_ok_and(|certificate| certificate.is_valid(&foreign, 0)));
    let read = ServerCertificate::parse(bytes.to_vec().into());
    assert!(!read.is_ok_and(|certificate| certificate.is_signed_by(&foreign)));
});
