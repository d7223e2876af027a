//! One message to many accounts.
//!
//! Every recipient gets a copy of its own, made from one message in memory only when its turn comes, and each account's
//! copies are one delivery: what is remembered, refused and committed is as for a send to that account alone. Before the
//! first delivery all recipients' devices are checked, so that a sender who has to correct its list has sent nothing.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time::Instant;

use crate::domain::{Account, IdentityKind, ServiceId};
use crate::telemetry::metrics;

use super::accept::{Origin, Relay, SendOutcome, unavailable};
use super::devices::{DeviceMismatch, NamedDevice, OutgoingCopy, check_devices};
use super::shares::Sender;
use super::writer::QueueUnavailable;

/// One account that a message goes to.
#[derive(Clone)]
pub struct Addressee {
    /// The account.
    pub account: Arc<Account>,
    /// The namespace in which it is addressed.
    pub kind: IdentityKind,
    /// Its devices, as the sender knows them.
    pub devices: Vec<NamedDevice>,
    /// Size of the ciphertext for each of them, in bytes.
    pub content_bytes: usize,
    /// What is sent to it goes no further.
    pub unwanted: bool,
}

/// What became of a send to many accounts. The indices are those of the addressees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FanOutOutcome {
    /// As for a send to one account, for all of them but these, whose queue is full or who are gone.
    Accepted {
        /// Whom the message did not reach.
        unreached: Vec<usize>,
    },
    /// The sender must correct its list of devices of these. Unless their devices changed during the send, nobody was
    /// sent anything.
    Mismatch(Vec<(usize, DeviceMismatch)>),
    /// A copy is larger than the limit. Nobody was sent anything.
    TooLarge,
    /// All copies together are larger than the limit. Nobody was sent anything.
    TooMuch,
}

impl Relay {
    /// Sends one message to all addressees. `envelope` makes the envelope of one of them; it is called when that
    /// addressee's turn has come, so that the copies that are in memory at the same time are few.
    pub async fn fan_out(
        &self,
        mut addressees: Vec<Addressee>,
        envelope: impl Fn(usize) -> Bytes,
        sender: Sender,
        online_only: bool,
    ) -> Result<FanOutOutcome, QueueUnavailable> {
        if addressees
            .iter()
            .any(|addressee| addressee.content_bytes > self.max_content)
        {
            metrics::send(SendOutcome::TooLarge.label());
            return Ok(FanOutOutcome::TooLarge);
        }
        if all_bytes(&addressees) > MAX_BYTES {
            metrics::send(SendOutcome::TooLarge.label());
            return Ok(FanOutOutcome::TooMuch);
        }
        let began = Instant::now();
        let mut mismatches = check_all(&addressees);
        if !mismatches.is_empty() {
            // They may come from what was remembered of the accounts. Before the sender is told, look again, at all of them:
            // its next attempt is to be right.
            self.refresh(&mut addressees).await?;
            mismatches = check_all(&addressees);
        }
        if !mismatches.is_empty() {
            metrics::send(SendOutcome::Mismatch(mismatches[0].1.clone()).label());
            return Ok(FanOutOutcome::Mismatch(mismatches));
        }
        let envelope = &envelope;
        let sends = addressees.into_iter().enumerate().map(|(index, addressee)| async move {
            // The envelope, and what is sealed of it for each device.
            let sealed = addressee.devices.len() * (2 * addressee.content_bytes + SEALED_LEAST);
            let bytes = u32::try_from((addressee.content_bytes + sealed).min(FAN_OUT_ROOM)).unwrap_or(u32::MAX);
            let _room = self
                .fan_out_room
                .acquire_many(bytes)
                .await
                .map_err(|_| QueueUnavailable)?;
            let copies = addressee.copies(&envelope(index));
            let origin = Origin {
                own_device: None,
                sender,
                unwanted: addressee.unwanted,
            };
            let sent = self.send_uneven(addressee.account, addressee.kind, copies, origin, online_only);
            let (outcome, went) = sent.await?;
            Ok::<_, QueueUnavailable>((index, outcome, went))
        });
        let outcomes: Vec<_> = stream::iter(sends).buffer_unordered(AT_ONCE).try_collect().await?;
        if let Some(went) = outcomes.iter().filter_map(|(_, _, went)| *went).max() {
            self.times.over(began, went).await;
        }
        let mut unreached = Vec::new();
        let mut changed = Vec::new();
        for (index, outcome, _) in outcomes {
            match outcome {
                SendOutcome::Accepted => {}
                SendOutcome::QueueFull | SendOutcome::UnknownAccount => unreached.push(index),
                SendOutcome::Mismatch(mismatch) => changed.push((index, mismatch)),
                SendOutcome::TooLarge => return Ok(FanOutOutcome::TooLarge),
            }
        }
        Ok(if changed.is_empty() {
            unreached.sort_unstable();
            FanOutOutcome::Accepted { unreached }
        } else {
            FanOutOutcome::Mismatch(changed)
        })
    }

    /// Reads the accounts anew. Those that are gone are left as they were remembered: the delivery finds that out.
    async fn refresh(&self, addressees: &mut [Addressee]) -> Result<(), QueueUnavailable> {
        let ids: Vec<_> = addressees
            .iter()
            .map(|addressee| ServiceId::Aci(addressee.account.aci))
            .collect();
        let fresh = self.accounts.find_all_fresh(&ids).await.map_err(unavailable)?;
        let fresh: HashMap<_, _> = fresh.into_iter().map(|account| (account.aci, account)).collect();
        for addressee in addressees {
            if let Some(account) = fresh.get(&addressee.account.aci) {
                addressee.account = Arc::clone(account);
            }
        }
        Ok(())
    }
}

impl Addressee {
    /// Views onto one envelope: all devices of an account are sent the same bytes.
    fn copies(&self, envelope: &Bytes) -> Vec<OutgoingCopy> {
        self.devices
            .iter()
            .map(|device| OutgoingCopy {
                device: *device,
                content_bytes: self.content_bytes,
                envelope: envelope.clone(),
            })
            .collect()
    }
}

/// What all copies have together.
fn all_bytes(addressees: &[Addressee]) -> usize {
    let copies = |addressee: &Addressee| addressee.content_bytes.saturating_mul(addressee.devices.len());
    addressees.iter().map(copies).fold(0, usize::saturating_add)
}

fn check_all(addressees: &[Addressee]) -> Vec<(usize, DeviceMismatch)> {
    let check = |(index, addressee): (usize, &Addressee)| {
        let checked = check_devices(&addressee.account, addressee.kind, &addressee.devices, None);
        Some((index, checked.err()?))
    };
    addressees.iter().enumerate().filter_map(check).collect()
}

/// Accounts that are delivered to at the same time. They wait for the same few commits, so more would only hold more
/// copies in memory.
const AT_ONCE: usize = 256;
/// All copies of one message: a message of 8 KiB for 5,000 accounts of two devices. One request must not fill a disk.
const MAX_BYTES: usize = 80 * 1024 * 1024;
/// A sealed row has at least so many bytes.
const SEALED_LEAST: usize = 1300;
/// Bytes of copies of all messages to many that are in memory at the same time, waiting for their commit.
pub const FAN_OUT_ROOM: usize = 32 * 1024 * 1024;
