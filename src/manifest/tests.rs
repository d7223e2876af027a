//! The manifest of this release can be read, and a broken one is refused.

use super::*;

const TEXT: &str = keys_schema::MANIFEST;

/// What is wrong with the manifest after one change of its text.
fn problems_with(from: &str, to: &str) -> String {
    assert!(TEXT.contains(from), "{from}");
    Manifest::parse(&TEXT.replacen(from, to, 1)).unwrap_err().to_string()
}

#[test]
fn the_manifest_of_this_release_holds_together() {
    let manifest = Manifest::parse(TEXT).unwrap_or_else(|error| panic!("{error}"));
    assert!(manifest.columns().count() > 90);
    let accounts = manifest.table("accounts").unwrap();
    assert_eq!(accounts.column("number_hash").unwrap().form, Form::KeyedHash);
    let indexes: Vec<_> = accounts.indexes_on(Engine::Sqlite).map(|(name, _)| name).collect();
    assert_eq!(indexes[1], "sqlite_autoindex_accounts_2");
    // A table in the order of its key needs no index in SQLite.
    let mailboxes = manifest.table("mailboxes").unwrap();
    assert_eq!(mailboxes.indexes_on(Engine::Sqlite).count(), 0);
    assert_eq!(mailboxes.indexes_on(Engine::Postgres).count(), 1);
}

#[test]
fn columns_are_found_by_whom_they_are_about() {
    let manifest = Manifest::embedded();
    let about = |subject| -> Vec<String> {
        let columns = manifest.columns_about(subject);
        columns
            .map(|(table, column)| format!("{}.{}", table.name, column.name))
            .collect()
    };
    assert!(about(Subject::Account).contains(&"accounts.number_hash".to_owned()));
    // The column says otherwise than its datum.
    assert!(about(Subject::Device).contains(&"devices.sealed_number".to_owned()));
    assert!(!about(Subject::Account).contains(&"devices.sealed_number".to_owned()));
    assert!(about(Subject::Nobody).contains(&"attachments.name".to_owned()));
    // Nothing that is stored is about those whom an account writes to.
    assert_eq!(about(Subject::Contact), [""; 0]);
    let all = [Subject::Account, Subject::Device, Subject::Contact, Subject::Nobody];
    let sum: usize = all.into_iter().map(|subject| about(subject).len()).sum();
    assert_eq!(sum, manifest.columns().count());
}

#[test]
fn names_and_series_are_found() {
    let manifest = Manifest::embedded();
    assert!(manifest.redis_name(RedisKind::Channel, "blind-relay:hints").is_some());
    assert!(manifest.redis_name(RedisKind::Key, "blind-relay:hints").is_none());
    assert!(manifest.redis_name(RedisKind::Channel, "blind-relay:hints2").is_none());
    for series in [
        "blind_relay_sockets",
        "blind_relay_commit_rows_bucket",
        "blind_relay_commit_rows_sum",
    ] {
        assert!(manifest.metric_of_series(series).is_some(), "{series}");
    }
    for series in [
        "blind_relay_commit_rows",
        "blind_relay_sockets_sum",
        "blind_relay_other",
        "",
    ] {
        assert!(manifest.metric_of_series(series).is_none(), "{series}");
    }
    assert!(manifest.log_field("cause").is_some() && manifest.log_field("aci").is_none());
}

#[test]
fn a_pattern_matches_what_it_says_and_no_more() {
    let pattern = |name: &str| RedisName {
        name: name.to_owned(),
        kind: RedisKind::Key,
        form: Form::Counter,
        entropy: None,
        carries: Vec::new(),
        what: String::new(),
    };
    for (name, yes, no) in [
        ("a", "a", "ab"),
        ("a:*", "a:b:c", "b:a:"),
        ("*:z", "y:z", "z:y"),
        ("a*b*c", "a-b-c", "a-c-b"),
        ("a*a", "aa", "a"),
    ] {
        assert!(pattern(name).matches(yes), "{name} {yes}");
        assert!(!pattern(name).matches(no), "{name} {no}");
    }
}

#[test]
fn a_manifest_that_does_not_hold_together_is_refused() {
    for (from, to, problem) in [
        ("about = \"account\"", "about = \"everyone\"", "unknown variant"),
        (
            "what = \"the value\"",
            "what = \"the value\", more = 1",
            "unknown field",
        ),
        ("what = \"the value\"", "whit = \"the value\"", "unknown field"),
        (
            "name = \"pni\"",
            "name = \"aci\"",
            "the column of accounts aci is there twice",
        ),
        (
            "postgres = \"settings_pkey\"",
            "postgres = \"accounts_pkey\"",
            "accounts_pkey is there twice",
        ),
        (
            "datum = \"access-key\"",
            "datum = \"nonsense\"",
            "there is no datum nonsense",
        ),
        (
            "datum = \"access-key\"",
            "datum = \"queue-key\"",
            "the datum access-key is nowhere",
        ),
        (
            "datum = \"access-key\"",
            "datum = \"connections\"",
            "the datum connections is not in memory alone",
        ),
        (
            "datum = \"access-key\"",
            "datum = \"upload-form\"",
            "the datum upload-form is somewhere",
        ),
        (
            "seen_by = [\"Nd\", \"Ow\"]",
            "seen_by = []",
            "nobody sees the datum phone-number",
        ),
        (
            "form = \"sealed_to_device\", entropy = \"demanded\"",
            "form = \"sealed_to_device\"",
            "the entropy of envelopes.sealed does not fit",
        ),
        (
            "form = \"client_ciphertext\", entropy = \"expected\"",
            "form = \"client_ciphertext\", entropy = \"demanded\"",
            "the entropy of devices.name does not fit",
        ),
        (
            "columns = [\"expires\"]",
            "columns = [\"sealed\"]",
            "envelopes_expires is on envelopes.sealed",
        ),
        (
            "columns = [\"expires\"]",
            "columns = [\"sender\"]",
            "on sender, which envelopes has not",
        ),
        (
            "{ name = \"route\", bounded_by = \"routes\" }",
            "{ name = \"route\" }",
            "the values of route",
        ),
    ] {
        let problems = problems_with(from, to);
        assert!(problems.contains(problem), "{problem}: {problems}");
    }
}
