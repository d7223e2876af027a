//! What is queued for a device, and what the queue answers.

use std::fmt;

use bytes::Bytes;
use keys_schema::sealed_queue::{Bucket, QueuePublicKey};

use super::Day;

/// The random name of one device's queue. It is not derived from the account, and a device that registers anew gets
/// another one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MailboxId(pub i64);

impl fmt::Debug for MailboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MailboxId")
    }
}

/// The place of an envelope in its mailbox: 1, 2, 3, … without gaps, in the order of acceptance. Never used twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub i64);

impl Seq {
    /// Before the first envelope.
    pub const START: Self = Self(0);

    /// The number that follows.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// An envelope as it is stored: padded, and sealed to the queue key of its mailbox (`keys_schema::sealed_queue`).
#[derive(Clone)]
pub struct SealedEnvelope {
    /// The size to which it was padded. It tells the length of `row`.
    pub bucket: Bucket,
    /// The sealed bytes.
    pub row: Bytes,
}

/// One copy of an envelope, for one device.
#[derive(Clone)]
pub struct Copy {
    /// The device's queue.
    pub mailbox: MailboxId,
    /// The key that it was sealed to.
    pub key: QueuePublicKey,
    /// The envelope.
    pub sealed: SealedEnvelope,
}

/// The copies of one send to the devices of one account: all of them are stored, or none.
#[derive(Clone, Default)]
pub struct Delivery {
    /// One per device; each mailbox at most once.
    pub copies: Vec<Copy>,
    /// The first day on which the copies may be dropped.
    pub expires: Day,
    /// What the sender may have in each of these queues, in the order of the copies. Empty if its part is not looked at.
    pub shares: Vec<Share>,
    /// Nobody wants it: it is decided, and takes as long, as if it were stored, and is not.
    pub unwanted: bool,
}

/// One sender in one queue: a keyed hash of the two, under a key that a node makes up and keeps in memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SenderTag(pub [u8; 16]);

/// A part of what a queue holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Envelopes.
    pub envelopes: u32,
    /// Bytes of their size buckets.
    pub bytes: u64,
}

impl Held {
    /// With one more envelope.
    pub fn plus(self, bytes: u64) -> Self {
        Self {
            envelopes: self.envelopes.saturating_add(1),
            bytes: self.bytes.saturating_add(bytes),
        }
    }
}

/// What one sender has put into one queue. What has gone since is not counted; [`Self::left`] concludes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Put {
    /// So much, as far as it may still have been there when the last was put.
    pub held: Held,
    /// The number of the last.
    pub last: Seq,
}

impl Put {
    /// What may still wait of it where so much waits, up to that number: no more than there is, and, since devices read in
    /// order, no more than there is from before its last one.
    pub fn left(self, waiting: Held, last: Seq) -> Held {
        let since = u32::try_from(last.0.saturating_sub(self.last.0)).unwrap_or(u32::MAX);
        let before = waiting.envelopes.saturating_sub(since);
        if before == 0 {
            return Held::default();
        }
        Held {
            envelopes: self.held.envelopes.min(before),
            bytes: self.held.bytes.min(waiting.bytes),
        }
    }
}

/// What one sender may have in one queue.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// Of whom, where.
    pub of: SenderTag,
    /// What it has put there.
    pub put: Put,
    /// What it may have there.
    pub most: Held,
}

impl Share {
    /// Whether one more envelope fits, if the sender holds that much. One always does.
    pub fn takes(&self, held: Held, bytes: u64) -> bool {
        let with_it = held.plus(bytes);
        held.envelopes == 0 || (with_it.envelopes <= self.most.envelopes && with_it.bytes <= self.most.bytes)
    }
}

/// A device has the envelope: its row goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    /// The device's own queue.
    pub mailbox: MailboxId,
    /// Which envelope.
    pub seq: Seq,
}

/// Everything that one transaction carries.
#[derive(Clone, Default)]
pub struct Batch {
    /// Sends, in the order of arrival.
    pub deliveries: Vec<Delivery>,
    /// Acknowledged envelopes, in any order.
    pub acknowledgements: Vec<Acknowledgement>,
}

/// What became of a [`Delivery`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Enqueued {
    /// Durable.
    At(Placed),
    /// A device's queue has no room for its copy, or the sender's share of it has none. Nothing of this delivery was stored.
    QueueFull,
    /// A device is gone since its mailbox was looked up. Nothing of this delivery was stored.
    UnknownMailbox,
    /// A mailbox has another key than its copy was sealed to. Nothing of this delivery was stored.
    OtherKey,
}

/// Where the copies of a [`Delivery`] are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// One number per copy, in the order of the copies. None of a delivery that nobody wants.
    pub seqs: Vec<Seq>,
    /// What the sender has put into each queue now, in the order of its shares.
    pub put: Vec<Put>,
}

/// An envelope read from a queue.
#[derive(Clone)]
pub struct Stored {
    /// Its place.
    pub seq: Seq,
    /// What was enqueued.
    pub sealed: SealedEnvelope,
}

/// An envelope that is queued, as its device gets it.
#[derive(Clone)]
pub struct Queued {
    /// Its place.
    pub seq: Seq,
    /// The envelope.
    pub content: Bytes,
}

/// The highest number given out in a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The mailbox.
    pub mailbox: MailboxId,
    /// Its last number, [`Seq::START`] if it never had an envelope.
    pub last: Seq,
}

/// How much of a queue one read may return.
#[derive(Clone, Copy, Debug)]
pub struct PageLimit {
    /// Envelopes.
    pub envelopes: u32,
    /// Bytes of their size buckets; the first envelope is returned even if it alone is larger.
    pub bytes: usize,
}

/// How much one device's queue may hold.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// Envelopes.
    pub envelopes: u32,
    /// Bytes of their size buckets.
    pub bytes: u64,
}

opaque_debug!(SealedEnvelope, Copy, Delivery, SenderTag, Batch, Stored, Queued);
