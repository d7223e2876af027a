//! What every envelope queue promises.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::fixtures::{actor, add_second_device, register};
use crate::domain::{
    Acknowledgement, Batch, Copy, Day, Delivery, Enqueued, MailboxId, PageLimit, QueueLimits, Queued, Seq,
};
use crate::storage::EnvelopeQueue;
use crate::storage::testing::TestDatabase;

pub(crate) const LIMITS: QueueLimits = QueueLimits {
    envelopes: 2_000,
    bytes: 4 * 1024 * 1024,
};

type Queue = Arc<dyn EnvelopeQueue>;

/// Two devices of two accounts.
async fn queue(database: &TestDatabase) -> (Queue, MailboxId, MailboxId) {
    register(database, 1, ALICE.0).await;
    register(database, 2, BOB.0).await;
    (database.storage().queue, ALICE, BOB)
}

fn delivery(to: &[MailboxId], content: impl Into<Bytes>) -> Delivery {
    let content = content.into();
    let copies = to
        .iter()
        .map(|mailbox| Copy {
            mailbox: *mailbox,
            content: content.clone(),
        })
        .collect();
    Delivery {
        copies,
        expires: Day(100),
    }
}

fn sends(deliveries: Vec<Delivery>) -> Batch {
    Batch {
        deliveries,
        acknowledgements: Vec::new(),
    }
}

async fn send(queue: &Queue, to: &[MailboxId], content: impl Into<Bytes>) -> Enqueued {
    queue
        .commit(&sends(vec![delivery(to, content)]))
        .await
        .unwrap()
        .remove(0)
}

async fn acknowledge(queue: &Queue, mailbox: MailboxId, seqs: impl IntoIterator<Item = i64>) {
    let acknowledgements = seqs
        .into_iter()
        .map(|seq| Acknowledgement { mailbox, seq: Seq(seq) })
        .collect();
    queue
        .commit(&Batch {
            deliveries: Vec::new(),
            acknowledgements,
        })
        .await
        .unwrap();
}

async fn pending(queue: &Queue, mailbox: MailboxId) -> Vec<Queued> {
    queue.pending(mailbox, Seq::START, EVERYTHING).await.unwrap()
}

fn numbers(queued: &[Queued]) -> Vec<i64> {
    queued.iter().map(|envelope| envelope.seq.0).collect()
}

pub(crate) async fn keeps_order(database: &TestDatabase) {
    let (queue, alice, _) = queue(database).await;
    for batch in 0..5_u8 {
        queue
            .commit(&sends((0..7).map(|n| delivery(&[alice], vec![batch, n])).collect()))
            .await
            .unwrap();
    }
    let contents: Vec<_> = pending(&queue, alice)
        .await
        .into_iter()
        .map(|envelope| envelope.content)
        .collect();
    let expected: Vec<_> = (0..5_u8)
        .flat_map(|batch| (0..7_u8).map(move |n| Bytes::from(vec![batch, n])))
        .collect();
    assert_eq!(contents, expected);
}

pub(crate) async fn numbers_have_no_gaps(database: &TestDatabase) {
    let (queue, alice, bob) = queue(database).await;
    let batch = sends(vec![
        delivery(&[alice], "a"),
        delivery(&[bob, alice], "b"),
        delivery(&[bob], "c"),
    ]);
    let expected = [vec![Seq(1)], vec![Seq(1), Seq(2)], vec![Seq(2)]].map(Enqueued::At);
    assert_eq!(queue.commit(&batch).await.unwrap(), expected);
    assert_eq!(send(&queue, &[alice], "d").await, Enqueued::At(vec![Seq(3)]));
}

pub(crate) async fn nothing_is_lost_to_a_concurrent_drain(database: &TestDatabase) {
    let (queue, alice, bob) = queue(database).await;
    let done = Arc::new(AtomicBool::new(false));
    let mut senders = Vec::new();
    for sender in 0..SENDERS {
        let queue = database.another().await.queue;
        senders.push(tokio::spawn(async move {
            for round in 0..BATCHES {
                let content = |n: usize| vec![sender, round, u8::try_from(n).unwrap()];
                // Every other sender names the mailboxes the other way round.
                let to = if sender % 2 == 0 { [alice, bob] } else { [bob, alice] };
                let batch = sends((0..PER_BATCH).map(|n| delivery(&to, content(n))).collect());
                let outcomes = queue.commit(&batch).await.unwrap();
                assert!(outcomes.iter().all(|outcome| matches!(outcome, Enqueued::At(_))));
            }
        }));
    }
    let drain = tokio::spawn({
        let done = Arc::clone(&done);
        async move {
            let mut seen: Vec<Queued> = Vec::new();
            loop {
                let last_look = done.load(Ordering::SeqCst);
                let after = seen.last().map_or(Seq::START, |envelope| envelope.seq);
                let page = queue
                    .pending(
                        alice,
                        after,
                        PageLimit {
                            envelopes: 7,
                            bytes: usize::MAX,
                        },
                    )
                    .await
                    .unwrap();
                if page.is_empty() && last_look {
                    return seen;
                }
                seen.extend(page);
            }
        }
    });
    for sender in senders {
        sender.await.unwrap();
    }
    done.store(true, Ordering::SeqCst);
    let seen = drain.await.unwrap();
    let total = i64::from(SENDERS) * i64::from(BATCHES) * i64::try_from(PER_BATCH).unwrap();
    assert_eq!(numbers(&seen), (1..=total).collect::<Vec<_>>());
    for sender in 0..SENDERS {
        let of_sender: Vec<_> = seen
            .iter()
            .map(|envelope| &envelope.content)
            .filter(|c| c[0] == sender)
            .collect();
        assert!(of_sender.is_sorted(), "one sender's envelopes stay in order");
        assert_eq!(of_sender.len(), usize::from(BATCHES) * PER_BATCH);
    }
}

pub(crate) async fn acknowledging_twice_is_harmless(database: &TestDatabase) {
    let (queue, alice, _) = queue(database).await;
    send(&queue, &[alice], "a").await;
    send(&queue, &[alice], "b").await;
    acknowledge(&queue, alice, [1, 1]).await;
    acknowledge(&queue, alice, [1]).await;
    assert_eq!(numbers(&pending(&queue, alice).await), [2]);
    assert_eq!(
        database
            .number("SELECT CAST(sum(envelopes) AS BIGINT) FROM mailboxes")
            .await,
        1
    );
}

pub(crate) async fn acknowledging_another_mailboxes_number_is_harmless(database: &TestDatabase) {
    let (queue, alice, bob) = queue(database).await;
    send(&queue, &[alice], "a").await;
    acknowledge(&queue, bob, [1]).await;
    acknowledge(&queue, MailboxId(404), [1]).await;
    assert_eq!(numbers(&pending(&queue, alice).await), [1]);
}

pub(crate) async fn acknowledged_means_gone(database: &TestDatabase) {
    let (queue, alice, bob) = queue(database).await;
    for _ in 0..5 {
        send(&queue, &[alice, bob], "x").await;
    }
    acknowledge(&queue, alice, [4, 2, 5]).await;
    assert_eq!(numbers(&pending(&queue, alice).await), [1, 3]);
    assert_eq!(numbers(&pending(&queue, bob).await), [1, 2, 3, 4, 5]);
    assert_eq!(database.number("SELECT count(*) FROM envelopes").await, 7);
}

pub(crate) async fn numbers_are_never_used_twice(database: &TestDatabase) {
    let (queue, alice, _) = queue(database).await;
    send(&queue, &[alice], "a").await;
    acknowledge(&queue, alice, [1]).await;
    assert_eq!(send(&queue, &[alice], "b").await, Enqueued::At(vec![Seq(2)]));
}

pub(crate) async fn a_full_queue_is_an_answer(database: &TestDatabase) {
    let (queue, alice, bob) = queue(database).await;
    let room = usize::try_from(LIMITS.envelopes).unwrap();
    queue
        .commit(&sends((0..room - 1).map(|_| delivery(&[alice], "x")).collect()))
        .await
        .unwrap();
    let batch = sends(vec![
        delivery(&[alice], "fits"),
        delivery(&[alice], "does not"),
        delivery(&[bob], "fits"),
    ]);
    let outcomes = queue.commit(&batch).await.unwrap();
    let last = Seq(i64::from(LIMITS.envelopes));
    assert_eq!(
        outcomes,
        [
            Enqueued::At(vec![last]),
            Enqueued::QueueFull,
            Enqueued::At(vec![Seq(1)])
        ]
    );
}

pub(crate) async fn bytes_are_limited_too(database: &TestDatabase) {
    let (queue, alice, _) = queue(database).await;
    let half = usize::try_from(LIMITS.bytes / 2).unwrap();
    assert_eq!(send(&queue, &[alice], vec![0; half]).await, Enqueued::At(vec![Seq(1)]));
    assert_eq!(send(&queue, &[alice], vec![0; half + 1]).await, Enqueued::QueueFull);
    assert_eq!(send(&queue, &[alice], vec![0; half]).await, Enqueued::At(vec![Seq(2)]));
    assert_eq!(send(&queue, &[alice], vec![0; 1]).await, Enqueued::QueueFull);
}

pub(crate) async fn all_copies_of_a_delivery_or_none(database: &TestDatabase) {
    let (queue, alice, bob) = queue(database).await;
    let whole = usize::try_from(LIMITS.bytes).unwrap();
    send(&queue, &[bob], vec![0; whole]).await;
    assert_eq!(send(&queue, &[alice, bob], "x").await, Enqueued::QueueFull);
    assert_eq!(
        send(&queue, &[alice, MailboxId(404)], "x").await,
        Enqueued::UnknownMailbox
    );
    assert!(pending(&queue, alice).await.is_empty());
    assert_eq!(send(&queue, &[alice], "x").await, Enqueued::At(vec![Seq(1)]));
}

pub(crate) async fn acknowledging_makes_room(database: &TestDatabase) {
    let (queue, alice, _) = queue(database).await;
    let whole = usize::try_from(LIMITS.bytes).unwrap();
    send(&queue, &[alice], vec![0; whole]).await;
    // In the same batch: what is acknowledged goes first.
    let batch = Batch {
        deliveries: vec![delivery(&[alice], vec![0; whole])],
        acknowledgements: vec![Acknowledgement {
            mailbox: alice,
            seq: Seq(1),
        }],
    };
    assert_eq!(queue.commit(&batch).await.unwrap(), [Enqueued::At(vec![Seq(2)])]);
    assert_eq!(send(&queue, &[alice], "x").await, Enqueued::QueueFull);
}

pub(crate) async fn an_unknown_mailbox_is_an_answer(database: &TestDatabase) {
    let (queue, alice, _) = queue(database).await;
    let batch = sends(vec![delivery(&[MailboxId(404)], "x"), delivery(&[alice], "y")]);
    let expected = [Enqueued::UnknownMailbox, Enqueued::At(vec![Seq(1)])];
    assert_eq!(queue.commit(&batch).await.unwrap(), expected);
    assert!(pending(&queue, MailboxId(404)).await.is_empty());
}

pub(crate) async fn an_empty_batch_is_harmless(database: &TestDatabase) {
    let (queue, _, _) = queue(database).await;
    assert!(queue.commit(&Batch::default()).await.unwrap().is_empty());
    assert_eq!(
        queue.commit(&sends(vec![delivery(&[], "x")])).await.unwrap(),
        [Enqueued::At(Vec::new())]
    );
}

pub(crate) async fn expiry_leaves_the_young(database: &TestDatabase) {
    let (queue, alice, bob) = queue(database).await;
    let aged = |day: i32| Delivery {
        expires: Day(day),
        ..delivery(&[alice, bob], "x")
    };
    queue.commit(&sends((1..=9).map(aged).collect())).await.unwrap();
    assert_eq!(queue.expire(Day(0), 100).await.unwrap(), 0);
    assert_eq!(queue.expire(Day(4), 3).await.unwrap(), 3);
    assert_eq!(queue.expire(Day(4), 100).await.unwrap(), 5);
    assert_eq!(queue.expire(Day(4), 100).await.unwrap(), 0);
    assert_eq!(numbers(&pending(&queue, alice).await), [5, 6, 7, 8, 9]);
    assert_eq!(numbers(&pending(&queue, bob).await), [5, 6, 7, 8, 9]);
}

pub(crate) async fn expiry_makes_room(database: &TestDatabase) {
    let (queue, alice, _) = queue(database).await;
    let whole = usize::try_from(LIMITS.bytes).unwrap();
    send(&queue, &[alice], vec![0; whole]).await;
    assert_eq!(queue.expire(Day(100), 10).await.unwrap(), 1);
    assert_eq!(send(&queue, &[alice], vec![0; whole]).await, Enqueued::At(vec![Seq(2)]));
}

pub(crate) async fn one_device_never_sees_anothers(database: &TestDatabase) {
    let (queue, alice, _) = queue(database).await;
    let second = MailboxId(1002);
    add_second_device(database).await;
    send(&queue, &[alice], "for the first").await;
    send(&queue, &[second], "for the second").await;
    let contents = |queued: Vec<Queued>| queued.into_iter().map(|envelope| envelope.content).collect::<Vec<_>>();
    assert_eq!(contents(pending(&queue, alice).await), ["for the first"]);
    assert_eq!(contents(pending(&queue, second).await), ["for the second"]);
}

pub(crate) async fn large_content_stays_intact(database: &TestDatabase) {
    let (queue, alice, bob) = queue(database).await;
    let bytes = |seed: usize| {
        (0..1024 * 1024)
            .map(|n: usize| (n * seed % 251).to_be_bytes()[7])
            .collect::<Vec<u8>>()
    };
    let (first, second) = (bytes(7), bytes(13));
    let batch = sends(vec![
        delivery(&[alice, bob], first.clone()),
        delivery(&[alice], Bytes::new()),
        delivery(&[alice], second.clone()),
    ]);
    queue.commit(&batch).await.unwrap();
    let queued = pending(&queue, alice).await;
    assert!(queued[0].content == first && queued[1].content.is_empty() && queued[2].content == second);
    assert!(pending(&queue, bob).await[0].content == first);
}

pub(crate) async fn a_page_is_limited_by_envelopes(database: &TestDatabase) {
    let (queue, alice, _) = queue(database).await;
    queue
        .commit(&sends((0..10).map(|_| delivery(&[alice], "x")).collect()))
        .await
        .unwrap();
    let page = queue
        .pending(
            alice,
            Seq(3),
            PageLimit {
                envelopes: 4,
                bytes: usize::MAX,
            },
        )
        .await
        .unwrap();
    assert_eq!(numbers(&page), [4, 5, 6, 7]);
}

pub(crate) async fn a_page_is_limited_by_bytes(database: &TestDatabase) {
    let (queue, alice, _) = queue(database).await;
    queue
        .commit(&sends((0..10).map(|_| delivery(&[alice], vec![0; 1_000])).collect()))
        .await
        .unwrap();
    let page = |bytes| queue.pending(alice, Seq::START, PageLimit { envelopes: 100, bytes });
    assert_eq!(numbers(&page(3_000).await.unwrap()), [1, 2, 3]);
    assert_eq!(numbers(&page(3_999).await.unwrap()), [1, 2, 3]);
}

pub(crate) async fn the_first_of_a_page_is_always_returned(database: &TestDatabase) {
    let (queue, alice, _) = queue(database).await;
    queue
        .commit(&sends(vec![
            delivery(&[alice], vec![0; 5_000]),
            delivery(&[alice], "x"),
        ]))
        .await
        .unwrap();
    let page = queue
        .pending(
            alice,
            Seq::START,
            PageLimit {
                envelopes: 100,
                bytes: 10,
            },
        )
        .await
        .unwrap();
    assert_eq!(numbers(&page), [1]);
}

pub(crate) async fn heads_are_those_that_exist(database: &TestDatabase) {
    let (queue, alice, bob) = queue(database).await;
    send(&queue, &[bob], "a").await;
    send(&queue, &[bob], "b").await;
    acknowledge(&queue, bob, [1, 2]).await;
    let asked: Vec<_> = (5_000..10_000).map(MailboxId).chain([alice, bob]).collect();
    let mut heads = queue.heads(&asked).await.unwrap();
    heads.sort_by_key(|head| head.mailbox);
    let answered: Vec<_> = heads.iter().map(|head| (head.mailbox, head.last)).collect();
    assert_eq!(answered, [(bob, Seq(2)), (alice, Seq::START)]);
    assert!(queue.heads(&[]).await.unwrap().is_empty());
}

pub(crate) async fn a_large_batch_is_one_batch(database: &TestDatabase) {
    let (queue, alice, bob) = queue(database).await;
    let contents = |n: u32| n.to_be_bytes().repeat(256);
    queue
        .commit(&sends(
            (0..1_500).map(|n| delivery(&[alice, bob], contents(n))).collect(),
        ))
        .await
        .unwrap();
    let queued = pending(&queue, bob).await;
    assert_eq!(queued.len(), 1_500);
    assert!(
        queued
            .iter()
            .zip(0..)
            .all(|(envelope, n)| envelope.content == contents(n))
    );
    let acknowledgements = (1..=1_500)
        .map(|seq| Acknowledgement {
            mailbox: bob,
            seq: Seq(seq),
        })
        .collect();
    queue
        .commit(&Batch {
            deliveries: Vec::new(),
            acknowledgements,
        })
        .await
        .unwrap();
    assert!(pending(&queue, bob).await.is_empty());
    assert_eq!(
        database
            .number("SELECT CAST(sum(bytes) AS BIGINT) FROM mailboxes")
            .await,
        1_500 * 1_024
    );
}

pub(crate) async fn batches_in_opposite_order_do_not_block_each_other(database: &TestDatabase) {
    let (_, alice, bob) = queue(database).await;
    let mut writers = Vec::new();
    for writer in 0..6 {
        let queue = database.another().await.queue;
        writers.push(tokio::spawn(async move {
            for round in 0..20_i64 {
                let (first, second) = if writer % 2 == 0 { (alice, bob) } else { (bob, alice) };
                let batch = Batch {
                    deliveries: vec![delivery(&[first], "x"), delivery(&[second], "y")],
                    acknowledgements: vec![
                        Acknowledgement {
                            mailbox: second,
                            seq: Seq(round),
                        },
                        Acknowledgement {
                            mailbox: first,
                            seq: Seq(round),
                        },
                    ],
                };
                queue.commit(&batch).await.unwrap();
                queue.expire(Day(1), 10).await.unwrap();
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
}

pub(crate) async fn a_dropped_commit_is_whole_or_absent(database: &TestDatabase) {
    let (queue, alice, bob) = queue(database).await;
    for step in 0..120_u64 {
        let batch = sends((0..3).map(|_| delivery(&[alice, bob], vec![0; 2_000])).collect());
        drop(tokio::time::timeout(Duration::from_micros(step * 40), queue.commit(&batch)).await);
    }
    // Whatever was still under way has ended once this batch is through.
    let Enqueued::At(places) = send(&queue, &[alice, bob], "after").await else {
        panic!("both mailboxes exist and have room");
    };
    let expected: Vec<_> = (1..=places[0].0).collect();
    assert_eq!(numbers(&pending(&queue, alice).await), expected);
    assert_eq!(numbers(&pending(&queue, bob).await), expected);
    assert_eq!(expected.len() % 3, 1, "batches are whole");
    let counted = database
        .number("SELECT CAST(sum(envelopes) AS BIGINT) FROM mailboxes")
        .await;
    assert_eq!(counted, 2 * places[0].0);
}

pub(crate) async fn deleting_an_account_under_fire_leaves_nothing(database: &TestDatabase) {
    let (_, alice, bob) = queue(database).await;
    let mut senders = Vec::new();
    for _ in 0..4 {
        let queue = database.another().await.queue;
        senders.push(tokio::spawn(async move {
            while send(&queue, &[bob, alice], "x").await != Enqueued::UnknownMailbox {}
        }));
    }
    tokio::time::sleep(Duration::from_millis(5)).await;
    let deleted = database.storage().accounts.delete(&actor(1, alice.0)).await;
    assert_eq!(deleted.unwrap(), [alice]);
    for sender in senders {
        tokio::time::timeout(Duration::from_secs(30), sender)
            .await
            .expect("every sender is told")
            .unwrap();
    }
    assert_eq!(
        database
            .number("SELECT count(*) FROM envelopes WHERE mailbox = 1001")
            .await,
        0
    );
}

const ALICE: MailboxId = MailboxId(1001);
const BOB: MailboxId = MailboxId(-7);
const SENDERS: u8 = 8;
const BATCHES: u8 = 12;
const PER_BATCH: usize = 5;
const EVERYTHING: PageLimit = PageLimit {
    envelopes: u32::MAX,
    bytes: usize::MAX,
};
