//! How often anyone may do anything.
//!
//! Every limit is a row of [`declared`]: a bucket of so many at once, refilled one by one, for each of its subjects (an
//! account, a device, a target, a network, or several of them together). A bucket is found by an HMAC of limit and subject
//! under a key of the day, so that nothing names anybody, here or in Redis ([`subject`]).
//!
//! Each node keeps the buckets of all limits ([`local`]). What guards codes, keys and lookups is also counted for all nodes
//! together, by one script in Redis ([`shared`]). While Redis is away such a limit falls back to a strict share of itself on
//! each node; that share is counted all the time, so that an outage gives nobody a new budget.

pub mod declared;

mod local;
mod shared;
mod subject;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio_util::task::TaskTracker;

use crate::domain;
use crate::telemetry::metrics;

pub use declared::{By, DECLARED, Declared, Limit};
pub use shared::SharedError;

use local::Buckets;
use shared::{Answer, Shared};
use subject::{Subjects, Tag};

/// The time that buckets refill by: how long it has been since some moment. Never goes back.
pub type Elapsed = Arc<dyn Fn() -> Duration + Send + Sync>;

/// The time that passes.
pub fn monotonic() -> Elapsed {
    let start = Instant::now();
    Arc::new(move || start.elapsed())
}

/// How the declared numbers are taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scale {
    /// So many times as much as declared; 1 for what is declared.
    Times(f64),
    /// Nothing is counted and nothing refused.
    Off,
}

/// What the limits of a node are made of.
pub struct LimitsConfig {
    /// How the declared numbers are taken.
    pub scale: Scale,
    /// The key under which subjects are hashed; the same on every node.
    pub key: [u8; 32],
    /// Redis, if nodes share what they count.
    pub redis_url: Option<String>,
    /// Which part of a shared limit a node allows by itself while Redis is away: one in so many.
    pub share_without_redis: NonZeroU32,
    /// By which buckets refill.
    pub elapsed: Elapsed,
    /// Which day it is.
    pub clock: Arc<dyn domain::Clock>,
}

/// The limits of one node.
pub struct Limits {
    scale: Scale,
    subjects: Subjects,
    /// In the order of [`DECLARED`].
    rows: Vec<Row>,
    shared: Option<Shared>,
}

/// A limit as it is counted here.
struct Row {
    here: Buckets,
    /// What this node allows while Redis is away.
    share: Option<Buckets>,
    refused: AtomicU64,
}

/// A request over a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("over the limit {}", limit.name())]
pub struct Refused {
    /// Which.
    pub limit: Limit,
    /// After which the same request would pass, if nobody else uses the bucket meanwhile.
    pub retry_after: Duration,
}

impl Refused {
    /// In whole seconds, at least one: the form of the header that clients read.
    pub fn retry_after_secs(&self) -> u64 {
        let part = u64::from(self.retry_after.subsec_nanos() > 0);
        (self.retry_after.as_secs() + part).max(1)
    }
}

impl Limits {
    /// Starts counting. With Redis, connections to it are made on tasks of the tracker; nobody waits for it to be there.
    pub fn new(config: LimitsConfig, tasks: &TaskTracker) -> Result<Self, SharedError> {
        let across = config.redis_url.is_some();
        let rows = DECLARED.iter().map(|declared| {
            let limit = scaled(declared, config.scale);
            let share = (declared.shared && across).then(|| limit.share(config.share_without_redis));
            Row {
                here: Buckets::new(limit, Arc::clone(&config.elapsed)),
                share: share.map(|share| Buckets::new(share, Arc::clone(&config.elapsed))),
                refused: AtomicU64::new(0),
            }
        });
        Ok(Self {
            scale: config.scale,
            subjects: Subjects::new(config.key, config.clock),
            rows: rows.collect(),
            shared: config
                .redis_url
                .map(|url| Shared::new(&url, tasks.clone()))
                .transpose()?,
        })
    }

    /// How the declared numbers are taken.
    pub fn scale(&self) -> Scale {
        self.scale
    }

    /// Counts one for the subject, which is named by its parts, or refuses it.
    pub async fn check(&self, limit: Limit, subject: &[&[u8]]) -> Result<(), Refused> {
        let row = &self.rows[limit.index()];
        let (Some(shared), Some(share)) = (&self.shared, &row.share) else {
            return self.take_here(limit, subject);
        };
        if self.scale == Scale::Off {
            return Ok(());
        }
        for tag in self.names(limit, subject) {
            let counted = Self::check_shared(shared, row, share, tag).await;
            counted.map_err(|retry_after| self.refuse(limit, retry_after))?;
        }
        Ok(())
    }

    /// As [`Self::check`], for a limit that is not shared: without waiting for anything.
    pub fn check_here(&self, limit: Limit, subject: &[&[u8]]) -> Result<(), Refused> {
        debug_assert!(!limit.declared().shared, "it is counted for all nodes together");
        self.take_here(limit, subject)
    }

    fn take_here(&self, limit: Limit, subject: &[&[u8]]) -> Result<(), Refused> {
        if self.scale == Scale::Off {
            return Ok(());
        }
        let here = &self.rows[limit.index()].here;
        for tag in self.names(limit, subject) {
            here.take(tag).map_err(|retry_after| self.refuse(limit, retry_after))?;
        }
        Ok(())
    }

    /// Under which names the bucket of a subject is counted now.
    fn names(&self, limit: Limit, subject: &[&[u8]]) -> impl Iterator<Item = Tag> + use<> {
        let refills_in = self.rows[limit.index()].here.bucket().refills_in();
        let names = self.subjects.names(limit, subject, refills_in);
        [Some(names.today), names.yesterday].into_iter().flatten()
    }

    async fn check_shared(shared: &Shared, row: &Row, share: &Buckets, tag: Tag) -> Result<(), Duration> {
        // What was counted here holds also where Redis has lost it.
        row.here.take(tag)?;
        let alone = share.take(tag);
        match shared.take(tag, row.here.bucket()).await {
            Answer::Taken => Ok(()),
            Answer::Full(retry_after) => Err(retry_after),
            Answer::Away => alone,
        }
    }

    fn refuse(&self, limit: Limit, retry_after: Duration) -> Refused {
        self.rows[limit.index()].refused.fetch_add(1, Ordering::Relaxed);
        metrics::limit_refused(limit.name());
        Refused { limit, retry_after }
    }

    /// How often each limit has refused since the start, in the order of [`DECLARED`].
    pub fn refused_counts(&self) -> Vec<(&'static str, u64)> {
        let counts = self.rows.iter().map(|row| row.refused.load(Ordering::Relaxed));
        DECLARED.iter().map(|declared| declared.name).zip(counts).collect()
    }

    /// The limits as they hold here, with the scale.
    pub fn in_force(&self) -> Vec<(&'static Declared, Bucket)> {
        if self.scale == Scale::Off {
            return Vec::new();
        }
        DECLARED
            .iter()
            .zip(self.rows.iter().map(|row| row.here.bucket()))
            .collect()
    }

    /// Drops buckets that have refilled. To be called every few seconds.
    pub fn tidy(&self) {
        for row in &self.rows {
            row.here.tidy();
            if let Some(share) = &row.share {
                share.tidy();
            }
        }
    }
}

/// How much fits into a bucket, and how it refills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// How many at once.
    pub burst: NonZeroU32,
    /// After how long one more.
    pub every: Duration,
}

impl Bucket {
    /// After how long an empty one is full.
    fn refills_in(self) -> Duration {
        self.every * self.burst.get()
    }

    /// One part in `parts` of it, and at least one.
    fn share(self, parts: NonZeroU32) -> Self {
        Self {
            burst: NonZeroU32::new(self.burst.get() / parts.get()).unwrap_or(NonZeroU32::MIN),
            every: self.every * parts.get(),
        }
    }
}

fn scaled(declared: &Declared, scale: Scale) -> Bucket {
    let times = match scale {
        Scale::Times(times) => times,
        Scale::Off => 1.0,
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "floats saturate at the ends of the integer, and the number is positive"
    )]
    let burst = (f64::from(declared.burst) * times).round() as u32;
    Bucket {
        burst: NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN),
        every: declared.every.div_f64(times).max(Duration::from_micros(1)),
    }
}

#[cfg(test)]
mod tests;
