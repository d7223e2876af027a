//! The buckets of one limit on one node.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};

use super::subject::Tag;
use super::{Bucket, Elapsed};

/// Buckets by their names. Those that are full again are as good as none, and are dropped by [`Self::tidy`].
pub(super) struct Buckets {
    bucket: Bucket,
    limiter: RateLimiter<Tag, DashMapStateStore<Tag>, Ticks, NoOpMiddleware<Duration>>,
    clock: Ticks,
    /// At most so many buckets there are: those that there were at the last tidying, and one for each request since.
    at_most: AtomicUsize,
}

/// The clock of the node in the form that governor asks.
#[derive(Clone)]
struct Ticks(Elapsed);

impl Clock for Ticks {
    type Instant = Duration;

    fn now(&self) -> Duration {
        (self.0)()
    }
}

impl Buckets {
    pub(super) fn new(bucket: Bucket, elapsed: Elapsed) -> Self {
        let clock = Ticks(elapsed);
        let quota = Quota::with_period(bucket.every)
            .expect("no limit refills in no time")
            .allow_burst(bucket.burst);
        Self {
            bucket,
            limiter: RateLimiter::dashmap_with_clock(quota, clock.clone()),
            clock,
            at_most: AtomicUsize::new(0),
        }
    }

    pub(super) fn bucket(&self) -> Bucket {
        self.bucket
    }

    /// Takes one out of the bucket, or says when there will be one.
    pub(super) fn take(&self, mut tag: Tag) -> Result<(), Duration> {
        if self.at_most.fetch_add(1, Ordering::Relaxed) >= MAX_BUCKETS {
            // Somebody has more names than there is room. From here on, until some have refilled, subjects share
            // buckets: the limit holds, the table is bounded, and whoever is alone in a bucket notices nothing.
            tag[2..].fill(0);
        }
        self.limiter
            .check_key(&tag)
            .map_err(|refused| refused.wait_time_from(self.clock.now()))
    }

    pub(super) fn tidy(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
        self.at_most.store(self.limiter.len(), Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.limiter.len()
    }
}

/// About 64 MiB.
pub(super) const MAX_BUCKETS: usize = 1_000_000;
