//! The bus of many nodes: one Redis pub/sub channel.
//!
//! Every node reads every hint and keeps those for devices that are connected to it. Hints are gathered while one
//! message is on its way, so the number of messages follows the number of commits, not of envelopes (ADR 0006). Messages
//! are sealed under a key that only the nodes have: whoever reads Redis learns how many there are and how long, and
//! whoever writes to it cannot make a node believe anything. Nothing is ever stored in Redis. Redis may go and come back at
//! any time: while it is away hints are dropped, and when it is back every session is told that it may have missed some.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::sealing::{SealingKey, random};
use crate::telemetry::metrics;

use super::codec::{decode, encode};
use super::{Bus, Hint};

/// Hints through Redis.
pub struct RedisBus {
    outgoing: mpsc::Sender<Hint>,
    listening: Arc<AtomicBool>,
}

/// The Redis URL is not one.
#[derive(Debug, thiserror::Error)]
#[error("redis_url is not a Redis URL; it looks like redis://host:6379")]
pub struct RedisError;

impl RedisBus {
    /// Starts to publish and to listen, on tasks that end with the token. Does not wait for Redis to be there.
    /// `receive` is called with what other nodes say, in their order, and returns what they are to be told in turn.
    pub fn start(
        url: &str,
        key: SealingKey,
        tasks: &TaskTracker,
        stop: &CancellationToken,
        receive: impl Fn(Hint) -> Vec<Hint> + Send + Sync + 'static,
    ) -> Result<Self, RedisError> {
        let client = redis::Client::open(url).map_err(|_| RedisError)?;
        let node = u64::from_be_bytes(random());
        let (outgoing, queue) = mpsc::channel(QUEUED_HINTS);
        let link = Link { client, key, node };
        tasks.spawn(stop.clone().run_until_cancelled_owned(publish_all(link.clone(), queue)));
        let listening = Arc::default();
        let listen = listen(link, outgoing.clone(), Arc::clone(&listening), receive);
        tasks.spawn(stop.clone().run_until_cancelled_owned(listen));
        Ok(Self { outgoing, listening })
    }
}

impl Bus for RedisBus {
    fn publish(&self, hints: Vec<Hint>) {
        send_all(&self.outgoing, hints);
    }

    fn reaches_others(&self) -> bool {
        true
    }

    fn hears_others(&self) -> bool {
        self.listening.load(Ordering::Relaxed)
    }
}

/// How a node reaches the others.
#[derive(Clone)]
struct Link {
    client: redis::Client,
    key: SealingKey,
    /// Random, to know one's own messages.
    node: u64,
}

fn send_all(outgoing: &mpsc::Sender<Hint>, hints: Vec<Hint>) {
    let mut dropped = 0;
    for hint in hints {
        // Only these are large, so only these must be few.
        let waiting = outgoing.max_capacity() - outgoing.capacity();
        let large = matches!(hint, Hint::Online(..) | Hint::ProvisioningMessage { .. });
        let crowded = large && waiting >= QUEUED_WITH_LARGE;
        dropped += usize::from(crowded || outgoing.try_send(hint).is_err());
    }
    if dropped > 0 {
        metrics::hints_dropped(dropped);
    }
}

async fn publish_all(link: Link, mut queue: mpsc::Receiver<Hint>) {
    let mut connection: Option<MultiplexedConnection> = None;
    let mut gathered = Vec::new();
    loop {
        gathered.clear();
        if queue.recv_many(&mut gathered, HINTS_PER_MESSAGE).await == 0 {
            return;
        }
        let mut message = link.node.to_be_bytes().to_vec();
        gathered.iter().for_each(|hint| encode(hint, &mut message));
        let message = link.key.seal(CHANNEL.as_bytes(), &message).0;
        if connection.is_none() {
            connection = connect(&link.client).await;
        }
        let sent = match connection.as_mut() {
            Some(connection) => tokio::time::timeout(TIMEOUT, connection.publish::<_, _, ()>(CHANNEL, message)).await,
            None => {
                // Redis is away. Wait a little, so that an outage does not become a storm of attempts; what arrives
                // meanwhile overflows the bounded queue and is dropped.
                tokio::time::sleep(PAUSE).await;
                metrics::hints_dropped(gathered.len());
                continue;
            }
        };
        if !matches!(sent, Ok(Ok(()))) {
            connection = None;
            metrics::hints_dropped(gathered.len());
        }
    }
}

async fn connect(client: &redis::Client) -> Option<MultiplexedConnection> {
    tokio::time::timeout(TIMEOUT, client.get_multiplexed_async_connection())
        .await
        .ok()?
        .ok()
}

async fn listen(
    link: Link,
    outgoing: mpsc::Sender<Hint>,
    listening: Arc<AtomicBool>,
    receive: impl Fn(Hint) -> Vec<Hint> + Send + Sync,
) {
    let receive = |hint| send_all(&outgoing, receive(hint));
    let mut reported_away = false;
    loop {
        if let Ok(Ok(mut pubsub)) = tokio::time::timeout(TIMEOUT, link.client.get_async_pubsub()).await
            && pubsub.subscribe(CHANNEL).await.is_ok()
        {
            metrics::bus_listening(true);
            listening.store(true, Ordering::Relaxed);
            tracing::info!("listening for hints of other nodes");
            reported_away = false;
            receive(Hint::Missed);
            follow(pubsub, &link, &receive).await;
            listening.store(false, Ordering::Relaxed);
            metrics::bus_listening(false);
        }
        if !reported_away {
            reported_away = true;
            tracing::warn!("redis is away; envelopes for devices on other nodes wait for the fallback tick");
        }
        metrics::redis_lost();
        tokio::time::sleep(PAUSE).await;
    }
}

/// Returns when the connection is lost. A Redis that is frozen or cut off sends no end of stream, so it is asked for a
/// sign of life.
async fn follow(pubsub: redis::aio::PubSub, link: &Link, receive: &(impl Fn(Hint) + Send + Sync)) {
    let (mut sink, mut messages) = pubsub.split();
    loop {
        match tokio::time::timeout(SIGN_OF_LIFE, messages.next()).await {
            Ok(Some(message)) => {
                let opened = link.key.open(CHANNEL.as_bytes(), message.get_payload_bytes());
                let Some((sender, hints)) = opened.as_deref().and_then(|message| decode(message)) else {
                    metrics::hint_refused();
                    continue;
                };
                if sender != link.node {
                    hints.into_iter().for_each(receive);
                }
            }
            Ok(None) => return,
            Err(_) => {
                let pong = tokio::time::timeout(TIMEOUT, sink.ping::<redis::Value>()).await;
                if !matches!(pong, Ok(Ok(_))) {
                    return;
                }
            }
        }
    }
}

const CHANNEL: &str = "blind-relay:hints";
/// More than a node has connections: when Redis comes back, all of them are said again.
const QUEUED_HINTS: usize = 65_536;
/// With so many waiting, a hint that carries content is dropped: it would come too late.
const QUEUED_WITH_LARGE: usize = 64;
const HINTS_PER_MESSAGE: usize = 512;
const TIMEOUT: Duration = Duration::from_secs(2);
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(500);
