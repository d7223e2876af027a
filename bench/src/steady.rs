//! Does a server that goes on working go on growing?
//!
//! People write to people who are connected and to people who come and go, take keys and publish new ones; envelopes that nobody
//! fetches are put past the server into queues, due at once, for its sweeper. At equal intervals the sizes of tables, files and
//! logs are looked at. What is kept for a time, by design longer than this takes, is made as old as it has to be.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use serde_json::json;
use sqlx::{Connection, PgConnection, SqliteConnection};
use tokio::task::JoinSet;

use crate::claims::ec_key;
use crate::client::{Received, Socket};
use crate::content::send_to;
use crate::note;
use crate::people::{Person, Template, register};
use crate::server::{Backend, Server};

/// What came of it.
pub(crate) struct Outcome {
    /// A line for each look.
    pub(crate) lines: Vec<String>,
    /// What did not stay as it was, in words.
    pub(crate) grown: Vec<String>,
}

/// Works for so long.
pub(crate) async fn run(
    binary: &Path,
    template: Template,
    backend: &Backend,
    time: Duration,
) -> anyhow::Result<Outcome> {
    let server = Server::start(binary, backend, None).await?;
    let people = register(&server, &template, 6_000_000, 2 * (PAIRS + COMERS + OWNERS) + SLEEPERS).await?;
    let run = Arc::new(Run {
        address: server.address.clone(),
        template,
        done: AtomicU64::new(0),
    });
    let mut tasks = JoinSet::new();
    let (pairs, rest) = people.split_at(2 * PAIRS);
    let (comers, rest) = rest.split_at(2 * COMERS);
    let (owners, sleepers) = rest.split_at(2 * OWNERS);
    for pair in pairs.chunks(2) {
        tasks.spawn(Arc::clone(&run).receive(pair[1].clone()));
        tasks.spawn(Arc::clone(&run).send(pair[0].clone(), pair[1].clone()));
    }
    for pair in comers.chunks(2) {
        tasks.spawn(Arc::clone(&run).come_and_go(pair[1].clone()));
        tasks.spawn(Arc::clone(&run).send(pair[0].clone(), pair[1].clone()));
    }
    for pair in owners.chunks(2) {
        tasks.spawn(Arc::clone(&run).take_and_publish(pair[1].clone(), pair[0].clone()));
    }
    let looked = tokio::select! {
        looked = look_until(backend, &run, sleepers, time) => looked,
        Some(ended) = tasks.join_next() => match ended? {
            Ok(()) => bail!("the work ended too early"),
            Err(error) => Err(error),
        },
    };
    tasks.shutdown().await;
    server.stop().await?;
    let looks = looked?;
    Ok(Outcome {
        lines: shown(&looks),
        grown: grown(&looks),
    })
}

struct Run {
    address: String,
    template: Template,
    /// Envelopes and keys so far.
    done: AtomicU64,
}

impl Run {
    async fn send(self: Arc<Self>, from: Person, to: Person) -> anyhow::Result<()> {
        let mut socket = Socket::open(&self.address, Some(&from.authorization)).await?;
        let (path, body) = send_to(&to);
        loop {
            socket.feed_request("PUT", &path, body.clone(), None).await?;
            self.answer(&mut socket, 200).await?;
            tokio::time::sleep(BETWEEN_SENDS).await;
        }
    }

    async fn receive(self: Arc<Self>, person: Person) -> anyhow::Result<()> {
        let mut socket = Socket::open(&self.address, Some(&person.authorization)).await?;
        loop {
            if let Received::Envelope(id) = socket.next().await? {
                socket.feed_acknowledgement(id).await?;
                socket.flush().await?;
            }
        }
    }

    async fn come_and_go(self: Arc<Self>, person: Person) -> anyhow::Result<()> {
        loop {
            tokio::time::sleep(AWAY).await;
            let mut socket = Socket::open(&self.address, Some(&person.authorization)).await?;
            socket.drain().await?;
        }
    }

    /// Somebody takes half of the owner's keys, and the owner publishes new ones.
    async fn take_and_publish(self: Arc<Self>, owner: Person, taker: Person) -> anyhow::Result<()> {
        let mut owners = Socket::open(&self.address, Some(&owner.authorization)).await?;
        let mut takers = Socket::open(&self.address, Some(&taker.authorization)).await?;
        let path = format!("/v2/keys/{}/1", owner.aci);
        for first in (FIRST_ID..).step_by(KEYS as usize) {
            let ids = first..first + KEYS;
            let ec: Vec<_> = ids
                .clone()
                .map(|id| json!({ "keyId": id, "publicKey": ec_key() }))
                .collect();
            let kyber: Vec<_> = ids.map(|id| self.template.kyber_as(id)).collect();
            let body = serde_json::to_vec(&json!({ "preKeys": ec, "pqPreKeys": kyber }))?;
            owners
                .feed_request("PUT", "/v2/keys?identity=ACI", body.into(), None)
                .await?;
            self.answer(&mut owners, 204).await?;
            for _ in 0..KEYS / 2 {
                takers.feed_request("GET", &path, bytes::Bytes::new(), None).await?;
                self.answer(&mut takers, 200).await?;
                tokio::time::sleep(BETWEEN_TAKES).await;
            }
        }
        Ok(())
    }

    async fn answer(&self, socket: &mut Socket, wanted: u32) -> anyhow::Result<()> {
        socket.flush().await?;
        loop {
            match socket.next().await? {
                Received::Answer { status, .. } if status == wanted => {
                    self.done.fetch_add(1, Ordering::Relaxed);
                    return Ok(());
                }
                Received::Answer { status, body } => {
                    bail!("answered with {status}: {}", String::from_utf8_lossy(&body))
                }
                Received::Envelope(id) => socket.feed_acknowledgement(id).await?,
                Received::QueueEmpty => {}
            }
        }
    }
}

/// Sizes at one moment, by name: bytes, and numbers of rows that are dead or waiting.
struct Look {
    after: Duration,
    done: u64,
    sizes: BTreeMap<String, i64>,
}

async fn look_until(backend: &Backend, run: &Run, sleepers: &[Person], time: Duration) -> anyhow::Result<Vec<Look>> {
    let began = Instant::now();
    let between = (time / LOOKS).clamp(Duration::from_secs(1), Duration::from_secs(60));
    ensure!(time >= between * 6, "less than six looks say nothing");
    let mut looks = Vec::new();
    while began.elapsed() < time {
        tokio::time::sleep(between).await;
        match backend {
            Backend::Sqlite(dir) => {
                let path = dir.path().join("data/relay.db");
                let mut db = SqliteConnection::connect(&format!("sqlite://{}", path.display())).await?;
                sqlx::query("PRAGMA busy_timeout = 30000").execute(&mut db).await?;
                for sleeper in sleepers {
                    let aci = uuid::Uuid::parse_str(&sleeper.aci)?;
                    let mut tx = db.begin_with("BEGIN IMMEDIATE").await?;
                    sqlx::query(SQLITE_COUNT_DUE).bind(aci).execute(&mut *tx).await?;
                    sqlx::query(SQLITE_DUE).bind(aci).execute(&mut *tx).await?;
                    tx.commit().await?;
                }
                sqlx::query(AGE).execute(&mut db).await?;
            }
            Backend::Postgres { url, .. } => {
                let mut db = PgConnection::connect(url).await?;
                for sleeper in sleepers {
                    let aci = uuid::Uuid::parse_str(&sleeper.aci)?;
                    let mut tx = db.begin().await?;
                    sqlx::query(POSTGRES_COUNT_DUE).bind(aci).execute(&mut *tx).await?;
                    sqlx::query(POSTGRES_DUE).bind(aci).execute(&mut *tx).await?;
                    tx.commit().await?;
                }
                sqlx::query(AGE).execute(&mut db).await?;
            }
        }
        let look = Look {
            after: began.elapsed(),
            done: run.done.load(Ordering::Relaxed),
            sizes: sizes(backend).await?,
        };
        note(&line(&look));
        looks.push(look);
    }
    Ok(looks)
}

async fn sizes(backend: &Backend) -> anyhow::Result<BTreeMap<String, i64>> {
    let mut sizes = BTreeMap::new();
    match backend {
        Backend::Sqlite(dir) => {
            let path = dir.path().join("data/relay.db");
            for (name, path) in [(FILE, path.clone()), (LOG, path.with_extension("db-wal"))] {
                let length = std::fs::metadata(path).map_or(0, |data| data.len());
                sizes.insert(name.to_owned(), i64::try_from(length)?);
            }
            let mut db = SqliteConnection::connect(&format!("sqlite://{}", path.display())).await?;
            for (name, statement) in [
                ("rows: envelopes", "SELECT count(*) FROM envelopes"),
                ("rows: spent_keys", "SELECT count(*) FROM spent_keys"),
                ("free pages", "SELECT freelist_count FROM pragma_freelist_count()"),
            ] {
                sizes.insert(name.to_owned(), sqlx::query_scalar(statement).fetch_one(&mut db).await?);
            }
        }
        Backend::Postgres { url, .. } => {
            let mut db = PgConnection::connect(url).await?;
            let tables: Vec<(String, i64, i64, i64)> = sqlx::query_as(POSTGRES_SIZES).fetch_all(&mut db).await?;
            sizes.insert(FILE.to_owned(), tables.iter().map(|(_, bytes, ..)| bytes).sum());
            for (name, bytes, live, dead) in tables {
                sizes.insert(format!("bytes: {name}"), bytes);
                sizes.insert(format!("rows: {name}"), live);
                sizes.insert(format!("dead: {name}"), dead);
            }
            // Of the whole server, and for whoever may see it.
            if let Ok(bytes) = sqlx::query_scalar(POSTGRES_LOG).fetch_one(&mut db).await {
                sizes.insert(LOG.to_owned(), bytes);
            }
        }
    }
    Ok(sizes)
}

/// What in the last third of the time was more than a tenth larger than in the middle one.
fn grown(looks: &[Look]) -> Vec<String> {
    let third = looks.len() / 3;
    let (middle, last) = (&looks[third..looks.len() - third], &looks[looks.len() - third..]);
    let Some(look) = last.last() else { return Vec::new() };
    let sized = look
        .sizes
        .keys()
        .filter(|name| *name == FILE || *name == LOG || name.starts_with("bytes: "));
    let compared = sized.filter_map(|name| {
        let (before, after) = (mean(middle, name), mean(last, name));
        (after > before * FLAT + SLACK).then(|| format!("{name}: from {before:.0} to {after:.0} bytes"))
    });
    compared.collect()
}

#[expect(clippy::cast_precision_loss, reason = "bytes on one disk")]
fn mean(looks: &[Look], name: &str) -> f64 {
    let all: i64 = looks.iter().filter_map(|look| look.sizes.get(name)).sum();
    all as f64 / looks.len().max(1) as f64
}

fn shown(looks: &[Look]) -> Vec<String> {
    let mut lines: Vec<String> = looks.iter().map(line).collect();
    let third = looks.len() / 3;
    let (middle, last) = (&looks[third..looks.len() - third], &looks[looks.len() - third..]);
    for name in looks.last().into_iter().flat_map(|look| look.sizes.keys()) {
        lines.push(format!(
            "  {name:<32} middle third {:>14.0}   last third {:>14.0}",
            mean(middle, name),
            mean(last, name)
        ));
    }
    lines
}

fn line(look: &Look) -> String {
    let of = |name: &str| look.sizes.get(name).copied().unwrap_or(0);
    let dead: i64 = look
        .sizes
        .iter()
        .filter(|(name, _)| name.starts_with("dead: "))
        .map(|(_, dead)| dead)
        .sum();
    format!(
        "  {:>5} s: {:>9} done, database {:>7} KiB, log {:>7} KiB, {:>6} envelopes, {:>6} dead rows, {:>6} free pages",
        look.after.as_secs(),
        look.done,
        of(FILE) / 1024,
        of(LOG) / 1024,
        of("rows: envelopes"),
        dead,
        of("free pages"),
    )
}

/// People in pairs that are both connected.
const PAIRS: usize = 20;
/// People in pairs of which the second comes and goes.
const COMERS: usize = 20;
/// People whose keys are taken.
const OWNERS: usize = 4;
/// People who never come.
const SLEEPERS: usize = 10;
const BETWEEN_SENDS: Duration = Duration::from_millis(30);
const BETWEEN_TAKES: Duration = Duration::from_millis(50);
const AWAY: Duration = Duration::from_secs(7);
const KEYS: u32 = 100;
/// As in [`crate::claims`].
const FIRST_ID: u32 = 1 << 24;
const LOOKS: u32 = 30;
/// What is no larger than this, beside what it was, is flat.
const FLAT: f64 = 1.1;
/// A few pages of a small table are no growth.
const SLACK: f64 = 1_048_576.0;
const FILE: &str = "database";
const LOG: &str = "log";

// Two hundred for each, due today, as if they had waited for as long as they may.
const SQLITE_COUNT_DUE: &str = "UPDATE mailboxes SET last_seq = last_seq + 200, envelopes = envelopes + 200, \
        bytes = bytes + 204800 \
    WHERE id = (SELECT mailbox FROM devices WHERE aci = $1)";
const SQLITE_DUE: &str = "WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < 199) \
    INSERT INTO envelopes (mailbox, seq, bucket, expires, sealed) \
    SELECT id, last_seq - n, 1, unixepoch() / 86400, randomblob(1276) \
    FROM numbers, mailboxes WHERE id = (SELECT mailbox FROM devices WHERE aci = $1)";
const POSTGRES_COUNT_DUE: &str = "UPDATE mailboxes SET last_seq = last_seq + 200, envelopes = envelopes + 200, \
        bytes = bytes + 204800 \
    WHERE id = (SELECT mailbox FROM devices WHERE aci = $1)";
const POSTGRES_DUE: &str = "INSERT INTO envelopes (mailbox, seq, bucket, expires, sealed) \
    SELECT id, last_seq - n, 1, extract(epoch FROM now())::integer / 86400, \
        substring(decode(repeat(md5(n::text), 80), 'hex') FROM 1 FOR 1276) \
    FROM generate_series(0, 199) AS n, mailboxes WHERE id = (SELECT mailbox FROM devices WHERE aci = $1)";
/// What is spent is kept for ninety days; these have passed.
const AGE: &str = "UPDATE spent_keys SET day = 0 WHERE day > 0";
const POSTGRES_SIZES: &str = "SELECT relname::text, pg_total_relation_size(relid), n_live_tup, n_dead_tup \
    FROM pg_stat_user_tables ORDER BY relname";
const POSTGRES_LOG: &str = "SELECT sum(size)::bigint FROM pg_ls_waldir()";

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(sizes: &[i64]) -> Vec<Look> {
        sizes
            .iter()
            .map(|size| Look {
                after: Duration::ZERO,
                done: 0,
                sizes: BTreeMap::from([
                    (FILE.to_owned(), size * 10_000_000),
                    ("rows: envelopes".to_owned(), *size),
                ]),
            })
            .collect()
    }

    #[test]
    fn what_goes_on_growing_is_told_from_what_stays() {
        assert!(grown(&looks(&[1, 5, 10, 10, 11, 10, 10, 11, 10])).is_empty());
        assert!(grown(&looks(&[1, 2, 10, 10, 10, 10, 8, 7, 6])).is_empty());
        assert_eq!(grown(&looks(&[1, 2, 3, 4, 5, 6, 7, 8, 9])).len(), 1);
    }
}
