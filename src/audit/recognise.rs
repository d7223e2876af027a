//! What stored bytes must never read as: a service id in text, a phone number, a mail address, a network address, an
//! envelope, a sentence, a stretch of one byte.
//!
//! Random bytes now and then look like something. Each rule is so narrow that a gibibyte of random bytes shows fewer than
//! one in five thousand false hits (docs/audit.md has the sum), since an audit that cries wolf is switched off.

use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::Buf;
use keys_schema::ServiceId;
use keys_schema::proto::Envelope;
use keys_schema::proto::envelope::Type;
use prost::Message;

/// What something reads as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Reading {
    /// An ACI or PNI, written out.
    ServiceId,
    /// A phone number.
    Number,
    /// A mail address.
    Mail,
    /// An IPv4 or IPv6 address.
    NetworkAddress,
    /// An envelope as it is delivered.
    Envelope,
    /// A stretch of readable text.
    Sentence,
    /// A stretch of one byte, as padding makes it.
    Padding,
}

impl Reading {
    /// For the report.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ServiceId => "a service id in text",
            Self::Number => "a phone number",
            Self::Mail => "a mail address",
            Self::NetworkAddress => "a network address",
            Self::Envelope => "an envelope that is not sealed",
            Self::Sentence => "readable text",
            Self::Padding => "a stretch of one byte",
        }
    }
}

/// What a text holds.
pub(super) fn in_text(text: &str) -> Option<Reading> {
    text.as_bytes()
        .split(|byte| !printable(*byte))
        .find_map(|run| structure(run, &LOOSE))
}

/// What bytes of any kind hold: structured text, or an envelope.
pub(super) fn in_bytes(bytes: &[u8]) -> Option<Reading> {
    // Short values that are text from end to end are read as such: nothing is left in them that could be chance.
    let rules = if (6..=MAX_WHOLE_TEXT).contains(&bytes.len()) && bytes.iter().all(|byte| printable(*byte)) {
        &LOOSE
    } else {
        &STRICT
    };
    runs(bytes, rules.run, printable)
        .find_map(|run| structure(run, rules))
        .or_else(|| is_envelope(bytes).then_some(Reading::Envelope))
}

/// What bytes hold that must be without any structure, beside what [`in_bytes`] finds.
pub(super) fn in_random(bytes: &[u8]) -> Option<Reading> {
    if runs(bytes, SENTENCE, printable).next().is_some() {
        return Some(Reading::Sentence);
    }
    let mut same = 1;
    for pair in bytes.windows(2) {
        same = if pair[0] == pair[1] { same + 1 } else { 1 };
        if same == PADDING {
            return Some(Reading::Padding);
        }
    }
    None
}

/// How long something must be, so that chance does not make it.
struct Rules {
    /// A stretch of printable characters that is looked into.
    run: usize,
    /// Digits behind the `+`.
    number: usize,
    mail: usize,
    ipv4: usize,
    ipv6: usize,
    /// Whether digits without a `+` are a number if they stand alone.
    bare: bool,
}

/// For text: there is no chance in it.
const LOOSE: Rules = Rules {
    run: 1,
    number: 7,
    mail: 6,
    ipv4: 7,
    ipv6: 6,
    bare: true,
};
const STRICT: Rules = Rules {
    run: 8,
    number: 8,
    mail: 20,
    ipv4: 8,
    ipv6: 11,
    bare: false,
};

/// What a stretch of printable characters holds.
fn structure(run: &[u8], rules: &Rules) -> Option<Reading> {
    if service_id(run) {
        return Some(Reading::ServiceId);
    }
    if number(run, rules) {
        return Some(Reading::Number);
    }
    if mail(run, rules) {
        return Some(Reading::Mail);
    }
    network_address(run, rules).then_some(Reading::NetworkAddress)
}

/// A hyphenated UUID in either case, with or without what marks a PNI.
fn service_id(run: &[u8]) -> bool {
    run.windows(36).any(|window| {
        let shaped = window.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
        shaped && std::str::from_utf8(window).is_ok_and(|text| ServiceId::parse(&text.to_ascii_lowercase()).is_ok())
    })
}

fn number(run: &[u8], rules: &Rules) -> bool {
    let marked = run
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'+')
        .any(|(at, _)| {
            let rest = &run[at + 1..];
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            (rules.number..=15).contains(&digits) && rest[0] != b'0'
        });
    // As people and some libraries write it. Unix time in seconds has ten digits as well, and is as unwelcome.
    let bare = |word: &[u8]| (10..=15).contains(&word.len()) && word.iter().all(u8::is_ascii_digit) && word[0] != b'0';
    marked || (rules.bare && run.split(|byte| !byte.is_ascii_alphanumeric()).any(bare))
}

fn mail(run: &[u8], rules: &Rules) -> bool {
    let local = |byte: &u8| byte.is_ascii_alphanumeric() || b"._%+-".contains(byte);
    let domain = |byte: &u8| byte.is_ascii_alphanumeric() || b".-".contains(byte);
    run.iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'@')
        .any(|(at, _)| {
            let before = run[..at].iter().rev().take_while(|byte| local(byte)).count();
            let host = &run[at + 1..];
            let host = &host[..host.iter().take_while(|byte| domain(byte)).count()];
            let top = host.iter().rev().take_while(|byte| byte.is_ascii_alphabetic()).count();
            let dotted = host.len() > top + 1 && host[host.len() - top - 1] == b'.';
            before > 0 && top >= 2 && dotted && before + 1 + host.len() >= rules.mail
        })
}

fn network_address(run: &[u8], rules: &Rules) -> bool {
    let v4 = |word: &[u8]| {
        word.len() >= rules.ipv4
            && std::str::from_utf8(word).is_ok_and(|text| text.trim_end_matches('.').parse::<Ipv4Addr>().is_ok())
    };
    let v6 = |word: &[u8]| {
        // Text may end a clause with a colon, and name a port behind one.
        word.len() >= rules.ipv6
            && word.iter().filter(|byte| **byte == b':').count() >= 2
            && std::str::from_utf8(word).is_ok_and(|text| text.trim_end_matches('.').parse::<Ipv6Addr>().is_ok())
    };
    run.split(|byte| !byte.is_ascii_digit() && *byte != b'.').any(v4)
        || run
            .split(|byte| !byte.is_ascii_hexdigit() && !b":.".contains(byte))
            .any(v6)
}

/// Whether this is an envelope: as it is delivered, padded, behind a length, or where ciphertext should be.
fn is_envelope(bytes: &[u8]) -> bool {
    BEGINNINGS.iter().any(|at| {
        let Some(bytes) = bytes.get(*at..) else { return false };
        if !bytes.first().is_some_and(|first| FIRST.contains(first)) {
            return false;
        }
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
        // A last field may itself end with zeros, so the whole is tried as well.
        parses(&bytes[..end]) || (end < bytes.len() && parses(bytes))
    })
}

fn parses(mut bytes: &[u8]) -> bool {
    let Ok(envelope) = Envelope::decode(bytes.take(MAX_ENVELOPE)) else {
        return false;
    };
    bytes.advance(bytes.len());
    let kind = envelope.r#type.and_then(|kind| Type::try_from(kind).ok());
    let named = [
        &envelope.destination_service_id,
        &envelope.source_service_id,
        &envelope.server_guid,
    ];
    let named = named
        .into_iter()
        .flatten()
        .any(|text| uuid::Uuid::parse_str(text.trim_start_matches("PNI:")).is_ok());
    let compact = [
        &envelope.destination_service_id_binary,
        &envelope.source_service_id_binary,
        &envelope.server_guid_binary,
    ];
    let named = named || compact.into_iter().flatten().any(|id| matches!(id.len(), 16 | 17));
    let timed = [envelope.timestamp, envelope.server_timestamp];
    let timed = timed.into_iter().flatten().any(|millis| MILLIS.contains(&millis));
    kind.is_some_and(|kind| kind != Type::Unknown)
        && (named || timed)
        && (envelope.content.is_some() || (named && timed))
}

/// The stretches of at least `least` bytes of that kind.
fn runs(bytes: &[u8], least: usize, kind: impl Fn(u8) -> bool) -> impl Iterator<Item = &[u8]> {
    let mut at = 0;
    std::iter::from_fn(move || {
        // Looks at every `least`-th byte only: a stretch so long has one of them, and most of the rest is skipped.
        loop {
            let probe = at + least - 1;
            let byte = *bytes.get(probe)?;
            if !kind(byte) {
                at = probe + 1;
                continue;
            }
            let back = bytes[at..probe].iter().rev().take_while(|byte| kind(**byte)).count();
            let start = probe - back;
            let length = back + bytes[probe..].iter().take_while(|byte| kind(**byte)).count();
            at = start + length;
            if length >= least {
                return Some(&bytes[start..start + length]);
            }
        }
    })
}

fn printable(byte: u8) -> bool {
    (0x20..=0x7e).contains(&byte)
}

/// Where an envelope may begin: at once; behind a length; where the nonce of a sealed row is; where its ciphertext is, and
/// behind a length there.
const BEGINNINGS: [usize; 5] = [0, 4, 32, 56, 60];
/// First bytes of its fields: number and wire type.
const FIRST: [u8; 11] = [0x08, 0x28, 0x38, 0x42, 0x4a, 0x50, 0x5a, 0x60, 0x6a, 0x70, 0x7a];
/// 2010 to 2100, in milliseconds since the Unix epoch.
const MILLIS: std::ops::Range<u64> = 1_262_304_000_000..4_102_444_800_000;
const MAX_ENVELOPE: usize = 32 * 1024 * 1024;
const MAX_WHOLE_TEXT: usize = 4096;
/// Chance makes one such stretch in 10^17 bytes.
const SENTENCE: usize = 40;
/// Chance makes one such stretch in 10^16 bytes.
const PADDING: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::testing::Random;

    #[test]
    fn what_names_someone_is_recognised_in_text() {
        for (text, reading) in [
            ("9d0652a3-dcc3-4d11-975f-74d61598733f", Reading::ServiceId),
            ("x=9D0652A3-DCC3-4D11-975F-74D61598733F;", Reading::ServiceId),
            ("PNI:9d0652a3-dcc3-4d11-975f-74d61598733f", Reading::ServiceId),
            ("call +4915112345678 now", Reading::Number),
            ("4915112345678", Reading::Number),
            ("alice@example.org", Reading::Mail),
            ("<a.b+c@mail.example.co.uk>", Reading::Mail),
            ("peer=203.0.113.77:443", Reading::NetworkAddress),
            ("from 10.0.0.1.", Reading::NetworkAddress),
            ("[2001:db8::7]:443", Reading::NetworkAddress),
            ("fe80::1ff:fe23:4567:890a", Reading::NetworkAddress),
        ] {
            assert_eq!(in_text(text), Some(reading), "{text}");
            assert_eq!(in_bytes(text.as_bytes()), Some(reading), "{text} as bytes");
        }
    }

    #[test]
    fn what_names_nobody_is_not() {
        for text in [
            "",
            "pepper_check",
            "listening for hints of other nodes",
            "src/relay/session.rs:12:34",
            "2026-01-02T03:04:05.678901Z",
            "9d0652a3-dcc3-4d11-975f",
            "+123456",
            "+0123456789",
            "a@b",
            "x @example.org",
            "1.2.3",
            "1.2.3.400",
            "12:34",
            "blind_relay::http: answered: 200",
            "vNq8b1cPSb2n2qNzHqS0fA",
        ] {
            assert_eq!(in_text(text), None, "{text}");
        }
    }

    #[test]
    fn text_inside_bytes_is_found() {
        let mut random = Random::new(1);
        for (text, reading) in [
            ("9d0652a3-dcc3-4d11-975f-74d61598733f", Reading::ServiceId),
            ("+4915112345678", Reading::Number),
            ("alice.archer@example.org", Reading::Mail),
            ("203.0.113.77", Reading::NetworkAddress),
            ("2001:db8::7:443", Reading::NetworkAddress),
        ] {
            // Control characters around it, so that it begins and ends there.
            let value = [
                &random.bytes(500)[..],
                b"\0",
                text.as_bytes(),
                b"\0",
                &random.bytes(500),
            ]
            .concat();
            assert_eq!(in_bytes(&value), Some(reading), "{text}");
        }
        let text = b"This is what nobody but the two of them should ever read";
        let value = [&random.bytes(500)[..], text, &random.bytes(500)].concat();
        assert_eq!(in_random(&value), Some(Reading::Sentence));
        let value = [&random.bytes(500)[..], &[0; 9], &random.bytes(500)].concat();
        assert_eq!(in_random(&value), Some(Reading::Padding));
    }

    fn envelope(content: Vec<u8>) -> Vec<u8> {
        let aci = "9d0652a3-dcc3-4d11-975f-74d61598733f";
        Envelope {
            r#type: Some(Type::UnidentifiedSender.into()),
            timestamp: Some(1_700_000_000_123),
            server_timestamp: Some(1_700_000_000_124),
            content: Some(content.into()),
            destination_service_id_binary: Some(uuid::Uuid::parse_str(aci).unwrap().as_bytes().to_vec().into()),
            ..Envelope::default()
        }
        .encode_to_vec()
    }

    #[test]
    fn an_envelope_is_recognised_bare_padded_and_where_ciphertext_should_be() {
        let mut random = Random::new(2);
        let envelope = envelope(random.bytes(700));
        let length = u32::try_from(envelope.len()).unwrap().to_be_bytes();
        let padded = [&length[..], &envelope, &[0; 400]].concat();
        for value in [
            envelope.clone(),
            [&envelope[..], &[0; 500]].concat(),
            padded.clone(),
            [&random.bytes(56)[..], &padded, &[0; 16]].concat(),
        ] {
            assert_eq!(in_bytes(&value), Some(Reading::Envelope));
        }
        assert_eq!(in_bytes(&envelope[..envelope.len() / 2]), None);
    }

    #[test]
    fn fifty_thousand_random_rows_read_as_nothing() {
        let mut random = Random::new(3);
        for row in 0..50_000 {
            let value = random.bytes(if row % 10 == 0 { 1272 } else { 16 + row % 200 });
            assert_eq!((in_bytes(&value), in_random(&value)), (None, None), "row {row}");
        }
    }

    #[test]
    fn stretches_are_found_wherever_they_are() {
        let find = |bytes: &[u8]| -> Vec<Vec<u8>> { runs(bytes, 3, |byte| byte == 1).map(<[u8]>::to_vec).collect() };
        assert_eq!(find(&[1, 1, 1]), [vec![1; 3]]);
        assert_eq!(find(&[0, 1, 1, 1, 0, 1, 1, 0, 1, 1, 1, 1]), [vec![1; 3], vec![1; 4]]);
        assert!(find(&[1, 1, 0, 1, 1, 0, 1]).is_empty());
        assert!(find(&[]).is_empty() && find(&[1, 1]).is_empty());
    }
}
