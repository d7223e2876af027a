//! Accepts a send: are these the recipient's devices, is there room, is it durable?

use std::sync::Arc;
use std::time::Duration;

use keys_schema::sealed_queue::QueuePublicKey;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::domain::{Account, Aci, Clock, Copy, Delivery, Device, DeviceId, Enqueued, IdentityKind, MailboxId, Placed};
use crate::sealing::queue::{InterimKeys, QueueSeals};
use crate::sealing::random;
use crate::storage::{AccountCache, EnvelopeQueue, StorageError};
use crate::telemetry::metrics;
use crate::wakeup::{Bus, ConnectionId, Hint};

use super::bell::Bell;
use super::devices::{DeviceMismatch, OutgoingCopy, check_devices};
use super::direct::{Direct, Way, store};
use super::even::{EvenTimes, Went};
use super::presence::{Presence, Ticket};
use super::shares::{Sender, Shares};
use super::writer::{Outgoing, QueueUnavailable, Writer};

/// The relay of one node.
pub struct Relay {
    /// Accounts and their devices.
    pub accounts: Arc<AccountCache>,
    /// Where envelopes wait.
    pub queue: Arc<dyn EnvelopeQueue>,
    /// Seals what goes into it.
    pub seals: Arc<QueueSeals>,
    /// Keys of mailboxes whose device has not brought its own yet.
    pub interim: InterimKeys,
    /// The way into it.
    pub writer: Writer,
    /// What one sender may have in it.
    pub shares: Arc<Shares>,
    /// The connections of this node.
    pub presence: Arc<Presence>,
    /// Whether connections are offered what is not written yet.
    pub direct: DirectDelivery,
    /// Makes sends take as long whether they are written or not.
    pub times: EvenTimes,
    /// The way to other nodes.
    pub bus: Arc<dyn Bus>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Days that an envelope waits for its device.
    pub retention_days: u16,
    /// The largest content of one copy, in bytes.
    pub max_content: usize,
    /// Bytes that messages to many may hold in memory.
    pub fan_out_room: Semaphore,
    /// Queues that are sealed anew at the same time. Each may be large, and holds its mailbox meanwhile.
    pub rekeying: Semaphore,
}

/// Whether envelopes are offered to connections before they are written, and for how long their acknowledgement is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectDelivery {
    /// They are written first.
    Off,
    /// They are offered, and written when so much time has passed.
    After(Duration),
}

impl DirectDelivery {
    fn linger(self) -> Option<Duration> {
        match self {
            Self::Off => None,
            Self::After(linger) => Some(linger),
        }
    }
}

/// Where a send comes from.
#[derive(Clone, Copy)]
pub struct Origin {
    /// The sending device when it is one of the recipient's own: it gets no copy, and has no share of the others' queues.
    pub own_device: Option<DeviceId>,
    /// Whose share of the recipient's queues it is.
    pub sender: Sender,
    /// The recipient does not want to hear from it: its message goes no further, and it is not told.
    pub unwanted: bool,
}

/// What became of a send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    /// On every device durable, or acknowledged by it; or, if online-only, given to the connections there are.
    Accepted,
    /// Nothing was stored: the sender must correct its list of devices.
    Mismatch(DeviceMismatch),
    /// Nothing was stored: a copy is larger than the limit.
    TooLarge,
    /// Nothing was stored: a device's queue is full.
    QueueFull,
    /// The account was deleted meanwhile.
    UnknownAccount,
}

impl SendOutcome {
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Mismatch(mismatch) if mismatch.stale.is_empty() => "mismatched_devices",
            Self::Mismatch(_) => "stale_devices",
            Self::TooLarge => "too_large",
            Self::QueueFull => "queue_full",
            Self::UnknownAccount => "unknown_account",
        }
    }
}

impl Relay {
    /// Sends one message to the devices of an account. On `Accepted` every copy is committed or acknowledged by
    /// its device, unless it is unwanted; on anything else nothing is committed.
    pub async fn send(
        &self,
        account: Arc<Account>,
        kind: IdentityKind,
        copies: Vec<OutgoingCopy>,
        origin: Origin,
        online_only: bool,
    ) -> Result<SendOutcome, QueueUnavailable> {
        let began = Instant::now();
        let (outcome, went) = self.send_uneven(account, kind, copies, origin, online_only).await?;
        if let Some(went) = went {
            self.times.note(began, went);
            self.times.over(began, went).await;
        }
        Ok(outcome)
    }

    /// As [`Self::send`], and says at once how it went; `None` if nothing was to be written.
    pub(super) async fn send_uneven(
        &self,
        account: Arc<Account>,
        kind: IdentityKind,
        copies: Vec<OutgoingCopy>,
        origin: Origin,
        online_only: bool,
    ) -> Result<(SendOutcome, Option<Went>), QueueUnavailable> {
        let sent = self.send_uncounted(account, kind, copies, origin, online_only).await;
        metrics::send(sent.as_ref().map_or("unavailable", |(outcome, _)| outcome.label()));
        sent
    }

    async fn send_uncounted(
        &self,
        mut account: Arc<Account>,
        kind: IdentityKind,
        copies: Vec<OutgoingCopy>,
        origin: Origin,
        online_only: bool,
    ) -> Result<(SendOutcome, Option<Went>), QueueUnavailable> {
        let mut looks = 0;
        let named: Vec<_> = copies.iter().map(|copy| copy.device).collect();
        loop {
            let refusal = match check_devices(&account, kind, &named, origin.own_device) {
                Err(mismatch) => SendOutcome::Mismatch(mismatch),
                Ok(_) if copies.iter().any(|copy| copy.content_bytes > self.max_content) => {
                    return Ok((SendOutcome::TooLarge, None));
                }
                Ok(mailboxes) if online_only => {
                    if !origin.unwanted {
                        self.send_online(&mailboxes, copies);
                    }
                    return Ok((SendOutcome::Accepted, None));
                }
                Ok(mailboxes) => match self.enqueue(&account, &mailboxes, &copies, origin).await? {
                    (Enqueued::At(_), went) => return Ok((SendOutcome::Accepted, Some(went))),
                    (Enqueued::QueueFull, _) => return Ok((SendOutcome::QueueFull, None)),
                    (Enqueued::UnknownMailbox | Enqueued::OtherKey, _) => SendOutcome::UnknownAccount,
                },
            };
            // A refusal may come from what was remembered of the account. Before the sender is told, look again.
            match refusal {
                // A device or its key changed once more while we were at it.
                SendOutcome::UnknownAccount if looks < LOOKS => {}
                SendOutcome::UnknownAccount => return Err(QueueUnavailable),
                refusal if looks > 0 => return Ok((refusal, None)),
                _ => {}
            }
            let id = account.service_id(kind);
            match self.accounts.find_fresh(&id).await.map_err(unavailable)? {
                Some(found) => account = found,
                None => return Ok((SendOutcome::UnknownAccount, None)),
            }
            looks += 1;
        }
    }

    async fn enqueue(
        &self,
        account: &Account,
        mailboxes: &[MailboxId],
        copies: &[OutgoingCopy],
        origin: Origin,
    ) -> Result<(Enqueued, Went), QueueUnavailable> {
        let Some(devices) = devices(account, mailboxes) else {
            return Ok((Enqueued::UnknownMailbox, Went::Written));
        };
        let (ways, went) = self.ways(&devices, copies, origin.unwanted).await;
        // What is left to be written.
        let (mut mailboxes, mut sealed, mut outgoing) = (Vec::new(), Vec::new(), Vec::new());
        for ((device, copy), way) in devices.into_iter().zip(copies).zip(ways) {
            let Some(way) = way else { continue };
            let Some(copy_sealed) = self.seal(device, copy) else {
                return Ok((Enqueued::UnknownMailbox, went));
            };
            mailboxes.push(device.mailbox);
            sealed.push(copy_sealed);
            outgoing.push(Outgoing {
                envelope: copy.envelope.clone(),
                way,
            });
        }
        if outgoing.is_empty() {
            return Ok((Enqueued::At(Placed::default()), went));
        }
        let delivery = Delivery {
            copies: sealed,
            // One more day, because a day is all that is kept of the time: nothing expires early.
            expires: self.clock.now().day().plus(i32::from(self.retention_days) + 1),
            // What never arrives takes no share: one who is blocked would go on being refused when nobody else is.
            shares: if origin.own_device.is_some() || origin.unwanted {
                Vec::new()
            } else {
                self.shares.of(&origin.sender, &mailboxes)
            },
            unwanted: origin.unwanted,
        };
        Ok((self.writer.deliver(account.aci, delivery, outgoing).await?, went))
    }

    /// For each copy the way into storage that it has to take, or `None` if its device has acknowledged it. All devices are
    /// offered theirs, and given the linger for it, if all are connected here and have what came before.
    async fn ways(&self, devices: &[&Device], copies: &[OutgoingCopy], unwanted: bool) -> (Vec<Option<Way>>, Went) {
        if let Some(linger) = self.direct.linger()
            && !unwanted
            && self.bus.hears_others()
        {
            let each = devices.iter().zip(copies);
            let each: Vec<_> = each
                .map(|(device, copy)| (device.mailbox, &device.queue_key, &copy.envelope))
                .collect();
            if let Some(direct) = Direct::offer(&self.presence, &each) {
                let left = direct.wait(linger).await;
                let acknowledged = left.iter().filter(|copy| copy.is_none()).count();
                metrics::offered_and_acknowledged(acknowledged);
                let went = if acknowledged == copies.len() {
                    Went::Acknowledged
                } else {
                    Went::Lingered
                };
                return (left.into_iter().map(|copy| copy.map(Way::Offered)).collect(), went);
            }
        }
        let each: Vec<_> = devices
            .iter()
            .map(|device| (device.mailbox, &device.queue_key))
            .collect();
        let ways = store(&self.presence, &each).await;
        (ways.into_iter().map(Some).collect(), Went::Written)
    }

    fn seal(&self, device: &Device, copy: &OutgoingCopy) -> Option<Copy> {
        let mailbox = device.mailbox;
        let sealed = self
            .seals
            .seal(mailbox, &device.queue_key, copy.content_bytes, &copy.envelope);
        Some(Copy {
            mailbox,
            key: device.queue_key,
            sealed: sealed
                .inspect_err(|error| tracing::error!(%error, "a send was refused"))
                .ok()?,
        })
    }

    fn send_online(&self, mailboxes: &[MailboxId], copies: Vec<OutgoingCopy>) {
        let mut hints = Vec::new();
        for (mailbox, copy) in mailboxes.iter().zip(copies) {
            if !self.presence.online(*mailbox, copy.envelope.clone()) && self.bus.reaches_others() {
                hints.push(Hint::Online(*mailbox, copy.envelope));
            }
        }
        if !hints.is_empty() {
            self.bus.publish(hints);
        }
    }

    /// A connection that is asked for now. Which one of a device is the newest is decided by this moment.
    pub fn ticket(&self) -> Ticket {
        self.presence.ticket(ConnectionId {
            since: self.clock.now(),
            nonce: u64::from_be_bytes(random()),
        })
    }

    /// Enters a connection of a device and displaces its older ones, on every node.
    pub fn connect(&self, mailbox: MailboxId, ticket: Ticket, key: QueuePublicKey) -> Arc<Bell> {
        let bell = self.presence.enter(mailbox, ticket, key);
        self.bus.publish(vec![Hint::Connected(mailbox, ticket.connection)]);
        bell
    }

    /// Has every node forget what it remembers of an account of which a device has another password, and names the moment:
    /// connections from before it are to end.
    pub fn password_changed(&self, account: Aci) -> ConnectionId {
        self.account_changed(account, &[]);
        ConnectionId {
            since: self.clock.now(),
            nonce: u64::MAX,
        }
    }

    /// Ends the connections of a device, on every node, that are older than the one named.
    pub fn displace(&self, mailbox: MailboxId, by: ConnectionId) {
        self.presence.displaced(mailbox, by);
        self.bus.publish(vec![Hint::Connected(mailbox, by)]);
    }

    /// Ends the connections of devices that are gone, on every node, and has every node forget what it remembers of
    /// their account. To be called after the change is durable.
    pub fn account_changed(&self, account: Aci, gone: &[MailboxId]) {
        self.accounts.forget(account);
        let mut hints = vec![Hint::Changed(account)];
        for mailbox in gone {
            self.presence.gone(*mailbox);
            hints.push(Hint::Gone(*mailbox));
        }
        self.bus.publish(hints);
    }
}

/// The devices of those mailboxes; `None` if the account, as it is remembered, has not got one of them.
fn devices<'account>(account: &'account Account, mailboxes: &[MailboxId]) -> Option<Vec<&'account Device>> {
    let find = |mailbox: &MailboxId| account.devices.iter().find(|device| device.mailbox == *mailbox);
    mailboxes.iter().map(find).collect()
}

/// How often a send looks at its recipient anew, whose devices change at the same time.
const LOOKS: u8 = 5;

pub(super) fn unavailable(error: StorageError) -> QueueUnavailable {
    tracing::error!(cause = error.log_safe_cause(), "an account could not be read");
    QueueUnavailable
}
