//! Every stored value, held against the form that the manifest gives its column.

use keys_schema::sealed_queue::Bucket;

use crate::domain::{Day, SPENT_DAYS, Timestamp};
use crate::manifest::{Column, Entropy, Form, Table};

use super::database::{Row, Value, Visitor};
use super::entropy::Histogram;
use super::findings::{At, Findings, Severity};
use super::needles::Needles;
use super::progress::Progress;
use super::recognise;

/// Looks at the rows of one table.
pub(super) struct Scan<'a> {
    table: &'a Table,
    columns: Vec<ColumnScan<'a>>,
    /// The places of `bucket` and `sealed`, where the second's length follows from the first.
    bucketed: Option<(usize, usize)>,
    now: Timestamp,
    needles: &'a Needles,
    findings: &'a mut Findings,
    progress: &'a mut Progress,
    estimate: u64,
    rows: u64,
    bytes: u64,
}

struct ColumnScan<'a> {
    name: String,
    /// `None` if it is not declared.
    declared: Option<&'a Column>,
    /// How bad it is if a value reads as something.
    severity: Severity,
    /// What sealed values begin with that is not random: a version, a key whose rows share it.
    prefix: usize,
    expiry: Option<Expiry>,
    all: Histogram,
}

/// When something should be gone, and how far ahead that may be.
#[derive(Clone, Copy)]
enum Expiry {
    /// A day, so many of which may pass until it must be gone, and how many may be to come.
    Day { grace: i32, ahead: i32 },
    /// Milliseconds.
    Instant,
}

/// What was read.
pub(super) struct Read {
    /// Rows.
    pub(super) rows: u64,
    /// Bytes of their values.
    pub(super) bytes: u64,
}

impl<'a> Scan<'a> {
    /// For a table of about so many rows.
    pub(super) fn new(
        table: &'a Table,
        now: Timestamp,
        needles: &'a Needles,
        findings: &'a mut Findings,
        progress: &'a mut Progress,
        estimate: u64,
    ) -> Self {
        Self {
            table,
            columns: Vec::new(),
            bucketed: None,
            now,
            needles,
            findings,
            progress,
            estimate,
            rows: 0,
            bytes: 0,
        }
    }

    /// Judges what only all rows together show.
    pub(super) fn finish(self) -> Read {
        for column in &self.columns {
            let entropy = column.declared.and_then(|declared| declared.entropy);
            if entropy.is_some() && column.all.is_low() {
                let what = "all values together are not random bytes".to_owned();
                let at = At::column(CHECK, &self.table.name, &column.name);
                self.findings.add(column.severity, at, what, 1, None);
            }
        }
        Read {
            rows: self.rows,
            bytes: self.bytes,
        }
    }
}

impl Visitor for Scan<'_> {
    fn columns(&mut self, names: &[&str]) {
        let table = self.table;
        self.columns = names.iter().map(|name| ColumnScan::new(table, name)).collect();
        let place = |wanted: &str| names.iter().position(|name| *name == wanted);
        self.bucketed = place("bucket").zip(place("sealed"));
    }

    fn row(&mut self, row: &Row<'_>) {
        self.rows += 1;
        let table = self.table.name.as_str();
        for (column, value) in self.columns.iter_mut().zip(row.values) {
            let (bytes, wrong): (&[u8], _) = match value {
                Value::Null => continue,
                Value::Integer(number) => {
                    let what = integer(column.declared, column.expiry, *number, self.now);
                    self.bytes += 8;
                    (&[], what.map(|what| (Severity::Violation, what)))
                }
                Value::Text(text) => {
                    let what = words(column.declared, text);
                    (text.as_bytes(), what.map(|what| (column.severity, what)))
                }
                Value::Bytes(bytes) => (bytes, column.bytes(bytes)),
                Value::Other(bytes) => {
                    let reading = recognise::in_bytes(bytes);
                    (bytes, reading.map(|reading| (column.severity, reading.name())))
                }
            };
            if let Some((severity, what)) = wrong {
                let at = At::column(CHECK, table, &column.name);
                self.findings.add(severity, at, what.to_owned(), 1, Some((row.place)()));
            }
            self.bytes += bytes.len() as u64;
            if let Some(needle) = self.needles.find(bytes) {
                let at = At::column("canary", table, &column.name);
                self.findings.violation(at, needle, Some((row.place)()));
            }
        }
        if let Some((bucket, sealed)) = self.bucketed
            && let (Some(Value::Integer(bucket)), Some(Value::Bytes(sealed))) =
                (row.values.get(bucket), row.values.get(sealed))
        {
            let due = u16::try_from(*bucket)
                .ok()
                .and_then(Bucket::from_kib)
                .map(Bucket::sealed_len);
            if due != Some(sealed.len()) {
                let at = At::column(CHECK, table, "sealed");
                let what = "not of the length that its bucket has";
                self.findings.violation(at, what, Some((row.place)()));
            }
        }
        self.progress.at(table, self.rows, self.estimate);
    }
}

impl<'a> ColumnScan<'a> {
    fn new(table: &'a Table, name: &str) -> Self {
        let declared = table.column(name);
        let clients_own = declared.is_some_and(|column| {
            // A client can write anything into its own row there, and nobody but it is any the worse for it.
            matches!(
                column.form,
                Form::ClientCiphertext | Form::ClientDerived | Form::PublicKey | Form::Signature
            )
        });
        Self {
            name: name.to_owned(),
            declared,
            severity: if clients_own {
                Severity::Notice
            } else {
                Severity::Violation
            },
            prefix: match (table.name.as_str(), name) {
                // The encapsulated key, which rows of one epoch share.
                ("envelopes", "sealed") => 32,
                // A version and the encapsulated key.
                ("devices", "created_at") => 33,
                _ => 0,
            },
            expiry: expiry(&table.name, name),
            all: Histogram::new(),
        }
    }

    /// What is wrong with a value of bytes.
    fn bytes(&mut self, bytes: &[u8]) -> Option<(Severity, &'static str)> {
        if let Some(reading) = recognise::in_bytes(bytes) {
            return Some((self.severity, reading.name()));
        }
        let column = self.declared?;
        if column.bytes.is_some_and(|length| length != bytes.len()) {
            return Some((Severity::Violation, "not of the declared length"));
        }
        let entropy = column.entropy?;
        if entropy == Entropy::Demanded && bytes.len() < self.prefix + TAG {
            return Some((Severity::Violation, "too short to be sealed"));
        }
        let random = bytes.get(self.prefix..).unwrap_or_default();
        if let Some(reading) = recognise::in_random(random) {
            return Some((self.severity, reading.name()));
        }
        let histogram = Histogram::of(random);
        if histogram.is_low() {
            return Some((self.severity, "not random bytes"));
        }
        // Only what passes by itself: together with what does not, all would be judged by a few.
        self.all.add(&histogram);
        None
    }
}

/// What is wrong with a text.
fn words(column: Option<&Column>, text: &str) -> Option<&'static str> {
    if let Some(reading) = recognise::in_text(text) {
        return Some(reading.name());
    }
    let column = column?;
    if let Some(values) = &column.values {
        return (!values.iter().any(|value| value == text)).then_some("a value that is not declared");
    }
    let path = |byte: u8| byte.is_ascii_alphanumeric() || b"-_/".contains(&byte);
    let is_path = text.len() <= MAX_PATH && text.bytes().all(path);
    (column.form == Form::AttachmentPath && !is_path).then_some("not the path of an attachment")
}

/// What is wrong with a number.
fn integer(column: Option<&Column>, expiry: Option<Expiry>, number: i64, now: Timestamp) -> Option<&'static str> {
    match column.map(|column| column.form) {
        // Any number at all.
        Some(Form::Random) => None,
        Some(Form::Day) => {
            let Some(day) = i32::try_from(number).ok().filter(|day| DAYS.contains(day)) else {
                return Some("not a day");
            };
            let Some(Expiry::Day { grace, ahead }) = expiry else {
                return None;
            };
            let today = now.day();
            if Day(day).plus(grace) < today {
                return Some("past its day");
            }
            (Day(day) > today.plus(ahead)).then_some("kept for longer than anything is")
        }
        Some(Form::Instant) => {
            expiry?;
            if number < now.plus_millis(-GRACE).0 {
                return Some("past its time");
            }
            (number > now.plus_millis(AHEAD).0).then_some("a time of day in a row that does not live for minutes")
        }
        Some(Form::Choice) if !CHOICES.contains(&number) => Some("not one of a few values"),
        _ => is_fine_time(number).then_some("a time that is finer than a day"),
    }
}

/// Whether a number would be an instant of our times in milliseconds, microseconds or nanoseconds.
fn is_fine_time(number: i64) -> bool {
    [1, 1_000, 1_000_000]
        .iter()
        .any(|unit| MILLIS.contains(&(number / unit)))
}

/// What should be gone when, as the retention of the server sees to it.
fn expiry(table: &str, column: &str) -> Option<Expiry> {
    let day = |grace, ahead| Some(Expiry::Day { grace, ahead });
    match (table, column) {
        ("envelopes", "expires") => day(0, 366),
        ("usernames", "held_until") => day(0, 30),
        ("attachments", "expires") => day(1, 3_651),
        // Ninety days are the most that may be set.
        ("token_sessions", "expires") => day(0, 91),
        ("token_sessions", "created") => day(i32::MAX, 1),
        ("attachment_budgets", "day") => day(3, 1),
        ("spent_keys", "day") => day(SPENT_DAYS + 2, 1),
        // Not an end, but it cannot be to come.
        ("devices", "last_seen") => day(i32::MAX, 1),
        ("invites", "expires") => day(1, 366),
        ("verification_sessions", "expires" | "next_code")
        | ("link_offers", "expires")
        | ("usernames", "reserved_until")
        | ("attachments", "drop_at") => Some(Expiry::Instant),
        _ => None,
    }
}

/// Only looks for secrets.
pub(super) struct Seek<'a> {
    /// In this table.
    pub(super) table: &'a str,
    /// For these.
    pub(super) needles: &'a Needles,
    /// And tells here.
    pub(super) findings: &'a mut Findings,
    /// What it means that one is there.
    pub(super) meaning: &'a str,
    /// The names of its columns.
    pub(super) names: Vec<String>,
}

impl Visitor for Seek<'_> {
    fn columns(&mut self, names: &[&str]) {
        self.names = names.iter().map(|name| (*name).to_owned()).collect();
    }

    fn row(&mut self, row: &Row<'_>) {
        for (name, value) in self.names.iter().zip(row.values) {
            let found = match value {
                Value::Null | Value::Integer(_) => None,
                Value::Text(text) => self.needles.find(text.as_bytes()),
                Value::Bytes(bytes) | Value::Other(bytes) => self.needles.find(bytes),
            };
            if let Some(needle) = found {
                let at = At::column("canary", self.table, name);
                self.findings
                    .violation(at, format!("{needle}{}", self.meaning), Some((row.place)()));
            }
        }
    }
}

const CHECK: &str = "values";
/// What the shortest sealed value has: an authentication tag.
const TAG: usize = 16;
const MAX_PATH: usize = 128;
/// To the year 2134.
const DAYS: std::ops::Range<i32> = 0..60_000;
/// 2010 to 2100.
const MILLIS: std::ops::Range<i64> = 1_262_304_000_000..4_102_444_800_000;
/// A bucket is the largest of them.
const CHOICES: std::ops::RangeInclusive<i64> = 0..=65_535;
/// The sweeper comes once a minute.
const GRACE: i64 = 15 * 60 * 1_000;
/// The longest of them is an hour.
const AHEAD: i64 = 3 * 60 * 60 * 1_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::database::TABLES;
    use crate::audit::recognise::Reading;
    use crate::audit::testing::Random;
    use crate::manifest::Manifest;

    const NOW: Timestamp = Timestamp(1_767_323_096_789);

    /// What is wrong with rows of a table.
    fn wrong(table: &str, names: &[&str], rows: &[Vec<Value<'_>>]) -> Vec<(Severity, String)> {
        let table = Manifest::embedded().table(table).unwrap();
        let (needles, mut findings, mut progress) = (Needles::new(), Findings::default(), Progress::new(true));
        let mut scan = Scan::new(table, NOW, &needles, &mut findings, &mut progress, 0);
        scan.columns(names);
        for values in rows {
            scan.row(&Row {
                place: &|| "row 1".to_owned(),
                values,
            });
        }
        scan.finish();
        let list = findings.into_list();
        list.into_iter()
            .map(|finding| (finding.severity, finding.what))
            .collect()
    }

    fn one(table: &str, name: &str, value: Value<'_>) -> Option<String> {
        wrong(table, &[name], &[vec![value]]).pop().map(|(_, what)| what)
    }

    #[test]
    fn every_table_of_the_manifest_is_read_and_no_other() {
        let declared: Vec<&str> = Manifest::embedded()
            .tables
            .iter()
            .map(|table| table.name.as_str())
            .collect();
        let mut read: Vec<&str> = TABLES.iter().map(|table| table.name).collect();
        assert!(declared.iter().all(|name| read.contains(name)), "{declared:?}");
        read.retain(|name| !declared.contains(name));
        assert_eq!(read, [""; 0]);
    }

    #[test]
    fn sealed_rows_pass_and_others_do_not() {
        let mut random = Random::new(11);
        let bucket = Bucket::from_kib(1).unwrap();
        let sealed = random.bytes(bucket.sealed_len());
        let names = ["bucket", "sealed"];
        let row = |bytes| vec![Value::Integer(1), Value::Bytes(bytes)];
        assert!(wrong("envelopes", &names, &[row(&sealed)]).is_empty());
        let length = "not of the length that its bucket has";
        let found = wrong("envelopes", &names, &[row(&sealed[1..])]);
        assert_eq!(found, [(Severity::Violation, length.to_owned())]);
        let unknown = vec![Value::Integer(3), Value::Bytes(&sealed)];
        assert_eq!(wrong("envelopes", &names, &[unknown])[0].1, length);
        let mut plain = sealed.clone();
        let text = b"{\"said\":\"what nobody but the two of them should read\"}";
        plain[56..]
            .iter_mut()
            .zip(text.iter().cycle())
            .for_each(|(byte, letter)| *byte = *letter);
        assert_eq!(
            wrong("envelopes", &names, &[row(&plain)])[0].1,
            Reading::Sentence.name()
        );
        // No text, and not random either.
        let skewed: Vec<u8> = sealed.iter().map(|byte| byte | 0x81).collect();
        assert_eq!(wrong("envelopes", &names, &[row(&skewed)])[0].1, "not random bytes");
    }

    #[test]
    fn what_a_client_wrote_into_its_own_row_is_a_notice() {
        let found = wrong(
            "devices",
            &["name"],
            &[vec![Value::Bytes(b"call me at +4915112345678")]],
        );
        assert_eq!(found, [(Severity::Notice, Reading::Number.name().to_owned())]);
        let found = wrong("devices", &["sealed_number"], &[vec![Value::Bytes(b"+4915112345678")]]);
        assert_eq!(found, [(Severity::Violation, Reading::Number.name().to_owned())]);
    }

    #[test]
    fn short_sealed_values_are_judged_together() {
        let mut random = Random::new(12);
        let mut rows = |mask: u8| -> Vec<Vec<u8>> {
            let value = |_| random.bytes(56).into_iter().map(|byte| byte & mask).collect();
            (0..500).map(value).collect()
        };
        let judge = |values: &[Vec<u8>]| {
            let rows: Vec<_> = values.iter().map(|value| vec![Value::Bytes(value)]).collect();
            wrong("accounts", &["access_key"], &rows)
        };
        assert!(judge(&rows(0xff)).is_empty());
        assert_eq!(judge(&rows(0xfe))[0].1, "all values together are not random bytes");
    }

    #[test]
    fn lengths_words_and_paths_are_those_of_the_manifest() {
        assert_eq!(one("accounts", "number_hash", Value::Bytes(&[0xa5; 32])), None);
        let found = one("accounts", "number_hash", Value::Bytes(&[0xa5; 31]));
        assert_eq!(found.as_deref(), Some("not of the declared length"));
        assert_eq!(one("settings", "name", Value::Text("pepper_check")), None);
        let found = one("settings", "name", Value::Text("last_caller"));
        assert_eq!(found.as_deref(), Some("a value that is not declared"));
        assert_eq!(
            one("profiles", "avatar", Value::Text("profiles/vNq8b1cPSb2n2qNzHqS0fA")),
            None
        );
        let found = one("profiles", "avatar", Value::Text("a picture of me"));
        assert_eq!(found.as_deref(), Some("not the path of an attachment"));
        let found = one(
            "profiles",
            "avatar",
            Value::Text("9d0652a3-dcc3-4d11-975f-74d61598733f"),
        );
        assert_eq!(found.as_deref(), Some(Reading::ServiceId.name()));
        let found = one("devices", "sealed_number", Value::Bytes(&[0xa5; 12]));
        assert_eq!(found.as_deref(), Some("too short to be sealed"));
    }

    #[test]
    fn numbers_hold_no_time_finer_than_a_day() {
        let today = i64::from(NOW.day().0);
        for (table, name, number, wrong) in [
            ("mailboxes", "id", NOW.0, None),
            ("mailboxes", "last_seq", 5_000, None),
            ("mailboxes", "last_seq", NOW.0, Some("a time that is finer than a day")),
            (
                "mailboxes",
                "bytes",
                NOW.0 * 1_000,
                Some("a time that is finer than a day"),
            ),
            (
                "mailboxes",
                "surprise",
                NOW.0 * 1_000_000,
                Some("a time that is finer than a day"),
            ),
            ("envelopes", "expires", today, None),
            ("envelopes", "expires", today - 1, Some("past its day")),
            (
                "envelopes",
                "expires",
                today + 400,
                Some("kept for longer than anything is"),
            ),
            ("envelopes", "expires", NOW.0, Some("not a day")),
            ("envelopes", "bucket", NOW.0, Some("not one of a few values")),
            ("devices", "last_seen", 0, None),
            (
                "devices",
                "last_seen",
                today + 2,
                Some("kept for longer than anything is"),
            ),
            ("link_offers", "expires", NOW.0 + 3_600_000, None),
            ("link_offers", "expires", NOW.0 - 60_000, None),
            ("link_offers", "expires", NOW.0 - 3_600_000, Some("past its time")),
            (
                "link_offers",
                "expires",
                NOW.0 + 86_400_000,
                Some("a time of day in a row that does not live for minutes"),
            ),
        ] {
            assert_eq!(
                one(table, name, Value::Integer(number)).as_deref(),
                wrong,
                "{table}.{name} {number}"
            );
        }
    }

    #[test]
    fn a_canary_is_found_in_any_column() {
        let table = Manifest::embedded().table("profiles").unwrap();
        let mut needles = Needles::new();
        needles.add("a canary", b"the canary's own bytes");
        let (mut findings, mut progress) = (Findings::default(), Progress::new(true));
        let mut scan = Scan::new(table, NOW, &needles, &mut findings, &mut progress, 0);
        scan.columns(&["name"]);
        scan.row(&Row {
            place: &|| "row 1".to_owned(),
            values: &[Value::Bytes(b"\x01\x02the canary's own bytes\x03")],
        });
        scan.finish();
        let list = findings.into_list();
        let canary = list.iter().find(|finding| finding.check == "canary").unwrap();
        assert_eq!(
            (canary.what.as_str(), canary.severity),
            ("a canary", Severity::Violation)
        );
    }
}
