//! What every handler can reach.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::accounts::{Linker, Registrar, Verifier};
use crate::attachments::Attachments;
use crate::auth::{Authenticator, ServerSecrets, Tokens};
use crate::calling::Relays;
use crate::certificates::Issuer;
use crate::directory::Directory;
use crate::domain::Clock;
use crate::limits::Limits;
use crate::provisioning::Provisioning;
use crate::relay::Relay;
use crate::relay::session::SessionLimits;
use crate::storage::Storage;

use super::account_data::DataBounds;
use super::attachments::UploadBy;
use super::drain::Drain;
use super::etag::TaggedJson;
use super::export::Exports;
use super::pace::Pace;
use super::waits::Waits;

/// Shared by all handlers of a node.
pub struct Node {
    /// Accounts, keys, queue.
    pub storage: Storage,
    /// Sends, connections, accounts in memory.
    pub relay: Relay,
    /// When answers of sends leave.
    pub pace: Pace,
    /// Messages to devices that are about to be linked.
    pub provisioning: Provisioning,
    /// Checks passwords.
    pub authenticator: Authenticator,
    /// Sessions with tokens.
    pub tokens: Arc<Tokens>,
    /// Of which sites pages may open sockets here, beside this server's own.
    pub allowed_origins: Arc<[String]>,
    /// Keys derived from the pepper.
    pub secrets: Arc<ServerSecrets>,
    /// Verification sessions.
    pub verifier: Arc<Verifier>,
    /// Registrations.
    pub registrar: Registrar,
    /// Linked devices.
    pub linker: Linker,
    /// Waits of devices for others.
    pub waits: Waits,
    /// Exports that are under way.
    pub exports: Exports,
    /// Issues sender certificates.
    pub issuer: Issuer,
    /// Hands keys out.
    pub directory: Directory,
    /// How often anyone may do anything.
    pub limits: Limits,
    /// What the operator tells all clients.
    pub remote_config: TaggedJson,
    /// The operator's TURN servers, if there are any.
    pub turn: Option<Relays>,
    /// Attachments.
    pub attachments: Arc<Attachments>,
    /// How forms tell clients to upload them.
    pub upload_by: UploadBy,
    /// How long an upload or a download may stand still.
    pub attachment_idle: Duration,
    /// Under which URL clients reach this server, if the operator says.
    pub public_url: Option<Arc<str>>,
    /// Bounds of what an account keeps for its own devices.
    pub data: DataBounds,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Bounds of WebSockets.
    pub sockets: SocketLimits,
    /// The WebSockets that are open, and whether they are to go elsewhere.
    pub drain: Arc<Drain>,
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
    /// The same silence for a device that is about to be linked.
    pub provisioning_idle: Duration,
    /// How long such a device may wait.
    pub provisioning_lifetime: Duration,
}

impl Node {
    /// Frees the memory of what is remembered for a while only. To be called now and then.
    pub fn tidy(&self) {
        self.relay.accounts.tidy();
        self.relay.shares.tidy();
        self.authenticator.tidy();
        self.directory.tidy();
        self.limits.tidy();
    }
}

/// The form in which handlers are given it.
pub type AppState = Arc<Node>;
