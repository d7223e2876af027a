//! How much of a queue one sender may have, so that nobody fills it alone.
//!
//! Rows carry no sender, so this is counted in memory, by each node for itself: for a sender and a queue what it has put
//! there, and the number of its last envelope. What a device takes out is not counted. But of what a sender has put there no
//! more can be left than there is in the queue altogether, and, since devices read in order, no more than there is from before
//! its last. Both numbers the batch that stores an envelope knows anyway: by them the count falls back when a device reads. A
//! sender is counted short by no more than what a device leaves behind while it takes what is newer, which its window bounds.
//!
//! Who is counted where is a keyed hash, under a key that this process alone has. One who does not say who it is counts as its
//! network. All deliveries to an account go through one lane, which alone reads and writes the counts of its queues: nothing
//! passes between a look and a count.

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use sha2::Sha256;

use crate::domain::{Aci, Held, MailboxId, Put, QueueLimits, SenderTag, Share};
use crate::sealing::random;

/// Who sends, as far as senders are told apart.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sender([u8; 17]);

impl Sender {
    /// An account, whichever device of it.
    pub fn account(aci: Aci) -> Self {
        Self::new(1, aci.as_bytes())
    }

    /// Whoever does not say who they are, and comes from that network; all of them together where it is not known.
    pub fn stranger(network: &[u8]) -> Self {
        Self::new(2, network)
    }

    /// For whoever counts what senders do.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn new(kind: u8, name: &[u8]) -> Self {
        let mut bytes = [0; 17];
        bytes[0] = kind;
        for (byte, named) in bytes[1..].iter_mut().zip(name) {
            *byte = *named;
        }
        Self(bytes)
    }
}

/// What senders have in the queues of devices, as far as this node has put it there.
pub struct Shares {
    /// `None` if a sender may fill a queue.
    most: Option<Held>,
    hash: Hmac<Sha256>,
    counts: Cache<SenderTag, Put>,
}

impl Shares {
    /// One sender may have so many in a hundred of what a queue holds.
    pub fn new(limits: QueueLimits, percent: u8) -> Self {
        let percent = u64::from(percent);
        let envelopes = u64::from(limits.envelopes) * percent / 100;
        let most = Held {
            envelopes: u32::try_from(envelopes).unwrap_or(u32::MAX),
            bytes: limits.bytes / 100 * percent,
        };
        Self {
            most: (percent < 100).then_some(most),
            hash: Hmac::new_from_slice(&random::<32>()).expect("HMAC takes keys of any length"),
            counts: Cache::builder()
                .max_capacity(COUNTS)
                .time_to_idle(IDLE)
                // Whoever sends often must not keep out of the table whoever sends for the first time.
                .eviction_policy(EvictionPolicy::lru())
                .build(),
        }
    }

    /// The sender's share of each of these queues. What it has put there is for the lane to say.
    pub(super) fn of(&self, sender: &Sender, mailboxes: &[MailboxId]) -> Vec<Share> {
        let Some(most) = self.most else { return Vec::new() };
        let share = |mailbox: &MailboxId| Share {
            of: self.tag(sender, *mailbox),
            put: Put::default(),
            most,
        };
        mailboxes.iter().map(share).collect()
    }

    /// Says what the sender has put there, before a batch decides.
    pub(super) fn look_up(&self, shares: &mut [Share]) {
        for share in shares {
            share.put = self.counts.get(&share.of).unwrap_or_default();
        }
    }

    /// Keeps what it has put there, now that a batch is committed.
    pub(super) fn keep(&self, shares: &[Share], put: &[Put]) {
        for (share, put) in shares.iter().zip(put) {
            self.counts.insert(share.of, *put);
        }
    }

    /// Frees the memory of what is forgotten. To be called now and then.
    pub fn tidy(&self) {
        self.counts.run_pending_tasks();
    }

    fn tag(&self, sender: &Sender, mailbox: MailboxId) -> SenderTag {
        let mut hash = self.hash.clone();
        hash.update(&mailbox.0.to_be_bytes());
        hash.update(&sender.0);
        let mut tag = [0; 16];
        tag.copy_from_slice(&hash.finalize().into_bytes()[..16]);
        SenderTag(tag)
    }
}

/// About 25 MiB. Those that were used last stay.
const COUNTS: u64 = 100_000;
/// Less would give whoever has filled a share another one after a pause.
const IDLE: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Seq;
    use crate::storage::conformance::fixtures::aci;

    const LIMITS: QueueLimits = QueueLimits {
        envelopes: 5_000,
        bytes: 64 * 1024 * 1024,
    };
    const QUEUES: [MailboxId; 2] = [MailboxId(1), MailboxId(2)];

    #[test]
    fn t36_a_share_is_a_part_of_both_limits() {
        let shares = Shares::new(LIMITS, 25).of(&Sender::account(aci(1)), &QUEUES);
        assert_eq!(shares.len(), 2);
        for share in shares {
            assert_eq!(share.most.envelopes, 1_250);
            assert!((16_777_200..=16_777_216).contains(&share.most.bytes));
        }
        assert!(
            Shares::new(LIMITS, 100)
                .of(&Sender::account(aci(1)), &QUEUES)
                .is_empty()
        );
    }

    #[test]
    fn t36_who_is_counted_where_is_told_by_no_count() {
        let (one, other) = (Shares::new(LIMITS, 25), Shares::new(LIMITS, 25));
        let senders = [
            Sender::account(aci(1)),
            Sender::account(aci(2)),
            Sender::stranger(aci(1).as_bytes()),
            Sender::stranger(b""),
        ];
        let mut seen = Vec::new();
        for shares in [&one, &other] {
            for sender in &senders {
                seen.extend(shares.of(sender, &QUEUES).into_iter().map(|share| share.of.0));
            }
        }
        let all = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(
            (all, seen.len()),
            (16, 16),
            "another sender, queue or process: another name"
        );
        for sender in &senders {
            assert!(one.of(sender, &QUEUES)[0].of == one.of(sender, &QUEUES)[0].of);
        }
    }

    #[test]
    fn what_was_kept_is_found_and_the_table_has_an_end() {
        let shares = Shares::new(LIMITS, 25);
        let put = Put {
            held: Held { envelopes: 7, bytes: 9 },
            last: Seq(8),
        };
        for n in 0..COUNTS + 1_000 {
            let mailbox = MailboxId(i64::try_from(n).unwrap());
            let share = shares.of(&Sender::account(aci(1)), &[mailbox]);
            shares.keep(&share, &[put]);
        }
        shares.tidy();
        assert!(shares.counts.entry_count() <= COUNTS);
        let newest = MailboxId(i64::try_from(COUNTS).unwrap() + 999);
        let mut share = shares.of(&Sender::account(aci(1)), &[newest]);
        shares.look_up(&mut share);
        assert_eq!(share[0].put, put);
        let mut nobodys = shares.of(&Sender::account(aci(2)), &[newest]);
        shares.look_up(&mut nobodys);
        assert_eq!(nobodys[0].put, Put::default());
    }
}
