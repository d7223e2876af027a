//! Whether two samples of times come from one distribution.

/// How likely two samples of one distribution are to be as different as these: the two-sample test of Kolmogorov and
/// Smirnov.
pub(super) fn likelihood(one: &[f64], other: &[f64]) -> f64 {
    let sorted = |sample: &[f64]| {
        let mut sorted = sample.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted
    };
    let share = |sorted: &[f64], value: f64| ratio(sorted.partition_point(|x| *x <= value), sorted.len());
    let (one, other) = (sorted(one), sorted(other));
    let distance = one
        .iter()
        .chain(&other)
        .map(|value| (share(&one, *value) - share(&other, *value)).abs())
        .fold(0.0, f64::max);
    let size = ratio(one.len() * other.len(), one.len() + other.len()).sqrt();
    let lambda = (size + 0.12 + 0.11 / size) * distance;
    let terms = (1..=100_i32).map(|k| {
        let sign = if k % 2 == 1 { 1.0 } else { -1.0 };
        sign * (-2.0 * (f64::from(k) * lambda).powi(2)).exp()
    });
    if lambda < 0.2 {
        1.0
    } else {
        (2.0 * terms.sum::<f64>()).clamp(0.0, 1.0)
    }
}

fn ratio(part: usize, whole: usize) -> f64 {
    f64::from(u32::try_from(part).unwrap()) / f64::from(u32::try_from(whole).unwrap())
}

#[test]
fn samples_are_told_apart_when_they_differ() {
    let uniform = |shift: f64| -> Vec<f64> { (0..300).map(|i| shift + f64::from(i * 7919 % 1000) / 1000.0).collect() };
    assert!(likelihood(&uniform(0.0), &uniform(0.0)) > 0.99);
    assert!(likelihood(&uniform(0.0), &uniform(0.02)) > ONCE_IN_A_HUNDRED);
    assert!(likelihood(&uniform(0.0), &uniform(0.2)) < ONCE_IN_A_HUNDRED);
    // By the tables, shares of samples of 200 seem different once in a hundred times if they are 0.163 apart.
    let below = |part: usize| [vec![-1.0; part], vec![0.0; 200 - part]].concat();
    assert!(likelihood(&below(100), &below(67)) < ONCE_IN_A_HUNDRED);
    assert!(likelihood(&below(100), &below(70)) > ONCE_IN_A_HUNDRED);
}

const ONCE_IN_A_HUNDRED: f64 = 0.01;
