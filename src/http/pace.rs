//! When the answers of sends leave: on a tick, so that their time tells nothing of the recipient.
//!
//! How long a send takes is told by what is none of its sender's business: whether the account is in memory, whether a
//! connected device or the disk got the envelope, how full the queue is. So nothing that was found out about a recipient
//! is answered before the request has been there for a whole tick and a random part of another, however soon it was
//! known; what takes longer waits for as many whole ticks more.
//!
//! The tick begins with the request. One that all requests share could be aimed at: sent a moment before it, a request
//! tells by the side on which its answer comes what its work took, to the microsecond. And the random part only comes on
//! top, drawn before the work begins. A tick that began anywhere within its length would hide nothing: the next one after
//! the work is on the average as late as the work was long, and a mean needs only repetition.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::sealing::random;

/// The tick of one node.
pub struct Pace {
    tick: Duration,
    stop: CancellationToken,
}

impl Pace {
    /// With a tick of zero answers leave when they are ready. Once `stop` is cancelled they do, too: a stopping server
    /// has no time to wait.
    pub fn new(tick: Duration, stop: CancellationToken) -> Self {
        Self { tick, stop }
    }

    /// What comes of the work, when it may be told. The work is gone by then, with all it held: only its answer waits.
    pub(super) async fn answer<T>(&self, work: impl Future<Output = T>) -> T {
        self.answer_if(work, |_| true).await
    }

    /// As [`Self::answer`], if it is an answer whose time must tell nothing, as that to whoever may not know whether an
    /// account exists. Others leave at once.
    pub(super) async fn answer_if<T>(&self, work: impl Future<Output = T>, waits: impl FnOnce(&T) -> bool) -> T {
        if self.tick.is_zero() {
            return work.await;
        }
        let departures = Departures::of(Instant::now(), self.tick, u32::from_be_bytes(random()));
        let answer = work.await;
        if !waits(&answer) {
            return answer;
        }
        let leaves = departures.at_or_after(Instant::now());
        self.stop.run_until_cancelled(sleep_until(leaves)).await;
        answer
    }
}

/// The moments at which the answer to one request may leave.
#[derive(Clone, Copy, Debug)]
struct Departures {
    first: Instant,
    tick: Duration,
}

impl Departures {
    /// Of a request that came at `came`. `chance` is any number: the random part.
    fn of(came: Instant, tick: Duration, chance: u32) -> Self {
        let jitter = (tick / JITTER_SHARE).mul_f64(f64::from(chance) / f64::from(u32::MAX));
        Self {
            first: came + tick + jitter,
            tick,
        }
    }

    /// When an answer leaves that is ready at `ready`.
    fn at_or_after(self, ready: Instant) -> Instant {
        let late = ready.saturating_duration_since(self.first);
        let ticks = late.as_nanos().div_ceil(self.tick.as_nanos());
        self.first + self.tick * u32::try_from(ticks).unwrap_or(u32::MAX)
    }
}

/// The random part is at most one part in so many of a tick.
const JITTER_SHARE: u32 = 4;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const TICK: Duration = Duration::from_millis(20);

    fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    fn pace(tick: Duration) -> Pace {
        Pace::new(tick, CancellationToken::new())
    }

    /// How long an answer takes whose work takes so long.
    async fn taken(pace: &Pace, work: Duration) -> Duration {
        let came = Instant::now();
        pace.answer(tokio::time::sleep(work)).await;
        came.elapsed()
    }

    /// How often a time of one kind is longer than one of the other, of all pairs; 0.5 if they are alike.
    fn told_apart(some: &[Duration], others: &[Duration]) -> f64 {
        let halves = |one: &Duration| -> u32 {
            let against = |other: &Duration| match one.cmp(other) {
                std::cmp::Ordering::Less => 0,
                std::cmp::Ordering::Equal => 1,
                std::cmp::Ordering::Greater => 2,
            };
            others.iter().map(against).sum()
        };
        let pairs = f64::from(u32::try_from(some.len() * others.len()).unwrap());
        let share = some.iter().map(|one| f64::from(halves(one))).sum::<f64>() / 2.0 / pairs;
        share.max(1.0 - share)
    }

    #[test]
    fn what_is_ready_within_a_tick_leaves_at_one_moment_and_later_answers_whole_ticks_later() {
        let came = Instant::now();
        for chance in [0, 1, u32::MAX / 2, u32::MAX] {
            let departures = Departures::of(came, TICK, chance);
            let first = departures.first - came;
            assert!((TICK..=TICK * 5 / 4).contains(&first), "{first:?}");
            for (ready, ticks) in [
                (Duration::ZERO, 0),
                (millis(1), 0),
                (first, 0),
                (first + Duration::from_nanos(1), 1),
                (first + TICK, 1),
                (first + TICK * 7 + millis(3), 8),
            ] {
                let leaves = departures.at_or_after(came + ready) - came;
                assert_eq!(leaves, first + TICK * ticks, "ready after {ready:?}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_of_an_answer_is_ticks_whatever_the_work_took() {
        let pace = pace(TICK);
        for (work, ticks) in [(0, 1), (1, 1), (19, 1), (30, 2), (95, 5)] {
            let taken = taken(&pace, millis(work)).await;
            let begun = TICK * ticks;
            assert!((begun..=begun + TICK / 4 + millis(1)).contains(&taken), "{taken:?}");
        }
    }

    /// The statistic of T41 on work of two lengths: with the tick it tells nothing, without it everything.
    #[tokio::test(start_paused = true)]
    async fn t41_a_planted_delay_is_told_without_the_tick_and_not_with_it() {
        for (tick, tells) in [(TICK, false), (Duration::ZERO, true)] {
            let pace = pace(tick);
            let (mut quick, mut slow) = (Vec::new(), Vec::new());
            for _ in 0..2_000 {
                quick.push(taken(&pace, millis(2)).await);
                slow.push(taken(&pace, millis(5)).await);
            }
            let told = told_apart(&quick, &slow);
            assert_eq!(told > 0.55, tells, "{told} with a tick of {tick:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_of_the_work_is_held_while_its_answer_waits() {
        let body = Arc::new([0; 1024]);
        let held = Arc::downgrade(&body);
        let waiting = tokio::spawn(async move {
            pace(TICK)
                .answer(async move {
                    tokio::time::sleep(millis(1)).await;
                    body.len()
                })
                .await
        });
        tokio::time::sleep(millis(3)).await;
        assert!(held.upgrade().is_none() && !waiting.is_finished());
        assert_eq!(waiting.await.unwrap(), 1024);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stopping_server_answers_what_is_ready_at_once() {
        let stop = CancellationToken::new();
        let stopping = Pace::new(millis(1_000), stop.clone());
        let came = Instant::now();
        let waiting = tokio::spawn(async move {
            stopping.answer(std::future::ready(())).await;
            taken(&stopping, millis(5)).await
        });
        tokio::time::sleep(millis(10)).await;
        stop.cancel();
        assert_eq!(waiting.await.unwrap(), millis(5), "what comes later is not kept either");
        assert_eq!(came.elapsed(), millis(15));
    }
}
