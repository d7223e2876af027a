//! The chain of acts, and how what was done to it shows.

use std::collections::BTreeSet;

use blind_relay::domain::{Clock as _, SystemClock};
use sqlx::{Connection, PgConnection, SqliteConnection};

use super::{admin, raw, status};
use crate::support::{Backend, Person, Server, on_each_backend};

on_each_backend! {
    t24_fifty_acts_at_once_are_one_chain
    t24_what_is_changed_in_the_log_is_named_by_its_place
    t24_the_log_says_what_when_and_who_and_of_whom_only_a_pseudonym
    the_newest_entries_about_an_account_are_found_among_those_about_others
}

pub(super) async fn execute(server: &Server, statement: &'static str) {
    match server.place().database_url() {
        Some(url) => {
            let mut db = PgConnection::connect(url).await.unwrap();
            sqlx::query(statement).execute(&mut db).await.unwrap();
        }
        None => {
            let url = format!("sqlite://{}", server.place().sqlite().display());
            let mut db = SqliteConnection::connect(&url).await.unwrap();
            sqlx::query(statement).execute(&mut db).await.unwrap();
        }
    }
}

async fn t24_fifty_acts_at_once_are_one_chain(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    std::thread::scope(|scope| {
        for n in 0..50 {
            let (server, aci) = (&server, if n % 2 == 0 { &alice.aci } else { &bob.aci });
            scope.spawn(move || {
                let (method, path, expected) = match n % 5 {
                    0 => ("POST", format!("/accounts/{aci}/suspend"), 204),
                    1 => ("POST", format!("/accounts/{aci}/resume"), 204),
                    2 => ("GET", format!("/accounts/{aci}"), 200),
                    3 => ("GET", format!("/accounts/{aci}/messages"), 404),
                    _ => ("PUT", "/stats".to_owned(), 405),
                };
                assert_eq!(status(server, method, &path, ""), expected);
            });
        }
    });
    let log = admin(&server, &["log", "--json"]).json();
    let places: Vec<_> = log["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["seq"].as_i64().unwrap())
        .collect();
    assert!(places.iter().copied().eq(1..=50), "{places:?}");
    let verified = admin(&server, &["log", "verify", "--json"]).json();
    assert_eq!((&verified["whole"], &verified["entries"]), (&true.into(), &50.into()));
}

async fn t24_what_is_changed_in_the_log_is_named_by_its_place(backend: Backend) {
    let server = Server::spawn(backend).await;
    let alice = Person::register(&server).await;
    for _ in 0..4 {
        admin(&server, &["account", "suspend", &alice.aci]).well();
        admin(&server, &["account", "resume", &alice.aci]).well();
    }
    let said = admin(&server, &["log", "verify"]).well();
    assert!(said.starts_with("8 entries: nothing was changed"), "{said}");
    assert!(said.contains("cut off the newest entries"), "{said}");
    let head = said
        .lines()
        .find_map(|line| line.strip_prefix("head  "))
        .unwrap()
        .to_owned();
    for (plant, undo, named) in [
        (
            "UPDATE admin_log SET act = 3 WHERE seq = 4",
            "UPDATE admin_log SET act = 4 WHERE seq = 4",
            "entry 4 does not follow",
        ),
        (
            "UPDATE admin_log SET minute = minute - 1 WHERE seq = 8",
            "UPDATE admin_log SET minute = minute + 1 WHERE seq = 8",
            "entry 8 does not follow",
        ),
        (
            "UPDATE admin_log SET seq = -5 WHERE seq = 5",
            "UPDATE admin_log SET seq = 5 WHERE seq = -5",
            "entry 5 is missing",
        ),
        (
            "UPDATE admin_log SET seq = 100 + seq WHERE seq >= 7",
            "UPDATE admin_log SET seq = seq - 100 WHERE seq > 100",
            "entries 7 to 106 are missing",
        ),
        (
            "INSERT INTO admin_log SELECT 9, minute, act, outcome, target, uid, hash FROM admin_log WHERE seq = 8",
            "DELETE FROM admin_log WHERE seq = 9",
            "entry 9 ",
        ),
        (
            "UPDATE settings SET value = (SELECT hash FROM admin_log WHERE seq = 1) WHERE name = 'admin_log'",
            "SELECT 1",
            "ends are unreadable",
        ),
    ] {
        if named.starts_with("ends") {
            // For good: nothing is appended to a chain whose end is not known.
            execute(&server, plant).await;
            let broken = admin(&server, &["log", "verify"]);
            assert_eq!(broken.code, Some(1));
            assert_eq!(status(&server, "GET", &format!("/accounts/{}", alice.aci), ""), 503);
            continue;
        }
        execute(&server, plant).await;
        let found = admin(&server, &["log", "verify"]);
        assert_eq!(found.code, Some(1));
        assert!(found.out.contains(&format!("WRONG  {named}")), "{named}: {}", found.out);
        let json = admin(&server, &["log", "verify", "--json"]);
        assert_eq!(json.code, Some(1));
        assert!(json.out.contains("\"whole\":false"), "{}", json.out);
        execute(&server, undo).await;
        let whole = admin(&server, &["log", "verify", "--noted", &head]).well();
        assert!(whole.contains("the head that was noted is there"), "{whole}");
    }
}

#[tokio::test]
async fn t24_a_tail_that_was_cut_with_its_end_shows_by_the_head_that_was_noted() {
    let server = Server::spawn(Backend::Sqlite).await;
    let alice = Person::register(&server).await;
    let show = || admin(&server, &["account", "show", &alice.aci]).well();
    show();
    let early: Vec<u8> = settings(&server).await;
    show();
    show();
    let said = admin(&server, &["log", "verify"]).well();
    let head = said.lines().find_map(|line| line.strip_prefix("head  ")).unwrap();
    // As whoever knows how it is made would do it.
    execute(&server, "DELETE FROM admin_log WHERE seq > 1").await;
    set(&server, &early).await;
    admin(&server, &["log", "verify"]).well();
    let found = admin(&server, &["log", "verify", "--noted", head]);
    assert_eq!(found.code, Some(1));
    assert!(found.out.contains("the log was cut, or written anew"), "{}", found.out);
    assert!(!found.out.contains("nothing was changed"), "{}", found.out);
    // Also when it has grown again.
    admin(&server, &["account", "suspend", &alice.aci]).well();
    show();
    assert_eq!(admin(&server, &["log", "verify", "--noted", head]).code, Some(1));
    let bad = admin(&server, &["log", "verify", "--noted", "3"]).refused();
    assert!(bad.contains("--noted takes a head"), "{bad}");
    // A beginning that was cut off looks like one whose year is over: a head that was in it shows nothing any more.
    let said = admin(&server, &["log", "verify"]).well();
    let head = said.lines().find_map(|line| line.strip_prefix("head  ")).unwrap();
    show();
    let anchor = settings(&server).await;
    show();
    let late = settings(&server).await;
    execute(&server, "DELETE FROM admin_log WHERE seq <= 4").await;
    set(&server, &[&anchor[40..], &late[40..]].concat()).await;
    admin(&server, &["log", "verify"]).well();
    let found = admin(&server, &["log", "verify", "--noted", head]);
    assert_eq!(found.code, Some(1));
    assert!(found.out.contains("the log begins behind it"), "{}", found.out);
    assert!(!found.out.contains("nothing was changed"), "{}", found.out);
}

/// Writes the ends of the log.
async fn set(server: &Server, ends: &[u8]) {
    let url = format!("sqlite://{}", server.place().sqlite().display());
    let mut db = SqliteConnection::connect(&url).await.unwrap();
    sqlx::query("UPDATE settings SET value = $1 WHERE name = 'admin_log'")
        .bind(ends)
        .execute(&mut db)
        .await
        .unwrap();
}

async fn settings(server: &Server) -> Vec<u8> {
    let url = format!("sqlite://{}", server.place().sqlite().display());
    let mut db = SqliteConnection::connect(&url).await.unwrap();
    sqlx::query_scalar("SELECT value FROM settings WHERE name = 'admin_log'")
        .fetch_one(&mut db)
        .await
        .unwrap()
}

async fn t24_the_log_says_what_when_and_who_and_of_whom_only_a_pseudonym(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    assert!(admin(&server, &["log"]).well().ends_with("no entries\n"));
    for person in [&alice, &bob, &alice] {
        admin(&server, &["account", "show", &person.aci]).well();
    }
    let log = admin(&server, &["log", "--json"]).json();
    let entries = log["entries"].as_array().unwrap();
    let uid = rustix::process::geteuid().as_raw();
    assert!(entries.iter().all(|entry| entry["uid"] == uid));
    let targets: BTreeSet<_> = entries.iter().map(|entry| entry["target"].as_str().unwrap()).collect();
    assert_eq!(targets.len(), 2);
    let now = SystemClock.now().minute();
    assert!(
        entries
            .iter()
            .all(|entry| (0..10).contains(&(now - entry["minute"].as_i64().unwrap())))
    );
    let of_alice = admin(&server, &["log", "--account", &alice.aci, "--json"]).json();
    assert_eq!(of_alice["entries"].as_array().unwrap().len(), 2);
    assert_eq!(of_alice["account"], entries[0]["target"]);
    let shown = admin(&server, &["log", "--last", "2"]).well();
    assert_eq!(shown.lines().count(), 3, "{shown}");
    assert!(shown.contains("account show     done"), "{shown}");
    for text in [&shown, &log.to_string(), &server.log()] {
        for id in [&alice.aci, &alice.pni, &bob.aci] {
            assert!(!text.contains(id.as_str()) && !text.contains(&id.replace('-', "")));
        }
    }
    // Another server knows her under another name.
    let other = Server::spawn(backend).await;
    let there = raw(
        &other,
        format!("GET /log?account={} HTTP/1.1\r\nhost: x\r\n\r\n", alice.aci).as_bytes(),
    );
    assert!(
        there.contains("\"account\":\"") && !there.contains(of_alice["account"].as_str().unwrap()),
        "{there}"
    );
}

async fn the_newest_entries_about_an_account_are_found_among_those_about_others(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    for (person, act) in [
        (&alice, "show"),
        (&alice, "suspend"),
        (&bob, "show"),
        (&alice, "resume"),
        (&bob, "show"),
        (&bob, "show"),
    ] {
        admin(&server, &["account", act, &person.aci]).well();
    }
    let places = |person: &Person, last: &str| -> Vec<_> {
        let log = admin(&server, &["log", "--account", &person.aci, "--last", last, "--json"]).json();
        let entries = log["entries"].as_array().unwrap().iter();
        entries.map(|entry| entry["seq"].as_i64().unwrap()).collect()
    };
    assert_eq!(places(&alice, "1"), [4]);
    assert_eq!(places(&alice, "2"), [2, 4]);
    assert_eq!(places(&alice, "50"), [1, 2, 4]);
    assert_eq!(places(&bob, "2"), [5, 6]);
}
