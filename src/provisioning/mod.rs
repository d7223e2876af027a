//! The way of one message to a device that is about to be linked.
//!
//! A new device opens a socket and is given an address, which it shows to a device of the account, as a picture most
//! likely. That device sends one message to the address; it is for the new device alone, and sealed to a key that was in
//! the picture. All of it is in memory and gone within minutes. [`registry`] knows the sockets of this node; a message
//! for another node's socket goes out as a hint, and the node that has the socket says when it was taken.

pub mod registry;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::domain::{Aci, ProvisioningAddress};
use crate::sealing::random;
use crate::wakeup::{Bus, Hint};

pub use registry::{Offer, Receipt, Registry, Waiting};

/// Hands messages to waiting devices, here and on other nodes.
pub struct Provisioning {
    registry: Arc<Registry>,
    bus: Arc<dyn Bus>,
}

/// A message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// No device waits at the address, or the one that did has not taken the message.
    NobodyWaits,
    /// The sender's last message is still on its way, or too many others are.
    Busy,
}

impl Provisioning {
    /// Over the sockets of this node and the way to the others. The registry also receives what comes by that way.
    pub fn new(registry: Arc<Registry>, bus: Arc<dyn Bus>) -> Self {
        Self { registry, bus }
    }

    /// A place to wait at; `None` if too many wait.
    pub fn wait(&self) -> Option<Waiting> {
        self.registry.wait()
    }

    /// Returns once the device at that address has taken the message. Whatever the outcome, its address is spent.
    pub async fn hand_over(&self, sender: Aci, address: ProvisioningAddress, message: Bytes) -> Result<(), NotTaken> {
        let _turn = self.registry.take_turn(sender).ok_or(NotTaken::Busy)?;
        let (told, taken) = oneshot::channel();
        let offer = Offer {
            message,
            receipt: Receipt::Here(told),
        };
        let Err(offer) = self.registry.offer(address, offer) else {
            return within_patience(taken).await;
        };
        if !self.bus.reaches_others() {
            return Err(NotTaken::NobodyWaits);
        }
        let request = u64::from_be_bytes(random());
        let (_expected, taken) = self.registry.expect(request);
        self.bus.publish(vec![Hint::ProvisioningMessage {
            address: Box::new(address),
            request,
            message: offer.message,
        }]);
        within_patience(taken).await
    }

    /// Tells whoever sent the message that it was taken.
    pub fn taken(&self, receipt: Receipt) {
        match receipt {
            // The sender may have lost its patience.
            Receipt::Here(told) => drop(told.send(())),
            Receipt::Elsewhere(request) => self.bus.publish(vec![Hint::ProvisioningTaken { request }]),
        }
    }
}

async fn within_patience(taken: oneshot::Receiver<()>) -> Result<(), NotTaken> {
    match tokio::time::timeout(PATIENCE, taken).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(NotTaken::NobodyWaits),
    }
}

/// How long a sender waits to hear that its message was taken. Longer than a socket waits for its device.
pub const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
