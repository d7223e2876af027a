//! Accepts a send: are these the recipient's devices, is there room, is it durable?

use std::sync::Arc;

use bytes::Bytes;

use crate::domain::{
    Account, Acknowledgement, Clock, Copy, Delivery, DeviceId, Enqueued, IdentityKind, MailboxId, PageLimit, Queued,
    Seq,
};
use crate::sealing::random;
use crate::storage::{AccountCache, EnvelopeQueue, StorageError};
use crate::telemetry::metrics;
use crate::wakeup::{Bus, ConnectionId, Hint};

use super::presence::{Bell, Presence};
use super::writer::{QueueUnavailable, Writer};

/// The relay of one node.
pub struct Relay {
    /// Accounts and their devices.
    pub accounts: Arc<AccountCache>,
    /// Where envelopes wait.
    pub queue: Arc<dyn EnvelopeQueue>,
    /// The way into it.
    pub writer: Writer,
    /// The connections of this node.
    pub presence: Arc<Presence>,
    /// The way to other nodes.
    pub bus: Arc<dyn Bus>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Days that an envelope waits for its device.
    pub retention_days: u16,
    /// The largest content of one copy, in bytes.
    pub max_content: usize,
}

/// One copy of a send, as its sender addressed it.
#[derive(Clone)]
pub struct OutgoingCopy {
    /// The device the sender means.
    pub device_id: DeviceId,
    /// The registration id the sender knows.
    pub registration_id: u32,
    /// Size of the ciphertext alone, in bytes.
    pub content_bytes: usize,
    /// The envelope as it will be delivered.
    pub envelope: Bytes,
}

/// How the devices a sender named differ from those that there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceMismatch {
    /// Sessions with these devices are with an earlier registration of theirs.
    Stale(Vec<DeviceId>),
    /// The set of devices is another.
    Other {
        /// There are these, too.
        missing: Vec<DeviceId>,
        /// These do not exist.
        extra: Vec<DeviceId>,
    },
}

/// What became of a send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    /// Durable on every device; or, if online-only, given to the connections there are.
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
    fn label(&self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Mismatch(DeviceMismatch::Stale(_)) => "stale_devices",
            Self::Mismatch(DeviceMismatch::Other { .. }) => "mismatched_devices",
            Self::TooLarge => "too_large",
            Self::QueueFull => "queue_full",
            Self::UnknownAccount => "unknown_account",
        }
    }
}

impl Relay {
    /// Sends one message to the devices of an account. `sender` is the sending device when it is one of the account's
    /// own: it gets no copy. On `Accepted` every copy is committed; on anything else nothing is.
    pub async fn send(
        &self,
        account: Arc<Account>,
        kind: IdentityKind,
        copies: Vec<OutgoingCopy>,
        sender: Option<DeviceId>,
        online_only: bool,
    ) -> Result<SendOutcome, QueueUnavailable> {
        let outcome = self.send_uncounted(account, kind, copies, sender, online_only).await;
        metrics::send(outcome.as_ref().map_or("unavailable", SendOutcome::label));
        outcome
    }

    async fn send_uncounted(
        &self,
        mut account: Arc<Account>,
        kind: IdentityKind,
        copies: Vec<OutgoingCopy>,
        sender: Option<DeviceId>,
        online_only: bool,
    ) -> Result<SendOutcome, QueueUnavailable> {
        let mut fresh = false;
        loop {
            let refusal = match check_devices(&account, kind, &copies, sender) {
                Err(mismatch) => SendOutcome::Mismatch(mismatch),
                Ok(_) if copies.iter().any(|copy| copy.content_bytes > self.max_content) => {
                    return Ok(SendOutcome::TooLarge);
                }
                Ok(mailboxes) if online_only => {
                    self.send_online(&mailboxes, copies);
                    return Ok(SendOutcome::Accepted);
                }
                Ok(mailboxes) => match self.enqueue(&account, &mailboxes, &copies).await? {
                    Enqueued::At(_) => return Ok(SendOutcome::Accepted),
                    Enqueued::QueueFull => return Ok(SendOutcome::QueueFull),
                    Enqueued::UnknownMailbox => SendOutcome::UnknownAccount,
                },
            };
            // A refusal may come from what was remembered of the account. Before the sender is told, look again.
            if fresh {
                return match refusal {
                    // The device changed once more while we were at it. The sender's retry will see it.
                    SendOutcome::UnknownAccount => Err(QueueUnavailable),
                    refusal => Ok(refusal),
                };
            }
            let id = account.service_id(kind);
            match self.accounts.find_fresh(&id).await.map_err(unavailable)? {
                Some(found) => account = found,
                None => return Ok(SendOutcome::UnknownAccount),
            }
            fresh = true;
        }
    }

    async fn enqueue(
        &self,
        account: &Account,
        mailboxes: &[MailboxId],
        copies: &[OutgoingCopy],
    ) -> Result<Enqueued, QueueUnavailable> {
        let copies = mailboxes
            .iter()
            .zip(copies)
            .map(|(mailbox, copy)| Copy {
                mailbox: *mailbox,
                content: copy.envelope.clone(),
            })
            .collect();
        // One more day, because a day is all that is kept of the time: nothing expires early.
        let expires = self.clock.now().day().plus(i32::from(self.retention_days) + 1);
        self.writer.deliver(account.aci, Delivery { copies, expires }).await
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

    /// Enters a connection of a device and displaces its others, on every node.
    pub fn connect(&self, mailbox: MailboxId) -> (ConnectionId, Arc<Bell>) {
        let connection = ConnectionId {
            since: self.clock.now(),
            nonce: u64::from_be_bytes(random()),
        };
        let bell = self.presence.enter(mailbox, connection);
        self.bus.publish(vec![Hint::Connected(mailbox, connection)]);
        (connection, bell)
    }

    /// The head of a mailbox; `None` if its device is gone.
    pub async fn head(&self, mailbox: MailboxId) -> Result<Option<Seq>, StorageError> {
        Ok(self.queue.heads(&[mailbox]).await?.first().map(|head| head.last))
    }

    /// A page of a queue.
    pub async fn pending(&self, mailbox: MailboxId, after: Seq, limit: PageLimit) -> Result<Vec<Queued>, StorageError> {
        self.queue.pending(mailbox, after, limit).await
    }

    /// Acknowledges one envelope and returns once that is durable.
    pub async fn acknowledge_durably(
        &self,
        account: &Account,
        acknowledgement: Acknowledgement,
    ) -> Result<(), QueueUnavailable> {
        self.writer
            .acknowledge_durably(account.aci, vec![acknowledgement])
            .await
    }

    /// Ends the connections of devices that are gone, on every node, and has every node forget what it remembers of
    /// their account. To be called after the change is durable.
    pub fn account_changed(&self, account: crate::domain::Aci, gone: &[MailboxId]) {
        self.accounts.forget(account);
        let mut hints = vec![Hint::Changed(account)];
        for mailbox in gone {
            self.presence.gone(*mailbox);
            hints.push(Hint::Gone(*mailbox));
        }
        self.bus.publish(hints);
    }
}

/// What a node does with the hint of another, and what it answers.
pub fn receive_hint(hint: Hint, presence: &Presence, accounts: &AccountCache) -> Vec<Hint> {
    match hint {
        Hint::Arrived(mailbox, seq) => {
            if presence.hinted(mailbox, seq) {
                metrics::woken("hint");
            }
        }
        Hint::Connected(mailbox, connection) => {
            let newer = presence.displaced(mailbox, connection);
            return newer.into_iter().map(|newer| Hint::Connected(mailbox, newer)).collect();
        }
        Hint::Gone(mailbox) => presence.gone(mailbox),
        Hint::Changed(account) => accounts.forget(account),
        Hint::Online(mailbox, envelope) => {
            presence.online(mailbox, envelope);
        }
        Hint::Missed => {
            accounts.forget_all();
            presence.look_all();
            // Devices may have connected twice meanwhile, here and elsewhere.
            let here = presence.connections().into_iter();
            return here
                .map(|(mailbox, connection)| Hint::Connected(mailbox, connection))
                .collect();
        }
    }
    Vec::new()
}

/// The mailbox of each copy, in the order of the copies, if they name exactly the devices that there are.
///
/// Old registrations are reported before a wrong set of devices: a sender that learns of both at once corrects the
/// sessions first.
fn check_devices(
    account: &Account,
    kind: IdentityKind,
    copies: &[OutgoingCopy],
    sender: Option<DeviceId>,
) -> Result<Vec<MailboxId>, DeviceMismatch> {
    let mut mailboxes = Vec::with_capacity(copies.len());
    let mut stale = Vec::new();
    let mut extra = Vec::new();
    for copy in copies {
        match account.device(copy.device_id) {
            None => extra.push(copy.device_id),
            Some(device) if u32::from(device.registration_id(kind).get()) != copy.registration_id => {
                stale.push(device.id);
            }
            Some(device) => mailboxes.push(device.mailbox),
        }
    }
    if !stale.is_empty() {
        return Err(DeviceMismatch::Stale(stale));
    }
    let named = |id: DeviceId| copies.iter().any(|copy| copy.device_id == id);
    let missing: Vec<_> = account
        .devices
        .iter()
        .map(|device| device.id)
        .filter(|id| Some(*id) != sender && !named(*id))
        .collect();
    if missing.is_empty() && extra.is_empty() {
        Ok(mailboxes)
    } else {
        Err(DeviceMismatch::Other { missing, extra })
    }
}

fn unavailable(error: StorageError) -> QueueUnavailable {
    tracing::error!(cause = error.log_safe_cause(), "an account could not be read");
    QueueUnavailable
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Device, RegistrationId};
    use crate::storage::conformance::fixtures::{account, device};

    const NOBODY: Option<DeviceId> = None;

    fn id(id: u64) -> DeviceId {
        DeviceId::new(id).unwrap()
    }

    /// Devices 1, 2 and 3, with mailboxes 10, 20 and 30 and registration ids 101, 102 and 103.
    fn three_devices() -> Account {
        let devices = [1, 2, 3].map(|n| Device {
            id: id(n),
            registration_id: RegistrationId::new(100 + n).unwrap(),
            pni_registration_id: RegistrationId::new(200 + n).unwrap(),
            ..device(1, i64::try_from(n).unwrap() * 10)
        });
        Account {
            devices: devices.to_vec(),
            ..account(1, 10)
        }
    }

    fn copies(named: &[(u64, u32)]) -> Vec<OutgoingCopy> {
        let copy = |(device, registration_id): &(u64, u32)| OutgoingCopy {
            device_id: id(*device),
            registration_id: *registration_id,
            content_bytes: 1,
            envelope: Bytes::new(),
        };
        named.iter().map(copy).collect()
    }

    fn check(
        kind: IdentityKind,
        named: &[(u64, u32)],
        sender: Option<DeviceId>,
    ) -> Result<Vec<MailboxId>, DeviceMismatch> {
        check_devices(&three_devices(), kind, &copies(named), sender)
    }

    #[test]
    fn exactly_the_devices_that_there_are_get_a_copy_in_the_order_they_were_named() {
        let mailboxes = check(IdentityKind::Aci, &[(3, 103), (1, 101), (2, 102)], NOBODY);
        assert_eq!(mailboxes, Ok(vec![MailboxId(30), MailboxId(10), MailboxId(20)]));
    }

    #[test]
    fn each_namespace_has_its_own_registration_ids() {
        assert!(check(IdentityKind::Pni, &[(1, 201), (2, 202), (3, 203)], NOBODY).is_ok());
        let stale = check(IdentityKind::Pni, &[(1, 101), (2, 202), (3, 203)], NOBODY);
        assert_eq!(stale, Err(DeviceMismatch::Stale(vec![id(1)])));
    }

    #[test]
    fn missing_and_extra_devices_are_named_together() {
        let other = check(IdentityKind::Aci, &[(1, 101), (9, 1)], NOBODY);
        assert_eq!(
            other,
            Err(DeviceMismatch::Other {
                missing: vec![id(2), id(3)],
                extra: vec![id(9)]
            })
        );
    }

    #[test]
    fn stale_devices_are_reported_before_a_wrong_set() {
        let stale = check(IdentityKind::Aci, &[(1, 999), (9, 1)], NOBODY);
        assert_eq!(stale, Err(DeviceMismatch::Stale(vec![id(1)])));
    }

    #[test]
    fn the_sending_device_needs_no_copy_of_its_own_message() {
        assert!(check(IdentityKind::Aci, &[(2, 102), (3, 103)], Some(id(1))).is_ok());
        assert!(check(IdentityKind::Aci, &[(3, 103)], Some(id(1))).is_err());
    }
}
