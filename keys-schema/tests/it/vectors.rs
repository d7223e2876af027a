//! The official library's verdicts on keys, signatures and identifiers, and where ours differ.
//!
//! `vectors/libsignal-vectors.json` was recorded from `@signalapp/libsignal-client`; all byte fields are hex.

use keys_schema::{
    EcPreKey, EcPublicKey, IdentityKey, KeyId, KyberPreKey, KyberPublicKey, ServiceId, Signature, SignedEcPreKey,
    repeated_use_digest, xeddsa,
};
use serde_json::Value;

/// The cases of `keyFormatCases` that the official library accepts and we refuse, as (type, case).
const REFUSED_BY_US_ALONE: [(&str, &str); 1] = [
    // One byte follows the 33 of an EC key. The library drops it.
    ("ec", "34-bytes"),
];

#[test]
fn every_signature_case_has_the_official_verdict() {
    let vectors = load();
    let cases = list(&vectors["signatureCases"]);
    assert_eq!(cases.len(), 118);
    for case in cases {
        // A signature of another length has no type here, which is its refusal.
        let ours = Signature::parse(&bytes(&case["signature"])).is_ok_and(|signature| {
            xeddsa::verify(
                &identity(&case["identityKey"]),
                &bytes(&case["signedBytes"]),
                &signature,
            )
        });
        assert_eq!(ours, flag(&case["officialVerify"]), "{} {}", case["kind"], case["case"]);
    }
}

#[test]
fn every_key_format_case_has_the_official_verdict_or_is_a_named_difference() {
    let vectors = load();
    let cases = list(&vectors["keyFormatCases"]);
    assert_eq!(cases.len(), 22);
    let mut differences = Vec::new();
    for case in cases {
        let (kind, name, input) = (text(&case["type"]), text(&case["case"]), bytes(&case["bytes"]));
        let ours = match kind {
            "ec" => EcPublicKey::parse(&input).map(|key| key.serialized().to_vec()),
            "kem" => KyberPublicKey::parse(&input).map(|key| key.serialized().to_vec()),
            other => panic!("unknown key type {other}"),
        };
        match (ours, flag(&case["official"]["ok"])) {
            (Ok(serialized), true) => assert_eq!(serialized, input, "{kind} {name}"),
            (Err(_), false) => {}
            (Err(_), true) => differences.push((kind, name)),
            (Ok(_), false) => panic!("{kind} {name}: more lenient than the official library"),
        }
    }
    assert_eq!(differences, REFUSED_BY_US_ALONE);
}

#[test]
fn weak_keys_among_the_key_format_cases_are_told() {
    let vectors = load();
    let weak: Vec<&str> = list(&vectors["keyFormatCases"])
        .iter()
        .filter(|case| case["type"] == "ec")
        .filter(|case| EcPublicKey::parse(&bytes(&case["bytes"])).is_ok_and(|key| key.is_weak()))
        .map(|case| text(&case["case"]))
        .collect();
    assert_eq!(
        weak,
        ["all-zero-point", "order-1-point", "high-bit-set", "p-noncanonical"]
    );
}

#[test]
fn official_identities_have_strong_keys_and_sign_their_prekeys() {
    let vectors = load();
    let identities = list(&vectors["identities"]);
    assert_eq!(identities.len(), 6);
    for (index, entry) in identities.iter().enumerate() {
        let owner = identity(&entry["publicKey"]);
        let stranger = identity(&identities[(index + 1) % identities.len()]["publicKey"]);
        assert!(!owner.is_weak());
        for entry in list(&entry["oneTimeEcPreKeys"]) {
            assert!(!ec_pre_key(entry).key.is_weak());
        }
        for entry in list(&entry["signedPreKeys"]) {
            let signed = signed_ec_pre_key(entry);
            assert!(!signed.key.is_weak());
            assert!(signed.is_signed_by(&owner));
            assert!(!signed.is_signed_by(&stranger));
        }
        for entry in list(&entry["kyberPreKeys"]) {
            let kyber = kyber_pre_key(entry);
            assert!(kyber.is_signed_by(&owner));
            assert!(!kyber.is_signed_by(&stranger));
        }
    }
}

#[test]
fn an_official_bundle_holds_together() {
    let vectors = load();
    let bundle = &vectors["preKeyBundleAsJson"];
    let owner = identity(&bundle["identityKey"]);
    assert!(!ec_pre_key(&bundle["preKey"]).key.is_weak());
    let signed = signed_ec_pre_key(&bundle["signedPreKey"]);
    let kyber = kyber_pre_key(&bundle["pqPreKey"]);
    assert!(signed.is_signed_by(&owner));
    assert!(kyber.is_signed_by(&owner));
    // Computed apart from this code over the bundle in the vectors.
    assert_eq!(
        repeated_use_digest(&owner, &signed, &kyber).to_vec(),
        hex(BUNDLE_DIGEST)
    );
}

const BUNDLE_DIGEST: &str = "9b3798ce59c173c2e276a5f3b83ada540d93c99b394b5b7942f2b0d52db118a1";

#[test]
fn official_certificates_verify_as_signed_bytes_of_any_kind() {
    let vectors = load();
    let chain = &vectors["senderCertificate"];
    let (root, server) = (identity(&chain["trustRootPublic"]), identity(&chain["serverKeyPublic"]));
    let server_signature = signature(&chain["serverCertificateSignature"]);
    let server_data = bytes(&chain["serverCertificateData"]);
    assert!(xeddsa::verify(&root, &server_data, &server_signature));
    assert!(!xeddsa::verify(&server, &server_data, &server_signature));
    for variant in ["withoutE164", "withE164"] {
        let sender = &chain[variant];
        let (data, signature) = (bytes(&sender["certificateData"]), signature(&sender["signature"]));
        assert!(xeddsa::verify(&server, &data, &signature), "{variant}");
        assert!(!xeddsa::verify(&root, &data, &signature), "{variant}");
    }
}

#[test]
fn service_ids_in_official_multi_recipient_messages_are_read_as_the_library_reads_them() {
    let vectors = load();
    let messages = [
        &vectors["multiRecipient"]["threeRecipients"],
        &vectors["multiRecipient"]["threeRecipientsFourDevicesOneExcluded"],
        &vectors["multiRecipient"]["oneRecipient"],
        &vectors["multiRecipientWithPni"],
        &vectors["multiRecipient22"],
    ];
    let mut pnis = 0;
    for entry in messages {
        let ours = service_ids(&bytes(&entry["message"]));
        let recipients = list(&entry["parsed"]["recipients"]).iter();
        let official = recipients.map(|recipient| &recipient["serviceId"]);
        let mut official: Vec<&str> = official.chain(list(&entry["parsed"]["excluded"])).map(text).collect();
        for id in &official {
            let parsed = ServiceId::parse(id).expect("the library writes our string form");
            assert_eq!(parsed.to_string(), *id);
            assert_eq!(ServiceId::from_fixed_width(&parsed.to_fixed_width()), Ok(parsed));
            assert_eq!(ServiceId::from_compact(parsed.to_compact().as_bytes()), Ok(parsed));
            pnis += usize::from(parsed.is_pni());
        }
        // The library lists excluded recipients apart.
        let mut ours: Vec<String> = ours.iter().map(ToString::to_string).collect();
        ours.sort();
        official.sort_unstable();
        assert_eq!(ours, official);
    }
    assert!(pnis > 0, "a PNI is among them");
}

/// The service ids of a well-formed multi-recipient message with fewer than 128 recipients: 16 bytes each in version
/// 0x22 and 17 in 0x23, then devices of 3 bytes until one lacks the top bit, then 48 bytes of key; or one zero byte.
fn service_ids(message: &[u8]) -> Vec<ServiceId> {
    let [version, count, rest @ ..] = message else {
        panic!("no message");
    };
    let mut rest = rest;
    let mut ids = Vec::new();
    for _ in 0..*count {
        let id;
        if *version == 0x22 {
            id = ServiceId::from_compact(&rest[..16]);
            rest = &rest[16..];
        } else {
            let (fixed_width, tail) = rest.split_first_chunk().expect("an id");
            id = ServiceId::from_fixed_width(fixed_width);
            rest = tail;
        }
        ids.push(id.expect("a service id"));
        if rest[0] == 0 {
            rest = &rest[1..];
            continue;
        }
        while rest[1] & 0x80 != 0 {
            rest = &rest[3..];
        }
        rest = &rest[3 + 48..];
    }
    ids
}

pub(crate) fn load() -> Value {
    let json = include_str!("../../vectors/libsignal-vectors.json");
    serde_json::from_str(json).expect("the vectors are JSON")
}

pub(crate) fn list(value: &Value) -> &Vec<Value> {
    value.as_array().expect("a list")
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

pub(crate) fn flag(value: &Value) -> bool {
    value.as_bool().expect("a boolean")
}

pub(crate) fn bytes(value: &Value) -> Vec<u8> {
    hex(text(value))
}

fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits
        .chars()
        .map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()
        .expect("hex digits");
    let (pairs, odd) = digits.as_chunks();
    assert!(odd.is_empty(), "an even number of digits");
    pairs.iter().map(|[high, low]| high << 4 | low).collect()
}

pub(crate) fn identity(value: &Value) -> IdentityKey {
    IdentityKey::parse(&bytes(value)).expect("an identity key")
}

fn signature(value: &Value) -> Signature {
    Signature::parse(&bytes(value)).expect("a signature")
}

fn key_id(value: &Value) -> KeyId {
    KeyId::new(value.as_u64().expect("a number")).expect("a key id")
}

fn ec_pre_key(value: &Value) -> EcPreKey {
    EcPreKey {
        id: key_id(&value["keyId"]),
        key: EcPublicKey::parse(&bytes(&value["publicKey"])).expect("an EC key"),
    }
}

fn signed_ec_pre_key(value: &Value) -> SignedEcPreKey {
    let EcPreKey { id, key } = ec_pre_key(value);
    SignedEcPreKey {
        id,
        key,
        signature: signature(&value["signature"]),
    }
}

fn kyber_pre_key(value: &Value) -> KyberPreKey {
    KyberPreKey {
        id: key_id(&value["keyId"]),
        key: KyberPublicKey::parse(&bytes(&value["publicKey"])).expect("a Kyber key"),
        signature: signature(&value["signature"]),
    }
}
