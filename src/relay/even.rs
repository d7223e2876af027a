//! How long sends take that are written, so that those that are not take as long.
//!
//! The tick evens what takes less than a tick ([ADR 0025](../../docs/adr/0025-answers-on-a-tick.md)). On a slow disk a commit
//! takes longer, and an acknowledgement does not: the answer would tell that a device is connected. So a send that was
//! acknowledged from memory is over only when it has taken as long as one that was written lately took, with the linger before
//! it, and one that was offered to nobody takes that linger, too. All three kinds then take times of one distribution.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::sealing::random;

/// How a send went. Of several that are one to their sender, the greatest counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Went {
    /// Its devices acknowledged it, and it was not written.
    Acknowledged,
    /// It was written at once.
    Written,
    /// It was offered, and then written.
    Lingered,
}

/// The times that commits took lately, and what is made of them.
pub struct EvenTimes {
    /// `None` if the time of an answer may tell.
    linger: Option<Duration>,
    recent: Box<[AtomicU64]>,
    next: AtomicUsize,
}

impl Default for EvenTimes {
    fn default() -> Self {
        Self {
            linger: None,
            recent: (0..RECENT).map(|_| AtomicU64::new(0)).collect(),
            next: AtomicUsize::new(0),
        }
    }
}

impl EvenTimes {
    /// Makes all sends take as long as one that lingers and is written.
    pub fn new(linger: Duration) -> Self {
        Self {
            linger: Some(linger),
            ..Self::default()
        }
    }

    /// Takes note of a send that began then, and is done now.
    pub(super) fn note(&self, began: Instant, went: Went) {
        let Some(linger) = self.linger else { return };
        match went {
            Went::Written => self.record(began.elapsed()),
            Went::Lingered => self.record(began.elapsed().saturating_sub(linger)),
            Went::Acknowledged => {}
        }
    }

    /// Returns when a send, or several together, that began then, and are done now, may be over.
    pub(super) async fn over(&self, began: Instant, went: Went) {
        let Some(linger) = self.linger else { return };
        match went {
            Went::Lingered => {}
            Went::Written => sleep(linger).await,
            Went::Acknowledged => sleep_until(began + linger + self.some()).await,
        }
    }

    fn record(&self, commit: Duration) {
        let place = self.next.fetch_add(1, Ordering::Relaxed) % RECENT;
        let micros = u64::try_from(commit.as_micros()).unwrap_or(u64::MAX);
        self.recent[place].store(micros, Ordering::Relaxed);
    }

    /// The time of one of the last commits, whichever.
    fn some(&self) -> Duration {
        let known = self.next.load(Ordering::Relaxed).clamp(1, RECENT);
        let place = usize::from(u16::from_be_bytes(random())) % known;
        Duration::from_micros(self.recent[place].load(Ordering::Relaxed))
    }
}

const RECENT: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const LINGER: Duration = Duration::from_millis(10);

    async fn taken(times: &EvenTimes, work: Duration, went: Went) -> Duration {
        let began = Instant::now();
        sleep(work).await;
        times.note(began, went);
        times.over(began, went).await;
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn whatever_way_a_send_goes_it_takes_as_long() {
        let times = EvenTimes::new(LINGER);
        let commit = Duration::from_millis(30);
        assert_eq!(taken(&times, commit, Went::Written).await, LINGER + commit);
        assert_eq!(taken(&times, LINGER + commit, Went::Lingered).await, LINGER + commit);
        assert_eq!(
            taken(&times, Duration::from_millis(1), Went::Acknowledged).await,
            LINGER + commit
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_times_of_the_last_commits_are_taken_by_turns_of_chance() {
        let times = EvenTimes::new(LINGER);
        for _ in 0..RECENT {
            taken(&times, Duration::from_millis(500), Went::Written).await;
        }
        for n in 0..RECENT {
            taken(
                &times,
                Duration::from_millis(if n % 2 == 0 { 2 } else { 40 }),
                Went::Written,
            )
            .await;
        }
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..200 {
            seen.insert(taken(&times, Duration::ZERO, Went::Acknowledged).await.as_millis());
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [12, 50]);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_tick_nothing_is_kept_waiting() {
        let times = EvenTimes::default();
        for went in [Went::Written, Went::Lingered, Went::Acknowledged] {
            assert_eq!(taken(&times, Duration::ZERO, went).await, Duration::ZERO);
        }
    }
}
