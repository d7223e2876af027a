//! Rows of the sealed queue that another implementation made, and what of a row may not be changed.

use bytes::Bytes;
use keys_schema::sealed_queue::{Bucket, EpochKey, Opener, QueueKey, QueuePublicKey};
use serde_json::Value;

/// Made by `vectors/sealed_queue.py`.
const VECTORS: &str = include_str!("../../vectors/sealed-queue.json");

#[test]
fn every_row_of_the_other_implementation_opens() {
    let vectors: Value = serde_json::from_str(VECTORS).unwrap();
    let cases = vectors["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 6);
    for case in cases {
        let key = QueueKey::from_bytes(hex(&case["privateKey"]).try_into().unwrap());
        assert_eq!(key.public_key().as_bytes().to_vec(), hex(&case["publicKey"]));
        let mailbox = case["mailbox"].as_str().unwrap().parse().unwrap();
        let bucket = Bucket::from_kib(case["bucketKib"].as_u64().unwrap().try_into().unwrap()).unwrap();
        let (first, length) = (&case["envelopeFirst"], &case["envelopeLength"]);
        let (first, length) = (first.as_u64().unwrap(), length.as_u64().unwrap());
        let envelope: Vec<u8> = (0..length)
            .map(|n| u8::try_from((7 * n + first) % 256).unwrap())
            .collect();
        let opened = Opener::new(&key).open(mailbox, bucket, hex(&case["row"]).into());
        assert_eq!(opened, Some(envelope.into()));
    }
}

#[test]
fn a_row_opens_with_its_key_its_mailbox_and_its_bucket_only() {
    let (key, bucket) = (key(1), Bucket::from_kib(1).unwrap());
    let epoch = EpochKey::new(&key.public_key(), &[2; 32]).unwrap();
    let row = epoch.seal(5, bucket, &[3; 12], b"an envelope").unwrap();
    let open =
        |key: &QueueKey, mailbox, row: &[u8]| Opener::new(key).open(mailbox, bucket, Bytes::copy_from_slice(row));
    assert_eq!(open(&key, 5, &row).as_deref(), Some(&b"an envelope"[..]));
    assert_eq!(open(&self::key(2), 5, &row), None);
    assert_eq!(open(&key, 6, &row), None);
    assert_eq!(open(&key, 5, &row[1..]), None);
    for at in (0..row.len()).step_by(31).chain([31, 32, 43, 44, row.len() - 1]) {
        let mut changed = row.clone();
        changed[at] ^= 1;
        assert_eq!(open(&key, 5, &changed), None, "byte {at}");
    }
    let larger = Bucket::from_kib(2).unwrap();
    let mut longer = row.clone();
    longer.resize(larger.sealed_len(), 0);
    assert_eq!(Opener::new(&key).open(5, larger, longer.into()), None);
}

#[test]
fn rows_of_many_epochs_open_in_any_order() {
    let (key, bucket) = (key(1), Bucket::from_kib(1).unwrap());
    let mut opener = Opener::new(&key);
    let row = |epoch: u8, n: u8| {
        let epoch = EpochKey::new(&key.public_key(), &[epoch; 32]).unwrap();
        Bytes::from(epoch.seal(5, bucket, &[n; 12], &[n]).unwrap())
    };
    for n in 0..100_u8 {
        assert_eq!(
            opener.open(5, bucket, row(n.wrapping_mul(37) % 40, n)),
            Some(vec![n].into())
        );
    }
}

#[test]
fn a_row_tells_its_bucket_and_no_more() {
    let key = key(1);
    let epoch = EpochKey::new(&key.public_key(), &[2; 32]).unwrap();
    for (kib, most) in [(1, 1024), (2, 2048), (96, 96 * 1024)] {
        let bucket = Bucket::from_kib(kib).unwrap();
        let lengths = [0, 1, most / 2, most, most + Bucket::ROOM - 4];
        let rows = lengths.map(|length| epoch.seal(5, bucket, &[3; 12], &vec![7; length]).unwrap().len());
        assert_eq!(rows, [bucket.sealed_len(); 5]);
        assert_eq!(epoch.seal(5, bucket, &[3; 12], &vec![7; most + Bucket::ROOM - 3]), None);
    }
}

#[test]
fn buckets_hold_what_they_are_chosen_for() {
    let holding = |content: usize| Bucket::holding(content, content + 160).map(Bucket::kib);
    let expected = [
        (0, 1),
        (1, 1),
        (1024, 1),
        (1025, 2),
        (4096, 4),
        (4097, 8),
        (65 * 1024, 96),
        (96 * 1024 + 1, 128),
        (130 * 1024, 192),
        (256 * 1024, 256),
    ];
    for (content, kib) in expected {
        assert_eq!(holding(content), Some(kib), "{content}");
    }
    assert_eq!(Bucket::holding(1024, 1024 + Bucket::ROOM - 4).map(Bucket::kib), Some(1));
    assert_eq!(Bucket::holding(1024, 1024 + Bucket::ROOM - 3).map(Bucket::kib), Some(2));
    assert_eq!(holding(usize::from(Bucket::MAX_KIB) * 1024 + 1), None);
    assert_eq!(holding(usize::MAX / 2), None);
    for kib in [1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256, Bucket::MAX_KIB] {
        assert_eq!(Bucket::from_kib(kib).map(Bucket::kib), Some(kib));
    }
    for kib in [0, 3, 65, 95, 97, 129, Bucket::MAX_KIB + 64, u16::MAX] {
        assert_eq!(Bucket::from_kib(kib), None, "{kib}");
    }
}

#[test]
fn nothing_is_sealed_to_a_key_that_agrees_on_nothing() {
    for u in [0, 1] {
        let mut low_order = [0; 32];
        low_order[0] = u;
        assert!(EpochKey::new(&QueuePublicKey::from_bytes(low_order), &[7; 32]).is_err());
    }
}

#[test]
fn an_epoch_key_seals_so_many_rows_and_no_more() {
    let bucket = Bucket::from_kib(1).unwrap();
    let epoch = EpochKey::new(&key(1).public_key(), &[2; 32]).unwrap();
    // What does not fit counts too, and costs nothing.
    let too_long = [7; 2000];
    for _ in 1..EpochKey::MAX_ROWS {
        assert_eq!(epoch.seal(5, bucket, &[3; 12], &too_long), None);
    }
    assert!(!epoch.is_spent());
    assert!(epoch.seal(5, bucket, &[3; 12], b"the last").is_some());
    assert!(epoch.is_spent());
    assert_eq!(epoch.seal(5, bucket, &[3; 12], b"one more"), None);
}

#[test]
fn debug_of_keys_prints_their_names_only() {
    let key = key(1);
    let epoch = EpochKey::new(&key.public_key(), &[2; 32]).unwrap();
    let printed = format!("{:?} {:?} {epoch:?} {:?}", key.public_key(), key, Opener::new(&key));
    assert_eq!(printed, "QueuePublicKey QueueKey EpochKey Opener");
}

fn key(seed: u8) -> QueueKey {
    QueueKey::from_bytes([seed; 32])
}

fn hex(value: &Value) -> Vec<u8> {
    let text = value.as_str().expect("bytes are text");
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("bytes are hexadecimal"))
        .collect()
}
