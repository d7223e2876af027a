//! Who gets in: the counters of the mailboxes that one batch touches, and the rule by which deliveries are admitted.
//!
//! The backend locks the counters, loads them here, lets this decide, and writes back what [`Ledger::saved`] returns
//! before it commits. Both backends therefore answer alike. Nothing here is stored or awaited.

use std::collections::{BTreeSet, HashMap};

use crate::domain::{Batch, Delivery, Enqueued, QueueLimits, Seq};

/// The counters of one mailbox, as stored in `mailboxes`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Counter {
    pub(super) mailbox: i64,
    pub(super) last_seq: i64,
    pub(super) envelopes: i64,
    pub(super) bytes: i64,
}

/// A row for `envelopes`.
pub(super) struct NewRow<'batch> {
    pub(super) mailbox: i64,
    pub(super) seq: i64,
    pub(super) content: &'batch [u8],
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
            .filter_map(|mailbox| self.counters.get(mailbox).copied())
            .collect()
    }

    fn admit_one<'batch>(&mut self, delivery: &'batch Delivery, rows: &mut Vec<NewRow<'batch>>) -> Enqueued {
        let mut full = false;
        for copy in &delivery.copies {
            let Some(counter) = self.counters.get(&copy.mailbox.0) else {
                return Enqueued::UnknownMailbox;
            };
            full |= counter.envelopes >= self.max_envelopes
                || counter.bytes.saturating_add(size(&copy.content)) > self.max_bytes;
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
            counter.bytes += size(&copy.content);
            self.changed.insert(counter.mailbox);
            places.push(Seq(counter.last_seq));
            rows.push(NewRow {
                mailbox: counter.mailbox,
                seq: counter.last_seq,
                content: &copy.content,
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

fn size(content: &[u8]) -> i64 {
    i64::try_from(content.len()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Copy, Day, MailboxId};

    fn delivery(copies: &[(i64, usize)]) -> Delivery {
        let copies = copies
            .iter()
            .map(|(mailbox, size)| Copy {
                mailbox: MailboxId(*mailbox),
                content: vec![0; *size].into(),
            })
            .collect();
        Delivery {
            copies,
            expires: Day(1),
        }
    }

    fn ledger(envelopes: u32, bytes: u64) -> Ledger {
        let empty = |mailbox| Counter {
            mailbox,
            last_seq: 0,
            envelopes: 0,
            bytes: 0,
        };
        Ledger::new(QueueLimits { envelopes, bytes }, [empty(1), empty(2)])
    }

    #[test]
    fn a_refused_delivery_draws_no_number() {
        let mut ledger = ledger(1, 100);
        let sends = [
            delivery(&[(1, 1)]),
            delivery(&[(2, 1), (1, 1)]),
            delivery(&[(2, 1), (3, 1)]),
            delivery(&[(2, 1)]),
        ];
        let (outcomes, rows) = ledger.admit(&sends);
        let expected = [
            Enqueued::At(vec![Seq(1)]),
            Enqueued::QueueFull,
            Enqueued::UnknownMailbox,
            Enqueued::At(vec![Seq(1)]),
        ];
        assert_eq!(outcomes, expected);
        assert_eq!(rows.len(), 2);
    }

    #[test]
    fn the_last_byte_of_room_can_be_used() {
        let mut ledger = ledger(10, 100);
        let sends = [
            delivery(&[(1, 60)]),
            delivery(&[(1, 41)]),
            delivery(&[(1, 40)]),
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
