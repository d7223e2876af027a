//! Proofs of user names: the official library's verdict on each of them.

use keys_schema::username::{PROOF_LENGTH, verify};
use serde_json::Value;

const VECTORS: &str = include_str!("../../vectors/username-proofs.json");

#[test]
fn every_proof_has_the_official_verdict() {
    let vectors: Value = serde_json::from_str(VECTORS).unwrap();
    let (mut valid, mut invalid) = (0, 0);
    for case in vectors["cases"].as_array().unwrap() {
        let (hash, proof) = (bytes(&case["hash"]), bytes(&case["proof"]));
        // Another length does not get as far as this: its type forbids it.
        let hash: Option<&[u8; 32]> = hash.as_slice().try_into().ok();
        let proof: Option<&[u8; PROOF_LENGTH]> = proof.as_slice().try_into().ok();
        let verdict = hash.zip(proof).is_some_and(|(hash, proof)| verify(hash, proof));
        assert_eq!(verdict, case["valid"].as_bool().unwrap(), "{}", case["what"]);
        *if verdict { &mut valid } else { &mut invalid } += 1;
    }
    assert!(valid >= 20 && invalid >= 100, "{valid} valid, {invalid} invalid");
}

fn bytes(value: &Value) -> Vec<u8> {
    let text = value.as_str().expect("bytes are text");
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("bytes are hexadecimal"))
        .collect()
}
