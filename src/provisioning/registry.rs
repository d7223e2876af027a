//! The waiting devices of this node, and the messages of this node that are on their way.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::domain::{Aci, ProvisioningAddress};
use crate::sealing::random;

/// What waits and what is expected, bounded.
pub struct Registry {
    max_waiting: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Devices that have had no message yet, each with the way to its socket.
    addresses: HashMap<ProvisioningAddress, oneshot::Sender<Offer>>,
    /// Open sockets, those that have had their message included.
    waiting: usize,
    /// Requests that other nodes may answer.
    expected: HashMap<u64, oneshot::Sender<()>>,
    /// Accounts of this node's callers that have a message under way.
    senders: HashSet<Aci>,
}

/// A message for a waiting device.
pub struct Offer {
    /// What the device is to get.
    pub message: Bytes,
    /// To be given to [`super::Provisioning::taken`] once the device has it.
    pub receipt: Receipt,
}

/// Who wants to know that a message was taken.
pub enum Receipt {
    /// A caller of this node.
    Here(oneshot::Sender<()>),
    /// The request of that number, on another node.
    Elsewhere(u64),
}

impl Registry {
    /// For at most `max_waiting` sockets.
    pub fn new(max_waiting: usize) -> Self {
        Self {
            max_waiting,
            state: Mutex::default(),
        }
    }

    /// A new address and what is sent to it; `None` if too many wait.
    pub(super) fn wait(self: &Arc<Self>) -> Option<Waiting> {
        let (sender, offer) = oneshot::channel();
        let mut state = self.state();
        if state.waiting >= self.max_waiting {
            return None;
        }
        let address = ProvisioningAddress(random());
        state.addresses.insert(address, sender);
        state.waiting += 1;
        Some(Waiting {
            address,
            offer,
            registry: Arc::clone(self),
        })
    }

    /// Gives the message to the socket of that address, which is spent by it; or back, if there is none.
    pub(super) fn offer(&self, address: ProvisioningAddress, offer: Offer) -> Result<(), Offer> {
        let sender = self.state().addresses.remove(&address);
        match sender {
            Some(sender) => sender.send(offer),
            None => Err(offer),
        }
    }

    /// A message from another node. That node hears of it when it is taken, and of nothing else.
    pub fn offered(&self, address: ProvisioningAddress, request: u64, message: Bytes) {
        let receipt = Receipt::Elsewhere(request);
        drop(self.offer(address, Offer { message, receipt }));
    }

    /// Another node's word that the message of that request was taken.
    pub fn taken(&self, request: u64) {
        let expected = self.state().expected.remove(&request);
        if let Some(told) = expected {
            // The caller may just have gone.
            let _ = told.send(());
        }
    }

    /// What another node will say about that request, for as long as the first part is kept.
    pub(super) fn expect(&self, request: u64) -> (Expected<'_>, oneshot::Receiver<()>) {
        let (told, taken) = oneshot::channel();
        self.state().expected.insert(request, told);
        let registry = self;
        (Expected { registry, request }, taken)
    }

    /// The right to send a message; `None` if this sender has one under way, or too many do.
    pub(super) fn take_turn(&self, sender: Aci) -> Option<Turn<'_>> {
        let mut state = self.state();
        let room = state.senders.len() < MAX_UNDER_WAY;
        let registry = self;
        (room && state.senders.insert(sender)).then(|| Turn { registry, sender })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One waiting device: its address, until the socket is dropped, and the message that may come.
pub struct Waiting {
    /// The address.
    pub address: ProvisioningAddress,
    /// The message.
    pub offer: oneshot::Receiver<Offer>,
    registry: Arc<Registry>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut state = self.registry.state();
        state.waiting -= 1;
        state.addresses.remove(&self.address);
    }
}

/// A request that another node may answer.
pub(super) struct Expected<'a> {
    registry: &'a Registry,
    request: u64,
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        self.registry.state().expected.remove(&self.request);
    }
}

/// A message under way.
pub(super) struct Turn<'a> {
    registry: &'a Registry,
    sender: Aci,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.registry.state().senders.remove(&self.sender);
    }
}

/// Messages of this node's callers that may be under way at once: 8 MiB.
pub(super) const MAX_UNDER_WAY: usize = 32;
