//! "This device has something": hints from node to node.
//!
//! A hint may be lost, doubled or late, and costs only time then: what it hints at is in storage, and every node looks
//! there by itself on a tick. Three kinds carry what is nowhere else: an online-only envelope and a notice, which may be lost
//! by their nature, and the message to a device that is being linked, whose sender is told whether it was taken. Hints leave
//! a node only sealed.

mod codec;
mod local;
mod redis;

use bytes::Bytes;

use crate::domain::{Aci, MailboxId, Notice, ProvisioningAddress, Seq, Timestamp, TokenSessionId};

pub use codec::decode;
pub use local::SingleNode;
pub use redis::{RedisBus, RedisError};

/// One connection of one device, on one node. Later connections are greater, as far as the clocks of the nodes agree;
/// the random part makes it unique, so that of two connections every node keeps the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionId {
    /// When it was opened.
    pub since: Timestamp,
    /// Random.
    pub nonce: u64,
}

/// What a node tells the others.
#[derive(Clone, PartialEq, Eq)]
pub enum Hint {
    /// A mailbox has envelopes up to this number.
    Arrived(MailboxId, Seq),
    /// A device has connected; any older connection of it is to be closed.
    Connected(MailboxId, ConnectionId),
    /// A mailbox is gone with its device: its connection has lost its right.
    Gone(MailboxId),
    /// An account was changed: what is remembered of it is old.
    Changed(Aci),
    /// A session with tokens is over: its sockets have lost their right.
    SessionOver(TokenSessionId),
    /// An online-only envelope for whoever has this device's connection.
    Online(MailboxId, Bytes),
    /// What the server has to tell whoever has this device's connection.
    Notice(MailboxId, Notice),
    /// A message for whoever has the socket of this address.
    ProvisioningMessage {
        /// Of the device that is to be linked. On the heap: what is freed there is wiped, and places in a queue are not.
        address: Box<ProvisioningAddress>,
        /// Random, for the answer.
        request: u64,
        /// What the device is to get.
        message: Bytes,
    },
    /// The answer to [`Hint::ProvisioningMessage`], once the device has taken it. There is no other.
    ProvisioningTaken {
        /// As in the message.
        request: u64,
    },
    /// Hints may have been missed: look into storage.
    Missed,
}

impl std::fmt::Debug for Hint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Arrived(..) => "Arrived",
            Self::Connected(..) => "Connected",
            Self::Gone(_) => "Gone",
            Self::Changed(_) => "Changed",
            Self::SessionOver(_) => "SessionOver",
            Self::Online(..) => "Online",
            Self::Notice(..) => "Notice",
            Self::ProvisioningMessage { .. } => "ProvisioningMessage",
            Self::ProvisioningTaken { .. } => "ProvisioningTaken",
            Self::Missed => "Missed",
        })
    }
}

/// The way to the other nodes. What comes from them arrives at the callback that the bus was made with.
pub trait Bus: Send + Sync {
    /// Tells the other nodes, without waiting. Hints that cannot be sent are dropped and counted.
    fn publish(&self, hints: Vec<Hint>);

    /// Whether there may be other nodes, so that hints are worth making.
    fn reaches_others(&self) -> bool;

    /// Whether what other nodes say is heard here now, as far as is known.
    fn hears_others(&self) -> bool;
}
