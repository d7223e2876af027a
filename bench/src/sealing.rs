//! What sealing costs: the same queue with rows sealed and not, in turns, in one run.
//!
//! The queue is driven where the server drives it, by its group-commit writer, without HTTP around it, so that the share of
//! sealing is as large as it can be. Unsealed rows are the envelopes as they are delivered, without padding; the check of
//! their length is dropped from the scratch database first. In rounds that alternate, tasks hand in envelopes of 1 KiB
//! each and wait for the commit, then every mailbox is read in pages, opened if it is sealed, and acknowledged.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use blind_relay::domain::{
    Aci, Acknowledgement, Batch, Copy, Day, Delivery, Enqueued, MailboxId, PageLimit, QueueLimits, SealedEnvelope, Seq,
};
use blind_relay::relay::Shares;
use blind_relay::relay::direct::Way;
use blind_relay::relay::presence::Presence;
use blind_relay::relay::writer::{Outgoing, Writer};
use blind_relay::sealing::SealingKey;
use blind_relay::sealing::queue::{InterimKeys, QueueSeals};
use blind_relay::storage::migrate::{self, Location, Upgrade};
use blind_relay::storage::{EnvelopeQueue, Storage, postgres, sqlite};
use blind_relay::wakeup::{Bus, SingleNode};
use bytes::Bytes;
use futures_util::future::try_join_all;
use keys_schema::proto::Envelope;
use keys_schema::sealed_queue::{Bucket, Opener, QueueKey, QueuePublicKey};
use prost::Message;
use sqlx::{Connection, PgConnection, SqliteConnection};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::server::{Backend, cpu_seconds};

/// Envelopes per second, and CPU seconds of this process per 10,000 envelopes.
#[derive(Clone, Copy, Default)]
pub(crate) struct Rate {
    pub(crate) per_second: f64,
    pub(crate) cpu: f64,
}

/// Medians over the rounds.
pub(crate) struct Measured {
    /// Handed in until committed: sealed, unsealed.
    pub(crate) enqueue: [Rate; 2],
    /// Read, opened and acknowledged: sealed, unsealed.
    pub(crate) drain: [Rate; 2],
}

/// Runs so many rounds of each kind, each of so many seconds of enqueueing.
pub(crate) async fn measure(
    backend: &Backend,
    senders: usize,
    seconds: u64,
    rounds: usize,
) -> anyhow::Result<Measured> {
    let queue = Queue::open(backend, senders).await?;
    let (mut enqueue, mut drain) = ([vec![], vec![]], [vec![], vec![]]);
    for round in 0..2 * rounds {
        let sealed = round % 2 == 0;
        let (sent, rate) = queue.enqueue(sealed, Duration::from_secs(seconds)).await?;
        enqueue[round % 2].push(rate);
        let (read, rate) = queue.drain(sealed).await?;
        drain[round % 2].push(rate);
        ensure!(sent == read, "{sent} envelopes were accepted and {read} came");
    }
    queue.storage.accounts.close().await;
    Ok(Measured {
        enqueue: enqueue.map(median),
        drain: drain.map(median),
    })
}

/// A mailbox and its keys.
struct Device {
    mailbox: MailboxId,
    key: QueueKey,
    public: QueuePublicKey,
}

struct Queue {
    storage: Storage,
    writer: Writer,
    seals: QueueSeals,
    mailboxes: Vec<Device>,
    senders: usize,
    envelope: Bytes,
}

impl Queue {
    async fn open(backend: &Backend, senders: usize) -> anyhow::Result<Self> {
        let limits = QueueLimits {
            envelopes: u32::MAX,
            bytes: u64::from(u32::MAX) * 1024,
        };
        let upgrade = Upgrade {
            interim: InterimKeys::new(SealingKey::derive(b"bench", b"", "bench")),
            pepper_check: [0; 32],
        };
        let mailboxes: Vec<_> = (1..=MAILBOXES).map(Device::new).collect();
        let (storage, lanes) = match backend {
            Backend::Sqlite(dir) => {
                let path: PathBuf = dir.path().join("sealing.db");
                migrate::up(&Location::Sqlite(path.clone()), &upgrade).await?;
                let mut db = SqliteConnection::connect(&format!("sqlite://{}", path.display())).await?;
                sqlx::raw_sql(SQLITE_UNCHECKED).execute(&mut db).await?;
                for device in &mailboxes {
                    let insert = sqlx::query(INSERT_MAILBOX).bind(device.mailbox.0);
                    insert
                        .bind(device.public.as_bytes().as_slice())
                        .execute(&mut db)
                        .await?;
                }
                db.close().await?;
                (sqlite::open(&path, limits).await?, 1)
            }
            Backend::Postgres { url, .. } => {
                migrate::up(&Location::Postgres(url.clone()), &upgrade).await?;
                let mut db = PgConnection::connect(url).await?;
                sqlx::raw_sql(POSTGRES_UNCHECKED).execute(&mut db).await?;
                for device in &mailboxes {
                    let insert = sqlx::query(INSERT_MAILBOX).bind(device.mailbox.0);
                    insert
                        .bind(device.public.as_bytes().as_slice())
                        .execute(&mut db)
                        .await?;
                }
                db.close().await?;
                (postgres::open(url, limits, 16).await?, 3)
            }
        };
        let queue: Arc<dyn EnvelopeQueue> = Arc::clone(&storage.queue);
        let bus: Arc<dyn Bus> = Arc::new(SingleNode);
        let presence = Arc::new(Presence::default());
        // 100 in a hundred: nothing is counted.
        let shares = Arc::new(Shares::new(limits, 100));
        let writer = Writer::start(lanes, &TaskTracker::new(), &queue, &presence, &bus, &shares);
        Ok(Self {
            storage,
            writer,
            seals: QueueSeals::default(),
            mailboxes,
            senders,
            envelope: envelope().into(),
        })
    }

    async fn enqueue(&self, sealed: bool, time: Duration) -> anyhow::Result<(u64, Rate)> {
        let count = AtomicU64::new(0);
        let clock = Clock::start()?;
        let end = Instant::now() + time;
        try_join_all((0..self.senders).map(|sender| {
            let count = &count;
            async move {
                let account = Aci::new(Uuid::from_u128(sender as u128));
                let own = self.mailboxes.iter().skip(sender % self.mailboxes.len());
                let mut targets = own.step_by(self.senders).cycle();
                while Instant::now() < end {
                    let device = targets.next().context("there are mailboxes")?;
                    let copies = vec![self.copy(device, sealed)?];
                    let delivery = Delivery {
                        copies,
                        expires: Day(100_000),
                        ..Delivery::default()
                    };
                    let outgoing = Outgoing {
                        envelope: self.envelope.clone(),
                        way: Way::Storage,
                    };
                    let outcome = self.writer.deliver(account, delivery, vec![outgoing]).await?;
                    ensure!(matches!(outcome, Enqueued::At(_)), "an envelope was refused");
                    count.fetch_add(1, Ordering::Relaxed);
                    // A sender that never waits would starve the writer's task.
                    tokio::task::yield_now().await;
                }
                Ok(())
            }
        }))
        .await?;
        let count = count.into_inner();
        Ok((count, clock.rate(count)?))
    }

    fn copy(&self, device: &Device, sealed: bool) -> anyhow::Result<Copy> {
        let (mailbox, key) = (device.mailbox, device.public);
        let sealed = if sealed {
            self.seals.seal(mailbox, &key, CONTENT, &self.envelope)?
        } else {
            SealedEnvelope {
                bucket: Bucket::holding(CONTENT, self.envelope.len()).context("a bucket")?,
                row: self.envelope.clone(),
            }
        };
        Ok(Copy { mailbox, key, sealed })
    }

    async fn drain(&self, sealed: bool) -> anyhow::Result<(u64, Rate)> {
        let count = AtomicU64::new(0);
        let clock = Clock::start()?;
        try_join_all((0..READERS).map(|reader| {
            let count = &count;
            async move {
                for device in self.mailboxes.iter().skip(reader).step_by(READERS) {
                    let (mailbox, mut opener) = (device.mailbox, Opener::new(&device.key));
                    let mut after = Seq::START;
                    loop {
                        let page = self.storage.queue.pending(mailbox, after, PAGE).await?;
                        let Some(last) = page.last() else { break };
                        after = last.seq;
                        count.fetch_add(page.len() as u64, Ordering::Relaxed);
                        let mut acknowledgements = Vec::with_capacity(page.len());
                        for stored in page {
                            if sealed {
                                let opened = opener.open(mailbox.0, stored.sealed.bucket, stored.sealed.row);
                                ensure!(opened.as_deref() == Some(&*self.envelope), "a row did not open");
                            }
                            let seq = stored.seq;
                            acknowledgements.push(Acknowledgement { mailbox, seq });
                        }
                        let account = Aci::new(Uuid::from_u128(reader as u128));
                        self.writer.acknowledge_durably(account, acknowledgements).await?;
                    }
                }
                Ok(())
            }
        }))
        .await?;
        let count = count.into_inner();
        let rate = clock.rate(count)?;
        // What SQLite keeps in its log belongs to this round, not to the next.
        self.storage.queue.commit(&Batch::default()).await?;
        self.storage.queue.expire(Day(0), 1).await?;
        Ok((count, rate))
    }
}

struct Clock {
    began: Instant,
    cpu: f64,
}

impl Clock {
    fn start() -> anyhow::Result<Self> {
        Ok(Self {
            began: Instant::now(),
            cpu: cpu_seconds(std::process::id())?,
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
    fn rate(&self, count: u64) -> anyhow::Result<Rate> {
        Ok(Rate {
            per_second: count as f64 / self.began.elapsed().as_secs_f64(),
            cpu: (cpu_seconds(std::process::id())? - self.cpu) / count as f64 * 10_000.0,
        })
    }
}

fn median(mut rates: Vec<Rate>) -> Rate {
    rates.sort_by(|one, other| one.per_second.total_cmp(&other.per_second));
    rates.get(rates.len() / 2).copied().unwrap_or_default()
}

/// A message of 1 KiB with sender, as the server makes it.
fn envelope() -> Vec<u8> {
    let id = "01010101-0101-0101-0101-010101010101";
    let envelope = Envelope {
        r#type: Some(1),
        timestamp: Some(1_700_000_000_000),
        server_timestamp: Some(1_700_000_000_000),
        source_device: Some(1),
        source_service_id: Some(id.to_owned()),
        destination_service_id: Some(id.to_owned()),
        source_service_id_binary: Some(Bytes::from_static(&[1; 16])),
        destination_service_id_binary: Some(Bytes::from_static(&[1; 16])),
        urgent: Some(true),
        content: Some(Bytes::from_static(&[0x5a; CONTENT])),
        ..Envelope::default()
    };
    envelope.encode_to_vec()
}

impl Device {
    fn new(id: i64) -> Self {
        let mut bytes = [7; 32];
        bytes[..8].copy_from_slice(&id.to_be_bytes());
        let key = QueueKey::from_bytes(bytes);
        Self {
            mailbox: MailboxId(id),
            public: key.public_key(),
            key,
        }
    }
}

const CONTENT: usize = 1024;
const MAILBOXES: i64 = 400;
const READERS: usize = 8;
const PAGE: PageLimit = PageLimit {
    envelopes: 256,
    bytes: 1024 * 1024,
};
const INSERT_MAILBOX: &str =
    "INSERT INTO mailboxes (id, last_seq, envelopes, bytes, queue_key) VALUES ($1, 0, 0, 0, $2)";
const SQLITE_UNCHECKED: &str = "PRAGMA writable_schema = ON; \
    UPDATE sqlite_master SET sql = replace(sql, 'CHECK (length(sealed) = 1024 * bucket + 252)', '') \
    WHERE name = 'envelopes'; \
    PRAGMA writable_schema = RESET;";
const POSTGRES_UNCHECKED: &str = "ALTER TABLE envelopes DROP CONSTRAINT envelopes_check";
