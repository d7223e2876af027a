//! How often one caller may do something to one target: take prekey bundles, which uses up one-time keys of the target, or
//! replace its own password, for which a queue is sealed anew.
//!
//! Who did what to whom is not kept: a bucket is found by a keyed hash of the two, under a key that this process alone has. So
//! there is nothing to remove when an account is deleted, and a new device in the place of an old one has no new budget.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use keys_schema::Aci;

use crate::domain::ProtocolAddress;
use crate::sealing::{derive_bytes, random};

use super::error::ApiError;

/// One bucket per caller and target account. Strangers share one bucket per target.
pub struct HourlyLimit {
    buckets: DefaultKeyedRateLimiter<[u8; 16]>,
    key: [u8; 32],
    clock: DefaultClock,
    since_cleaning: AtomicU32,
    refusal: (&'static str, &'static str),
}

impl HourlyLimit {
    /// So many in an hour, all of them at once if the caller likes.
    /// `refusal` is the code and the message of the 429.
    pub fn per_hour(times: NonZeroU32, refusal: (&'static str, &'static str)) -> Self {
        Self {
            buckets: RateLimiter::keyed(Quota::per_hour(times)),
            key: random(),
            clock: DefaultClock::default(),
            since_cleaning: AtomicU32::new(0),
            refusal,
        }
    }

    /// Counts one time, or refuses it with the time after which it will be allowed.
    pub fn check(&self, caller: Option<ProtocolAddress>, target: Aci) -> Result<(), ApiError> {
        // Buckets that have refilled are as good as none. Dropping them now and then bounds the table by the fetches
        // of an hour.
        if self.since_cleaning.fetch_add(1, Ordering::Relaxed) % CLEAN_EVERY == CLEAN_EVERY - 1 {
            self.tidy();
        }
        self.buckets.check_key(&self.bucket(caller, target)).map_err(|refused| {
            let wait = refused.wait_time_from(self.clock.now());
            let (code, message) = self.refusal;
            ApiError::too_many(code, message, whole_seconds(wait))
        })
    }

    /// Drops buckets that have refilled. To be called now and then.
    pub fn tidy(&self) {
        self.buckets.retain_recent();
        self.buckets.shrink_to_fit();
    }

    fn bucket(&self, caller: Option<ProtocolAddress>, target: Aci) -> [u8; 16] {
        let mut pair = [0; 33];
        pair[..16].copy_from_slice(target.as_bytes());
        if let Some(caller) = caller {
            // No device is number 0, so that a stranger is nobody's.
            pair[16] = caller.device_id.get();
            pair[17..].copy_from_slice(caller.aci.as_bytes());
        }
        let hash = derive_bytes(&self.key, &pair, "blind-relay key fetches v1");
        let mut bucket = [0; 16];
        bucket.copy_from_slice(&hash[..16]);
        bucket
    }
}

fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

const CLEAN_EVERY: u32 = 10_000;

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::DeviceId;

    const REFUSAL: (&str, &str) = ("a_limit", "too often");

    fn aci(byte: u8) -> Aci {
        Aci::new(Uuid::from_bytes([byte; 16]))
    }

    #[test]
    fn each_caller_has_its_own_budget_per_target_and_is_told_when_to_return() {
        let limit = HourlyLimit::per_hour(NonZeroU32::new(2).unwrap(), REFUSAL);
        let alice = Some(ProtocolAddress {
            aci: aci(1),
            device_id: DeviceId::PRIMARY,
        });
        assert!(limit.check(alice, aci(9)).is_ok());
        assert!(limit.check(alice, aci(9)).is_ok());
        let refused = limit.check(alice, aci(9)).unwrap_err();
        assert!((1..=1800).contains(&refused.retry_after_secs().unwrap()));
        assert!(limit.check(alice, aci(8)).is_ok());
        assert!(limit.check(None, aci(9)).is_ok());
    }

    #[test]
    fn buckets_name_nobody_and_go_once_they_are_full_again() {
        let limit = HourlyLimit::per_hour(NonZeroU32::MAX, REFUSAL);
        let other = HourlyLimit::per_hour(NonZeroU32::MAX, REFUSAL);
        assert_ne!(limit.bucket(None, aci(9)), other.bucket(None, aci(9)));
        assert!(limit.check(None, aci(9)).is_ok());
        // With so large a budget a fetch is made up for at once.
        while !limit.buckets.is_empty() {
            limit.tidy();
        }
    }
}
