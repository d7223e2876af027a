//! The bus of many nodes: one Redis pub/sub channel.
//!
//! Every node reads every hint and keeps those for devices that are connected to it. Hints are gathered while one
//! message is on its way, so the number of messages follows the number of commits, not of envelopes (ADR 0006). Nothing
//! is ever stored in Redis. Redis may go and come back at any time: while it is away hints are dropped, and when it is
//! back every session is told that it may have missed some.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::sealing::random;
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
    /// `receive` is called with what other nodes say, in their order, and
    /// returns what they are to be told in turn.
    pub fn start(
        url: &str,
        tasks: &TaskTracker,
        stop: &CancellationToken,
        receive: impl Fn(Hint) -> Vec<Hint> + Send + Sync + 'static,
    ) -> Result<Self, RedisError> {
        let client = redis::Client::open(url).map_err(|_| RedisError)?;
        let node = u64::from_be_bytes(random());
        let (outgoing, queue) = mpsc::channel(QUEUED_HINTS);
        let listening = Arc::new(AtomicBool::new(false));
        tasks.spawn(
            stop.clone()
                .run_until_cancelled_owned(publish_all(client.clone(), node, queue)),
        );
        let listen = listen(client, node, Arc::clone(&listening), outgoing.clone(), receive);
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

    fn healthy(&self) -> bool {
        self.listening.load(Ordering::Relaxed)
    }
}

fn send_all(outgoing: &mpsc::Sender<Hint>, hints: Vec<Hint>) {
    let dropped = hints.into_iter().filter_map(|hint| outgoing.try_send(hint).err()).count();
    if dropped > 0 {
        metrics::hints_dropped(dropped);
    }
}

async fn publish_all(client: redis::Client, node: u64, mut queue: mpsc::Receiver<Hint>) {
    let mut connection: Option<MultiplexedConnection> = None;
    let mut gathered = Vec::new();
    loop {
        gathered.clear();
        if queue.recv_many(&mut gathered, HINTS_PER_MESSAGE).await == 0 {
            return;
        }
        let mut message = node.to_be_bytes().to_vec();
        gathered.iter().for_each(|hint| encode(hint, &mut message));
        if connection.is_none() {
            connection = connect(&client).await;
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
    client: redis::Client,
    node: u64,
    listening: Arc<AtomicBool>,
    outgoing: mpsc::Sender<Hint>,
    receive: impl Fn(Hint) -> Vec<Hint> + Send + Sync,
) {
    let receive = |hint| send_all(&outgoing, receive(hint));
    let mut reported_away = false;
    loop {
        if let Ok(Ok(mut pubsub)) = tokio::time::timeout(TIMEOUT, client.get_async_pubsub()).await
            && pubsub.subscribe(CHANNEL).await.is_ok()
        {
            listening.store(true, Ordering::Relaxed);
            tracing::info!("listening for hints of other nodes");
            reported_away = false;
            receive(Hint::Missed);
            follow(pubsub, node, &receive).await;
            listening.store(false, Ordering::Relaxed);
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
async fn follow(pubsub: redis::aio::PubSub, node: u64, receive: &(impl Fn(Hint) + Send + Sync)) {
    let (mut sink, mut messages) = pubsub.split();
    loop {
        match tokio::time::timeout(SIGN_OF_LIFE, messages.next()).await {
            Ok(Some(message)) => {
                let Some((sender, hints)) = decode(message.get_payload_bytes()) else {
                    continue;
                };
                if sender != node {
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
const QUEUED_HINTS: usize = 8192;
const HINTS_PER_MESSAGE: usize = 512;
const TIMEOUT: Duration = Duration::from_secs(2);
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(500);
