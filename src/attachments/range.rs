//! Ranges of bytes: those of a download (RFC 9110), and those of an upload by `PUT`.

use std::ops::Range;

/// What a download is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All of it.
    Whole,
    /// These bytes, at least one.
    Part(Range<u64>),
    /// Bytes that are not there, or more than one range.
    Unsatisfiable,
}

/// Reads the value of a `Range` header for something of that length. What is no range of bytes counts as none, as the
/// standard has it. Several ranges are refused: no client of attachments asks for them, and overlapping ones would be
/// sent many times over.
pub fn wanted(header: &[u8], length: u64) -> Wanted {
    let Some(specs) = std::str::from_utf8(header).ok().and_then(bytes_unit) else {
        return Wanted::Whole;
    };
    if specs.contains(',') {
        return Wanted::Unsatisfiable;
    }
    let Some((first, last)) = specs.trim_matches([' ', '\t']).split_once('-') else {
        return Wanted::Whole;
    };
    if first.is_empty() {
        return match number(last) {
            None => Wanted::Whole,
            Some(0) => Wanted::Unsatisfiable,
            Some(_) if length == 0 => Wanted::Unsatisfiable,
            Some(suffix) => Wanted::Part(length.saturating_sub(suffix)..length),
        };
    }
    let end = match number(last) {
        Some(last) => last.saturating_add(1),
        None if last.is_empty() => u64::MAX,
        None => return Wanted::Whole,
    };
    match number(first) {
        Some(first) if !last.is_empty() && first >= end => Wanted::Whole,
        Some(first) if first >= length => Wanted::Unsatisfiable,
        Some(first) => Wanted::Part(first..end.min(length)),
        None => Wanted::Whole,
    }
}

/// What an upload by `PUT` brings, from its `Content-Range` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Brought {
    /// Nothing: it asks how far the upload is. The whole length, if it says.
    Question(Option<u64>),
    /// These bytes, at least one, of a whole of that length, if it says.
    Part(Range<u64>, Option<u64>),
}

/// Reads the value of a `Content-Range` header: `bytes 0-9/20`, `bytes 0-9/*`, `bytes */20` or `bytes */*`.
pub fn brought(header: &[u8]) -> Option<Brought> {
    let text = std::str::from_utf8(header).ok()?;
    let (unit, rest) = text.trim_matches([' ', '\t']).split_once(' ')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (range, whole) = rest.split_once('/')?;
    let whole = match whole {
        "*" => None,
        digits => Some(exact(digits)?),
    };
    if range == "*" {
        return Some(Brought::Question(whole));
    }
    let (first, last) = range.split_once('-')?;
    let (first, last) = (exact(first)?, exact(last)?);
    let end = last.checked_add(1)?;
    if first > last || whole.is_some_and(|whole| end > whole) {
        return None;
    }
    Some(Brought::Part(first..end, whole))
}

/// Both readings of one header, for fuzzing: a part that is wanted lies within the length.
pub fn read_any(header: &[u8]) {
    for length in [0, 1, 4096, u64::MAX] {
        if let Wanted::Part(part) = wanted(header, length) {
            assert!(part.start < part.end && part.end <= length);
        }
    }
    if let Some(Brought::Part(part, whole)) = brought(header) {
        assert!(part.start < part.end && whole.is_none_or(|whole| part.end <= whole));
    }
}

fn bytes_unit(text: &str) -> Option<&str> {
    let (unit, specs) = text.split_once('=')?;
    unit.trim().eq_ignore_ascii_case("bytes").then_some(specs)
}

/// Digits only. A number too large to count is larger than any length.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

/// Digits only, and not too large to count.
fn exact(text: &str) -> Option<u64> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_cut_to_what_there_is() {
        for (header, part) in [
            ("bytes=0-0", 0..1),
            ("bytes=0-9", 0..10),
            ("bytes=0-", 0..100),
            ("bytes=99-", 99..100),
            ("bytes=50-1000", 50..100),
            ("bytes=0-99999999999999999999999999", 0..100),
            ("bytes=-1", 99..100),
            ("bytes=-1000", 0..100),
            ("Bytes= 3-4 ", 3..5),
        ] {
            assert_eq!(wanted(header.as_bytes(), 100), Wanted::Part(part), "{header}");
        }
    }

    #[test]
    fn what_is_not_there_is_unsatisfiable() {
        for header in ["bytes=100-", "bytes=100-101", "bytes=99999999999999999999-", "bytes=-0"] {
            assert_eq!(wanted(header.as_bytes(), 100), Wanted::Unsatisfiable, "{header}");
        }
        assert_eq!(wanted(b"bytes=0-", 0), Wanted::Unsatisfiable);
        assert_eq!(wanted(b"bytes=-5", 0), Wanted::Unsatisfiable);
    }

    #[test]
    fn several_ranges_are_refused_however_many() {
        assert_eq!(wanted(b"bytes=0-1,3-4", 100), Wanted::Unsatisfiable);
        let many = format!("bytes={}", vec!["0-"; 1000].join(","));
        assert_eq!(wanted(many.as_bytes(), 100), Wanted::Unsatisfiable);
    }

    #[test]
    fn what_is_no_range_counts_as_none() {
        for header in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=5",
            "bytes=5-4",
            "bytes=a-b",
            "bytes=1-b",
            "bytes=+1-2",
            "items=0-1",
            "bytes=--1",
            "bytes=1-2-3",
        ] {
            assert_eq!(wanted(header.as_bytes(), 100), Wanted::Whole, "{header}");
        }
        assert_eq!(wanted(b"bytes=\xff-", 100), Wanted::Whole);
    }

    #[test]
    fn content_ranges_say_what_comes_of_how_much() {
        assert_eq!(brought(b"bytes 0-9/20"), Some(Brought::Part(0..10, Some(20))));
        assert_eq!(brought(b"bytes 10-19/20"), Some(Brought::Part(10..20, Some(20))));
        assert_eq!(brought(b"bytes 10-19/*"), Some(Brought::Part(10..20, None)));
        assert_eq!(brought(b"bytes */20"), Some(Brought::Question(Some(20))));
        assert_eq!(brought(b"bytes */*"), Some(Brought::Question(None)));
        for wrong in [
            "",
            "bytes",
            "bytes 0-9",
            "bytes 9-0/20",
            "bytes 0-20/20",
            "bytes a-b/20",
            "bytes 0-9/a",
            "items 0-9/20",
            "bytes 0-18446744073709551615/*",
            "bytes 0-99999999999999999999/*",
            "bytes -1/20",
            "bytes 1-/20",
            "bytes +1-2/20",
        ] {
            assert_eq!(brought(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
