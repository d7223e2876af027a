//! Group commit: everything that arrives while one transaction commits goes into the next.
//!
//! There is no timer. Alone, a send is committed at once; under load the batches grow by themselves. A lane is one
//! writer with one transaction at a time. All devices of an account share a lane, so a send to several devices is one
//! unit, the order within a mailbox is the order of arrival, and two lanes never wait for the same counter row.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::task::TaskTracker;

use crate::domain::{Aci, Acknowledgement, Batch, Delivery, Enqueued, MailboxId, Placed};
use crate::storage::{EnvelopeQueue, StorageError};
use crate::telemetry::metrics;
use crate::wakeup::{Bus, Hint};

use super::bell::Stored;
use super::direct::{Place, Way};
use super::presence::Presence;
use super::shares::Shares;

/// Storage did not carry it out; nothing was promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the queue is unavailable")]
pub struct QueueUnavailable;

/// The way into the queue.
pub struct Writer {
    lanes: Vec<Lane>,
}

struct Lane {
    jobs: mpsc::Sender<Job>,
    /// Bytes that may wait for their commit.
    room: Arc<Semaphore>,
}

/// A copy as its device gets it, and the way it takes.
pub struct Outgoing {
    /// The envelope, for a device that is connected to this node.
    pub envelope: Bytes,
    /// How it gets there.
    pub way: Way,
}

enum Job {
    Deliver {
        delivery: Delivery,
        outgoing: Vec<Outgoing>,
        reply: oneshot::Sender<Result<Enqueued, QueueUnavailable>>,
        _room: OwnedSemaphorePermit,
    },
    Acknowledge {
        acknowledgements: Vec<Acknowledgement>,
        reply: Option<oneshot::Sender<Result<(), QueueUnavailable>>>,
    },
}

impl Writer {
    /// Starts `lanes` writers on the tracker. They end when the `Writer` is dropped and all that was accepted is done.
    pub fn start(
        lanes: usize,
        tasks: &TaskTracker,
        queue: &Arc<dyn EnvelopeQueue>,
        presence: &Arc<Presence>,
        bus: &Arc<dyn Bus>,
        shares: &Arc<Shares>,
    ) -> Self {
        let lanes = (0..lanes.max(1))
            .map(|_| {
                let (jobs, waiting) = mpsc::channel(WAITING_JOBS);
                let worker = Worker {
                    queue: Arc::clone(queue),
                    presence: Arc::clone(presence),
                    bus: Arc::clone(bus),
                    shares: Arc::clone(shares),
                    unfinished: Vec::new(),
                };
                tasks.spawn(worker.run(waiting));
                Lane {
                    jobs,
                    room: Arc::new(Semaphore::new(WAITING_BYTES)),
                }
            })
            .collect();
        Self { lanes }
    }

    /// Returns once the delivery is durable, or was refused. If the caller goes away meanwhile, it may still become
    /// durable. `outgoing` is in the order of the copies. Those that were offered are left out if their device has them by
    /// the time at which the batch begins; they have no number in the answer.
    pub async fn deliver(
        &self,
        account: Aci,
        delivery: Delivery,
        outgoing: Vec<Outgoing>,
    ) -> Result<Enqueued, QueueUnavailable> {
        let lane = self.lane(account);
        let sealed: usize = delivery.copies.iter().map(|copy| copy.sealed.row.len()).sum();
        let bytes = sealed + outgoing.iter().map(|copy| copy.envelope.len()).sum::<usize>();
        let permits = u32::try_from(bytes.clamp(1, WAITING_BYTES)).unwrap_or(1);
        let room = Arc::clone(&lane.room)
            .acquire_many_owned(permits)
            .await
            .map_err(|_| QueueUnavailable)?;
        let (reply, answer) = oneshot::channel();
        let places: Vec<_> = outgoing.iter().filter_map(|copy| copy.way.place()).collect();
        lane.jobs
            .send(Job::Deliver {
                delivery,
                outgoing,
                reply,
                _room: room,
            })
            .await
            .map_err(|_| QueueUnavailable)?;
        places.iter().for_each(Place::queued);
        answer.await.map_err(|_| QueueUnavailable)?
    }

    /// Hands over acknowledgements without waiting for their commit. They are tried again until they are done.
    pub async fn acknowledge(&self, account: Aci, acknowledgements: Vec<Acknowledgement>) {
        let job = Job::Acknowledge {
            acknowledgements,
            reply: None,
        };
        // The lane ends only with the server; then the envelopes are still there and will be delivered again.
        let _ = self.lane(account).jobs.send(job).await;
    }

    /// Returns once the acknowledgements, and all that were handed over before for this account, are durable.
    pub async fn acknowledge_durably(
        &self,
        account: Aci,
        acknowledgements: Vec<Acknowledgement>,
    ) -> Result<(), QueueUnavailable> {
        let (reply, answer) = oneshot::channel();
        let job = Job::Acknowledge {
            acknowledgements,
            reply: Some(reply),
        };
        self.lane(account).jobs.send(job).await.map_err(|_| QueueUnavailable)?;
        answer.await.map_err(|_| QueueUnavailable)?
    }

    /// Returns once everything that was handed over before is committed or has failed.
    pub async fn flush(&self) {
        for lane in &self.lanes {
            let (reply, answer) = oneshot::channel();
            let job = Job::Acknowledge {
                acknowledgements: vec![],
                reply: Some(reply),
            };
            if lane.jobs.send(job).await.is_ok() {
                let _ = answer.await;
            }
        }
    }

    fn lane(&self, account: Aci) -> &Lane {
        // Account ids are random, so any of their bytes spreads them evenly.
        &self.lanes[usize::from(account.as_bytes()[15]) % self.lanes.len()]
    }
}

struct Worker {
    queue: Arc<dyn EnvelopeQueue>,
    presence: Arc<Presence>,
    bus: Arc<dyn Bus>,
    /// What senders have in the queues of this lane: no other lane counts there.
    shares: Arc<Shares>,
    /// Acknowledgements whose commit failed. They are tried again after the next batch, which comes by itself.
    unfinished: Vec<Acknowledgement>,
}

type DeliveryReply = (
    oneshot::Sender<Result<Enqueued, QueueUnavailable>>,
    OwnedSemaphorePermit,
);

impl Worker {
    async fn run(mut self, mut waiting: mpsc::Receiver<Job>) {
        let mut jobs = Vec::with_capacity(JOBS_PER_BATCH);
        loop {
            if self.unfinished.is_empty() {
                if waiting.recv_many(&mut jobs, JOBS_PER_BATCH).await == 0 {
                    return;
                }
            } else if self.unfinished.len() >= UNFINISHED_MAX {
                // Storage has been away for long. Nothing more is taken on until what is here is done.
                tokio::time::sleep(RETRY).await;
            } else if let Ok(0) = tokio::time::timeout(RETRY, waiting.recv_many(&mut jobs, JOBS_PER_BATCH)).await {
                return;
            }
            self.commit(&mut jobs).await;
        }
    }

    async fn commit(&mut self, jobs: &mut Vec<Job>) {
        let mut batch = Batch::default();
        let mut outgoing = Vec::new();
        let mut deliveries: Vec<DeliveryReply> = Vec::new();
        let mut acknowledgements = Vec::new();
        for job in jobs.drain(..) {
            match job {
                Job::Deliver {
                    mut delivery,
                    outgoing: mut copies,
                    reply,
                    _room,
                } => {
                    leave_out_what_was_acknowledged(&mut delivery, &mut copies);
                    if copies.is_empty() {
                        let _ = reply.send(Ok(Enqueued::At(Placed::default())));
                        continue;
                    }
                    self.shares.look_up(&mut delivery.shares);
                    batch.deliveries.push(delivery);
                    outgoing.push(copies);
                    deliveries.push((reply, _room));
                }
                Job::Acknowledge {
                    acknowledgements: more,
                    reply,
                } => {
                    batch.acknowledgements.extend(more);
                    acknowledgements.extend(reply);
                }
            }
        }
        match self.write(&batch).await {
            Ok(outcomes) => {
                self.count(&batch, &outcomes);
                let superfluous = self.announce(&batch, outgoing, &outcomes);
                self.unfinished.extend(superfluous);
                for ((reply, _), outcome) in deliveries.into_iter().zip(outcomes) {
                    let _ = reply.send(Ok(outcome));
                }
                self.finish_unfinished().await;
            }
            Err(_) => {
                self.unfinished.extend(batch.acknowledgements);
                for (reply, _) in deliveries {
                    let _ = reply.send(Err(QueueUnavailable));
                }
            }
        }
        // Durable means: this one, and all that were handed over before.
        let all_done = self.unfinished.is_empty();
        for reply in acknowledgements {
            let _ = reply.send(if all_done { Ok(()) } else { Err(QueueUnavailable) });
        }
    }

    /// Tries what failed before in a batch of its own: if it fails again, because of a mailbox that another node holds
    /// locked, say, it takes no sends with it.
    async fn finish_unfinished(&mut self) {
        if self.unfinished.is_empty() {
            return;
        }
        let batch = Batch {
            deliveries: Vec::new(),
            acknowledgements: std::mem::take(&mut self.unfinished),
        };
        if self.write(&batch).await.is_err() {
            self.unfinished = batch.acknowledgements;
        }
    }

    async fn write(&self, batch: &Batch) -> Result<Vec<Enqueued>, StorageError> {
        if batch.deliveries.is_empty() && batch.acknowledgements.is_empty() {
            return Ok(vec![]);
        }
        let started = Instant::now();
        let result = self.queue.commit(batch).await;
        match &result {
            Ok(outcomes) => {
                let envelopes = outcomes.iter().map(|outcome| match outcome {
                    Enqueued::At(placed) => placed.seqs.len(),
                    _ => 0,
                });
                metrics::committed(envelopes.sum(), batch.acknowledgements.len(), started.elapsed());
            }
            Err(error) => {
                metrics::commit_failed();
                tracing::error!(cause = error.log_safe_cause(), "the queue could not be written");
            }
        }
        result
    }

    /// Keeps what senders have where, before any of them is answered.
    fn count(&self, batch: &Batch, outcomes: &[Enqueued]) {
        for (delivery, outcome) in batch.deliveries.iter().zip(outcomes) {
            if let Enqueued::At(placed) = outcome {
                self.shares.keep(&delivery.shares, &placed.put);
            }
        }
    }

    /// Rings the bells of sessions on this node, and tells other nodes about the rest. Returns what was acknowledged while it
    /// was written.
    fn announce(&self, batch: &Batch, outgoing: Vec<Vec<Outgoing>>, outcomes: &[Enqueued]) -> Vec<Acknowledgement> {
        let mut hints = Vec::new();
        let mut superfluous = Vec::new();
        for ((delivery, outgoing), outcome) in batch.deliveries.iter().zip(outgoing).zip(outcomes) {
            let Enqueued::At(placed) = outcome else { continue };
            for ((copy, Outgoing { envelope, way }), seq) in delivery.copies.iter().zip(outgoing).zip(&placed.seqs) {
                let (mailbox, seq) = (copy.mailbox, *seq);
                if let Way::Offered(offered) = way {
                    metrics::offered("written");
                    match offered.stored(seq) {
                        Stored::Known => continue,
                        Stored::Superfluous => {
                            superfluous.push(Acknowledgement { mailbox, seq });
                            continue;
                        }
                        Stored::Elsewhere => {}
                    }
                }
                if self.presence.is_here(mailbox) {
                    self.presence.arrived(mailbox, &copy.key, seq, envelope);
                    metrics::woken("local");
                } else if self.bus.reaches_others() {
                    merge_hint(&mut hints, mailbox, Hint::Arrived(mailbox, seq));
                }
            }
        }
        if !hints.is_empty() {
            self.bus.publish(hints);
        }
        superfluous
    }
}

/// Takes those copies out of a delivery that their devices have by now.
fn leave_out_what_was_acknowledged(delivery: &mut Delivery, outgoing: &mut Vec<Outgoing>) {
    let mut index = 0;
    outgoing.retain(|copy| {
        let stays = match &copy.way {
            Way::Offered(offered) => offered.begin_write(),
            Way::Storage | Way::Behind(_) => true,
        };
        if stays {
            index += 1;
        } else {
            metrics::offered("acknowledged");
            delivery.copies.remove(index);
            if index < delivery.shares.len() {
                delivery.shares.remove(index);
            }
        }
        stays
    });
}

/// A later number for the same mailbox says all that the earlier one said.
fn merge_hint(hints: &mut Vec<Hint>, mailbox: MailboxId, hint: Hint) {
    let last = hints
        .last_mut()
        .filter(|last| matches!(last, Hint::Arrived(known, _) if *known == mailbox));
    match last {
        Some(last) => *last = hint,
        None => hints.push(hint),
    }
}

const JOBS_PER_BATCH: usize = 512;
const WAITING_JOBS: usize = 2048;
const WAITING_BYTES: usize = 16 * 1024 * 1024;
const UNFINISHED_MAX: usize = 65_536;
const RETRY: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::domain::{Day, PageLimit, QueueLimits, Seq, Timestamp};
    use crate::relay::Sender;
    use crate::relay::bell::Wish;
    use crate::storage::conformance::fixtures::{aci, placed, primary, queue_key, register, sealed_copy, text};
    use crate::storage::testing::{ROOMY, TestDatabase, sqlite};
    use crate::wakeup::{ConnectionId, SingleNode};

    const BOB: MailboxId = MailboxId(10);
    const ALL: PageLimit = PageLimit {
        envelopes: 10_000,
        bytes: usize::MAX,
    };

    fn start(database: &TestDatabase) -> (Writer, Arc<Presence>) {
        let presence = Arc::new(Presence::default());
        let bus: Arc<dyn Bus> = Arc::new(SingleNode);
        let queue = database.storage().queue;
        let shares = Arc::new(Shares::new(ROOMY, 25));
        let writer = Writer::start(1, &TaskTracker::new(), &queue, &presence, &bus, &shares);
        (writer, presence)
    }

    async fn deliver(writer: &Writer, mailbox: MailboxId, text: String) -> Result<Enqueued, QueueUnavailable> {
        let delivery = Delivery {
            copies: vec![sealed_copy(mailbox, 1, text.as_bytes())],
            expires: Day(30_000),
            ..Delivery::default()
        };
        writer.deliver(primary(1).aci, delivery, vec![stored(text)]).await
    }

    fn stored(envelope: impl Into<Bytes>) -> Outgoing {
        Outgoing {
            envelope: envelope.into(),
            way: Way::Storage,
        }
    }

    /// Of ten envelopes that fit into a queue, two by one sender.
    const FEW: QueueLimits = QueueLimits {
        envelopes: 10,
        bytes: 64 * 1024 * 1024,
    };

    #[tokio::test]
    async fn t36_many_sends_at_once_do_not_exceed_a_share_and_an_emptied_queue_has_room_again() {
        let database = sqlite(FEW).await.unwrap();
        register(&database, 1, BOB.0).await;
        let queue = database.storage().queue;
        let (presence, bus): (_, Arc<dyn Bus>) = (Arc::new(Presence::default()), Arc::new(SingleNode));
        let shares = Arc::new(Shares::new(FEW, 25));
        let writer = Writer::start(1, &TaskTracker::new(), &queue, &presence, &bus, &shares);
        let send = |n: u8| {
            let delivery = Delivery {
                copies: vec![sealed_copy(BOB, 1, b"x")],
                expires: Day(30_000),
                shares: shares.of(&Sender::account(aci(n)), &[BOB]),
                unwanted: false,
            };
            writer.deliver(primary(1).aci, delivery, vec![stored("x")])
        };
        let stored = async |n: u8, times: usize| {
            let answers = futures_util::future::join_all((0..times).map(|_| send(n))).await;
            let full = answers
                .iter()
                .filter(|answer| **answer == Ok(Enqueued::QueueFull))
                .count();
            let stored = answers
                .iter()
                .filter(|answer| matches!(answer, Ok(Enqueued::At(_))))
                .count();
            assert_eq!(stored + full, times);
            stored
        };
        for sender in [2, 3, 4, 5] {
            assert_eq!(stored(sender, 20).await, 2);
        }
        assert_eq!(stored(2, 1).await, 0);
        let waiting = queue.pending(BOB, Seq::START, ALL).await.unwrap();
        assert_eq!(waiting.len(), 8, "as many as were answered with success");
        let acknowledgements = waiting.iter().map(|stored| Acknowledgement {
            mailbox: BOB,
            seq: stored.seq,
        });
        writer
            .acknowledge_durably(primary(1).aci, acknowledgements.collect())
            .await
            .unwrap();
        assert_eq!(stored(2, 20).await, 2);
        assert_eq!(stored(3, 20).await, 2);
    }

    #[tokio::test]
    async fn what_nobody_wants_is_answered_and_neither_stored_nor_announced() {
        let database = sqlite(ROOMY).await.unwrap();
        register(&database, 1, BOB.0).await;
        let (writer, presence) = start(&database);
        let connection = ConnectionId {
            since: Timestamp(0),
            nonce: 0,
        };
        let bell = presence.enter(BOB, presence.ticket(connection), queue_key(BOB));
        let unwanted = Delivery {
            copies: vec![sealed_copy(BOB, 1, b"x")],
            expires: Day(30_000),
            unwanted: true,
            ..Delivery::default()
        };
        let answer = writer.deliver(primary(1).aci, unwanted, vec![stored("x")]).await;
        assert_eq!(answer, Ok(placed(vec![])));
        assert_eq!(deliver(&writer, BOB, "y".into()).await, Ok(placed(vec![Seq(1)])));
        let rung = bell.answer(Waker::noop(), Instant::now(), Wish::Offers).unwrap();
        assert_eq!(
            rung.arrived
                .iter()
                .map(|queued| &queued.content[..])
                .collect::<Vec<_>>(),
            [b"y"]
        );
    }

    #[tokio::test]
    async fn what_was_answered_is_stored_in_the_order_of_arrival_and_rings_the_bell() {
        let database = sqlite(ROOMY).await.unwrap();
        register(&database, 1, BOB.0).await;
        let (writer, presence) = start(&database);
        let connection = ConnectionId {
            since: Timestamp(0),
            nonce: 0,
        };
        let bell = presence.enter(BOB, presence.ticket(connection), queue_key(BOB));
        let sends = (1..=50).map(|n| deliver(&writer, BOB, n.to_string()));
        let answers = futures_util::future::join_all(sends).await;
        for (n, answer) in (1..).zip(answers) {
            assert_eq!(answer, Ok(placed(vec![Seq(n)])));
        }
        let stored = database.storage().queue.pending(BOB, Seq::START, ALL).await.unwrap();
        let texts: Vec<_> = stored.iter().map(text).collect();
        assert_eq!(texts, (1..=50).map(|n| n.to_string().into_bytes()).collect::<Vec<_>>());
        let rung = bell.answer(Waker::noop(), Instant::now(), Wish::Offers).unwrap();
        assert_eq!(
            rung.arrived.iter().map(|queued| queued.seq.0).collect::<Vec<_>>(),
            (1..=50).collect::<Vec<_>>()
        );
        assert_eq!(rung.arrived[49].content, "50", "live, the envelope itself");
    }

    #[tokio::test]
    async fn a_mailbox_that_is_not_there_is_an_answer_and_harms_nobody_else() {
        let database = sqlite(ROOMY).await.unwrap();
        register(&database, 1, BOB.0).await;
        let (writer, _) = start(&database);
        let (gone, there) = tokio::join!(
            deliver(&writer, MailboxId(99), "x".into()),
            deliver(&writer, BOB, "y".into()),
        );
        assert_eq!((gone, there), (Ok(Enqueued::UnknownMailbox), Ok(placed(vec![Seq(1)]))));
    }

    #[tokio::test]
    async fn acknowledgements_that_were_handed_over_are_durable_when_a_later_one_is_answered() {
        let database = sqlite(ROOMY).await.unwrap();
        register(&database, 1, BOB.0).await;
        let (writer, _) = start(&database);
        for n in 1..=20 {
            deliver(&writer, BOB, n.to_string()).await.unwrap();
        }
        for seq in 1..=20 {
            let acknowledgement = Acknowledgement {
                mailbox: BOB,
                seq: Seq(seq),
            };
            writer.acknowledge(primary(1).aci, vec![acknowledgement]).await;
        }
        writer.acknowledge_durably(primary(1).aci, vec![]).await.unwrap();
        assert!(
            database
                .storage()
                .queue
                .pending(BOB, Seq::START, ALL)
                .await
                .unwrap()
                .is_empty()
        );
    }

    #[tokio::test]
    async fn storage_that_is_away_promises_nothing() {
        let database = sqlite(ROOMY).await.unwrap();
        register(&database, 1, BOB.0).await;
        let (writer, _) = start(&database);
        database.storage().accounts.close().await;
        assert_eq!(deliver(&writer, BOB, "x".into()).await, Err(QueueUnavailable));
        let acknowledgement = Acknowledgement {
            mailbox: BOB,
            seq: Seq(1),
        };
        let answer = writer.acknowledge_durably(primary(1).aci, vec![acknowledgement]).await;
        assert_eq!(answer, Err(QueueUnavailable));
    }
}
