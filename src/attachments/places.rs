//! How many uploads write at the same time: in all, because each holds a segment in memory, and of one account, so that
//! none keeps the others out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::QuotaBucket;

/// The places of a node.
pub(super) struct Places {
    taken: Arc<Mutex<Taken>>,
    all: usize,
}

#[derive(Default)]
struct Taken {
    all: usize,
    of: HashMap<QuotaBucket, usize>,
}

/// One upload's place, free again when dropped.
pub(super) struct Place {
    taken: Arc<Mutex<Taken>>,
    bucket: QuotaBucket,
}

/// Which places are all taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// Those of the account.
    Own,
    /// Those of the node.
    All,
}

impl Places {
    pub(super) fn new(all: usize) -> Self {
        Self {
            taken: Arc::default(),
            all,
        }
    }

    pub(super) fn take(&self, bucket: QuotaBucket) -> Result<Place, Full> {
        let mut taken = lock(&self.taken);
        if taken.of.get(&bucket).is_some_and(|own| *own >= OWN_PLACES) {
            return Err(Full::Own);
        }
        if taken.all >= self.all {
            return Err(Full::All);
        }
        taken.all += 1;
        *taken.of.entry(bucket).or_default() += 1;
        Ok(Place {
            taken: Arc::clone(&self.taken),
            bucket,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        taken.all -= 1;
        if let Some(own) = taken.of.get_mut(&self.bucket) {
            *own -= 1;
            if *own == 0 {
                taken.of.remove(&self.bucket);
            }
        }
    }
}

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Of one account. Stock clients upload a few at a time.
const OWN_PLACES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_for_each_account_and_for_all_and_come_back() {
        let places = Places::new(10);
        let (alice, bob, carol) = (QuotaBucket([1; 16]), QuotaBucket([2; 16]), QuotaBucket([3; 16]));
        let mut held: Vec<_> = (0..8)
            .map(|_| places.take(alice).unwrap_or_else(|_| panic!("free")))
            .collect();
        assert_eq!(places.take(alice).err(), Some(Full::Own));
        held.extend((0..2).map(|_| places.take(bob).unwrap_or_else(|_| panic!("free"))));
        assert_eq!(places.take(carol).err(), Some(Full::All));
        held.clear();
        assert!(places.take(alice).is_ok());
        assert!(lock(&places.taken).of.is_empty());
    }
}
