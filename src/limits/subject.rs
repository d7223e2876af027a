//! The name of a bucket: a keyed hash of the limit and of whom it counts.
//!
//! The key changes with the UTC day, so that a name means nothing the day after. It comes from the pepper: all nodes make the
//! same names, and whoever reads them in Redis cannot try subjects.

use std::sync::{Arc, PoisonError, RwLock};

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
    today: RwLock<(Day, Zeroizing<[u8; 32]>)>,
}

impl Subjects {
    pub(super) fn new(key: [u8; 32], clock: Arc<dyn Clock>) -> Self {
        let key = Zeroizing::new(key);
        let day = clock.now().day();
        let today = RwLock::new((day, of_day(&key, day)));
        Self { key, clock, today }
    }

    /// The name of the bucket of a subject.
    pub(super) fn tag(&self, limit: Limit, subject: &[&[u8]]) -> Tag {
        let key = self.key_of_today();
        let mut mac = Hmac::<Sha256>::new_from_slice(&*key).expect("HMAC takes keys of any length");
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

    fn key_of_today(&self) -> Zeroizing<[u8; 32]> {
        let day = self.clock.now().day();
        {
            let today = self.today.read().unwrap_or_else(PoisonError::into_inner);
            if today.0 == day {
                return today.1.clone();
            }
        }
        let key = of_day(&self.key, day);
        *self.today.write().unwrap_or_else(PoisonError::into_inner) = (day, key.clone());
        key
    }
}

fn of_day(key: &[u8; 32], day: Day) -> Zeroizing<[u8; 32]> {
    derive_bytes(key, &day.0.to_be_bytes(), "blind-relay limits of a day v1")
}

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

    fn subjects(key: u8, day: i32) -> Subjects {
        Subjects::new([key; 32], Arc::new(At(Day(day).midnight())))
    }

    #[test]
    fn a_name_is_the_same_on_every_node_and_another_on_every_day() {
        let name = |key, day| subjects(key, day).tag(Limit::Requests, &[b"a", b"b"]);
        assert_eq!(name(1, 20_000), name(1, 20_000));
        assert_ne!(name(1, 20_000), name(1, 20_001));
        assert_ne!(name(1, 20_000), name(2, 20_000));
    }

    #[test]
    fn limits_and_parts_are_kept_apart() {
        let subjects = subjects(1, 20_000);
        let names = [
            subjects.tag(Limit::Requests, &[b"ab"]),
            subjects.tag(Limit::Requests, &[b"a", b"b"]),
            subjects.tag(Limit::Requests, &[b"", b"ab"]),
            subjects.tag(Limit::Requests, &[]),
            subjects.tag(Limit::DeviceRequests, &[b"ab"]),
        ];
        for (at, name) in names.iter().enumerate() {
            assert!(!names[..at].contains(name));
        }
    }
}
