//! Tells on standard error how far a long scan is.

use std::time::{Duration, Instant};

/// Says where it is now and then, and nothing if everything is quick.
pub(super) struct Progress {
    began: Instant,
    told: Instant,
    quiet: bool,
}

impl Progress {
    /// Begins now.
    pub(super) fn new(quiet: bool) -> Self {
        let now = Instant::now();
        Self {
            began: now,
            told: now,
            quiet,
        }
    }

    /// So many of about so many are done. Cheap enough to be called for every row.
    pub(super) fn at(&mut self, what: &str, done: u64, of: u64) {
        // Looking at the clock costs more than a row.
        if self.quiet || !done.is_multiple_of(LOOK) || self.told.elapsed() < PERIOD {
            return;
        }
        self.told = Instant::now();
        eprintln!("{}", line(what, done, of, self.began.elapsed()));
    }

    /// How long it has been.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

fn line(what: &str, done: u64, of: u64, elapsed: Duration) -> String {
    // More may have come since they were counted.
    let of = of.max(done).max(1);
    format!(
        "{what}: {done} of about {of} ({} %), {} s",
        done * 100 / of,
        elapsed.as_secs()
    )
}

const LOOK: u64 = 256;
const PERIOD: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_how_far_it_is_also_when_more_came_than_were_counted() {
        let elapsed = Duration::from_millis(3_900);
        assert_eq!(
            line("envelopes", 250, 1_000, elapsed),
            "envelopes: 250 of about 1000 (25 %), 3 s"
        );
        assert_eq!(
            line("envelopes", 12, 0, elapsed),
            "envelopes: 12 of about 12 (100 %), 3 s"
        );
    }
}
