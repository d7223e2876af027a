//! What every envelope queue promises.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use keys_schema::sealed_queue::Bucket;

use super::fixtures::{
    actor, add_second_device, placed, queue_key, register, registration, sealed_copy, start_over, text,
};
use crate::domain::{
    Acknowledgement, Batch, Day, Delivery, Enqueued, Held, MailboxId, NewCredential, PageLimit, Placed, Put,
    QueueLimits, Rekey, Sealed, SealedEnvelope, SecretVerifier, SenderTag, Seq, ServiceId, Share, Stored,
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
    let bucket = Bucket::holding(content.len(), content.len()).unwrap();
    let copy = |mailbox: &MailboxId| sealed_copy(*mailbox, bucket.kib(), &content);
    Delivery {
        copies: to.iter().map(copy).collect(),
        expires: Day(100),
        ..Delivery::default()
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

async fn pending(queue: &Queue, mailbox: MailboxId) -> Vec<Stored> {
    queue.pending(mailbox, Seq::START, EVERYTHING).await.unwrap()
}

fn numbers(queued: &[Stored]) -> Vec<i64> {
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
    let contents: Vec<_> = pending(&queue, alice).await.iter().map(text).collect();
    let expected: Vec<_> = (0..5_u8)
        .flat_map(|batch| (0..7_u8).map(move |n| vec![batch, n]))
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
    let expected = [vec![Seq(1)], vec![Seq(1), Seq(2)], vec![Seq(2)]].map(placed);
    assert_eq!(queue.commit(&batch).await.unwrap(), expected);
    assert_eq!(send(&queue, &[alice], "d").await, placed(vec![Seq(3)]));
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
            let mut seen: Vec<Stored> = Vec::new();
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
        let of_sender: Vec<_> = seen.iter().map(text).filter(|content| content[0] == sender).collect();
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

pub(crate) async fn b10_acknowledged_means_gone(database: &TestDatabase) {
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
    assert_eq!(send(&queue, &[alice], "b").await, placed(vec![Seq(2)]));
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
        [placed(vec![last]), Enqueued::QueueFull, placed(vec![Seq(1)])]
    );
}

/// One by a sender who may have three there, and has put that many there before anybody else.
fn shared(alice: MailboxId, sender: u8, envelopes: u32) -> Delivery {
    let of = |envelopes: u32| Held {
        envelopes,
        bytes: u64::from(envelopes) * 1024,
    };
    Delivery {
        shares: vec![Share {
            of: SenderTag([sender; 16]),
            put: Put {
                held: of(envelopes),
                last: Seq(i64::from(envelopes)),
            },
            most: of(3),
        }],
        ..delivery(&[alice], "x")
    }
}

fn held(outcomes: &[Enqueued]) -> Vec<Option<u32>> {
    let held = |outcome: &Enqueued| match outcome {
        Enqueued::At(placed) => Some(placed.put[0].held.envelopes),
        Enqueued::QueueFull => None,
        other => panic!("{other:?}"),
    };
    outcomes.iter().map(held).collect()
}

pub(crate) async fn t36_a_senders_share_is_counted_by_what_it_put_there_and_what_waits(database: &TestDatabase) {
    let (queue, alice, bob) = queue(database).await;
    let batch = sends((0..5).map(|_| shared(alice, 1, 0)).collect());
    let first = queue.commit(&batch).await.unwrap();
    assert_eq!(held(&first), [Some(1), Some(2), Some(3), None, None]);
    assert_eq!(numbers(&pending(&queue, alice).await), [1, 2, 3]);
    // Another batch is told what the one before has said.
    let second = queue
        .commit(&sends(vec![shared(alice, 1, 3), shared(alice, 2, 0)]))
        .await
        .unwrap();
    assert_eq!(held(&second), [None, Some(1)]);
    // All copies or none: where one of two queues has no room for this sender, neither gets anything.
    let both = Delivery {
        copies: delivery(&[bob, alice], "x").copies,
        shares: vec![shared(bob, 3, 0).shares[0], shared(alice, 1, 3).shares[0]],
        ..Delivery::default()
    };
    assert_eq!(queue.commit(&sends(vec![both])).await.unwrap(), [Enqueued::QueueFull]);
    assert!(pending(&queue, bob).await.is_empty());
    // What the device has taken makes room, also in the batch that says so.
    let acknowledged = |seq| Acknowledgement {
        mailbox: alice,
        seq: Seq(seq),
    };
    let batch = Batch {
        deliveries: vec![shared(alice, 1, 3), shared(alice, 1, 3), shared(alice, 1, 3)],
        acknowledgements: vec![acknowledged(1), acknowledged(2), acknowledged(3)],
    };
    assert_eq!(held(&queue.commit(&batch).await.unwrap()), [Some(1), Some(2), Some(3)]);
    let more = queue.commit(&sends(vec![shared(alice, 3, 0)])).await.unwrap();
    assert_eq!(held(&more), [Some(1)], "whatever others have");
}

pub(crate) async fn what_nobody_wants_is_not_stored(database: &TestDatabase) {
    let (queue, alice, _) = queue(database).await;
    let unwanted = |to: &[MailboxId]| Delivery {
        unwanted: true,
        ..delivery(to, "x")
    };
    let batch = sends(vec![
        unwanted(&[alice]),
        delivery(&[alice], "y"),
        unwanted(&[alice]),
        unwanted(&[MailboxId(404)]),
    ]);
    let outcomes = queue.commit(&batch).await.unwrap();
    let nowhere = Enqueued::At(Placed::default());
    assert_eq!(
        outcomes,
        [nowhere.clone(), placed(vec![Seq(1)]), nowhere, Enqueued::UnknownMailbox]
    );
    assert_eq!(numbers(&pending(&queue, alice).await), [1]);
    assert_eq!(send(&queue, &[alice], "z").await, placed(vec![Seq(2)]));
}

pub(crate) async fn bytes_are_limited_too(database: &TestDatabase) {
    let (queue, alice, _) = queue(database).await;
    let half = usize::try_from(LIMITS.bytes / 2).unwrap();
    assert_eq!(send(&queue, &[alice], vec![0; half]).await, placed(vec![Seq(1)]));
    assert_eq!(send(&queue, &[alice], vec![0; half + 1]).await, Enqueued::QueueFull);
    assert_eq!(send(&queue, &[alice], vec![0; half]).await, placed(vec![Seq(2)]));
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
    assert_eq!(send(&queue, &[alice], "x").await, placed(vec![Seq(1)]));
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
    assert_eq!(queue.commit(&batch).await.unwrap(), [placed(vec![Seq(2)])]);
    assert_eq!(send(&queue, &[alice], "x").await, Enqueued::QueueFull);
}

pub(crate) async fn an_unknown_mailbox_is_an_answer(database: &TestDatabase) {
    let (queue, alice, _) = queue(database).await;
    let batch = sends(vec![delivery(&[MailboxId(404)], "x"), delivery(&[alice], "y")]);
    let expected = [Enqueued::UnknownMailbox, placed(vec![Seq(1)])];
    assert_eq!(queue.commit(&batch).await.unwrap(), expected);
    assert!(pending(&queue, MailboxId(404)).await.is_empty());
}

pub(crate) async fn an_empty_batch_is_harmless(database: &TestDatabase) {
    let (queue, _, _) = queue(database).await;
    assert!(queue.commit(&Batch::default()).await.unwrap().is_empty());
    assert_eq!(
        queue.commit(&sends(vec![delivery(&[], "x")])).await.unwrap(),
        [placed(Vec::new())]
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
    assert_eq!(send(&queue, &[alice], vec![0; whole]).await, placed(vec![Seq(2)]));
}

pub(crate) async fn one_device_never_sees_anothers(database: &TestDatabase) {
    let (queue, alice, _) = queue(database).await;
    let second = MailboxId(1002);
    add_second_device(database).await;
    send(&queue, &[alice], "for the first").await;
    send(&queue, &[second], "for the second").await;
    let contents = |stored: Vec<Stored>| stored.iter().map(text).collect::<Vec<_>>();
    assert_eq!(contents(pending(&queue, alice).await), [b"for the first"]);
    assert_eq!(contents(pending(&queue, second).await), [b"for the second"]);
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
    assert!(text(&queued[0]) == first && text(&queued[1]).is_empty() && text(&queued[2]) == second);
    assert!(text(&pending(&queue, bob).await[0]) == first);
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
    assert_eq!(numbers(&page(3 * 1024).await.unwrap()), [1, 2, 3]);
    assert_eq!(numbers(&page(4 * 1024 - 1).await.unwrap()), [1, 2, 3]);
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
            .all(|(envelope, n)| text(envelope) == contents(n))
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
    let Enqueued::At(Placed { seqs: places, .. }) = send(&queue, &[alice, bob], "after").await else {
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

/// Not a real sealing: the row's bytes, backwards, unless they begin with an `x`.
fn backwards(sealed: &SealedEnvelope) -> Option<Bytes> {
    let begins = sealed.row.get(4) != Some(&b'x');
    begins.then(|| sealed.row.iter().rev().copied().collect())
}

pub(crate) async fn another_key_seals_anew_what_is_queued(database: &TestDatabase) {
    let (queue, alice, bob) = queue(database).await;
    for n in 0..600_u32 {
        send(&queue, &[alice, bob], n.to_be_bytes().to_vec()).await;
    }
    send(&queue, &[alice], vec![7; 5_000]).await;
    send(&queue, &[alice], "x cannot be opened").await;
    let (before, of_bob) = (pending(&queue, alice).await, pending(&queue, bob).await);
    let rekey = Rekey {
        from: queue_key(alice),
        to: queue_key(MailboxId(5)),
        reseal: &backwards,
        credential: None,
    };
    assert!(queue.rekey(&actor(1, alice.0), &rekey).await.unwrap());
    let after = pending(&queue, alice).await;
    assert_eq!(numbers(&after), (1..=602).collect::<Vec<_>>());
    for (before, after) in before.iter().zip(&after) {
        let expected = backwards(&before.sealed).unwrap_or(before.sealed.row.clone());
        assert!(after.sealed.row == expected && after.sealed.bucket == before.sealed.bucket);
    }
    let rows = |stored: Vec<Stored>| stored.into_iter().map(|stored| stored.sealed.row).collect::<Vec<_>>();
    assert!(
        rows(pending(&queue, bob).await) == rows(of_bob),
        "others' rows are left alone"
    );
    let mailbox = queue.mailbox(alice).await.unwrap().unwrap();
    assert_eq!((mailbox.last, mailbox.key), (Seq(602), queue_key(MailboxId(5))));
    assert!(mailbox.interim.is_none());
    let account = database
        .storage()
        .accounts
        .find(&ServiceId::Aci(actor(1, 0).address.aci))
        .await;
    assert_eq!(account.unwrap().unwrap().devices[0].queue_key, queue_key(MailboxId(5)));
    // Who still seals to the old key is told, and stores nothing.
    assert_eq!(send(&queue, &[bob, alice], "late").await, Enqueued::OtherKey);
    assert_eq!(pending(&queue, bob).await.len(), 600);
}

pub(crate) async fn a_key_is_replaced_by_its_own_device_and_from_the_right_one_only(database: &TestDatabase) {
    let (queue, alice, bob) = queue(database).await;
    send(&queue, &[alice], "a").await;
    let rekey = |from| Rekey {
        from,
        to: queue_key(MailboxId(5)),
        reseal: &backwards,
        credential: None,
    };
    assert!(!queue.rekey(&actor(1, bob.0), &rekey(queue_key(bob))).await.unwrap());
    assert!(!queue.rekey(&actor(1, 404), &rekey(queue_key(alice))).await.unwrap());
    assert!(!queue.rekey(&actor(1, alice.0), &rekey(queue_key(bob))).await.unwrap());
    assert_eq!(text(&pending(&queue, alice).await[0]), b"a");
    assert!(queue.rekey(&actor(1, alice.0), &rekey(queue_key(alice))).await.unwrap());
    assert!(!queue.rekey(&actor(1, alice.0), &rekey(queue_key(alice))).await.unwrap());
    assert!(queue.mailbox(MailboxId(404)).await.unwrap().is_none());
}

pub(crate) async fn another_password_and_key_are_one_change(database: &TestDatabase) {
    let (queue, alice, _) = queue(database).await;
    let credential = NewCredential {
        verifier: SecretVerifier {
            salt: [8; 16],
            hash: [9; 32],
        },
        sealed_number: Sealed(vec![5; 60]),
    };
    let rekey = |from| Rekey {
        from,
        to: queue_key(MailboxId(5)),
        reseal: &backwards,
        credential: Some(credential.clone()),
    };
    let device = async || {
        let account = database
            .storage()
            .accounts
            .find(&ServiceId::Aci(actor(1, 0).address.aci))
            .await;
        account.unwrap().unwrap().devices.remove(0)
    };
    let before = device().await;
    assert!(
        !queue
            .rekey(&actor(1, alice.0), &rekey(queue_key(MailboxId(6))))
            .await
            .unwrap()
    );
    assert!(device().await.credential == before.credential);
    assert!(queue.rekey(&actor(1, alice.0), &rekey(queue_key(alice))).await.unwrap());
    let after = device().await;
    assert!(after.credential == credential.verifier && after.sealed_number == credential.sealed_number);
    assert_eq!((after.mailbox, after.queue_key), (alice, queue_key(MailboxId(5))));
}

pub(crate) async fn no_envelope_is_left_to_an_old_key_under_fire(database: &TestDatabase) {
    let (queue, alice, _) = queue(database).await;
    let mut senders = Vec::new();
    for _ in 0..4 {
        let queue = database.another().await.queue;
        senders.push(tokio::spawn(async move {
            let mut accepted = 0;
            while send(&queue, &[alice], "a").await != Enqueued::OtherKey {
                accepted += 1;
            }
            accepted
        }));
    }
    tokio::time::sleep(Duration::from_millis(5)).await;
    let rekey = Rekey {
        from: queue_key(alice),
        to: queue_key(MailboxId(5)),
        reseal: &backwards,
        credential: None,
    };
    assert!(queue.rekey(&actor(1, alice.0), &rekey).await.unwrap());
    let mut accepted = 0;
    for sender in senders {
        accepted += tokio::time::timeout(Duration::from_secs(30), sender)
            .await
            .unwrap()
            .unwrap();
    }
    let stored = pending(&queue, alice).await;
    assert_eq!(stored.len(), accepted);
    let resealed = |stored: &Stored| stored.sealed.row.ends_with(b"a\x01\0\0\0");
    assert!(stored.iter().all(resealed), "sealed anew, all of them");
}

pub(crate) async fn who_registers_anew_brings_a_key(database: &TestDatabase) {
    let (queue, alice, _) = queue(database).await;
    start_over(&*database.storage().accounts, registration(1, 77)).await;
    assert!(queue.mailbox(alice).await.unwrap().is_none());
    assert_eq!(
        queue.mailbox(MailboxId(77)).await.unwrap().unwrap().key,
        queue_key(MailboxId(77))
    );
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
    assert_eq!(deleted.unwrap().mailboxes, [alice]);
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
