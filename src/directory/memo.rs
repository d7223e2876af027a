//! What was answered to a claim of keys a moment ago, so that a retry of it takes no more keys.
//!
//! A client whose answer was lost asks again with the same idempotency key, and is given the same bundles for ten minutes.
//! A claim is found by a hash under a key of this process of all that makes it the same: who asks, for what, of which
//! devices with which keys, and the client's key for it. What was answered is sealed to a key that comes from the same, so
//! that it cannot be read in memory before the client shows its key again. Claims at the same time wait for the one of
//! them that takes keys. All of it is in the memory of one node: when that is killed, a retry takes other keys, and those
//! that nobody was given are gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use crate::sealing::{SealingKey, derive_bytes, random};

/// The claims of the last minutes.
pub struct ClaimMemo {
    key: Zeroizing<[u8; 32]>,
    claims: Cache<[u8; 16], Arc<Claim>>,
}

/// What was answered, sealed, once it has been.
#[derive(Default)]
struct Claim(OnceCell<Vec<u8>>);

/// What makes a claim the same as another.
#[derive(Default)]
pub struct ClaimName(Zeroizing<Vec<u8>>);

impl ClaimName {
    /// Adds a part, with its length, so that parts cannot be cut elsewhere.
    #[must_use]
    pub fn with(mut self, part: &[u8]) -> Self {
        self.0.extend_from_slice(&(part.len() as u64).to_be_bytes());
        self.0.extend_from_slice(part);
        self
    }
}

impl Default for ClaimMemo {
    fn default() -> Self {
        Self::holding(MAX_BYTES)
    }
}

impl ClaimMemo {
    fn holding(bytes: u64) -> Self {
        let claims = Cache::builder()
            .max_capacity(bytes)
            .weigher(|_, claim: &Arc<Claim>| {
                let sealed = claim.0.get().map_or(0, Vec::len);
                u32::try_from(sealed + CLAIM_OVERHEAD).unwrap_or(u32::MAX)
            })
            // The newest is the one that may be asked for again.
            .eviction_policy(EvictionPolicy::lru())
            .time_to_live(LIFETIME)
            .build();
        Self {
            key: Zeroizing::new(random()),
            claims,
        }
    }

    /// The answer that the claim was given, or the one that it is given now. What fails, or finds nothing, is not
    /// remembered.
    pub async fn answer<E>(
        &self,
        name: &ClaimName,
        claim: impl Future<Output = Result<Option<Vec<u8>>, E>>,
    ) -> Result<Option<Vec<u8>>, E> {
        let mut tag = [0; 16];
        // The name is not the salt: that is padded with zeros, which an empty part begins with.
        tag.copy_from_slice(&derive_bytes(&name.0, &*self.key, "blind-relay key claims v1: name")[..16]);
        let seal = SealingKey::derive(&name.0, &*self.key, "blind-relay key claims v1: answer");
        let entry = self.claims.get_with(tag, Arc::default);
        let made = AtomicBool::new(false);
        let sealed = entry.0.get_or_try_init(|| async {
            let answer = claim.await.map_err(Some)?.ok_or(None)?;
            made.store(true, Ordering::Relaxed);
            Ok(seal.seal(CONTEXT, &answer).0)
        });
        let sealed = match sealed.await {
            Ok(sealed) => sealed,
            Err(None) => return Ok(None),
            Err(Some(error)) => return Err(error),
        };
        if made.load(Ordering::Relaxed) {
            // It weighs more now.
            self.claims.insert(tag, Arc::clone(&entry));
        }
        Ok(seal.open(CONTEXT, sealed).map(|answer| answer.to_vec()))
    }

    /// Drops what is older than ten minutes. To be called now and then.
    pub fn tidy(&self) {
        self.claims.run_pending_tasks();
    }
}

/// How long a claim is remembered.
const LIFETIME: Duration = Duration::from_secs(10 * 60);
const MAX_BYTES: u64 = 16 * 1024 * 1024;
/// What an entry takes beside the answer, roughly.
const CLAIM_OVERHEAD: usize = 256;
const CONTEXT: &[u8] = b"key claim";

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::AtomicUsize;

    use futures_util::future::join_all;

    use super::*;

    fn name(parts: &[&[u8]]) -> ClaimName {
        parts.iter().fold(ClaimName::default(), |name, part| name.with(part))
    }

    /// A claim that answers its number.
    async fn claim(taken: &AtomicUsize) -> Result<Option<Vec<u8>>, Infallible> {
        tokio::task::yield_now().await;
        Ok(Some(vec![u8::try_from(taken.fetch_add(1, Ordering::Relaxed)).unwrap()]))
    }

    #[tokio::test]
    async fn t14_a_retry_is_answered_alike_and_claims_at_once_take_once() {
        let (memo, taken) = (ClaimMemo::default(), AtomicUsize::new(0));
        let same = name(&[b"a", b"b"]);
        let answers = join_all((0..50).map(|_| memo.answer(&same, claim(&taken)))).await;
        assert!(
            answers
                .iter()
                .all(|answer| answer.as_ref().unwrap().as_deref() == Some(&[0]))
        );
        for other in [name(&[b"ab"]), name(&[b"a"]), name(&[b"a", b"b", b""])] {
            let before = taken.load(Ordering::Relaxed);
            memo.answer(&other, claim(&taken)).await.unwrap();
            assert_eq!(taken.load(Ordering::Relaxed), before + 1);
        }
    }

    #[tokio::test]
    async fn what_fails_or_finds_nothing_is_tried_again() {
        let (memo, same) = (ClaimMemo::default(), name(&[b"a"]));
        assert_eq!(memo.answer(&same, async { Err(7) }).await, Err(7));
        assert_eq!(memo.answer::<u8>(&same, async { Ok(None) }).await, Ok(None));
        assert_eq!(
            memo.answer::<u8>(&same, async { Ok(Some(vec![1])) }).await,
            Ok(Some(vec![1]))
        );
        assert_eq!(memo.answer(&same, async { Err(7) }).await, Ok(Some(vec![1])));
    }

    #[tokio::test]
    async fn a_claim_that_is_given_up_leaves_its_place_to_the_next() {
        let (memo, same) = (ClaimMemo::default(), name(&[b"a"]));
        {
            let forever = memo.answer::<u8>(&same, std::future::pending());
            tokio::select! {
                biased;
                _ = forever => unreachable!("it never ends"),
                () = tokio::task::yield_now() => {}
            }
        }
        assert_eq!(
            memo.answer::<u8>(&same, async { Ok(Some(vec![1])) }).await,
            Ok(Some(vec![1]))
        );
    }

    #[tokio::test]
    async fn the_memory_is_bounded_and_holds_no_answer_in_clear() {
        let memo = ClaimMemo::holding(100_000);
        for n in 0..1_000_u32 {
            let answer = vec![0xAB; 2_000];
            memo.answer::<u8>(&name(&[&n.to_be_bytes()]), async { Ok(Some(answer)) })
                .await
                .unwrap();
        }
        memo.tidy();
        assert!(memo.claims.weighted_size() <= 100_000);
        assert!(memo.claims.entry_count() > 0);
        for (_, claim) in &memo.claims {
            assert!(!claim.0.get().unwrap().windows(8).any(|bytes| bytes == [0xAB; 8]));
        }
        let last = name(&[&999_u32.to_be_bytes()]);
        assert_eq!(
            memo.answer(&last, async { Err(7) }).await.unwrap().unwrap().len(),
            2_000
        );
    }
}
