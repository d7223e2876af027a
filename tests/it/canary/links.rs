//! What a curious reader of database, log and metrics finds of who wrote to whom, and of what kind messages are.

use std::collections::{BTreeMap, BTreeSet};

use aho_corasick::AhoCorasick;
use futures_util::future::join_all;

use super::search::{Search, expect_none};
use super::world::World;
use crate::support::dump::{Dump, DumpedRow, telling};
use crate::support::person::message;
use crate::support::{Backend, Person, Server, on_each_backend, single};

on_each_backend! {
    t48_b4_thousands_of_sealed_sends_leave_no_link_between_sender_and_recipient
    t49_b5_messages_of_equal_size_leave_equal_rows_log_lines_and_counts
}

const SENDERS: usize = 8;
const RECIPIENTS: usize = 8;
const EACH: usize = 40;

async fn t48_b4_thousands_of_sealed_sends_leave_no_link_between_sender_and_recipient(backend: Backend) {
    let world = World::new(vec![quiet(backend).await]);
    let (senders, recipients) = (world.people(SENDERS).await, world.people(RECIPIENTS).await);
    let (before, log) = (Dump::of(world.node()).await, world.node().log());
    join_all(senders.iter().map(|sender| send_all(&world, sender, &recipients))).await;
    let after = Dump::of(world.node()).await;

    // Of all that is stored, envelopes and the counters of those who get them have changed, and nothing else.
    let (came, went) = (after.without(&before), before.without(&after));
    assert_eq!(came.keys().collect::<Vec<_>>(), [&"envelopes", &"mailboxes"]);
    assert_eq!(went.keys().collect::<Vec<_>>(), [&"mailboxes"]);
    let boxes = |people: &[Person]| -> BTreeSet<String> {
        let acis: BTreeSet<_> = people.iter().map(|person| person.aci.replace('-', "")).collect();
        let devices = before.rows("devices").iter().filter(|row| acis.contains(&row["aci"]));
        devices.map(|row| row["mailbox"].clone()).collect()
    };
    let changed: BTreeSet<String> = came["mailboxes"].iter().map(|row| row["id"].clone()).collect();
    assert_eq!(changed, boxes(&recipients));

    let envelopes = &came["envelopes"];
    assert_eq!(envelopes.len(), SENDERS * RECIPIENTS * EACH);
    for envelope in envelopes {
        let columns: Vec<_> = envelope.keys().map(String::as_str).collect();
        assert_eq!(columns, ["bucket", "expires", "mailbox", "sealed", "seq"]);
        assert!(changed.contains(&envelope["mailbox"]));
        assert!(envelope["seq"].parse::<usize>().unwrap() <= SENDERS * EACH);
        // A day since 1970: no time of a day, and the same for all.
        assert!(envelope["expires"].len() <= 5, "{envelope:?}");
    }
    let days: BTreeSet<_> = envelopes.iter().map(|row| &row["expires"]).collect();
    // Midnight may have passed.
    assert!(days.len() <= 2, "{days:?}");
    let known = of_people(&before, &senders);
    assert!(known.len() > 5 * SENDERS, "{known:?}");
    let shared = AhoCorasick::new(&known).unwrap();
    for envelope in envelopes {
        let link = shared.find(&envelope["sealed"]);
        assert!(link.is_none(), "a value of a sender");
    }

    // The log does not even tell that there were sends, so that its times tell nothing of them.
    let text = world.node().log();
    let lines = text[log.len()..].lines().count();
    assert!(lines < SENDERS, "{}", &text[log.len()..]);
    let told = format!("{text}{}", world.node().metrics().await);
    expect_none(&Search::new(&world.marks).bytes("log and metrics", told.as_bytes()));
}

/// Everything in a database that stands in a row of one of these people and is long enough to be theirs alone.
fn of_people<'a>(dump: &'a Dump, people: &[Person]) -> BTreeSet<&'a str> {
    let ids: BTreeSet<_> = people
        .iter()
        .flat_map(|person| [&person.aci, &person.pni].map(|id| id.replace('-', "")))
        .collect();
    let theirs = dump
        .0
        .values()
        .flatten()
        .filter(|row| row.values().any(|value| ids.contains(value)));
    telling(theirs)
}

async fn send_all(world: &World, sender: &Person, recipients: &[Person]) {
    // As clients have them: one socket of their own, and one that is nobody's, for sealed messages.
    let _own = world.socket(world.node(), Some(&sender.authorization())).await;
    let mut socket = world.socket(world.node(), None).await.unwrap();
    for sent in 0..EACH {
        for to in recipients {
            let key = to.access_key_header();
            let body = single(to, 6, &world.marks.bytes("sealed message", 300));
            if sent % 2 == 0 {
                let request = world.node().request("PUT", &to.inbox()).json(&body);
                world
                    .ask(request.header("unidentified-access-key", key))
                    .await
                    .expect(200);
            } else {
                let header = format!("unidentified-access-key:{key}");
                let headers = ["content-type:application/json", &header];
                socket.ask("PUT", &to.inbox(), &headers, Some(&body)).await.expect(200);
            }
        }
    }
}

async fn t49_b5_messages_of_equal_size_leave_equal_rows_log_lines_and_counts(backend: Backend) {
    let world = World::new(vec![quiet(backend).await]);
    let sender = world.register().await;
    let mut views = BTreeMap::new();
    for kind in ["text", "reaction", "edit", "group change", "call offer"] {
        let view = Box::pin(view(&world, &sender, kind)).await;
        views.insert(kind, view);
    }
    let text = &views["text"];
    assert_eq!(text.rows.values().sum::<usize>(), 2 * COPIES);
    for (kind, view) in &views {
        assert_eq!(view.rows, text.rows, "{kind}");
        assert_eq!(view.lines, text.lines, "{kind}");
        assert_eq!(view.counts, text.counts, "{kind}");
    }
}

const COPIES: usize = 10;

/// What a server shows of some messages.
struct View {
    /// Rows of the queue without mailbox and number, and how many there are; of what is sealed the length.
    rows: BTreeMap<Vec<(String, String)>, usize>,
    /// Lines of the log, without times.
    lines: Vec<String>,
    /// By how much each counter rose.
    counts: BTreeMap<String, u64>,
}

/// To somebody new, sealed and with a name: a call is urgent, a reaction is not, and each has a time of its own.
async fn view(world: &World, sender: &Person, kind: &'static str) -> View {
    let to = world.register().await;
    let (rows, log, counts) = (rows(world).await, world.node().log(), counters(world).await);
    for copy in 0..COPIES {
        for wire in [6, 1] {
            let canary = world.marks.bytes(kind, 700);
            let body = serde_json::json!({
                "messages": [message(&to, wire, &canary)],
                "online": false,
                "urgent": kind != "reaction",
                "timestamp": 1_700_000_000_000 + kind.len() * 1_000_003 + copy * 7_919,
            });
            let request = match wire {
                6 => world
                    .node()
                    .request("PUT", &to.inbox())
                    .header("unidentified-access-key", to.access_key_header()),
                _ => sender.request(world.node(), "PUT", &to.inbox()),
            };
            world.ask(request.json(&body)).await.expect(200);
        }
    }
    let mut new = self::rows(world).await;
    for (row, count) in rows {
        *new.get_mut(&row).unwrap() -= count;
    }
    new.retain(|_, count| *count > 0);
    let text = world.node().log();
    let lines = text[log.len()..]
        .lines()
        .map(|line| line.split_once(' ').unwrap().1.to_owned());
    let mut risen = counters(world).await;
    for (name, count) in counts {
        *risen.get_mut(&name).unwrap() -= count;
    }
    View {
        rows: new,
        lines: lines.collect(),
        counts: risen,
    }
}

async fn rows(world: &World) -> BTreeMap<Vec<(String, String)>, usize> {
    let dump = Dump::of(world.node()).await;
    let mut rows = BTreeMap::new();
    for row in dump.rows("envelopes") {
        *rows.entry(shape(row)).or_default() += 1;
    }
    rows
}

fn shape(row: &DumpedRow) -> Vec<(String, String)> {
    let kept = row.iter().filter(|(name, _)| *name != "mailbox" && *name != "seq");
    kept.map(|(name, value)| match name.as_str() {
        "sealed" => (name.clone(), value.len().to_string()),
        _ => (name.clone(), value.clone()),
    })
    .collect()
}

/// Counters, not how long things took.
async fn counters(world: &World) -> BTreeMap<String, u64> {
    let text = world.node().metrics().await;
    let counters = text.lines().filter_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        let counter = name.split('{').next()?.ends_with("_total");
        Some((name.to_owned(), value.parse().ok()?)).filter(|_| counter)
    });
    counters.collect()
}

/// A server that logs all that there is to say of requests, and nothing of what it does by itself now and then.
async fn quiet(backend: Backend) -> Server {
    Server::spawn_with(backend, &[("LOG_LEVEL", "trace,blind_relay::retention=off")]).await
}
