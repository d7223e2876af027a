//! Times that were measured one by one, and what most of them are.

use std::sync::{Arc, Mutex, PoisonError};

/// Times in microseconds, collected by one task each and read when all are done.
#[derive(Clone, Default)]
pub(crate) struct Times(Arc<Mutex<Vec<u32>>>);

impl Times {
    /// Adds one.
    pub(crate) fn add(&self, micros: u64) {
        let micros = u32::try_from(micros).unwrap_or(u32::MAX);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(micros);
    }

    /// What of all these the quantiles are.
    pub(crate) fn spread<'a>(all: impl IntoIterator<Item = &'a Self>) -> Option<Spread> {
        let mut micros = Vec::new();
        for times in all {
            micros.append(&mut times.0.lock().unwrap_or_else(PoisonError::into_inner));
        }
        Spread::of(micros)
    }
}

/// The middle and the end of a distribution, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    /// Half are no slower.
    pub(crate) p50: f64,
    /// 99 in a hundred are no slower.
    pub(crate) p99: f64,
}

impl Spread {
    /// `None` of nothing.
    pub(crate) fn of(mut micros: Vec<u32>) -> Option<Self> {
        micros.sort_unstable();
        Some(Self {
            p50: at(&micros, 50)?,
            p99: at(&micros, 99)?,
        })
    }
}

/// The smallest time that so many in a hundred do not exceed.
fn at(sorted: &[u32], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100).checked_sub(1)?;
    sorted.get(rank).map(|micros| f64::from(*micros) / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let spread = |times: &[u32]| Spread::of(times.to_vec()).map(|spread| (spread.p50, spread.p99));
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[7_000]), Some((7.0, 7.0)));
        assert_eq!(spread(&[4_000, 1_000, 3_000, 2_000]), Some((2.0, 4.0)));
        let hundred: Vec<u32> = (1..=100).rev().map(|milli| milli * 1000).collect();
        assert_eq!(spread(&hundred), Some((50.0, 99.0)));
    }

    #[test]
    fn times_of_several_tasks_are_one_distribution() {
        let (one, other) = (Times::default(), Times::default());
        one.add(1_000);
        other.add(u64::MAX);
        other.add(2_000);
        let spread = Times::spread([&one, &other]).unwrap();
        assert!((spread.p50 - 2.0).abs() < 1e-9);
        assert!(spread.p99 > 4_000_000.0);
        assert_eq!(Times::spread([&one, &other]), None, "they were taken");
    }
}
