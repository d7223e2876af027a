//! Queues that only their devices can open: another password, and what an earlier release stored.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use keys_schema::proto::Envelope;
use prost::Message;
use serde_json::json;
use sqlx::{Connection, PgConnection, SqliteConnection};

use crate::support::dump::Dump;
use crate::support::person::basic;
use crate::support::redis_server::RedisServer;
use crate::support::server::spawn_pair;
use crate::support::{Answer, Backend, Event, Person, Server, Socket, ask, hex, on_each_backend, random, send, until};

on_each_backend! {
    another_password_opens_what_was_queued_and_the_old_one_nothing
    a_password_can_be_changed_through_a_socket_which_ends_after_the_answer
    sends_during_changes_of_the_password_are_neither_lost_nor_disordered
    a_password_that_nobody_should_have_is_refused_and_changes_nothing
    a_socket_of_the_old_password_is_powerless
    of_two_changes_at_once_one_holds
    a_password_is_not_changed_all_day
    b6_t25_t71_rows_tell_bucket_and_day_and_no_more
    what_an_earlier_release_stored_is_sealed_and_arrives
    t64_there_is_no_way_back_while_envelopes_wait
}

async fn change_password(server: &Server, person: &mut Person) -> Answer {
    let password = hex(&random::<16>());
    let request = person.request(server, "PUT", "/v1/devices/password");
    let answer = ask(request.json(&json!({ "password": password }))).await;
    if answer.status == 204 {
        person.password = password;
    }
    answer
}

async fn whoami(server: &Server, person: &Person) -> Answer {
    ask(person.request(server, "GET", "/v1/accounts/whoami")).await
}

async fn another_password_opens_what_was_queued_and_the_old_one_nothing(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, mut bob) = (Person::register(&server).await, Person::register(&server).await);
    for number in 0..5 {
        send(&server, &alice, &bob, &[b'm', number]).await.expect(200);
    }
    let before = Dump::of(&server).await;
    let old = bob.authorization();
    change_password(&server, &mut bob).await.expect(204);
    let after = Dump::of(&server).await;
    assert_eq!(after.rows("envelopes").len(), 5);
    assert!(
        after.rows("envelopes").is_disjoint(before.rows("envelopes")),
        "sealed anew"
    );
    assert_eq!(Socket::open(&server, Some(&old), &[]).await.err(), Some(403));
    let request = server.request("GET", "/v1/messages").header("authorization", &old);
    ask(request).await.expect(401);
    assert_eq!(
        whoami(&server, &bob).await.expect(200).json()["number"],
        json!(bob.number)
    );
    // Without a socket, too.
    assert_eq!(bob.fetch(&server).await["messages"].as_array().map(Vec::len), Some(5));
    send(&server, &alice, &bob, &[b'm', 5]).await.expect(200);
    let expected: Vec<_> = (0..6).map(|number| Bytes::from(vec![b'm', number])).collect();
    assert_eq!(bob.connect(&server).await.drain().await, expected);
}

async fn a_password_can_be_changed_through_a_socket_which_ends_after_the_answer(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, mut bob) = (Person::register(&server).await, Person::register(&server).await);
    let mut socket = bob.connect(&server).await;
    socket.expect_empty().await;
    let password = hex(&random::<16>());
    let body = json!({ "password": password });
    let headers = ["content-type:application/json"];
    let answer = socket.ask("PUT", "/v1/devices/password", &headers, Some(&body)).await;
    answer.expect(204);
    bob.password = password;
    assert_eq!(socket.close_code().await, Some(4409));
    // The next connection is left alone.
    let mut socket = bob.connect(&server).await;
    socket.expect_empty().await;
    send(&server, &alice, &bob, b"after").await.expect(200);
    assert_eq!(socket.content().await, "after");
}

async fn sends_during_changes_of_the_password_are_neither_lost_nor_disordered(backend: Backend) {
    let server = Arc::new(Server::spawn(backend).await);
    let mut bob = Person::register(&server).await;
    let done = Arc::new(AtomicBool::new(false));
    let target = Arc::new(bob.clone());
    let mut senders = Vec::new();
    for sender in 0..4_u8 {
        let (server, target, done) = (Arc::clone(&server), Arc::clone(&target), Arc::clone(&done));
        let from = Person::register(&server).await;
        senders.push(tokio::spawn(async move {
            let mut sent = 0_u16;
            while !done.load(Ordering::Relaxed) {
                let [high, low] = sent.to_be_bytes();
                send(&server, &from, &target, &[sender, high, low]).await.expect(200);
                sent += 1;
            }
            sent
        }));
    }
    for _ in 0..6 {
        change_password(&server, &mut bob).await.expect(204);
    }
    done.store(true, Ordering::Relaxed);
    let mut counts = Vec::new();
    for sender in senders {
        counts.push(sender.await.unwrap());
    }
    let contents = bob.connect(&server).await.drain().await;
    for (sender, count) in (0..).zip(counts) {
        let of_sender: Vec<_> = contents
            .iter()
            .filter(|content| content[0] == sender)
            .cloned()
            .collect();
        let expected: Vec<_> = (0..count)
            .map(|n| Bytes::from([&[sender][..], &n.to_be_bytes()].concat()))
            .collect();
        assert_eq!(of_sender, expected);
    }
}

/// Also one that no envelope and no displacement reaches: it asked for no deliveries.
async fn a_socket_of_the_old_password_is_powerless(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, mut bob) = (Person::register(&server).await, Person::register(&server).await);
    let quiet = [("x-signal-disable-messages", "true")];
    let mut quiet = Socket::open(&server, Some(&bob.authorization()), &quiet).await.unwrap();
    quiet.ask("GET", "/v1/accounts/whoami", &[], None).await.expect(200);
    change_password(&server, &mut bob).await.expect(204);
    quiet.ask("GET", "/v1/accounts/whoami", &[], None).await.expect(401);
    quiet.ask("DELETE", "/v1/accounts/me", &[], None).await.expect(401);
    assert_eq!(quiet.close_code().await, Some(4401));
    send(&server, &alice, &bob, b"still here").await.expect(200);
    assert_eq!(bob.connect(&server).await.drain().await, ["still here"]);
}

async fn of_two_changes_at_once_one_holds(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    send(&server, &alice, &bob, b"kept").await.expect(200);
    let passwords: Vec<String> = (0..4).map(|_| hex(&random::<16>())).collect();
    let changes = passwords.iter().map(|password| {
        let request = bob.request(&server, "PUT", "/v1/devices/password");
        ask(request.json(&json!({ "password": password })))
    });
    let answers = futures_util::future::join_all(changes).await;
    let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    let held: Vec<_> = statuses
        .iter()
        .zip(&passwords)
        .filter(|(status, _)| **status == 204)
        .collect();
    assert_eq!(held.len(), 1, "{statuses:?}");
    assert!(
        statuses.iter().all(|status| [204, 401].contains(status)),
        "{statuses:?}"
    );
    let bob = Person {
        password: held[0].1.clone(),
        ..bob
    };
    assert_eq!(bob.connect(&server).await.drain().await, ["kept"]);
}

async fn a_password_is_not_changed_all_day(backend: Backend) {
    let server = Server::spawn_with(backend, &[("RATE_LIMITS", "on")]).await;
    let mut bob = Person::register(&server).await;
    for _ in 0..5 {
        change_password(&server, &mut bob).await.expect(204);
    }
    let refused = change_password(&server, &mut bob).await.expect(429);
    assert_eq!(refused.code(), "rate_limited");
    assert!(refused.header("retry-after").is_some());
    whoami(&server, &bob).await.expect(200);
}

async fn a_password_that_nobody_should_have_is_refused_and_changes_nothing(backend: Backend) {
    let server = Server::spawn(backend).await;
    let bob = Person::register(&server).await;
    for password in [
        json!("seven77"),
        json!("x".repeat(257)),
        json!(""),
        json!(7),
        json!(null),
    ] {
        let request = bob.request(&server, "PUT", "/v1/devices/password");
        let answer = ask(request.json(&json!({ "password": password }))).await;
        assert!([400, 422].contains(&answer.status), "{password}: {}", answer.status);
    }
    let stranger = server.request("PUT", "/v1/devices/password");
    let stranger = stranger.header("authorization", basic(&bob.user(), "not the password"));
    ask(stranger.json(&json!({ "password": "a good password" })))
        .await
        .expect(401);
    whoami(&server, &bob).await.expect(200);
}

async fn b6_t25_t71_rows_tell_bucket_and_day_and_no_more(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let lengths = [1_usize, 500, 900, 1_100, 1_900, 5_000];
    for length in lengths {
        send(&server, &alice, &bob, &vec![b'z'; length]).await.expect(200);
    }
    let dump = Dump::of(&server).await;
    let rows = dump.rows("envelopes");
    assert_eq!(rows.len(), lengths.len());
    let mut kinds: Vec<(String, usize)> = Vec::new();
    for row in rows {
        let columns: Vec<_> = row.keys().map(String::as_str).collect();
        assert_eq!(columns, ["bucket", "expires", "mailbox", "sealed", "seq"]);
        kinds.push((row["bucket"].clone(), row["sealed"].len() / 2));
    }
    kinds.sort();
    let row = |kib: usize| (kib.to_string(), 1024 * kib + 252);
    assert_eq!(kinds, [row(1), row(1), row(1), row(2), row(2), row(8)]);
    let days: std::collections::BTreeSet<_> = rows.iter().map(|row| &row["expires"]).collect();
    assert_eq!(days.len(), 1);
}

/// An envelope as releases before the sealed queue stored it, with a content that is found again.
fn stored_before(content: &'static [u8]) -> Vec<u8> {
    let envelope = Envelope {
        r#type: Some(1),
        content: Some(Bytes::from_static(content)),
        timestamp: Some(1_700_000_000_000),
        ..Envelope::default()
    };
    envelope.encode_to_vec()
}

const MARKER: &[u8] = b"what an earlier release stored in the clear";

/// Takes back every step after the one with this number.
fn migrate_down_to(server: &Server, number: &str) {
    loop {
        let status = server.run(&["migrate", "status"]);
        let status = String::from_utf8(status.stdout).unwrap();
        let mut applied = status.lines().filter_map(|line| line.strip_prefix("applied  "));
        if applied.next_back().unwrap().starts_with(number) {
            return;
        }
        let down = server.run(&["migrate", "down"]);
        assert!(down.status.success(), "{}", String::from_utf8_lossy(&down.stderr));
    }
}

/// Takes the database back to where queues were not sealed, and fills the one there is.
async fn as_before(server: &mut Server) {
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(server.exit_code().await, Some(0));
    migrate_down_to(server, "0006");
    let envelope = stored_before(MARKER);
    match server.place().database_url() {
        Some(url) => {
            let mut db = PgConnection::connect(url).await.unwrap();
            let fill = sqlx::query(FILL_POSTGRES).bind(envelope).execute(&mut db).await;
            assert_eq!(fill.unwrap().rows_affected(), 700);
        }
        None => {
            let url = format!("sqlite://{}", server.place().sqlite().display());
            let mut db = SqliteConnection::connect(&url).await.unwrap();
            let fill = sqlx::query(FILL_SQLITE).bind(envelope).execute(&mut db).await;
            assert_eq!(fill.unwrap().rows_affected(), 700);
            sqlx::query("UPDATE mailboxes SET last_seq = 700")
                .execute(&mut db)
                .await
                .unwrap();
            db.close().await.unwrap();
        }
    }
}

const FILL_SQLITE: &str = "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 700) \
    INSERT INTO envelopes (mailbox, seq, content, expires) SELECT id, n, $1, 99999 FROM numbers CROSS JOIN mailboxes";
const FILL_POSTGRES: &str = "WITH counted AS (UPDATE mailboxes SET last_seq = 700 RETURNING id) \
    INSERT INTO envelopes (mailbox, seq, content, expires) \
    SELECT id, n, $1, 99999 FROM counted CROSS JOIN generate_series(1, 700) AS n";

async fn what_an_earlier_release_stored_is_sealed_and_arrives(backend: Backend) {
    let mut server = Server::spawn(backend).await;
    let bob = Person::register(&server).await;
    as_before(&mut server).await;
    let server = server.restart();
    assert!(
        server.log().contains("sealing what earlier releases stored"),
        "{}",
        server.log()
    );
    let dump = Dump::of(&server).await;
    assert!(!dump.0.contains_key("envelopes_unsealed"));
    assert_eq!(dump.rows("envelopes").len(), 700);
    let marker = hex(MARKER);
    let found = dump.0.values().flatten().flat_map(|row| row.values());
    assert!(found.into_iter().all(|value| !value.contains(&marker)));
    assert!(dump.rows("mailboxes").iter().all(|row| row.contains_key("interim_key")));
    let mut socket = bob.connect(&server).await;
    for _ in 0..700 {
        let (id, envelope) = socket.envelope().await;
        assert_eq!(envelope.content.as_deref(), Some(MARKER));
        socket.answer(id, 200).await;
    }
    assert!(matches!(socket.next().await, Event::Empty));
    socket.keepalive().await;
    until("the queue is empty, and sealed to its device's own key", async || {
        let dump = Dump::of(&server).await;
        let interim = dump.rows("mailboxes").iter().any(|row| row.contains_key("interim_key"));
        !interim && dump.rows("envelopes").is_empty()
    })
    .await;
}

async fn t64_there_is_no_way_back_while_envelopes_wait(backend: Backend) {
    let mut server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    send(&server, &alice, &bob, b"waiting").await.expect(200);
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(server.exit_code().await, Some(0));
    migrate_down_to(&server, "0007");
    let refused = server.run(&["migrate", "down"]);
    assert!(!refused.status.success());
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(why.contains("envelopes are waiting"), "{why}");
    let server = server.restart();
    assert_eq!(bob.connect(&server).await.drain().await, ["waiting"]);
}

#[tokio::test]
async fn a_password_changed_on_one_node_is_known_to_senders_on_the_other() {
    let Some(redis) = RedisServer::spawn() else { return };
    if crate::support::server::postgres_url().is_none() {
        return crate::support::skip("two nodes need PostgreSQL");
    }
    let (one, other) = spawn_pair(&redis.url(), &[]).await;
    let (alice, mut bob) = (Person::register(&one).await, Person::register(&other).await);
    let mut socket = bob.connect(&other).await;
    socket.expect_empty().await;
    for round in 0..3_u8 {
        change_password(&one, &mut bob).await.expect(204);
        send(&other, &alice, &bob, &[b'r', round]).await.expect(200);
    }
    let old = basic(&bob.user(), "the one before the last");
    assert_eq!(Socket::open(&other, Some(&old), &[]).await.err(), Some(403));
    let contents = bob.connect(&other).await.drain().await;
    let expected: Vec<_> = (0..3).map(|round| Bytes::from(vec![b'r', round])).collect();
    assert_eq!(contents, expected);
}
