//! What was found, gathered so that a million bad rows are one line with a few places and a number.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    /// The manifest is not kept.
    Violation,
    /// Worth a look, and no fault of this server: what a client wrote into its own row.
    Notice,
}

/// One kind of thing that was found, and where. Never with the value itself: a report is for others to read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Finding {
    /// How bad it is.
    pub(super) severity: Severity,
    /// Which check found it.
    pub(super) check: String,
    /// What it is.
    pub(super) what: String,
    /// In which table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) table: Option<String>,
    /// In which column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) column: Option<String>,
    /// How often.
    pub(super) count: u64,
    /// The first places.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) places: Vec<String>,
}

/// Everything that was found.
#[derive(Default)]
pub(super) struct Findings {
    found: BTreeMap<(Severity, Place, String), (u64, Vec<String>)>,
    /// Of kinds that found no room.
    left_out: u64,
}

/// The check, table and column of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct At<'a> {
    /// Which check.
    pub(super) check: &'static str,
    /// Which table.
    pub(super) table: Option<&'a str>,
    /// Which column.
    pub(super) column: Option<&'a str>,
}

type Place = (&'static str, Option<String>, Option<String>);

impl<'a> At<'a> {
    /// Nowhere in the database.
    pub(super) fn check(check: &'static str) -> Self {
        Self {
            check,
            table: None,
            column: None,
        }
    }

    /// A table.
    pub(super) fn table(check: &'static str, table: &'a str) -> Self {
        Self {
            check,
            table: Some(table),
            column: None,
        }
    }

    /// A column.
    pub(super) fn column(check: &'static str, table: &'a str, column: &'a str) -> Self {
        Self {
            check,
            table: Some(table),
            column: Some(column),
        }
    }
}

impl Findings {
    /// The manifest is not kept there.
    pub(super) fn violation(&mut self, at: At<'_>, what: impl Into<String>, place: Option<String>) {
        self.add(Severity::Violation, at, what.into(), 1, place);
    }

    /// Somebody should look.
    pub(super) fn notice(&mut self, at: At<'_>, what: impl Into<String>, place: Option<String>) {
        self.add(Severity::Notice, at, what.into(), 1, place);
    }

    /// So many at once.
    pub(super) fn add(&mut self, severity: Severity, at: At<'_>, what: String, count: u64, place: Option<String>) {
        let key = (severity, (at.check, at.table.map(name), at.column.map(name)), what);
        if self.found.len() >= MAX_KINDS && !self.found.contains_key(&key) {
            self.left_out = self.left_out.saturating_add(count);
            return;
        }
        let (total, places) = self.found.entry(key).or_default();
        *total = total.saturating_add(count);
        if places.len() < PLACES {
            places.extend(place);
        }
    }

    /// As the report has them, the worst first.
    pub(super) fn into_list(self) -> Vec<Finding> {
        let mut list: Vec<Finding> = self
            .found
            .into_iter()
            .map(|((severity, (check, table, column), what), (count, places))| Finding {
                severity,
                check: check.to_owned(),
                what,
                table,
                column,
                count,
                places,
            })
            .collect();
        if self.left_out > 0 {
            list.push(Finding {
                severity: Severity::Violation,
                check: "report".to_owned(),
                what: "more than the report has room for".to_owned(),
                table: None,
                column: None,
                count: self.left_out,
                places: Vec::new(),
            });
        }
        list
    }
}

/// The name of something undeclared, as a report may show it: whoever made it may have put anything into it. Words of
/// letters stay, so that it can be found; digits, and whatever is unusual, do not.
pub(super) fn name(name: &str) -> String {
    let shown = |c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '-' | ':' | '.' | '{' | '}' | '/' | ' ');
    let mut text: String = name
        .chars()
        .take(MAX_NAME)
        .map(|c| if shown(c) { c } else { '*' })
        .collect();
    // Sixteen letters of hexadecimal without a digit are rare, but a name of one word so long is no loss either.
    if text
        .split(|c: char| !c.is_ascii_alphabetic())
        .any(|word| word.len() > MAX_WORD)
    {
        text = text
            .chars()
            .map(|c| if c.is_ascii_alphabetic() { '*' } else { c })
            .collect();
    }
    if name.chars().nth(MAX_NAME).is_some() {
        text.push('…');
    }
    text
}

const MAX_KINDS: usize = 500;
const PLACES: usize = 20;
const MAX_NAME: usize = 64;
const MAX_WORD: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_of_a_kind_are_one_finding_with_a_few_places() {
        let mut findings = Findings::default();
        for row in 0..1_000_000 {
            findings.violation(
                At::column("values", "envelopes", "sealed"),
                "low",
                Some(format!("row {row}")),
            );
        }
        findings.notice(At::check("log"), "odd", None);
        let list = findings.into_list();
        assert_eq!(
            (list.len(), list[0].count, list[0].places.len()),
            (2, 1_000_000, PLACES)
        );
        assert_eq!(list[1].severity, Severity::Notice);
    }

    #[test]
    fn kinds_without_end_end() {
        let mut findings = Findings::default();
        for kind in 0..MAX_KINDS + 7 {
            findings.violation(At::check("redis"), format!("key {kind}"), None);
        }
        let list = findings.into_list();
        assert_eq!((list.len(), list[MAX_KINDS].count), (MAX_KINDS + 1, 7));
    }

    #[test]
    fn a_name_shows_no_value() {
        for (given, shown) in [
            ("attachment_segments", "attachment_segments"),
            ("blind-relay:hints", "blind-relay:hints"),
            ("presence:4915112345678", "presence:*************"),
            ("last\u{1b}[2J", "last***J"),
        ] {
            assert_eq!(name(given), shown);
        }
        assert!(!name("abcdefabcdefabcdefabcdefabcdefab").contains("abc"));
        assert!(name(&"long ".repeat(100)).len() < 80);
    }
}
