//! Thousands of canaries are sent through every feature and every kind of refusal. Then they are searched for, in every form,
//! in every file, log, metric and dump, and in the memory of the process.
//!
//! The program is the built one, so that its memory is its own. Each search is shown to find something that was planted.

mod backup;
mod core_file;
mod features;
mod links;
mod marks;
mod places;
mod queue_key;
mod refusals;
mod search;
mod world;

use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::AsyncWriteExt;

use crate::support::redis_server::RedisServer;
use crate::support::server::Place;
use crate::support::{Backend, Server, on_each_backend, until};
use marks::{Fate, Marks, forms};
use places::{Disk, of, told};
use search::{Search, expect_none};
use world::World;

on_each_backend! {
    t72_b3_b10_b15_ten_thousand_canaries_are_found_nowhere
}

async fn t72_b3_b10_b15_ten_thousand_canaries_are_found_nowhere(backend: Backend) {
    let redis = match backend {
        Backend::Sqlite => None,
        Backend::Postgres => RedisServer::spawn(),
    };
    let mut world = World::new(nodes(backend, redis.as_ref()).await);
    let people = world.people(PEOPLE).await;
    Box::pin(features::use_everything(&world, &people)).await;
    Box::pin(refusals::provoke_all(&world, &people)).await;
    features::leave(&world, &people).await;
    let count = world.marks.count();
    assert!(count >= 10_000, "{count} canaries");
    refusals::expect_many(&world).await;
    world.hang_up().await;

    let search = Search::new(&world.marks);
    // First, before anything else that a thread does covers what is left on its stack.
    for node in &world.nodes {
        forgotten(node, &search).await;
    }
    expect_none(&search.bytes("logs and metrics", told(&world).await.as_bytes()));
    if let Some(redis) = &redis {
        expect_none(&search.bytes("Redis", &redis.saved().await));
    }
    let disk = Disk::new(&world, backend);
    expect_none(&of(disk.search(&search).await, &[Fate::Passing, Fate::Asked]));
    planted_leaks_are_found(&world, &disk, redis.as_ref()).await;

    // What was replaced or deleted is gone once the server has swept, as it does when it starts, and closed its database.
    for node in &mut world.nodes {
        stop(node).await;
        *node = node.restart();
        until("a sweep of attachments", async || {
            node.log().contains("swept attachments")
        })
        .await;
        stop(node).await;
    }
    let found = disk.search_later(&search).await;
    assert!(
        found.iter().any(|hit| hit.fate == Fate::Stored),
        "what is kept is found"
    );
    expect_none(&of(found, &[Fate::Passing, Fate::Asked, Fate::Replaced]));
}

async fn stop(node: &mut Server) {
    node.signal(Signal::TERM);
    assert_eq!(node.exit_code().await, Some(0));
}

/// Everybody who takes part.
const PEOPLE: usize = 16;

/// One node that logs as text, or two that differ in that.
async fn nodes(backend: Backend, redis: Option<&RedisServer>) -> Vec<Server> {
    let place = Place::new(backend).await;
    let url = redis.map(RedisServer::url);
    let attachments = place.path().join("attachments");
    let start = |name: &str, format: &str| {
        let mut settings = vec![
            ("LOG", format),
            ("LOG_LEVEL", "trace"),
            ("ATTACHMENTS__DIR", attachments.to_str().unwrap()),
        ];
        settings.extend(url.as_deref().map(|url| ("REDIS_URL", url)));
        Server::start(Arc::clone(&place), name, &settings)
    };
    match url {
        None => vec![start("data", "json")],
        Some(_) => vec![start("data", "text"), start("two", "json")],
    }
}

/// Returns once nothing that has passed is in the memory of the process. It may take the time after which threads for
/// blocking work end. That it is forgotten has no event, and each look stops the process for a moment.
async fn forgotten(node: &Server, search: &Search) {
    let mut found = Vec::new();
    for _ in 0..10 {
        found = of(search.memory(node.pid()), &[Fate::Passing]);
        if found.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    expect_none(&found);
}

/// A canary that is kept, in each medium.
async fn planted_leaks_are_found(world: &World, disk: &Disk, redis: Option<&RedisServer>) {
    let planted = Marks::new();
    let search = Search::new(&planted);
    let canary = planted.bytes("planted", 60);
    assert!(disk.search(&search).await.is_empty());
    disk.plant(&canary).await;
    let found = disk.search(&search).await;
    for place in ["planted", "relay.db", "pg_wal", "base", "dump"] {
        let here = found.iter().any(|hit| hit.place.contains(place));
        let due = match place {
            "planted" => true,
            "relay.db" => world.nodes[0].place().database_url().is_none(),
            _ => world.nodes[0].place().database_url().is_some(),
        };
        assert_eq!(here, due, "{place}");
    }
    if let Some(redis) = redis {
        let mut connection = redis.connection().await;
        let mut set = redis::cmd("SET");
        set.arg("planted")
            .arg(&canary)
            .query_async::<()>(&mut connection)
            .await
            .unwrap();
        assert!(!search.bytes("Redis", &redis.saved().await).is_empty());
    }
    let log = told(world).await;
    assert!(search.bytes("log", log.as_bytes()).is_empty());
    for (form, written) in forms(&canary) {
        let line = [log.as_bytes(), &b"TRACE planted="[..], &written, b"\n"].concat();
        assert!(!search.bytes("log", &line).is_empty(), "{form:?}");
    }
    // Half a request: the server waits for the other half.
    for node in &world.nodes {
        let canary = planted.text("planted in memory");
        let search = Search::new(&planted);
        let mut stream = world.connect(node).await;
        let head = format!("PUT /v1/messages/{canary} HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{canary}");
        stream.write_all(head.as_bytes()).await.unwrap();
        until("a planted canary in memory", async || {
            !search.memory(node.pid()).is_empty()
        })
        .await;
        drop(stream);
        until("the end of a planted canary", async || {
            search.memory(node.pid()).is_empty()
        })
        .await;
    }
}

#[test]
fn every_form_of_a_canary_is_found() {
    let marks = Marks::new();
    let raw: [u8; 40] = marks.raw("raw");
    let text = marks.text("text");
    let number = marks.number();
    let search = Search::new(&marks);
    for (what, bytes) in [
        ("raw", &raw[..]),
        ("text", text.as_bytes()),
        ("phone number", &number.as_bytes()[1..]),
    ] {
        for (form, written) in forms(bytes) {
            for around in [&b""[..], b"1", b"12"] {
                let line = [b"2026 TRACE ", around, &written, b"-and more"].concat();
                let hits = search.bytes("here", &line);
                assert!(
                    hits.iter().any(|hit| hit.what.starts_with(what)) || !hits.is_empty(),
                    "{what} {form:?}"
                );
            }
        }
        // And any piece that is long enough to be one.
        if what != "phone number" {
            let piece = &bytes[bytes.len() / 2 - 14..];
            assert!(!search.bytes("here", piece).is_empty(), "a piece of {what}");
        }
    }
    assert!(search.bytes("here", &crate::support::random::<4096>()).is_empty());
}
