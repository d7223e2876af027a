//! A user name's hash and the proof that comes with it.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: ([u8; 32], [u8; 128])| {
    let (hash, proof) = input;
    let _ = keys_schema::username::verify(&hash, &proof);
});
