//! Time as an argument: whoever needs it is given a [`Clock`] or a value, so tests own the time.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The UTC day of this instant.
    pub fn day(self) -> Day {
        let days = self.0.div_euclid(MILLIS_PER_DAY);
        Day(i32::try_from(days).unwrap_or(if days < 0 { i32::MIN } else { i32::MAX }))
    }

    /// The minute of this instant, counted since the Unix epoch.
    pub fn minute(self) -> i64 {
        self.0.div_euclid(60_000)
    }

    /// This instant moved by `millis`.
    pub fn plus_millis(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }
}

/// Days since the Unix epoch, UTC. What is kept in the database is never finer than this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(pub i32);

impl Day {
    /// The day `days` later.
    pub fn plus(self, days: i32) -> Self {
        Self(self.0.saturating_add(days))
    }

    /// The instant at which it begins.
    pub fn midnight(self) -> Timestamp {
        Timestamp(i64::from(self.0) * MILLIS_PER_DAY)
    }
}

/// Where the time comes from.
pub trait Clock: Send + Sync {
    /// The present instant.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the machine's clock"
    )]
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }
}

const MILLIS_PER_DAY: i64 = 24 * 60 * 60 * 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_begin_at_midnight_utc() {
        assert_eq!(Timestamp(0).day(), Day(0));
        assert_eq!(Timestamp(MILLIS_PER_DAY - 1).day(), Day(0));
        assert_eq!(Timestamp(MILLIS_PER_DAY).day(), Day(1));
        assert_eq!(Timestamp(-1).day(), Day(-1));
        assert_eq!(Timestamp(i64::MAX).day(), Day(i32::MAX));
        assert_eq!(Day(20_000).midnight().day(), Day(20_000));
        assert_eq!(Day(-1).midnight(), Timestamp(-MILLIS_PER_DAY));
    }
}
