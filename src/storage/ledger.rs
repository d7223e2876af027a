//! Who gets in: the counters of the mailboxes that one batch touches, and the rule by which deliveries are admitted.
//!
//! The backend locks the counters, loads them here, lets this decide, and writes back what [`Ledger::saved`] returns
//! before it commits. Both backends therefore answer alike. Nothing here is stored or awaited.

use std::collections::{BTreeSet, HashMap};

use keys_schema::sealed_queue::Bucket;

use crate::domain::{Batch, Delivery, Enqueued, Held, Placed, Put, QueueLimits, SenderTag, Seq, Share};

/// The counters of one mailbox, as stored in `mailboxes`.
#[derive(Clone)]
pub(super) struct Counter {
    pub(super) mailbox: i64,
    pub(super) queue_key: Vec<u8>,
    pub(super) last_seq: i64,
    pub(super) envelopes: i64,
    pub(super) bytes: i64,
}

impl Counter {
    /// What is left here of what a sender has put here.
    fn left(&self, put: Put) -> Held {
        let waiting = Held {
            envelopes: u32::try_from(self.envelopes).unwrap_or(u32::MAX),
            bytes: u64::try_from(self.bytes).unwrap_or(u64::MAX),
        };
        put.left(waiting, Seq(self.last_seq))
    }
}

/// A row for `envelopes`.
pub(super) struct NewRow<'batch> {
    pub(super) mailbox: i64,
    pub(super) seq: i64,
    pub(super) bucket: i16,
    pub(super) sealed: &'batch [u8],
    pub(super) expires: i32,
}

/// The counters while a batch is decided.
pub(super) struct Ledger {
    max_envelopes: i64,
    max_bytes: i64,
    counters: HashMap<i64, Counter>,
    changed: BTreeSet<i64>,
    /// What senders have put where, as far as this batch has decided on it.
    put: HashMap<SenderTag, Put>,
}

impl Ledger {
    /// Takes in the counters that exist.
    pub(super) fn new(limits: QueueLimits, counters: impl IntoIterator<Item = Counter>) -> Self {
        Self {
            max_envelopes: i64::from(limits.envelopes),
            max_bytes: i64::try_from(limits.bytes).unwrap_or(i64::MAX),
            counters: counters.into_iter().map(|counter| (counter.mailbox, counter)).collect(),
            changed: BTreeSet::new(),
            put: HashMap::new(),
        }
    }

    /// An envelope was deleted: its room is free again.
    pub(super) fn removed(&mut self, mailbox: i64, bytes: i64) {
        if let Some(counter) = self.counters.get_mut(&mailbox) {
            counter.envelopes = (counter.envelopes - 1).max(0);
            counter.bytes = (counter.bytes - bytes).max(0);
            self.changed.insert(mailbox);
        }
    }

    /// Decides the deliveries in their order. The rows are to be inserted, all of them.
    pub(super) fn admit<'batch>(&mut self, deliveries: &'batch [Delivery]) -> (Vec<Enqueued>, Vec<NewRow<'batch>>) {
        let mut rows = Vec::with_capacity(deliveries.len());
        let outcomes = deliveries
            .iter()
            .map(|delivery| self.admit_one(delivery, &mut rows))
            .collect();
        (outcomes, rows)
    }

    /// The counters to write back, by mailbox.
    pub(super) fn saved(&self) -> Vec<Counter> {
        self.changed
            .iter()
            .filter_map(|mailbox| self.counters.get(mailbox).cloned())
            .collect()
    }

    fn admit_one<'batch>(&mut self, delivery: &'batch Delivery, rows: &mut Vec<NewRow<'batch>>) -> Enqueued {
        let mut full = false;
        let mut shares = delivery.shares.iter();
        for copy in &delivery.copies {
            let Some(counter) = self.counters.get(&copy.mailbox.0) else {
                return Enqueued::UnknownMailbox;
            };
            if counter.queue_key != copy.key.as_bytes() {
                return Enqueued::OtherKey;
            }
            full |= counter.envelopes >= self.max_envelopes
                || counter.bytes.saturating_add(size(copy.sealed.bucket)) > self.max_bytes;
            if let Some(share) = shares.next() {
                full |= !share.takes(counter.left(self.known(share)), bytes(copy.sealed.bucket));
            }
        }
        if full {
            return Enqueued::QueueFull;
        }
        if delivery.unwanted {
            // Counters are written as they are: what costs nothing would be answered sooner.
            self.changed.extend(delivery.copies.iter().map(|copy| copy.mailbox.0));
            return Enqueued::At(Placed::default());
        }
        let mut placed = Placed {
            seqs: Vec::with_capacity(delivery.copies.len()),
            put: Vec::with_capacity(delivery.shares.len()),
        };
        let mut shares = delivery.shares.iter();
        for copy in &delivery.copies {
            let share = shares.next().map(|share| (share.of, self.known(share)));
            let Some(counter) = self.counters.get_mut(&copy.mailbox.0) else {
                continue;
            };
            if let Some((of, known)) = share {
                let put = Put {
                    held: counter.left(known).plus(bytes(copy.sealed.bucket)),
                    last: Seq(counter.last_seq + 1),
                };
                self.put.insert(of, put);
                placed.put.push(put);
            }
            counter.last_seq += 1;
            counter.envelopes += 1;
            counter.bytes += size(copy.sealed.bucket);
            self.changed.insert(counter.mailbox);
            placed.seqs.push(Seq(counter.last_seq));
            rows.push(NewRow {
                mailbox: counter.mailbox,
                seq: counter.last_seq,
                bucket: number(copy.sealed.bucket),
                sealed: &copy.sealed.row,
                expires: delivery.expires.0,
            });
        }
        Enqueued::At(placed)
    }

    /// What a sender has put into a queue, in this batch too.
    fn known(&self, share: &Share) -> Put {
        self.put.get(&share.of).copied().unwrap_or(share.put)
    }
}

/// Every mailbox that the batch names, once, in the order in which counters are locked.
pub(super) fn touched(batch: &Batch) -> Vec<i64> {
    let receiving = batch
        .deliveries
        .iter()
        .flat_map(|delivery| &delivery.copies)
        .map(|copy| copy.mailbox.0);
    let acknowledging = batch.acknowledgements.iter().map(|ack| ack.mailbox.0);
    receiving
        .chain(acknowledging)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}

/// A bucket as it is stored.
fn number(bucket: Bucket) -> i16 {
    i16::try_from(bucket.kib()).expect("the largest bucket has 16384 KiB")
}

fn size(bucket: Bucket) -> i64 {
    i64::from(bucket.kib()) * 1024
}

fn bytes(bucket: Bucket) -> u64 {
    u64::from(bucket.kib()) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::MailboxId;
    use crate::storage::conformance::fixtures::{queue_key, sealed_copy};

    /// Copies for mailboxes, of so many KiB.
    fn delivery(copies: &[(i64, u16)]) -> Delivery {
        let copy = |(mailbox, kib): &(i64, u16)| sealed_copy(MailboxId(*mailbox), *kib, b"");
        Delivery {
            copies: copies.iter().map(copy).collect(),
            expires: crate::domain::Day(1),
            ..Delivery::default()
        }
    }

    fn at(seq: i64) -> Enqueued {
        Enqueued::At(Placed {
            seqs: vec![Seq(seq)],
            put: vec![],
        })
    }

    /// One KiB for mailbox 1 by a sender who has put `held` envelopes of a KiB there, and may have three.
    fn by(sender: u8, held: u32) -> Delivery {
        let of_kib = |envelopes: u32| Held {
            envelopes,
            bytes: u64::from(envelopes) * 1024,
        };
        Delivery {
            shares: vec![Share {
                of: SenderTag([sender; 16]),
                put: Put {
                    held: of_kib(held),
                    last: Seq(i64::from(held)),
                },
                most: of_kib(3),
            }],
            ..delivery(&[(1, 1)])
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

    #[test]
    fn t36_a_sender_fills_its_share_and_no_more_also_within_a_batch() {
        let mut ledger = ledger(10, 100);
        let sends = [by(1, 0), by(1, 0), by(2, 0), by(1, 0), by(1, 0), by(2, 0)];
        let (outcomes, rows) = ledger.admit(&sends);
        assert_eq!(held(&outcomes), [Some(1), Some(2), Some(1), Some(3), None, Some(2)]);
        assert_eq!(rows.len(), 5);
    }

    #[test]
    fn t36_of_what_a_sender_has_put_there_no_more_counts_than_there_is() {
        let mut ledger = ledger(10, 100);
        // It was emptied since.
        let sends = [by(1, 3), by(1, 3), by(2, 0), by(1, 3), by(1, 3)];
        let (outcomes, _) = ledger.admit(&sends);
        assert_eq!(held(&outcomes), [Some(1), Some(2), Some(1), Some(3), None]);
        for _ in 0..3 {
            ledger.removed(1, 1024);
        }
        // One waits, and it is its own.
        let sends = [by(1, 3), by(2, 0), by(2, 0), by(1, 3), by(1, 3)];
        let (outcomes, _) = ledger.admit(&sends);
        assert_eq!(held(&outcomes), [Some(2), Some(1), Some(2), Some(3), None]);
        // Read but for one, which is newer than the last of one sender, and may be the other's.
        for _ in 0..4 {
            ledger.removed(1, 1024);
        }
        let sends = [by(2, 0), by(1, 3)];
        let (outcomes, _) = ledger.admit(&sends);
        assert_eq!(held(&outcomes), [Some(1), Some(2)]);
    }

    #[test]
    fn t36_bytes_have_a_share_too_and_one_envelope_always_fits() {
        let mut ledger = ledger(10, 100);
        let large = Delivery {
            copies: delivery(&[(1, 8)]).copies,
            ..by(1, 0)
        };
        let (outcomes, _) = ledger.admit(&[large.clone(), large, by(1, 0), by(2, 0)]);
        assert_eq!(held(&outcomes), [Some(1), None, None, Some(1)]);
    }

    #[test]
    fn what_nobody_wants_is_decided_as_if_it_were_stored_and_is_not() {
        let mut ledger = ledger(1, 100);
        let unwanted = |to: i64| Delivery {
            unwanted: true,
            ..delivery(&[(to, 1)])
        };
        let sends = [unwanted(1), delivery(&[(1, 1)]), unwanted(1), unwanted(2), unwanted(3)];
        let (outcomes, rows) = ledger.admit(&sends);
        let nowhere = Enqueued::At(Placed::default());
        let expected = [
            nowhere.clone(),
            at(1),
            Enqueued::QueueFull,
            nowhere,
            Enqueued::UnknownMailbox,
        ];
        assert_eq!(outcomes, expected);
        assert_eq!(rows.len(), 1);
        let saved = ledger.saved();
        let counters: Vec<_> = saved
            .iter()
            .map(|counter| (counter.mailbox, counter.last_seq))
            .collect();
        assert_eq!(counters, [(1, 1), (2, 0)], "and both are written");
    }

    fn ledger(envelopes: u32, kib: u64) -> Ledger {
        let empty = |mailbox| Counter {
            mailbox,
            queue_key: queue_key(MailboxId(mailbox)).as_bytes().to_vec(),
            last_seq: 0,
            envelopes: 0,
            bytes: 0,
        };
        let bytes = kib * 1024;
        Ledger::new(QueueLimits { envelopes, bytes }, [empty(1), empty(2)])
    }

    #[test]
    fn a_refused_delivery_draws_no_number() {
        let mut ledger = ledger(1, 100);
        let mut other_key = delivery(&[(2, 1)]);
        other_key.copies[0].key = queue_key(MailboxId(1));
        let sends = [
            delivery(&[(1, 1)]),
            delivery(&[(2, 1), (1, 1)]),
            delivery(&[(2, 1), (3, 1)]),
            other_key,
            delivery(&[(2, 1)]),
        ];
        let (outcomes, rows) = ledger.admit(&sends);
        let expected = [
            at(1),
            Enqueued::QueueFull,
            Enqueued::UnknownMailbox,
            Enqueued::OtherKey,
            at(1),
        ];
        assert_eq!(outcomes, expected);
        assert_eq!(rows.len(), 2);
    }

    #[test]
    fn the_last_bucket_of_room_can_be_used() {
        let mut ledger = ledger(10, 96);
        let sends = [
            delivery(&[(1, 64)]),
            delivery(&[(1, 64)]),
            delivery(&[(1, 32)]),
            delivery(&[(1, 1)]),
        ];
        let (outcomes, _) = ledger.admit(&sends);
        let expected = [at(1), Enqueued::QueueFull, at(2), Enqueued::QueueFull];
        assert_eq!(outcomes, expected);
    }

    #[test]
    fn only_changed_counters_are_written_back() {
        let mut ledger = ledger(10, 100);
        ledger.removed(2, 5);
        ledger.removed(9, 5);
        assert_eq!(
            ledger.saved().iter().map(|counter| counter.mailbox).collect::<Vec<_>>(),
            [2]
        );
    }
}
