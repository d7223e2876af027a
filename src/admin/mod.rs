//! What an operator may do through the admin socket: look at sums, suspend, resume and delete an account, invite, send the
//! clients of a node elsewhere, and read the log of all that.
//!
//! [`acts`] does it and has it written down, under the names of [`pseudonym`]; [`wire`] is what the socket and
//! `blind-relay admin` say to each other. The acts are given an [`AdminState`] and nothing else of a node: no queue, no key
//! directory, no way to sign or to open anything. So whoever reaches the socket can shut an account out, and can neither
//! read for it nor speak for it.

pub mod acts;
pub mod pseudonym;
pub mod wire;

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;

use crate::accounts::Invites;
use crate::domain::{Aci, Clock, Erased, MailboxId};
use crate::storage::{AdminStore, StorageError};

use pseudonym::Pseudonyms;

/// What the acts have to work with.
pub struct AdminState {
    /// Accounts, as far as the operator goes, and the log.
    pub store: Arc<dyn AdminStore>,
    /// Invites.
    pub invites: Invites,
    /// The names that accounts have in the log.
    pub pseudonyms: Pseudonyms,
    /// The rest of the node.
    pub surroundings: Arc<dyn Surroundings>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Since when the node runs.
    pub since: Instant,
}

/// What the rest of a node does for the acts. Nothing of it tells anything about one account.
#[async_trait]
pub trait Surroundings: Send + Sync {
    /// Has every node forget what it remembers of an account, and ends the connections of these mailboxes.
    fn account_changed(&self, account: Aci, ended: &[MailboxId]);

    /// Removes the pictures of an account's profiles. To be called before the account is erased: whose they are is known only
    /// as long as there are profiles.
    async fn retire_pictures(&self, account: Aci) -> Result<(), StorageError>;

    /// Removes what an erased account leaves behind outside the rows that named it, and tells every node.
    async fn erased(&self, account: Aci, erased: Erased);

    /// Begins to send clients elsewhere, or lets them in again.
    fn drain(&self, on: bool);

    /// What is open on this node now.
    fn connections(&self) -> Connections;

    /// How often each limit has refused here since the start.
    fn refused(&self) -> Vec<(&'static str, u64)>;
}

/// What is open on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connections {
    /// Devices that are connected to fetch what comes for them.
    pub devices: usize,
    /// WebSockets, whatever they are for.
    pub sockets: usize,
    /// Whether clients are being sent elsewhere.
    pub draining: bool,
}
