use std::sync::{Mutex, PoisonError};

use uuid::Uuid;

use super::registry::MAX_UNDER_WAY;
use super::*;
use crate::wakeup::SingleNode;

/// Joins two nodes; hints are carried by hand.
#[derive(Default)]
struct Wire(Mutex<Vec<Hint>>);

impl Bus for Wire {
    fn publish(&self, hints: Vec<Hint>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(hints);
    }

    fn reaches_others(&self) -> bool {
        true
    }

    fn hears_others(&self) -> bool {
        true
    }
}

impl Wire {
    fn carry_to(&self, registry: &Registry) -> usize {
        let hints = std::mem::take(&mut *self.0.lock().unwrap());
        let carried = hints.len();
        for hint in hints {
            match hint {
                Hint::ProvisioningMessage {
                    address,
                    request,
                    message,
                } => registry.offered(*address, request, message),
                Hint::ProvisioningTaken { request } => registry.taken(request),
                other => panic!("{other:?}"),
            }
        }
        carried
    }
}

fn sender(account: u8) -> Aci {
    Aci::new(Uuid::from_bytes([account; 16]))
}

fn single() -> Arc<Provisioning> {
    let registry = Arc::new(Registry::new(2));
    Arc::new(Provisioning::new(registry, Arc::new(SingleNode)))
}

const MESSAGE: Bytes = Bytes::from_static(b"sealed");

async fn offered(waiting: &mut Waiting) -> Offer {
    let Ok(offer) = (&mut waiting.offer).await else {
        panic!("the address was given up")
    };
    offer
}

#[tokio::test]
async fn success_says_that_the_message_was_taken() {
    let node = single();
    let mut waiting = node.wait().unwrap();
    let sending = tokio::spawn({
        let (node, address) = (Arc::clone(&node), waiting.address);
        async move { node.hand_over(sender(1), address, MESSAGE).await }
    });
    let offer = offered(&mut waiting).await;
    assert_eq!(offer.message, MESSAGE);
    assert!(!sending.is_finished());
    node.taken(offer.receipt);
    assert_eq!(sending.await.unwrap(), Ok(()));
    // The address is spent although its device is still there.
    let again = node.hand_over(sender(1), waiting.address, MESSAGE).await;
    assert_eq!(again, Err(NotTaken::NobodyWaits));
}

#[tokio::test(start_paused = true)]
async fn a_device_that_goes_or_does_nothing_has_taken_nothing() {
    let node = single();
    let goes = node.wait().unwrap();
    let address = goes.address;
    let sending = tokio::spawn({
        let node = Arc::clone(&node);
        async move { node.hand_over(sender(1), address, MESSAGE).await }
    });
    tokio::task::yield_now().await;
    drop(goes);
    assert_eq!(sending.await.unwrap(), Err(NotTaken::NobodyWaits));
    let silent = node.wait().unwrap();
    let outcome = node.hand_over(sender(1), silent.address, MESSAGE).await;
    assert_eq!(outcome, Err(NotTaken::NobodyWaits));
    let unknown = node.hand_over(sender(1), ProvisioningAddress([7; 16]), MESSAGE).await;
    assert_eq!(unknown, Err(NotTaken::NobodyWaits));
}

#[tokio::test]
async fn as_many_wait_as_there_is_room_for_and_a_spent_address_keeps_its_room() {
    let node = single();
    let (first, second) = (node.wait().unwrap(), node.wait().unwrap());
    assert!(node.wait().is_none());
    node.registry.offered(first.address, 1, MESSAGE);
    assert!(node.wait().is_none(), "its socket is still open");
    drop(first);
    assert!(node.wait().is_some());
    drop(second);
    assert!(node.wait().is_some());
}

#[tokio::test(start_paused = true)]
async fn one_message_of_a_sender_is_under_way_at_a_time_and_not_too_many_of_all() {
    let node = single();
    let waiting = node.wait().unwrap();
    let sending = tokio::spawn({
        let (node, address) = (Arc::clone(&node), waiting.address);
        async move { node.hand_over(sender(1), address, MESSAGE).await }
    });
    tokio::task::yield_now().await;
    let second = node.hand_over(sender(1), waiting.address, MESSAGE).await;
    assert_eq!(second, Err(NotTaken::Busy));
    sending.abort();
    let _ = sending.await;
    let mut turns = Vec::new();
    for other in 1..=u8::try_from(MAX_UNDER_WAY).unwrap() {
        turns.push(node.registry.take_turn(sender(other)).expect("a turn"));
    }
    let outcome = node.hand_over(sender(200), waiting.address, MESSAGE).await;
    assert_eq!(outcome, Err(NotTaken::Busy));
    drop(turns);
    assert!(node.registry.take_turn(sender(200)).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_message_finds_its_socket_on_another_node_and_success_comes_back() {
    let wire = Arc::new(Wire::default());
    let nodes: Vec<_> = (0..2)
        .map(|_| {
            let bus: Arc<dyn Bus> = Arc::<Wire>::clone(&wire);
            Arc::new(Provisioning::new(Arc::new(Registry::new(2)), bus))
        })
        .collect();
    let (one, two) = (&nodes[0], &nodes[1]);
    let mut waiting = two.wait().unwrap();
    let sending = tokio::spawn({
        let (one, address) = (Arc::clone(one), waiting.address);
        async move { one.hand_over(sender(1), address, MESSAGE).await }
    });
    tokio::task::yield_now().await;
    assert_eq!(wire.carry_to(&two.registry), 1);
    let offer = offered(&mut waiting).await;
    assert_eq!(offer.message, MESSAGE);
    two.taken(offer.receipt);
    // Hints may be doubled, and those of others mean nothing here.
    one.registry.taken(0);
    assert_eq!(wire.carry_to(&one.registry), 1);
    assert_eq!(sending.await.unwrap(), Ok(()));
    one.registry.taken(0);

    // Nobody answers: what was published is all that there is of it.
    let outcome = one.hand_over(sender(1), waiting.address, MESSAGE).await;
    assert_eq!(outcome, Err(NotTaken::NobodyWaits));
    assert_eq!(wire.carry_to(&two.registry), 1);
    assert_eq!(wire.carry_to(&one.registry), 0);
}
