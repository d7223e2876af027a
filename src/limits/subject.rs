//! The name of a bucket: a keyed hash of the limit and of whom it counts.
//!
//! The key changes with the UTC day, so that a name means nothing the day after. It comes from the pepper: all nodes make the
//! same names, and whoever reads them in Redis cannot try subjects. A bucket that was used before midnight counts on under its
//! old name until it would be full again, or the minute after midnight would give everyone a second one.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::domain::{Clock, Day};
use crate::sealing::derive_bytes;

use super::Limit;

/// The name of one bucket.
pub(super) type Tag = [u8; 16];

/// Makes names.
pub(super) struct Subjects {
    key: Zeroizing<[u8; 32]>,
    clock: Arc<dyn Clock>,
    keys: RwLock<Keys>,
}

/// Of a day, and of the one before.
#[derive(Clone)]
struct Keys {
    day: Day,
    today: Zeroizing<[u8; 32]>,
    yesterday: Zeroizing<[u8; 32]>,
}

/// The names under which a bucket is counted.
pub(super) struct Names {
    /// From today on.
    pub(super) today: Tag,
    /// That of the day before, while it may not be full again.
    pub(super) yesterday: Option<Tag>,
}

impl Subjects {
    pub(super) fn new(key: [u8; 32], clock: Arc<dyn Clock>) -> Self {
        let key = Zeroizing::new(key);
        let keys = RwLock::new(Keys::of(&key, clock.now().day()));
        Self { key, clock, keys }
    }

    /// The names of the bucket of a subject, which is full again so long after it was empty. One that takes a day is a
    /// budget for the day, and ends with it.
    pub(super) fn names(&self, limit: Limit, subject: &[&[u8]], refills_in: Duration) -> Names {
        let now = self.clock.now();
        let keys = self.keys_of(now.day());
        let since_midnight = Duration::from_millis(u64::try_from(now.0 - now.day().midnight().0).unwrap_or(0));
        let goes_on = since_midnight < refills_in && refills_in < A_DAY;
        Names {
            today: tag(&keys.today, limit, subject),
            yesterday: goes_on.then(|| tag(&keys.yesterday, limit, subject)),
        }
    }

    fn keys_of(&self, day: Day) -> Keys {
        {
            let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
            if keys.day == day {
                return keys.clone();
            }
        }
        let keys = Keys::of(&self.key, day);
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys.clone();
        keys
    }
}

impl Keys {
    fn of(key: &[u8; 32], day: Day) -> Self {
        Self {
            day,
            today: of_day(key, day),
            yesterday: of_day(key, day.plus(-1)),
        }
    }
}

fn tag(key: &[u8; 32], limit: Limit, subject: &[&[u8]]) -> Tag {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(limit.name().as_bytes());
    for part in subject {
        // With its length, so that parts cannot be cut elsewhere.
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    let mut tag = [0; 16];
    tag.copy_from_slice(&mac.finalize().into_bytes()[..16]);
    tag
}

fn of_day(key: &[u8; 32], day: Day) -> Zeroizing<[u8; 32]> {
    derive_bytes(key, &day.0.to_be_bytes(), "blind-relay limits of a day v1")
}

const A_DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Timestamp;

    struct At(Timestamp);

    impl Clock for At {
        fn now(&self) -> Timestamp {
            self.0
        }
    }

    fn subjects(key: u8, day: i32, after_midnight: Duration) -> Subjects {
        let now = Day(day)
            .midnight()
            .plus_millis(i64::try_from(after_midnight.as_millis()).unwrap());
        Subjects::new([key; 32], Arc::new(At(now)))
    }

    const HOUR: Duration = Duration::from_secs(60 * 60);

    #[test]
    fn a_name_is_the_same_on_every_node_and_another_on_every_day() {
        let name = |key, day| {
            subjects(key, day, HOUR)
                .names(Limit::Requests, &[b"a", b"b"], HOUR)
                .today
        };
        assert_eq!(name(1, 20_000), name(1, 20_000));
        assert_ne!(name(1, 20_000), name(1, 20_001));
        assert_ne!(name(1, 20_000), name(2, 20_000));
    }

    #[test]
    fn after_midnight_the_old_name_counts_until_its_bucket_would_be_full_again() {
        let before = subjects(1, 20_000, 2 * HOUR).names(Limit::Requests, &[b"a"], HOUR);
        assert!(before.yesterday.is_none());
        let names = |after, refills_in| subjects(1, 20_001, after).names(Limit::Requests, &[b"a"], refills_in);
        let early = names(HOUR / 2, HOUR);
        assert_eq!(early.yesterday, Some(before.today));
        assert_ne!(early.today, before.today);
        assert!(names(HOUR, HOUR).yesterday.is_none());
        assert!(
            names(Duration::ZERO, 24 * HOUR).yesterday.is_none(),
            "a budget for a day"
        );
    }

    #[test]
    fn limits_and_parts_are_kept_apart() {
        let key = [1; 32];
        let names = [
            tag(&key, Limit::Requests, &[b"ab"]),
            tag(&key, Limit::Requests, &[b"a", b"b"]),
            tag(&key, Limit::Requests, &[b"", b"ab"]),
            tag(&key, Limit::Requests, &[]),
            tag(&key, Limit::DeviceRequests, &[b"ab"]),
        ];
        for (at, name) in names.iter().enumerate() {
            assert!(!names[..at].contains(name));
        }
    }
}
