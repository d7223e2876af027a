//! Who gets in: the counters of the mailboxes that one batch touches, and the rule by which deliveries are admitted.
//!
//! The backend locks the counters, loads them here, lets this decide, and writes back what [`Ledger::saved`] returns
//! before it commits. Both backends therefore answer alike. Nothing here is stored or awaited.

use std::collections::{BTreeSet, HashMap};

use keys_schema::sealed_queue::Bucket;

use crate::domain::{Batch, Delivery, Enqueued, QueueLimits, Seq};

/// The counters of one mailbox, as stored in `mailboxes`.
#[derive(Clone)]
pub(super) struct Counter {
    pub(super) mailbox: i64,
    pub(super) queue_key: Vec<u8>,
    pub(super) last_seq: i64,
    pub(super) envelopes: i64,
    pub(super) bytes: i64,
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
}

impl Ledger {
    /// Takes in the counters that exist.
    pub(super) fn new(limits: QueueLimits, counters: impl IntoIterator<Item = Counter>) -> Self {
        Self {
            max_envelopes: i64::from(limits.envelopes),
            max_bytes: i64::try_from(limits.bytes).unwrap_or(i64::MAX),
            counters: counters.into_iter().map(|counter| (counter.mailbox, counter)).collect(),
            changed: BTreeSet::new(),
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
        for copy in &delivery.copies {
            let Some(counter) = self.counters.get(&copy.mailbox.0) else {
                return Enqueued::UnknownMailbox;
            };
            if counter.queue_key != copy.key.as_bytes() {
                return Enqueued::OtherKey;
            }
            full |= counter.envelopes >= self.max_envelopes
                || counter.bytes.saturating_add(size(copy.sealed.bucket)) > self.max_bytes;
        }
        if full {
            return Enqueued::QueueFull;
        }
        let mut places = Vec::with_capacity(delivery.copies.len());
        for copy in &delivery.copies {
            let Some(counter) = self.counters.get_mut(&copy.mailbox.0) else {
                continue;
            };
            counter.last_seq += 1;
            counter.envelopes += 1;
            counter.bytes += size(copy.sealed.bucket);
            self.changed.insert(counter.mailbox);
            places.push(Seq(counter.last_seq));
            rows.push(NewRow {
                mailbox: counter.mailbox,
                seq: counter.last_seq,
                bucket: number(copy.sealed.bucket),
                sealed: &copy.sealed.row,
                expires: delivery.expires.0,
            });
        }
        Enqueued::At(places)
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
        }
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
            Enqueued::At(vec![Seq(1)]),
            Enqueued::QueueFull,
            Enqueued::UnknownMailbox,
            Enqueued::OtherKey,
            Enqueued::At(vec![Seq(1)]),
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
        let expected = [
            Enqueued::At(vec![Seq(1)]),
            Enqueued::QueueFull,
            Enqueued::At(vec![Seq(2)]),
            Enqueued::QueueFull,
        ];
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
