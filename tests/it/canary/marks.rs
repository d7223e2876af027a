//! Canaries: what a test gives a server, made so that any piece of it is known again wherever it is.
//!
//! A canary of free form repeats a tag of this test run with its own number, every 12 bytes or 20 letters, so that a piece
//! of it that survives where the rest was overwritten is found as well. What has a form of its own, a phone number or
//! what the server itself made, is remembered as it is.

use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use crate::support::{hex, random};

/// What may become of a canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// In no file at any time, and not in memory once the request is answered or the message acknowledged.
    Passing,
    /// As [`Self::Passing`], but what a query of the database is about: the database's own memory may hold it longer.
    Asked,
    /// Stored as it came, and gone from every file when its owner replaced or deleted it.
    Replaced,
    /// Stored as it came, for as long as its account or longer.
    Stored,
}

pub(super) const FATES: [Fate; 4] = [Fate::Passing, Fate::Asked, Fate::Replaced, Fate::Stored];
/// Tag and number.
pub(super) const RAW_UNIT: usize = RAW_TAG + 4;
pub(super) const RAW_TAG: usize = 8;
pub(super) const TEXT_UNIT: usize = TEXT_TAG + 8;
pub(super) const TEXT_TAG: usize = 12;

/// Every canary of a test.
pub(super) struct Marks {
    pub(super) tags: [Tags; FATES.len()],
    made: Mutex<Vec<Mark>>,
}

/// What canaries of one fate are recognised by.
pub(super) struct Tags {
    pub(super) raw: [u8; RAW_TAG],
    pub(super) text: String,
}

/// One canary.
#[derive(Clone)]
pub(super) struct Mark {
    pub(super) what: &'static str,
    pub(super) fate: Fate,
    /// If it does not have the form of a tag.
    pub(super) exact: Option<Vec<u8>>,
}

impl Marks {
    pub(super) fn new() -> Self {
        Self {
            tags: FATES.map(|_| Tags::new()),
            made: Mutex::default(),
        }
    }

    /// Bytes that pass through.
    pub(super) fn raw<const N: usize>(&self, what: &'static str) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(what, Fate::Passing, &mut bytes);
        bytes
    }

    /// As many bytes that pass through.
    pub(super) fn bytes(&self, what: &'static str, length: usize) -> Vec<u8> {
        self.bytes_of(what, Fate::Passing, length)
    }

    /// Bytes of that fate.
    pub(super) fn bytes_of(&self, what: &'static str, fate: Fate, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.fill(what, fate, &mut bytes);
        bytes
    }

    /// Bytes that a query is about.
    pub(super) fn asked<const N: usize>(&self, what: &'static str) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(what, Fate::Asked, &mut bytes);
        bytes
    }

    /// Letters and digits that pass through.
    pub(super) fn text(&self, what: &'static str) -> String {
        let number = self.add(what, Fate::Passing, None);
        let tag = &self.tags(Fate::Passing).text;
        format!("{tag}{number:08x}{tag}{number:08x}")
    }

    /// A phone number.
    pub(super) fn number(&self) -> String {
        let digits = format!("49{:010}", u64::from_be_bytes(random()) % 10_000_000_000);
        self.exact("phone number", Fate::Passing, &digits);
        format!("+{digits}")
    }

    /// An address of this machine that nobody else uses.
    pub(super) fn address(&self) -> Ipv4Addr {
        let [a, b, c] = random::<3>().map(|byte| 100 + byte % 150);
        let address = Ipv4Addr::new(127, a, b, c);
        self.exact("network address", Fate::Passing, address.to_string());
        address
    }

    /// A value in a form that this test did not choose.
    pub(super) fn exact(&self, what: &'static str, fate: Fate, value: impl AsRef<[u8]>) {
        self.add(what, fate, Some(value.as_ref().to_vec()));
    }

    pub(super) fn count(&self) -> usize {
        self.made().len()
    }

    pub(super) fn all(&self) -> Vec<Mark> {
        self.made().clone()
    }

    pub(super) fn tags(&self, fate: Fate) -> &Tags {
        &self.tags[FATES.iter().position(|known| *known == fate).unwrap()]
    }

    fn fill(&self, what: &'static str, fate: Fate, bytes: &mut [u8]) {
        assert!(bytes.len() >= RAW_UNIT, "{what} is too short for a canary");
        let number = self.add(what, fate, None).to_be_bytes();
        let unit = self.tags(fate).raw.iter().chain(&number);
        for (byte, unit) in bytes.iter_mut().zip(unit.cycle()) {
            *byte = *unit;
        }
    }

    fn add(&self, what: &'static str, fate: Fate, exact: Option<Vec<u8>>) -> u32 {
        let mut made = self.made();
        made.push(Mark { what, fate, exact });
        u32::try_from(made.len() - 1).unwrap()
    }

    fn made(&self) -> MutexGuard<'_, Vec<Mark>> {
        self.made.lock().unwrap()
    }
}

impl Tags {
    fn new() -> Self {
        let text = random::<TEXT_TAG>().map(|byte| char::from(b'a' + byte % 26));
        // In one alphabet of base64 as in the other.
        let raw = std::iter::repeat_with(random::<RAW_TAG>)
            .find(|raw| (0..3).all(|from| STANDARD_NO_PAD.encode(&raw[from..]) == URL_SAFE_NO_PAD.encode(&raw[from..])))
            .unwrap();
        Self {
            raw,
            text: text.iter().collect(),
        }
    }
}

/// A way in which bytes can be written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Plain,
    Reversed,
    Hex,
    UpperHex,
    ReversedHex,
    /// With the first byte that is looked for at the beginning of a group.
    Base64(usize),
    List,
    Uuid,
    Utf16Little,
    Utf16Big,
    UpperCase,
    Integer,
}

/// Everything that the bytes can look like.
pub(super) fn forms(bytes: &[u8]) -> Vec<(Form, Vec<u8>)> {
    let reversed: Vec<u8> = bytes.iter().rev().copied().collect();
    if bytes.len() < RAW_TAG {
        // Fewer letters of base64 are found everywhere.
        return vec![(Form::Plain, bytes.to_vec()), (Form::Reversed, reversed)];
    }
    let list = format!("{bytes:?}");
    let mut forms = vec![
        (Form::Plain, bytes.to_vec()),
        (Form::Hex, hex(bytes).into()),
        (Form::UpperHex, hex(bytes).to_uppercase().into()),
        (Form::ReversedHex, hex(&reversed).into()),
        (Form::Reversed, reversed),
        (Form::List, list[1..list.len() - 1].into()),
    ];
    // What base64 shares with its neighbours is left out.
    for from in 0..3 {
        let whole = (bytes.len() - from) / 3 * 3;
        for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            forms.push((Form::Base64(from), engine.encode(&bytes[from..from + whole]).into()));
        }
    }
    if bytes.is_ascii() {
        let wide = |order: fn([u8; 2]) -> [u8; 2]| bytes.iter().flat_map(|byte| order([*byte, 0])).collect();
        forms.push((Form::Utf16Little, wide(|pair| pair)));
        forms.push((Form::Utf16Big, wide(|[low, high]| [high, low])));
        forms.push((Form::UpperCase, bytes.to_ascii_uppercase()));
    }
    if bytes.len() == 16 || bytes.len() == RAW_TAG {
        let text = hex(bytes);
        let groups = [&text[..8], &text[8..12], &text[12..16]].join("-");
        let text = match bytes.len() {
            16 => format!("{groups}-{}-{}", &text[16..20], &text[20..]),
            _ => groups,
        };
        forms.push((Form::Uuid, text.to_uppercase().into()));
        forms.push((Form::Uuid, text.into()));
    }
    if bytes.len() == 12
        && let Ok(number) = str::from_utf8(bytes).unwrap_or_default().parse::<u64>()
    {
        forms.push((Form::Integer, number.to_be_bytes().to_vec()));
        forms.push((Form::Integer, number.to_le_bytes().to_vec()));
    }
    forms
}
