//! How many uploads write at the same time: in all, because each holds a segment in memory, and of one account, so that
//! none keeps the others out.
//!
//! When all places are taken, a newcomer whose account has fewer of them than another one gets the place of that
//! account's oldest upload. What came of that one is kept, and it goes on later: few accounts that let their uploads
//! trickle cannot keep the others waiting.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::domain::QuotaBucket;

/// The places of a node.
pub(super) struct Places {
    taken: Arc<Mutex<Taken>>,
    all: usize,
}

#[derive(Default)]
struct Taken {
    /// The oldest first.
    holders: Vec<Holder>,
    last: u64,
}

struct Holder {
    number: u64,
    /// Whose place it is, or will be.
    bucket: QuotaBucket,
    lost: CancellationToken,
    /// Who waits for the place.
    heir: Option<oneshot::Sender<Place>>,
}

/// One upload's place, free again when dropped.
pub(super) struct Place {
    taken: Arc<Mutex<Taken>>,
    number: u64,
    /// Cancelled when somebody else is to have it.
    pub(super) lost: CancellationToken,
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

    /// How many places one account has.
    pub(super) fn taken_by(&self, bucket: QuotaBucket) -> usize {
        lock(&self.taken).of(bucket)
    }

    /// Takes a place, and waits a moment for whoever has to leave it.
    pub(super) async fn take(&self, bucket: QuotaBucket) -> Result<Place, Full> {
        let waiting = {
            let mut taken = lock(&self.taken);
            let own = taken.of(bucket);
            if own >= OWN_PLACES {
                return Err(Full::Own);
            }
            if taken.holders.len() < self.all {
                return Ok(taken.add(&self.taken, bucket));
            }
            let victim = taken.victim(own).ok_or(Full::All)?;
            let (heir, waiting) = oneshot::channel();
            victim.bucket = bucket;
            victim.heir = Some(heir);
            victim.lost.cancel();
            waiting
        };
        match tokio::time::timeout(LEAVING, waiting).await {
            Ok(Ok(place)) => Ok(place),
            _ => Err(Full::All),
        }
    }
}

impl Taken {
    fn of(&self, bucket: QuotaBucket) -> usize {
        self.holders.iter().filter(|holder| holder.bucket == bucket).count()
    }

    fn add(&mut self, taken: &Arc<Mutex<Self>>, bucket: QuotaBucket) -> Place {
        self.last = self.last.wrapping_add(1);
        let lost = CancellationToken::new();
        self.holders.push(Holder {
            number: self.last,
            bucket,
            lost: lost.clone(),
            heir: None,
        });
        Place {
            taken: Arc::clone(taken),
            number: self.last,
            lost,
        }
    }

    /// The oldest upload of the account that has most places, if those are more than `own`.
    fn victim(&mut self, own: usize) -> Option<&mut Holder> {
        let mut places: HashMap<QuotaBucket, usize> = HashMap::new();
        for holder in &self.holders {
            *places.entry(holder.bucket).or_default() += 1;
        }
        let mut most = (own, None);
        for (at, holder) in self.holders.iter().enumerate() {
            let places = places.get(&holder.bucket).copied().unwrap_or_default();
            if holder.heir.is_none() && places > most.0 {
                most = (places, Some(at));
            }
        }
        self.holders.get_mut(most.1?)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        let Some(at) = taken.holders.iter().position(|holder| holder.number == self.number) else {
            return;
        };
        let gone = taken.holders.remove(at);
        let Some(heir) = gone.heir.filter(|heir| !heir.is_closed()) else {
            return;
        };
        let place = taken.add(&self.taken, gone.bucket);
        drop(taken);
        // One who waits no more lets it go, which takes the lock again.
        drop(heir.send(place));
    }
}

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Of one account. Stock clients upload a few at a time.
const OWN_PLACES: usize = 8;
/// In which an upload that has to leave has written what it holds, if the store is well.
const LEAVING: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: QuotaBucket = QuotaBucket([1; 16]);
    const BOB: QuotaBucket = QuotaBucket([2; 16]);
    const CAROL: QuotaBucket = QuotaBucket([3; 16]);

    async fn take(places: &Places, bucket: QuotaBucket, count: usize) -> Vec<Place> {
        let mut held = Vec::new();
        for _ in 0..count {
            held.push(places.take(bucket).await.unwrap_or_else(|_| panic!("free")));
        }
        held
    }

    #[tokio::test]
    async fn places_are_limited_for_each_account_and_come_back() {
        let places = Places::new(10);
        let held = take(&places, ALICE, 8).await;
        assert_eq!(places.take(ALICE).await.err(), Some(Full::Own));
        drop(held);
        assert!(places.take(ALICE).await.is_ok());
        assert!(lock(&places.taken).holders.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_newcomer_gets_the_oldest_place_of_whoever_has_most() {
        let places = Places::new(5);
        let bobs = take(&places, BOB, 1).await;
        let mut alices = take(&places, ALICE, 4).await;
        let leaving = async {
            alices[0].lost.cancelled().await;
            drop(alices.remove(0));
        };
        let (carols, ()) = tokio::join!(places.take(CAROL), leaving);
        let carols = carols.unwrap_or_else(|_| panic!("alice has most"));
        assert!(!bobs[0].lost.is_cancelled() && !carols.lost.is_cancelled());
        assert!(alices.iter().all(|place| !place.lost.is_cancelled()));
        // One who does not leave in time keeps the place until it does, and then it is free.
        assert_eq!(places.take(BOB).await.err(), Some(Full::All));
        assert!(alices[0].lost.is_cancelled());
        drop(alices.remove(0));
        assert_eq!(lock(&places.taken).holders.len(), 4);
        drop((alices, bobs, carols));
        assert!(lock(&places.taken).holders.is_empty());
    }

    #[tokio::test]
    async fn an_account_with_as_many_places_as_any_waits() {
        let places = Places::new(2);
        let (_alices, _bobs) = (take(&places, ALICE, 1).await, take(&places, BOB, 1).await);
        assert_eq!(places.take(ALICE).await.err(), Some(Full::All));
        assert!(_alices.iter().chain(&_bobs).all(|place| !place.lost.is_cancelled()));
    }
}
