//! Do racing claims ever get the same one-time key twice, while nodes are killed at random?
//!
//! Real nodes, real sockets: four on Postgres, one on SQLite. In rounds, every owner publishes a hundred keys of each kind, and
//! claimers take somewhat more than there are, each with several claims under way. All the while a node is killed
//! (`SIGKILL`) at a random moment, and started again. No key has the id of another, so that an id seen twice is a key
//! handed out twice.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use tokio_util::task::TaskTracker;

use crate::client::{Received, Socket};
use crate::people::{Person, Template, register};
use crate::server::{Backend, Server};

/// What came of it.
pub(crate) struct Measured {
    pub(crate) answered: u64,
    pub(crate) one_time: u64,
    pub(crate) last_resort: u64,
    /// Keys that were handed out twice.
    pub(crate) doubles: u64,
    /// Claims whose answer never came.
    pub(crate) lost: u64,
    pub(crate) kills: u64,
    pub(crate) per_second: f64,
}

/// Makes so many claims.
pub(crate) async fn measure(
    binary: &Path,
    backend: &Backend,
    template: Template,
    claims: u64,
) -> anyhow::Result<Measured> {
    let names: &[&str] = match backend {
        Backend::Sqlite(_) => &["data"],
        Backend::Postgres { .. } => &["one", "two", "three", "four"],
    };
    let mut servers = Vec::new();
    for name in names {
        servers.push(Server::start_node(binary, backend, name, Some("0"), "127.0.0.1:0").await?);
    }
    let owners = register(&servers[0], &template, 4_000_000, OWNERS).await?;
    let claimers = register(&servers[0], &template, 5_000_000, CLAIMERS).await?;
    let run = Arc::new(Run {
        addresses: servers.iter().map(|server| server.address.clone()).collect(),
        owners,
        template,
        next_id: AtomicU32::new(FIRST_ID),
        left: AtomicU64::new(0),
        seen: Mutex::default(),
        over: AtomicBool::new(false),
    });
    let working = async {
        let worked = run.rounds(&claimers, claims).await;
        run.over.store(true, Ordering::Relaxed);
        worked
    };
    let killing = kill_at_random(&run, servers, binary, names, backend);
    let (took, kills) = tokio::join!(working, killing);
    let (took, kills) = (took?, kills?);
    let seen = run.seen();
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
    Ok(Measured {
        answered: seen.answered,
        one_time: seen.ids.len() as u64,
        last_resort: seen.last_resort,
        doubles: seen.doubles,
        lost: seen.lost,
        kills,
        per_second: seen.answered as f64 / took.as_secs_f64(),
    })
}

struct Run {
    /// Where the nodes listen; a node that comes back listens there again.
    addresses: Vec<String>,
    owners: Vec<Person>,
    template: Template,
    next_id: AtomicU32,
    /// Claims that are still to be made in this round.
    left: AtomicU64,
    seen: Mutex<Seen>,
    over: AtomicBool,
}

#[derive(Default)]
struct Seen {
    /// Kind and id.
    ids: HashSet<(u8, u64)>,
    answered: u64,
    last_resort: u64,
    doubles: u64,
    lost: u64,
}

impl Seen {
    fn add(&mut self, body: &[u8]) -> anyhow::Result<()> {
        let bundle: Value = serde_json::from_slice(body)?;
        let device = &bundle["devices"][0];
        self.answered += 1;
        for (kind, name) in [(0, "preKey"), (1, "pqPreKey")] {
            let id = device[name]["keyId"].as_u64().filter(|id| *id >= u64::from(FIRST_ID));
            match id {
                Some(id) => self.doubles += u64::from(!self.ids.insert((kind, id))),
                None => self.last_resort += 1,
            }
        }
        Ok(())
    }
}

impl Run {
    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rounds of publishing and claiming; how long the claims took.
    async fn rounds(self: &Arc<Self>, claimers: &[Person], claims: u64) -> anyhow::Result<Duration> {
        let (began, mut claiming) = (Instant::now(), Duration::ZERO);
        while self.seen().answered < claims {
            self.publish_all().await?;
            // A few more than there are, so that the last ones race for what is left.
            self.left
                .store(OWNERS as u64 * (u64::from(KEYS) + 2), Ordering::Relaxed);
            let round = Instant::now();
            let claim = |(at, person): (usize, &Person)| tokio::spawn(Arc::clone(self).claim(at, person.clone()));
            for claimed in try_join_all(claimers.iter().enumerate().map(claim)).await? {
                claimed?;
            }
            claiming += round.elapsed();
            ensure!(began.elapsed() < LONGEST, "it takes too long");
        }
        Ok(claiming)
    }

    /// Every owner publishes as many keys as fit into an upload, at whichever node is there.
    async fn publish_all(self: &Arc<Self>) -> anyhow::Result<()> {
        let tasks = TaskTracker::new();
        let lanes = (0..LANES).map(|lane| {
            let run = Arc::clone(self);
            tasks.spawn(async move {
                for at in (lane..run.owners.len()).step_by(LANES) {
                    let mut tries = 0;
                    while run.publish(at, tries).await.is_err() {
                        tries += 1;
                        ensure!(tries < TRIES, "keys cannot be published");
                        tokio::time::sleep(AGAIN).await;
                    }
                }
                Ok(())
            })
        });
        try_join_all(lanes).await?.into_iter().collect()
    }

    async fn publish(&self, owner: usize, tries: usize) -> anyhow::Result<()> {
        let address = &self.addresses[(owner + tries) % self.addresses.len()];
        let mut socket = Socket::open(address, Some(&self.owners[owner].authorization)).await?;
        let first = self.next_id.fetch_add(KEYS, Ordering::Relaxed);
        let ids = first..first + KEYS;
        let ec: Vec<Value> = ids
            .clone()
            .map(|id| json!({ "keyId": id, "publicKey": ec_key() }))
            .collect();
        // A signature is over the key, so that one key may have many ids.
        let kyber: Vec<Value> = ids.map(|id| self.template.kyber_as(id)).collect();
        let body = serde_json::to_vec(&json!({ "preKeys": ec, "pqPreKeys": kyber }))?;
        socket
            .feed_request("PUT", "/v2/keys?identity=ACI", body.into(), None)
            .await?;
        socket.flush().await?;
        loop {
            match socket.next().await? {
                Received::Answer { status: 204, .. } => return Ok(()),
                Received::Answer { status, .. } => bail!("keys were answered with {status}"),
                Received::Envelope(_) | Received::QueueEmpty => {}
            }
        }
    }

    /// Claims until the round is over, through one socket after the other.
    async fn claim(self: Arc<Self>, at: usize, person: Person) -> anyhow::Result<()> {
        let mut tries = 0;
        while self.left.load(Ordering::Relaxed) > 0 {
            let address = &self.addresses[(at + tries) % self.addresses.len()];
            tries += 1;
            ensure!(tries < TRIES, "no node takes claims");
            let Ok(mut socket) = Socket::open(address, Some(&person.authorization)).await else {
                tokio::time::sleep(AGAIN).await;
                continue;
            };
            let mut under_way = 0;
            if self.claim_through(&mut socket, &mut under_way).await.is_ok() {
                return Ok(());
            }
            self.seen().lost += under_way;
        }
        Ok(())
    }

    /// Returns when there is nothing more to claim, or with an error when the node is gone.
    async fn claim_through(&self, socket: &mut Socket, under_way: &mut u64) -> anyhow::Result<()> {
        loop {
            while *under_way < WINDOW && self.take_one() {
                let path = format!("/v2/keys/{}/1", self.owners[one_of(self.owners.len())].aci);
                *under_way += 1;
                socket.feed_request("GET", &path, Bytes::new(), None).await?;
            }
            if *under_way == 0 {
                return Ok(());
            }
            socket.flush().await?;
            match socket.next().await? {
                Received::Answer { status: 200, body } => {
                    *under_way -= 1;
                    self.seen().add(&body)?;
                }
                Received::Answer { .. } => {
                    *under_way -= 1;
                    self.seen().lost += 1;
                }
                Received::Envelope(_) | Received::QueueEmpty => {}
            }
        }
    }

    fn take_one(&self) -> bool {
        self.left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
            .is_ok()
    }
}

/// Kills one node after the other until the run is over; how many times.
async fn kill_at_random(
    run: &Run,
    mut servers: Vec<Server>,
    binary: &Path,
    names: &[&str],
    backend: &Backend,
) -> anyhow::Result<u64> {
    let mut kills = 0;
    while !run.over.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(1_000 + random() % 4_000)).await;
        let at = one_of(servers.len());
        let gone = servers.remove(at);
        gone.stop().await?;
        kills += 1;
        let node = Server::start_node(binary, backend, names[at], Some("0"), &run.addresses[at]);
        servers.insert(at, node.await.context("a node that was killed does not start again")?);
    }
    for server in servers {
        server.stop().await?;
    }
    Ok(kills)
}

/// A public key that a generator can have made: the highest bit is clear.
pub(crate) fn ec_key() -> String {
    let mut key = [5; 33];
    for eight in key[1..].chunks_mut(8) {
        eight.copy_from_slice(&random().to_be_bytes());
    }
    key[32] &= 0x3f;
    STANDARD.encode(key)
}

/// Random enough to be in nobody's way: the standard library draws a key for each new table.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// A place among so many.
fn one_of(count: usize) -> usize {
    usize::try_from(random() % count.max(1) as u64).unwrap_or(0)
}

const OWNERS: usize = 256;
const CLAIMERS: usize = 48;
const LANES: usize = 8;
/// Keys of each kind in an upload, the most that there may be.
const KEYS: u32 = 100;
/// Claims under way through one socket.
const WINDOW: u64 = 16;
/// Higher than those of the keys that are not one-time keys: the vectors have random ones of up to 24 bits.
const FIRST_ID: u32 = 1 << 24;
/// A node needs a moment to come back.
const TRIES: usize = 2_000;
const AGAIN: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_secs(4 * 60 * 60);
