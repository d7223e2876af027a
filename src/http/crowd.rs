//! How many connections each network has open, so that one network does not take all places.
//!
//! Networks are counted under a hash of theirs whose key is made at the start and kept nowhere: the table holds no address,
//! also no part of one that a connection left behind. A network without a connection has no entry.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::network::Network;

/// The open connections of all networks.
pub struct Crowd {
    most: usize,
    hasher: RandomState,
    open: Mutex<HashMap<u64, usize>>,
}

impl Crowd {
    /// Up to `most` connections of each network.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            hasher: RandomState::new(),
            open: Mutex::default(),
        })
    }

    /// One more connection of this network; `None` if it has as many as it may.
    pub fn enter(self: &Arc<Self>, network: &Network) -> Option<Member> {
        self.admit(self.hasher.hash_one(network))
    }

    fn admit(self: &Arc<Self>, tag: u64) -> Option<Member> {
        let mut open = self.open();
        let count = open.get(&tag).copied().unwrap_or_default();
        if count >= self.most {
            return None;
        }
        open.insert(tag, count + 1);
        Some(Member {
            crowd: Arc::clone(self),
            tag,
        })
    }

    fn leave(&self, tag: u64) {
        let mut open = self.open();
        match open.get_mut(&tag) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                open.remove(&tag);
                // After a flood from everywhere.
                if open.capacity() > SPARE && open.len() < open.capacity() / 8 {
                    open.shrink_to(SPARE);
                }
            }
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection of a network, counted until it is dropped.
pub struct Member {
    crowd: Arc<Crowd>,
    tag: u64,
}

impl Member {
    /// One more of the same network; `None` if it has as many as it may.
    pub fn another(&self) -> Option<Self> {
        self.crowd.admit(self.tag)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.crowd.leave(self.tag);
    }
}

/// Entries for which there is always room.
const SPARE: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    fn network(address: [u8; 4]) -> Network {
        Network::of(address.into())
    }

    #[test]
    fn each_network_has_so_many_and_no_more() {
        let crowd = Crowd::new(2);
        let (one, other) = (network([203, 0, 113, 1]), network([198, 51, 100, 1]));
        let first = crowd.enter(&one).unwrap();
        let second = first.another().unwrap();
        assert!(crowd.enter(&one).is_none() && second.another().is_none());
        assert!(crowd.enter(&network([203, 0, 113, 200])).is_none(), "a neighbour");
        let elsewhere = crowd.enter(&other).unwrap();
        drop(first);
        let third = crowd.enter(&one).unwrap();
        assert!(crowd.enter(&one).is_none());
        drop((second, third, elsewhere));
        assert!(crowd.open().is_empty());
    }

    #[test]
    fn t75_a_flood_from_everywhere_leaves_no_entries_and_little_room() {
        let crowd = Crowd::new(1);
        let flood = |crowd: &Arc<Crowd>| -> Vec<Member> {
            let addresses = (0..=255).flat_map(|b| (0..100).map(move |c| [203, b, c, 1]));
            addresses.filter_map(|address| crowd.enter(&network(address))).collect()
        };
        let members = flood(&crowd);
        assert_eq!(members.len(), 25_600);
        assert!(flood(&crowd).is_empty());
        drop(members);
        assert!(crowd.open().is_empty());
        assert!(crowd.open().capacity() < 4 * SPARE, "{}", crowd.open().capacity());
    }

    #[test]
    fn concurrent_entries_never_exceed_the_most() {
        let crowd = Crowd::new(7);
        let one = network([203, 0, 113, 1]);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        let _member = crowd.enter(&one);
                        assert!(crowd.open().values().all(|count| *count <= 7));
                    }
                });
            }
        });
        assert!(crowd.open().is_empty());
    }
}
