//! `tests/threats.md`: by which tests each attack and each invariant of `docs/threat-model.md` is shown, and on what.
//!
//! A test says in its name what it shows: `t45_b9_…` is one of T45 and of B9. The list is made from the names in the
//! sources, so that no test is forgotten in it; the tests here fail when it is out of date, when an id that must have a
//! test has none, and when the document names a test that does not exist.

mod document;
mod scan;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use document::Document;
use scan::{Found, Id};

/// The ids that must have a test. Whoever keeps the promise of another puts it here in the same commit.
const REQUIRED: &[&str] = &[
    "B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B9", "B10", "B13", "B14", "B15", "B16", "B17", "T01", "T02",
    "T03", "T04", "T05", "T06", "T07", "T08", "T09", "T10", "T11", "T12", "T13", "T14", "T15", "T16", "T17", "T18",
    "T19", "T24", "T25", "T26", "T36", "T38", "T41", "T42", "T43", "T44", "T45", "T46", "T47", "T48", "T49", "T57",
    "T58", "T59", "T60", "T63", "T70", "T71", "T72", "T73",
];

const COMMAND: &str = "BLESS=1 cargo test --test it threats";

#[test]
fn the_list_is_up_to_date() {
    let list = list(&found(), &document());
    let path = root().join("tests/threats.md");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, list).unwrap();
        return;
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    if let Some(line) = first_difference(&kept, &list) {
        panic!("tests/threats.md is out of date, first at\n{line}\nMake it anew: {COMMAND}");
    }
}

#[test]
fn every_id_that_must_have_a_test_has_one() {
    let (found, document) = (found(), document());
    let mut wrong = Vec::new();
    for id in required() {
        let names: BTreeSet<&str> = found
            .iter()
            .filter(|test| test.ids.contains(&id))
            .map(Found::name)
            .collect();
        if names.is_empty() {
            wrong.push(format!("no test has {} in its name", id.as_prefix()));
        } else if !document.named(id).iter().any(|name| names.contains(name.as_str())) {
            wrong.push(format!(
                "the row of {id} in docs/threat-model.md names none of {names:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_id_in_a_name_is_in_the_document() {
    let document = document();
    let wrong: Vec<String> = found()
        .iter()
        .flat_map(|test| test.ids.iter().map(move |id| (test, *id)))
        .filter(|(_, id)| !document.ids().contains(id))
        .map(|(test, id)| format!("{} has {id}, of which docs/threat-model.md knows nothing", test.name()))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_test_that_the_document_names_exists() {
    let found = found();
    let names: BTreeSet<&str> = found.iter().map(Found::name).collect();
    let targets = fuzz_targets();
    let exists = |name: &str| match name.strip_suffix('…') {
        Some(beginning) => names.iter().any(|known| known.starts_with(beginning)),
        None => names.contains(name) || targets.contains(name) || document::NO_TESTS.contains(&name),
    };
    let security = std::fs::read_to_string(root().join("SECURITY.md")).unwrap();
    let security = document::names(&security);
    assert!(security.len() > 30, "what it claims has tests");
    let named = document().all_named();
    let wrong: Vec<_> = named.union(&security).filter(|name| !exists(name)).collect();
    assert!(
        wrong.is_empty(),
        "named in docs/threat-model.md or SECURITY.md, and nowhere else: {wrong:#?}"
    );
    let unused: Vec<_> = document::NO_TESTS
        .iter()
        .filter(|name| names.contains(**name))
        .collect();
    assert!(unused.is_empty(), "they are tests: {unused:?}");
}

/// The whole file.
fn list(found: &[Found], document: &Document) -> String {
    let mut by_id: BTreeMap<Id, Vec<&Found>> = document.ids().iter().map(|id| (*id, Vec::new())).collect();
    for test in found {
        for id in &test.ids {
            by_id.entry(*id).or_default().push(test);
        }
    }
    let required: BTreeSet<Id> = required().collect();
    let mut text = format!(
        "# Tests of the threat model\n\n\
         Which test shows which invariant (B) or attack (T) of [docs/threat-model.md](../docs/threat-model.md), and on what. \
         Made from\nthe names of the tests, not written: `{COMMAND}`. A test fails when this file is out\n\
         of date, or when one of the ids that must have a test has none: {}.\n\n\
         | id | test | where | runs on |\n| --- | --- | --- | --- |\n",
        required.iter().map(Id::to_string).collect::<Vec<_>>().join(", ")
    );
    for (id, tests) in &by_id {
        for test in tests {
            let _ = writeln!(
                text,
                "| {id} | `{}` | {} | {} |",
                test.name(),
                test.place,
                test.backends()
            );
        }
    }
    let without: Vec<String> = by_id
        .iter()
        .filter(|(_, tests)| tests.is_empty())
        .map(|(id, _)| id.to_string())
        .collect();
    let _ = write!(
        text,
        "\n## Without a test of that name\n\n\
         Their rows in docs/threat-model.md say what holds today, some of them with tests that have other names:\n{}.\n",
        without.join(", ")
    );
    text
}

fn first_difference(kept: &str, made: &str) -> Option<String> {
    let (mut kept, mut made) = (kept.lines(), made.lines());
    loop {
        match (kept.next(), made.next()) {
            (None, None) => return None,
            (one, other) if one == other => {}
            (one, other) => {
                return Some(format!(
                    "  the file has: {}\n  the tests: {}",
                    one.unwrap_or("nothing"),
                    other.unwrap_or("nothing")
                ));
            }
        }
    }
}

fn required() -> impl Iterator<Item = Id> {
    REQUIRED
        .iter()
        .map(|id| Id::parse(id).expect("an id is a letter and a number"))
}

/// All tests, with ids and without.
fn found() -> Vec<Found> {
    let found = scan::repository(&root());
    assert!(found.len() > 500, "the tests are where they are looked for");
    found
}

fn document() -> Document {
    Document::parse(&std::fs::read_to_string(root().join("docs/threat-model.md")).unwrap())
}

fn fuzz_targets() -> BTreeSet<String> {
    let manifest: toml::Table = std::fs::read_to_string(root().join("fuzz/Cargo.toml"))
        .unwrap()
        .parse()
        .unwrap();
    let targets = manifest["bin"].as_array().unwrap().iter();
    targets
        .map(|target| target["name"].as_str().unwrap().to_owned())
        .collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}
