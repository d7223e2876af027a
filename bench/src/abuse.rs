//! What a flood by a thousand accounts takes from its target, and what everybody else feels of it.
//!
//! A node in this process with a real file and real sockets; the time by which its limits refill is a number here, so that ten
//! minutes pass in as long as it takes to ask. The flood comes from a hundred networks: it asks for the target's prekeys, writes
//! to it under its names, pings it without leaving a trace, and looks names up. Three of it try to fill the target's queue, which
//! nobody reads meanwhile. Beside it people write to each other and to the target. The same people do the same without the
//! flood first.

mod crowd;
mod outcome;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use blind_relay::config::parse_toml;
use blind_relay::server;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Row, SqliteConnection};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::claims::ec_key;
use crate::client::{Received, Socket};
use crate::content::send_to;
use crate::people::{ACCESS_KEY, Person, Template, register_at};
use crowd::{Aims, Attacker, User, ask, has_one_time_key, look_up, ping};
use outcome::{Felt, Played, Tally, report};

/// Runs it, prints the table, and fails if a bound that is promised does not hold.
pub(crate) async fn run() -> anyhow::Result<()> {
    let template = Template::load()?;
    let quiet = Node::start().await?.play(&template, false).await?;
    let flooded = Node::start().await?.play(&template, true).await?;
    report(&quiet, &flooded);
    let broken: Vec<_> = flooded.promises().into_iter().filter(|(_, kept)| !kept).collect();
    ensure!(broken.is_empty(), "a promise is broken: {broken:?}");
    Ok(())
}

/// A node whose limits have a time of their own.
struct Node {
    address: String,
    admin: String,
    dir: TempDir,
    millis: Arc<AtomicU64>,
    stop: CancellationToken,
    serving: JoinHandle<anyhow::Result<()>>,
}

impl Node {
    async fn start() -> anyhow::Result<Self> {
        // In the working directory's file system: the one for temporary files may be memory.
        let dir = tempfile::tempdir_in(".")?;
        let data = dir.path().join("data");
        let text = format!(
            "listen = '127.0.0.1:0'\nadmin_listen = '127.0.0.1:0'\nregistration = 'open'\ndata_dir = '{}'\n\
             [relay]\nanswer_tick_millis = 1\n",
            data.display()
        );
        let millis = Arc::new(AtomicU64::new(0));
        let passed = Arc::clone(&millis);
        let elapsed = Arc::new(move || Duration::from_millis(passed.load(Ordering::Relaxed)));
        let server = server::Server::bind_at(&parse_toml(&text)?, elapsed).await?;
        let address = server.addresses()?.first().context("the node listens")?.to_string();
        let admin = server.admin_address()?.to_string();
        let stop = CancellationToken::new();
        Ok(Self {
            serving: tokio::spawn(server.serve(stop.clone(), CancellationToken::new())),
            address,
            admin,
            dir,
            millis,
            stop,
        })
    }

    fn pass(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.millis.fetch_add(millis, Ordering::Relaxed);
    }

    /// So many accounts. All of them register from one network, whose budget refills as often as it takes.
    async fn register(&self, template: &Template, first: usize, count: usize) -> anyhow::Result<Vec<Person>> {
        let mut people = Vec::new();
        while people.len() < count {
            let some = (count - people.len()).min(REGISTRATIONS);
            people.extend(register_at(&self.address, template, first + people.len(), some).await?);
            self.pass(Duration::from_secs(2 * 60 * 60));
        }
        Ok(people)
    }

    /// Ten minutes, with the flood or without.
    async fn play(self, template: &Template, flood: bool) -> anyhow::Result<Played> {
        let people = self.register(template, 6_000_000, PEOPLE).await?;
        let targets = self.register(template, 6_100_000, 2).await?;
        let (target, poor) = (&targets[0], &targets[1]);
        for (person, keys) in [(target, TARGET_KEYS), (poor, POOR_KEYS)] {
            self.publish(person, keys).await?;
        }
        let accounts = if flood { ACCOUNTS } else { 0 };
        let attackers = self.register(template, 6_200_000, accounts).await?;
        // Whatever was used up is there again.
        self.pass(Duration::from_secs(48 * 60 * 60));
        let refused_before = self.refused_by_limit().await?;

        let mut crowd: Vec<Attacker> = stream::iter(attackers.iter().enumerate())
            .map(|(index, person)| Attacker::open(&self.address, index, person))
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        let lookers = if flood { LOOKERS } else { 0 };
        let mut strangers = Vec::new();
        for n in 0..lookers {
            let from = Ipv4Addr::new(127, 2, u8::try_from(n)?, 1);
            strangers.push(Socket::open_from(&self.address, Some(from), None).await?);
        }
        let mut users = Vec::new();
        for index in 0..PEOPLE {
            users.push(User::open(&self.address, index, &people).await?);
        }

        let aims = Aims {
            message: send_to(target),
            ping: ping(target),
            target: target.aci.clone(),
            poor: poor.aci.clone(),
        };
        let mut flooded = Tally::default();
        for second in 0..SECONDS {
            self.pass(Duration::from_secs(1));
            let attacking = async {
                let acts = crowd.iter_mut().filter(|attacker| attacker.acts(second));
                stream::iter(acts)
                    .map(|attacker| attacker.act(second, &aims))
                    .buffer_unordered(AT_ONCE)
                    .try_collect::<Vec<_>>()
                    .await
            };
            let looking = stream::iter(strangers.iter_mut())
                .map(look_up)
                .buffer_unordered(AT_ONCE)
                .try_collect::<Vec<_>>();
            let living = stream::iter(users.iter_mut())
                .map(|user| user.live(second, &aims))
                .buffer_unordered(PEOPLE)
                .try_collect::<Vec<_>>();
            let (attacks, looks, _) = tokio::try_join!(attacking, looking, living)?;
            for tally in attacks.into_iter().chain(looks) {
                flooded.add(tally);
            }
        }
        let felt = Felt::of(&users);
        drop((crowd, strangers, users));
        let refused_after = self.refused_by_limit().await?;
        let refused = refused_after.into_iter().filter_map(|(limit, count)| {
            let count = count - refused_before.get(&limit).copied().unwrap_or_default();
            (count > 0).then_some((limit, count))
        });
        let (rows, bytes) = self.queue_of(target).await?;
        let played = Played {
            felt,
            refused: refused.collect(),
            rows,
            bytes,
            keys_left: self.keys_left(target).await?,
            poor_keys_left: self.keys_left(poor).await?,
            friends: [self.friend_gets_key(target).await?, self.friend_gets_key(poor).await?],
            arrived: self.read_all(target).await?,
            flooded,
        };
        self.stop.cancel();
        self.serving.await??;
        Ok(played)
    }

    async fn publish(&self, person: &Person, count: u32) -> anyhow::Result<()> {
        let mut socket = Socket::open(&self.address, Some(&person.authorization)).await?;
        let keys: Vec<Value> = (1..=count)
            .map(|id| json!({ "keyId": id, "publicKey": ec_key() }))
            .collect();
        let body = json!({ "preKeys": keys }).to_string();
        let (status, _) = ask(&mut socket, "PUT", "/v2/keys?identity=ACI", body.into(), &[]).await?;
        ensure!(status == 204, "keys were answered with {status}");
        Ok(())
    }

    /// One-time keys that the account has left, as the database has them.
    async fn keys_left(&self, person: &Person) -> anyhow::Result<u64> {
        let aci = uuid::Uuid::parse_str(&person.aci)?;
        let count = sqlx::query(KEYS).bind(aci.as_bytes().as_slice());
        let row = count.fetch_one(&mut self.database().await?).await?;
        Ok(row.try_get::<i64, _>(0)?.try_into()?)
    }

    /// Whether one who was given the access key still gets a one-time key.
    async fn friend_gets_key(&self, of: &Person) -> anyhow::Result<bool> {
        let from = Ipv4Addr::new(127, 4, 0, 1);
        let mut socket = Socket::open_from(&self.address, Some(from), None).await?;
        let key = format!("unidentified-access-key:{}", STANDARD.encode(ACCESS_KEY));
        let path = format!("/v2/keys/{}/1", of.aci);
        let (status, body) = ask(&mut socket, "GET", &path, Bytes::new(), &[key]).await?;
        Ok(status == 200 && has_one_time_key(&body)?)
    }

    /// The target comes back and reads: how much there is.
    async fn read_all(&self, target: &Person) -> anyhow::Result<u64> {
        let mut socket = Socket::open(&self.address, Some(&target.authorization)).await?;
        let mut count = 0;
        while let Received::Envelope(id) = socket.next().await? {
            socket.feed_acknowledgement(id).await?;
            socket.flush().await?;
            count += 1;
        }
        Ok(count)
    }

    /// Rows and bytes that wait for the account, as the database has them.
    async fn queue_of(&self, person: &Person) -> anyhow::Result<(u64, u64)> {
        let aci = uuid::Uuid::parse_str(&person.aci)?;
        let sums = sqlx::query(QUEUE).bind(aci.as_bytes().as_slice());
        let row = sums.fetch_one(&mut self.database().await?).await?;
        let sum = |column: usize| anyhow::Ok(row.try_get::<i64, _>(column)?.try_into()?);
        Ok((sum(0)?, sum(1)?))
    }

    /// The node's file, to look into.
    async fn database(&self) -> anyhow::Result<SqliteConnection> {
        let file = self.dir.path().join("data").join("relay.db");
        let options = SqliteConnectOptions::new().filename(file).read_only(true);
        Ok(options.connect().await?)
    }

    /// What each limit has refused, as the metrics say.
    async fn refused_by_limit(&self) -> anyhow::Result<BTreeMap<String, u64>> {
        let mut stream = TcpStream::connect(&self.admin).await?;
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            .await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        let counted = text.lines().filter_map(|line| {
            let rest = line.strip_prefix("blind_relay_limit_refused_total{limit=\"")?;
            let (limit, count) = rest.split_once("\"} ")?;
            Some((limit.to_owned(), count.trim().parse().ok()?))
        });
        Ok(counted.collect())
    }
}

const ACCOUNTS: usize = 1_000;
const SECONDS: usize = 600;
/// Those who try to fill the target's queue. Four could.
const LOUD: usize = 3;
const LOUD_EACH_SECOND: usize = 3;
const PINGERS: usize = 20;
/// Networks from which names are looked up.
const LOOKERS: usize = 10;
/// After so many seconds everybody asks for prekeys again.
const EVERY: usize = 200;
/// Ordinary people, in pairs.
const PEOPLE: usize = 20;
const TARGET_KEYS: u32 = 100;
const POOR_KEYS: u32 = 25;
/// A quarter of what a queue holds.
const SHARE: u64 = 1_250;
const REGISTRATIONS: usize = 50;
const AT_ONCE: usize = 64;

const LOUD_NAMES: [&str; LOUD] = [
    "messages by the first loud account",
    "messages by the second loud account",
    "messages by the third loud account",
];
const WRITTEN: &str = "messages by the others, one each";
const PINGED: &str = "online-only messages";
const TAKEN: &str = "requests for the target's prekeys";
const TAKEN_OF_POOR: &str = "requests for those of a target with few";
const LOOKED_UP: &str = "names looked up";
const KEYS: &str = "SELECT count(*) FROM one_time_ec_keys WHERE aci = $1";
const QUEUE: &str = "SELECT coalesce(sum(envelopes), 0), coalesce(sum(bytes), 0) FROM mailboxes \
    WHERE id IN (SELECT mailbox FROM devices WHERE aci = $1)";
