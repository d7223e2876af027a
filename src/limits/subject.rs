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
    /// The same in each, so that requests do not meet at one lock.
    keys: [RwLock<Keys>; LOCKS],
}

/// Of a day, and of the one before. An HMAC that has taken in its key is copied for every name: half of the work of a short
/// message is its key.
struct Keys {
    day: Day,
    today: Hmac<Sha256>,
    yesterday: Hmac<Sha256>,
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
        let day = clock.now().day();
        let keys = std::array::from_fn(|_| RwLock::new(Keys::of(&key, day)));
        Self { key, clock, keys }
    }

    /// The names of the bucket of a subject, which is full again so long after it was empty. One that takes a day is a
    /// budget for the day, and ends with it.
    pub(super) fn names(&self, limit: Limit, subject: &[&[u8]], refills_in: Duration) -> Names {
        let now = self.clock.now();
        let since_midnight = Duration::from_millis(u64::try_from(now.0 - now.day().midnight().0).unwrap_or(0));
        let goes_on = since_midnight < refills_in && refills_in < A_DAY;
        self.with_keys(now.day(), subject, |keys| Names {
            today: tag(&keys.today, limit, subject),
            yesterday: goes_on.then(|| tag(&keys.yesterday, limit, subject)),
        })
    }

    fn with_keys<T>(&self, day: Day, subject: &[&[u8]], names: impl Fn(&Keys) -> T) -> T {
        let last = subject.first().and_then(|part| part.last()).copied().unwrap_or(0);
        let keys = &self.keys[usize::from(last) % LOCKS];
        {
            let keys = keys.read().unwrap_or_else(PoisonError::into_inner);
            if keys.day == day {
                return names(&keys);
            }
        }
        let of_day = Keys::of(&self.key, day);
        let named = names(&of_day);
        *keys.write().unwrap_or_else(PoisonError::into_inner) = of_day;
        named
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

fn tag(keyed: &Hmac<Sha256>, limit: Limit, subject: &[&[u8]]) -> Tag {
    let mut mac = keyed.clone();
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

fn of_day(key: &[u8; 32], day: Day) -> Hmac<Sha256> {
    let key = derive_bytes(key, &day.0.to_be_bytes(), "blind-relay limits of a day v1");
    keyed(&key)
}

fn keyed(key: &[u8; 32]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

const LOCKS: usize = 16;
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
    fn at_midnight_every_subject_has_new_names_whichever_lock_it_meets() {
        struct Ticking(std::sync::atomic::AtomicI64);
        impl Clock for Ticking {
            fn now(&self) -> Timestamp {
                Timestamp(self.0.load(std::sync::atomic::Ordering::Relaxed))
            }
        }
        let clock = Arc::new(Ticking(std::sync::atomic::AtomicI64::new(Day(20_000).midnight().0)));
        let ticking = Subjects::new([1; 32], Arc::<Ticking>::clone(&clock));
        for day in [20_000, 20_001, 20_000] {
            let now = Day(day).midnight().plus_millis(3_600_000 * 2);
            clock.0.store(now.0, std::sync::atomic::Ordering::Relaxed);
            let fresh = subjects(1, day, 2 * HOUR);
            for subject in 0..=u8::MAX {
                let names = [&ticking, &fresh].map(|from| from.names(Limit::Requests, &[&[subject]], HOUR).today);
                assert_eq!(names[0], names[1], "day {day}, subject {subject}");
            }
        }
    }

    #[test]
    fn limits_and_parts_are_kept_apart() {
        let key = keyed(&[1; 32]);
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
