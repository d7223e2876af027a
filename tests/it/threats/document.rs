//! What `docs/threat-model.md` says: its ids, and the tests that it names.

use std::collections::{BTreeMap, BTreeSet};

use super::scan::Id;

/// Words of the tables that look like the names of tests and are none.
pub(super) const NO_TESTS: &[&str] = &["not_ciphertext", "otp_locked", "too_many_keys"];

/// The tables of invariants, of the delivery contract and of attacks.
pub(super) struct Document {
    rows: BTreeMap<Id, BTreeSet<String>>,
    named: BTreeSet<String>,
}

impl Document {
    pub(super) fn parse(text: &str) -> Self {
        let mut document = Self {
            rows: BTreeMap::new(),
            named: BTreeSet::new(),
        };
        let mut section = "";
        for line in text.lines() {
            if let Some(title) = line.strip_prefix("## ") {
                section = title;
            }
            let counts = ["3.", "4.", "5."].iter().any(|number| section.starts_with(number));
            if !counts || !line.starts_with('|') {
                continue;
            }
            let names = names(line);
            document.named.extend(names.iter().cloned());
            let first = line.split('|').nth(1).unwrap_or_default().trim();
            for id in ids_of(first) {
                document.rows.entry(id).or_default().extend(names.iter().cloned());
            }
        }
        assert!(document.rows.len() > 80, "the tables are where they are looked for");
        document
    }

    /// Every id that has a row, or is one of a row's.
    pub(super) fn ids(&self) -> BTreeSet<Id> {
        self.rows.keys().copied().collect()
    }

    /// The tests that the id's row names.
    pub(super) fn named(&self, id: Id) -> BTreeSet<String> {
        self.rows.get(&id).cloned().unwrap_or_default()
    }

    pub(super) fn all_named(&self) -> BTreeSet<String> {
        self.named.clone()
    }
}

/// What could be names of tests, in backticks.
pub(super) fn names(text: &str) -> BTreeSet<String> {
    let quoted = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    quoted.filter(|name| is_name(name)).map(str::to_owned).collect()
}

/// The ids of a first column: `T10`, `T15, T16`, `T20 to T23`.
fn ids_of(column: &str) -> Vec<Id> {
    if let Some((first, last)) = column.split_once(" to ")
        && let (Some(first), Some(last)) = (Id::parse(first), Id::parse(last))
    {
        return first.up_to(last);
    }
    column.split(", ").filter_map(Id::parse).collect()
}

/// Whether it is the name of a function, or the beginning of one.
fn is_name(text: &str) -> bool {
    let beginning = text.strip_suffix('…').unwrap_or(text);
    beginning.contains('_')
        && beginning
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

#[test]
fn rows_are_read() {
    let show = |column| ids_of(column).iter().map(Id::to_string).collect::<Vec<_>>();
    assert_eq!(show("T10"), ["T10"]);
    assert_eq!(show("T15, T16"), ["T15", "T16"]);
    assert_eq!(show("T08 to T10"), ["T08", "T09", "T10"]);
    assert!(show("id").is_empty());
    assert!(show("1. Success of a send").is_empty());
    assert!(is_name("t29_…") && is_name("keeps_order") && !is_name("GET /x_y") && !is_name("reregistration"));
}
