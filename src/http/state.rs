//! What every handler can reach.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::accounts::{Registrar, Verifier};
use crate::auth::{Authenticator, ServerSecrets};
use crate::domain::Clock;
use crate::relay::Relay;
use crate::relay::session::SessionLimits;
use crate::storage::Storage;

use super::fetch_limit::FetchLimit;

/// Shared by all handlers of a node.
pub struct Node {
    /// Accounts, keys, queue.
    pub storage: Storage,
    /// Sends, connections, accounts in memory.
    pub relay: Relay,
    /// Checks passwords.
    pub authenticator: Authenticator,
    /// Keys derived from the pepper.
    pub secrets: Arc<ServerSecrets>,
    /// Verification sessions.
    pub verifier: Arc<Verifier>,
    /// Registrations.
    pub registrar: Registrar,
    /// Whether numbers may be registered.
    pub registration_open: bool,
    /// Bounds how often one caller takes bundles of one target.
    pub fetch_limit: FetchLimit,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Bounds of WebSockets.
    pub sockets: SocketLimits,
    /// The tasks of WebSockets.
    pub tasks: TaskTracker,
    /// Cancelled when WebSockets are to close.
    pub stop: CancellationToken,
}

/// Bounds of WebSockets.
#[derive(Clone, Copy, Debug)]
pub struct SocketLimits {
    /// The largest message that is read, in bytes.
    pub max_message: usize,
    /// A socket from which nothing comes for so long is closed.
    pub idle: Duration,
    /// Bounds of delivery.
    pub session: SessionLimits,
}

/// The form in which handlers are given it.
pub type AppState = Arc<Node>;
