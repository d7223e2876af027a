//! The outer form of ciphertexts: what the official library writes passes, and of what it does not read nothing does.

use keys_schema::framing::check;
use keys_schema::proto::envelope::Type;
use serde_json::Value;

const VECTORS: &str = include_str!("../../vectors/framing.json");
const LIBSIGNAL: &str = include_str!("../../vectors/libsignal-vectors.json");
const SENT: [Type; 5] = [
    Type::Unknown,
    Type::Ciphertext,
    Type::PrekeyBundle,
    Type::UnidentifiedSender,
    Type::PlaintextContent,
];

#[test]
fn what_the_official_library_writes_passes_as_its_type_and_as_no_other() {
    let vectors = load(VECTORS);
    let mut of_type = [0; 9];
    for case in vectors["genuine"].as_array().unwrap() {
        let (kind, content) = read(case);
        of_type[usize::try_from(i32::from(kind)).unwrap()] += 1;
        for declared in SENT {
            let passes = declared == kind || declared == Type::Unknown;
            assert_eq!(
                check(declared, &content).is_ok(),
                passes,
                "{}, as {declared:?}",
                case["what"]
            );
        }
    }
    assert_eq!(of_type, [0, 8, 0, 5, 0, 0, 6, 0, 3]);
}

/// Those of another run of another program.
#[test]
fn the_messages_of_the_older_vectors_pass_too() {
    let vectors = load(LIBSIGNAL);
    for (kind, path) in [
        (Type::Ciphertext, "/sessionMessages/signalMessage/bytes"),
        (Type::PrekeyBundle, "/sessionMessages/preKeySignalMessage/bytes"),
        (Type::UnidentifiedSender, "/sealedSender/v1/bytes"),
        (Type::UnidentifiedSender, "/sealedSender/v1WithPreKeyMessage/bytes"),
        (Type::UnidentifiedSender, "/sealedSender/v2/bytes"),
    ] {
        let content = bytes(vectors.pointer(path).expect(path));
        assert_eq!(check(kind, &content), Ok(()), "{path}");
    }
}

#[test]
fn every_changed_message_has_the_official_verdict_where_we_are_not_stricter() {
    let vectors = load(VECTORS);
    let mut refused_by_us_alone = Vec::new();
    let (mut passed, mut refused) = (0, 0);
    for case in vectors["changed"].as_array().unwrap() {
        let (kind, content) = read(case);
        let (what, official) = (case["what"].as_str().unwrap(), case["reads"].as_bool().unwrap());
        let ours = check(kind, &content).is_ok();
        assert!(official || !ours, "{what}: more lenient than the official library");
        if official && !ours {
            refused_by_us_alone.push(what);
        }
        *if ours { &mut passed } else { &mut refused } += 1;
    }
    assert!(passed >= 40 && refused >= 60, "{passed} passed, {refused} refused");
    refused_by_us_alone.sort_unstable();
    assert_eq!(refused_by_us_alone, STRICTER);
}

/// Changes that the official library puts up with, and we do not.
const STRICTER: [&str; 11] = [
    "a first message, with a group behind it",
    "a message of a running session, field 4 empty",
    "a message of a running session, with a group behind it",
    "a plea, field 8 twice",
    "a plea, inside, with a group behind it",
    "a plea, with a field of a large number behind it",
    "a plea, with a group behind it",
    "a plea, with a number behind it",
    "a plea, with bytes behind it",
    "a plea, with eight bytes behind it",
    "a plea, with four bytes behind it",
];

#[test]
fn of_first_bytes_those_of_two_versions_pass() {
    for case in load(VECTORS)["cutAndHeaded"].as_array().unwrap() {
        let (kind, mut content) = read(case);
        let official: Vec<u64> = numbers(&case["firstBytesRead"]);
        let mut passed = Vec::new();
        for first in 0..=u8::MAX {
            content[0] = first;
            if check(kind, &content).is_ok() {
                passed.push(u64::from(first));
            }
        }
        let expected: Vec<u64> = match kind {
            Type::PlaintextContent => vec![0xc0],
            // The newest version that a writer knows is not below the one it writes.
            _ => official
                .iter()
                .copied()
                .filter(|byte| byte & 0x0f >= byte >> 4)
                .collect(),
        };
        assert!(!passed.is_empty() && passed.iter().all(|first| official.contains(first)));
        assert_eq!(passed, expected, "{}", case["what"]);
    }
}

#[test]
fn what_is_cut_off_anywhere_does_not_pass() {
    let vectors = load(VECTORS);
    for case in vectors["cutAndHeaded"].as_array().unwrap() {
        let (kind, content) = read(case);
        assert_eq!(check(kind, &content), Ok(()));
        assert_eq!(numbers(&case["cutLengthsRead"]), [] as [u64; 0]);
        for length in 0..content.len() {
            assert!(check(kind, &content[..length]).is_err(), "{}: {length}", case["what"]);
        }
    }
}

/// T26: what people write and attach, as whatever type it is declared.
#[test]
fn t26_readable_bodies_are_no_ciphertext_of_any_type() {
    let text = "Meet me at the station at nine. ".repeat(20);
    let json = format!("{{\"to\":\"bob\",\"text\":\"{text}\"}}");
    let jpeg = [
        b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00",
        &[0x11; 600][..],
    ]
    .concat();
    let zip = [b"PK\x03\x04\x14\x00\x00\x00\x08\x00", &[0x22; 600][..]].concat();
    let png = [b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x01\x00", &[0xc0; 600][..]].concat();
    let protobuf = [b"\x0a\x05hello\x12\x80\x04", &[b'x'; 512][..]].concat();
    let bodies: Vec<(&str, Vec<u8>)> = vec![
        ("text", text.clone().into()),
        ("text that begins with 3", format!("3 {text}").into()),
        ("text that begins with D", format!("Dear Bob, {text}").into()),
        ("a quotation", format!("\"{text}\"").into()),
        ("Markdown", format!("# Plan\n\n{text}").into()),
        ("a script", format!("#!/bin/sh\necho {text}").into()),
        ("Russian", "# Встретимся на вокзале. ".repeat(20).into()),
        ("Chinese", "\"車站見\"".repeat(40).into()),
        ("UTF-16", text.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("JSON", json.into()),
        ("a JSON array", format!("[\"{text}\"]").into()),
        ("HTML", format!("<!doctype html><p>{text}</p>").into()),
        ("XML", format!("<?xml version=\"1.0\"?><m>{text}</m>").into()),
        ("base64", text.replace(['.', ' '], "A").into()),
        ("JPEG", jpeg),
        ("ZIP", zip),
        ("PNG", png),
        ("GIF", [&b"GIF89a"[..], &[0x33; 600]].concat()),
        ("PDF", [&b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"[..], &[0x44; 600]].concat()),
        ("gzip", [&b"\x1f\x8b\x08\x00"[..], &[0x44; 600]].concat()),
        ("MP4", [&b"\x00\x00\x00\x20ftypisom"[..], &[0x44; 600]].concat()),
        ("an ELF program", [&b"\x7fELF\x02\x01\x01"[..], &[0x44; 600]].concat()),
        ("SQLite", [&b"SQLite format 3\x00"[..], &[0x44; 600]].concat()),
        ("a protobuf message without its framing", protobuf),
        ("zeros", vec![0; 600]),
        ("ones", vec![0xff; 600]),
    ];
    for (what, body) in bodies {
        for declared in SENT {
            for length in [1, 2, 9, 82, 200, body.len()] {
                let body = &body[..length.min(body.len())];
                assert!(check(declared, body).is_err(), "{what} as {declared:?}, {length} bytes");
            }
            // A sender who sets the version byte and forgets all else.
            for version in [0x11, 0x33, 0x44, 0xc0] {
                let body = [&[version], &body[..]].concat();
                assert!(
                    check(declared, &body).is_err(),
                    "{what} as {declared:?} behind {version:#x}"
                );
            }
        }
    }
}

fn load(text: &str) -> Value {
    serde_json::from_str(text).expect("the vectors are JSON")
}

fn read(case: &Value) -> (Type, Vec<u8>) {
    let number = case["type"].as_i64().expect("types are numbers");
    let kind = i32::try_from(number).ok().and_then(|kind| Type::try_from(kind).ok());
    (kind.expect("a type of envelope"), bytes(&case["bytes"]))
}

fn numbers(list: &Value) -> Vec<u64> {
    let numbers = list.as_array().expect("a list").iter();
    numbers.map(|number| number.as_u64().expect("a number")).collect()
}

fn bytes(value: &Value) -> Vec<u8> {
    let text = value.as_str().expect("bytes are text");
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal"))
        .collect()
}
