//! What a thief of a backup has: a copy of the database while messages wait in it, and none of the secrets.

use futures_util::future::join_all;

use super::marks::Fate;
use super::places::{dump, of};
use super::search::{Search, expect_none};
use super::world::World;
use crate::support::dump::Dump;
use crate::support::{Backend, Person, Server, on_each_backend, single};

on_each_backend! {
    t71_a_backup_without_the_secrets_has_nothing_in_clear_and_random_bodies
}

const WAITING: usize = 1_500;

async fn t71_a_backup_without_the_secrets_has_nothing_in_clear_and_random_bodies(backend: Backend) {
    let world = World::new(vec![Server::spawn(backend).await]);
    let people = world.people(6).await;
    let sending = people.iter().enumerate().map(|(n, from)| {
        let world = &world;
        let to = &people[(n + 1) % people.len()];
        async move {
            for sent in 0..WAITING / 6 {
                send(world, from, to, sent % 2 == 0).await;
            }
        }
    });
    join_all(sending).await;
    // Somebody is about to register.
    let number = world.marks.number();
    let opening = world.node().request("POST", "/v1/verification/session");
    let opening = opening.json(&serde_json::json!({ "number": number }));
    world.ask(opening).await.expect(200);

    let search = Search::new(&world.marks);
    let found = search.bytes("the backup", &backup(&world, backend));
    assert!(
        found.iter().any(|hit| hit.fate == Fate::Stored),
        "what is there is found"
    );
    expect_none(&of(found, &[Fate::Passing, Fate::Asked]));

    let stored = Dump::of(world.node()).await;
    let bodies: Vec<u8> = stored
        .rows("envelopes")
        .iter()
        .flat_map(|row| bytes(&row["sealed"]))
        .collect();
    assert_eq!(stored.rows("envelopes").len(), WAITING);
    let entropy = entropy(&bodies);
    assert!(entropy >= 7.99, "{entropy} bits in a byte");
}

async fn send(world: &World, from: &Person, to: &Person, sealed: bool) {
    // The same bytes over and over: what is random in the database was made so there.
    let canary = world.marks.bytes("waiting message", 600);
    let request = if sealed {
        let request = world.node().request("PUT", &to.inbox());
        let request = request.header("unidentified-access-key", to.access_key_header());
        request.json(&single(to, 6, &canary))
    } else {
        let request = from.request(world.node(), "PUT", &to.inbox());
        request.json(&single(to, 1, &canary))
    };
    world.ask(request).await.expect(200);
}

/// The database as backups hold it.
fn backup(world: &World, backend: Backend) -> Vec<u8> {
    let place = world.nodes[0].place();
    match backend {
        Backend::Postgres => dump(place.database_url().unwrap()),
        Backend::Sqlite => {
            let copy = place.path().join("copy.db");
            let made = world.node().run(&["backup", copy.to_str().unwrap()]);
            assert!(made.status.success(), "{made:?}");
            let copied = std::fs::read(copy).unwrap();
            // And as they are when files are copied, with the log.
            let raw =
                ["relay.db", "relay.db-wal"].map(|name| std::fs::read(place.sqlite().with_file_name(name)).unwrap());
            [copied, raw.concat()].concat()
        }
    }
}

fn bytes(digits: &str) -> Vec<u8> {
    let pairs = digits.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

/// Bits in a byte, over all.
fn entropy(bytes: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    for byte in bytes {
        counts[usize::from(*byte)] += 1;
    }
    let whole: f64 = counts.iter().map(|count| f64::from(*count)).sum();
    let shares = counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| f64::from(*count) / whole);
    -shares.map(|share| share * share.log2()).sum::<f64>()
}

#[test]
fn entropy_tells_text_from_noise() {
    assert!(entropy(&crate::support::random::<200_000>()) > 7.99);
    assert!(entropy("all of this can be read".repeat(10_000).as_bytes()) < 4.0);
}
